"""What the picture of a study shows of its CT: small images, sampled while the CT is still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfscreen.curve import SpineCurve
from vfscreen.refine import Upright
from vfscreen.straighten import Sheet, Straightened
from vfscreen.study import Detection, StudyResult, Vertebra
from vfscreen.volume import Floats, Volume

MOST_CROPS = 3
"""So many deformed vertebrae, the worst, have a crop."""
CROP_WIDTH_MM = 60.0

_PIXEL_MM = 0.75  # of the sagittal image
_CROP_PIXEL_MM = 0.5
_BESIDE_MM = 40.0  # of the curve, to anterior and to posterior, as the sheet
_BEYOND_MM = 5.0  # the curve's ends
_SLAB_MM = (-1.0, 1.0)  # of parallel images that are averaged: less noise
_CROP_HALF_MM = (38.0, 62.0)  # height of a crop above and below its vertebra, at least and at most
_CROP_MARGIN_MM = 5.0  # round the neighbours


@dataclass(frozen=True)
class View:
    """A flat image of the patient: `image` (rows, columns) float32 HU, square pixels of `pixel_mm`.

    `first_mm` (3,) is the centre of pixel (0, 0) and `axes` (2, 3) the directions of rows and columns,
    both LPS; points beside the plane are seen along its normal.
    """

    image: NDArray[np.float32]
    pixel_mm: float
    first_mm: Floats
    axes: Floats

    def to_pixels(self, points_mm: Floats) -> Floats:
        """LPS mm (..., 3) to fractional (row, column), (..., 2)."""
        return (np.asarray(points_mm) - self.first_mm) @ self.axes.T / self.pixel_mm


@dataclass(frozen=True)
class Crop:
    """A deformed vertebra upright with its two neighbours; `number` counts from cranial, from 1."""

    number: int
    view: View


@dataclass(frozen=True)
class Scene:
    """All that the picture of a study shows, some hundred kilobytes; nothing of it tells whose it is.

    `detections` are the keypoints of `result.vertebrae` on the sheet, in their order.
    """

    sheet: Sheet
    sagittal: View
    crops: tuple[Crop, ...]
    detections: tuple[Detection, ...]
    result: StudyResult
    threshold: float

    @classmethod
    def of(
        cls, along: Straightened, result: StudyResult, detections: Sequence[Detection], threshold: float
    ) -> Scene:
        """The scene of a measured study: vertebrae with a G at or below `threshold` count as deformed."""
        sheet = along.sheet
        return cls(
            sheet,
            sagittal(along.column, sheet.curve),
            crops(along.column, result.vertebrae, threshold),
            tuple(detections),
            result,
            threshold,
        )


def is_deformed(vertebra: Vertebra, threshold: float) -> bool:
    """Whether a vertebra is not normal, or flags its study."""
    return vertebra.grade != "normal" or vertebra.genant_ratio <= threshold


def sagittal(column: Volume, curve: SpineCurve) -> View:
    """The CT as it is in z and y, at each height where the curve is in x: a ruler holds on it.

    Rows run to caudal, columns to posterior. It ends with the curve or the CT.
    """
    x, y, z = curve.points_mm[::-1].T  # ascending z
    lowest, highest = column.geometry.corners_mm()[:, 2].min(), column.geometry.corners_mm()[:, 2].max()
    top, bottom = min(z[-1] + _BEYOND_MM, highest), max(z[0] - _BEYOND_MM, lowest)
    rows = np.arange(top - _PIXEL_MM / 2, bottom, -_PIXEL_MM)
    columns = np.arange(y.min() - _BESIDE_MM, y.max() + _BESIDE_MM, _PIXEL_MM)
    at_z, at_y = np.meshgrid(rows, columns, indexing="ij")
    points = np.stack([np.broadcast_to(np.interp(rows, z, x)[:, None], at_z.shape), at_y, at_z], -1)
    slab = [column.sample(points + np.array([offset, 0, 0])) for offset in _SLAB_MM]
    first_mm = np.array([0.0, columns[0], rows[0]])  # seen along x
    axes = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    return View(np.mean(slab, axis=0, dtype=np.float32), _PIXEL_MM, first_mm, axes)


def crops(column: Volume, vertebrae: Sequence[Vertebra], threshold: float) -> tuple[Crop, ...]:
    """Crops of the worst deformed vertebrae, all of one size, cranial first.

    Each lies in the plane in which the second look measured its vertebra.
    """
    deformed = [i for i, vertebra in enumerate(vertebrae) if is_deformed(vertebra, threshold)]
    worst = sorted(sorted(deformed, key=lambda i: vertebrae[i].genant_ratio)[:MOST_CROPS])
    frames = [Upright.of(vertebrae[i].keypoints_mm) for i in worst]
    reaches = [_reach(frame, vertebrae, i) for frame, i in zip(frames, worst, strict=True)]
    half_mm = float(np.clip(max(reaches, default=0.0), *_CROP_HALF_MM))
    return tuple(
        Crop(i + 1, _upright_view(column, frame, half_mm)) for frame, i in zip(frames, worst, strict=True)
    )


def _reach(frame: Upright, vertebrae: Sequence[Vertebra], index: int) -> float:
    """How far a vertebra's neighbours reach above or below its middle, mm."""
    neighbours = np.concatenate([v.keypoints_mm for v in vertebrae[max(index - 1, 0) : index + 2]])
    return float(np.abs(frame.to_own(neighbours)[:, 1]).max()) + _CROP_MARGIN_MM


def _upright_view(column: Volume, frame: Upright, half_mm: float) -> View:
    shape = (round(2 * half_mm / _CROP_PIXEL_MM), round(CROP_WIDTH_MM / _CROP_PIXEL_MM))
    half_v, half_u = (np.array(shape) - 1) / 2 * _CROP_PIXEL_MM
    axes = frame.axes[[1, 0]]
    first_mm = frame.to_patient(np.array([-half_u, -half_v, 0.0]))
    slab = [column.sample_plane(first_mm + w * frame.axes[2], _CROP_PIXEL_MM * axes, shape) for w in _SLAB_MM]
    return View(np.mean(slab, axis=0, dtype=np.float32), _CROP_PIXEL_MM, first_mm, axes)
