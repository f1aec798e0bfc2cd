"""Scenes of spines made on the spot: boxes of bone in air at known places of the patient."""

from __future__ import annotations

import numpy as np

from vfscreen.curve import SpineCurve
from vfscreen.measure import measure
from vfscreen.report.scene import Scene
from vfscreen.straighten import Sheet, Straightened
from vfscreen.study import Detection, StudyHeader, StudyResult, cranial_first
from vfscreen.volume import Volume, VolumeGeometry

STRAIGHT = SpineCurve.through(np.linspace([0.0, 0.0, 300.0], [0.0, 0.0, 0.0], 301))
Z = np.linspace(300.0, 0.0, 1201)
BENT = SpineCurve.through(np.column_stack([9 * np.sin(Z / 60), 20 * np.cos(Z / 70), Z]))


def vertebra(s, anterior=19.0):
    """A detection whose middle is `s` mm along the curve, 28 mm deep, with this height in front."""
    half = np.repeat([anterior, 19, 20], 2) / 2 * np.tile([-1, 1], 3)
    return Detection(np.column_stack([s + half, np.repeat([-14.0, 0.0, 14.0], 2)]), 0.9)


def column(curve, bright_mm=(), hu=-1000):
    """The CT round a curve in voxels of 1 mm, with a bright spot of 3 mm at each of these points."""
    reach = np.array([25, 45, 45])
    low, high = curve.points_mm.min(0) - reach, curve.points_mm.max(0) + reach
    shape = tuple(int(n) for n in np.ceil(high - low)[::-1] + 1)
    affine = np.array([[0, 0, 1, low[0]], [0, 1, 0, low[1]], [1, 0, 0, low[2]], [0, 0, 0, 1]], float)
    voxels = np.full(shape, hu, np.int16)
    for point in bright_mm:
        k, j, i = np.rint(np.asarray(point) - low).astype(int)[::-1]
        voxels[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = 3000
    return Volume(voxels, VolumeGeometry(shape, affine))


def scene(
    *detections,
    curve=STRAIGHT,
    sheet_hu=None,
    pixel_mm=1.0,
    threshold=0.74,
    doubts=(),
    change=lambda vertebra: vertebra,
    **of_column,
):
    """The scene of these detections; `change` is made to each measured vertebra."""
    if sheet_hu is None:
        rows, columns = round(curve.length_mm / pixel_mm), round(80 / pixel_mm)
        sheet_hu = np.full((rows, columns), -1000, np.float32)
    sheet = Sheet(sheet_hu, np.ones(sheet_hu.shape, bool), curve, pixel_mm)
    vertebrae = tuple(map(change, measure(detections, curve)))
    result = StudyResult(StudyHeader(), "ok", vertebrae, doubts=tuple(doubts))
    along = Straightened(sheet, column(curve, **of_column))
    return Scene.of(along, result, cranial_first(detections), threshold)
