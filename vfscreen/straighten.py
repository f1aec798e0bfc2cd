"""Straighten: the mid-sagittal sheet along the curve, as one image (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfscreen.curve import SpineCurve
from vfscreen.settings import StraightenSettings
from vfscreen.volume import Floats, Volume

COLUMN_MM = np.array([25.0, 45.0, 45.0])  # x, y, z: what crops of 58 mm can reach, however they are tilted


@dataclass(frozen=True)
class Sheet:
    """The straightened mid-sagittal image: rows run along the curve to caudal, columns to posterior.

    `image` (rows, columns) float32 HU; `inside` tells where the study has voxels there and a little
    to both sides. Row 0 is the curve's first point; the curve runs down the middle.
    """

    image: NDArray[np.float32]
    inside: NDArray[np.bool_]
    curve: SpineCurve
    pixel_mm: float

    def to_millimetres(self, pixels: Floats) -> Floats:
        """Pixels (..., 2) as (row, column) to (s, p) mm along the curve and to posterior."""
        return (np.asarray(pixels) - [0, (self.image.shape[1] - 1) / 2]) * self.pixel_mm

    def to_pixels(self, millimetres: Floats) -> Floats:
        """The inverse of `to_millimetres`."""
        return np.asarray(millimetres) / self.pixel_mm + [0, (self.image.shape[1] - 1) / 2]


@dataclass(frozen=True)
class Straightened:
    """A study along its curve: the sheet, and the part of the CT round it for a second look."""

    sheet: Sheet
    column: Volume


def sheet_points(curve: SpineCurve, settings: StraightenSettings, left_mm: float) -> Floats:
    """LPS mm of the sheet's pixels at a lateral offset, (rows, columns, 3)."""
    rows = np.arange(0.0, curve.length_mm + 1e-6, settings.pixel_mm)
    n = round(settings.width_mm / settings.pixel_mm)
    columns = (np.arange(n) - (n - 1) / 2) * settings.pixel_mm
    s, p = np.meshgrid(rows, columns, indexing="ij")
    return curve.to_patient(np.stack([s, p, np.full_like(s, left_mm)], -1))


def straightened(volume: Volume, curve: SpineCurve, settings: StraightenSettings) -> Straightened:
    """The sheet along a curve, and the CT round it."""
    return Straightened(straighten(volume, curve, settings), volume.around(curve.points_mm, COLUMN_MM))


def straighten(volume: Volume, curve: SpineCurve, settings: StraightenSettings) -> Sheet:
    """The mean of a few parallel sheets a millimetre or two apart: noise falls, the plane stays."""
    sheets = [volume.sample(sheet_points(curve, settings, offset)) for offset in settings.sheet_offsets_mm]
    sides = [sheet_points(curve, settings, side) for side in (-settings.margin_mm, settings.margin_mm)]
    inside = np.all([volume.geometry.contains(points) for points in sides], axis=0)
    return Sheet(np.mean(sheets, axis=0, dtype=np.float32), inside, curve, settings.pixel_mm)
