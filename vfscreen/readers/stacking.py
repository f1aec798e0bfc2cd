"""Slices with their places -> one grid: sorted along their normal, evenly spaced, sheared where they are.

With a tilted gantry the step from slice to slice is not along their normal: the shear stays in the
affine. Where steps differ (a slice is missing, or the spacing changes) the grid is even all the same,
and its planes are interpolated between the two slices that truly lie to both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfscreen.errors import InconsistentGeometry, MissingGeometry, TooLarge, TooShort
from vfscreen.readers.common import LARGEST_VOXELS, LONGEST_MM
from vfscreen.settings import ReadSettings
from vfscreen.volume import Floats, VolumeGeometry

POSITION_TOLERANCE_MM = 0.2  # of a slice from its place in an even stack: above the rounding of headers
NEAREST_SLICES_MM = 0.05  # what lies closer is the same place


@dataclass(frozen=True)
class SliceGrid:
    """What all slices of a stack share: matrix, mm between rows and columns, and two directions (2, 3)."""

    shape: tuple[int, int]
    spacing: tuple[float, float]
    axes: Floats

    @property
    def normal(self) -> Floats:
        """The direction across the slices."""
        return np.cross(self.axes[0], self.axes[1])


@dataclass(frozen=True)
class Stacking:
    """How slices form a volume: `order` sorts them, and plane k of the grid lies at `at[k]` among them.

    `at` is fractional where the slices are not evenly spaced; `widest_mm` is the largest step from
    slice to slice along their normal, and `usual_mm` the median.
    """

    geometry: VolumeGeometry
    order: NDArray[np.intp]
    at: Floats
    usual_mm: float
    widest_mm: float

    @property
    def is_even(self) -> bool:
        """Whether each plane of the grid is a slice."""
        return len(self.at) == len(self.order) and bool((self.at == np.arange(len(self.order))).all())


def depths(grid: SliceGrid, positions: Floats) -> Floats:
    """Where slices at LPS positions (n, 3) lie along their normal, mm, (n,)."""
    return np.asarray(positions @ grid.normal)


def stack(grid: SliceGrid, positions: Floats, settings: ReadSettings) -> Stacking:
    """The grid of slices at LPS positions (n, 3), of their first pixel's centre.

    Raises TooShort for a single slice, and InconsistentGeometry where two lie at one place, where they
    do not follow a straight line, and where a gap is wider than `settings.max_gap_mm`.
    """
    if len(positions) == 1:
        raise TooShort("the series has a single slice; a spine cannot be followed")
    if not np.isfinite(positions).all():
        raise MissingGeometry("slices have no valid ImagePositionPatient; it is never guessed")
    order = np.argsort(depths(grid, positions), kind="stable")
    sorted_mm = positions[order]
    along = depths(grid, sorted_mm)
    steps = np.diff(along)
    _check_doubles(sorted_mm, steps)
    _check_line(sorted_mm, along)
    usual = float(np.median(steps))
    even = np.linspace(along[0], along[-1], len(along))
    if np.abs(along - even).max() <= POSITION_TOLERANCE_MM:
        at = np.arange(len(along), dtype=float)
    else:
        _check_gaps(sorted_mm, steps, usual, settings.max_gap_mm)
        at = _even_planes(along, steps, usual)
    geometry = _geometry(grid, sorted_mm, len(at))
    return Stacking(geometry, order, at, usual, float(steps.max()))


def resampled(slices: NDArray[np.int16], at: Floats) -> NDArray[np.int16]:
    """The planes at fractional places `at` among slices (n, rows, columns), linear between two of them."""
    below = np.minimum(at.astype(int), len(slices) - 2)
    planes = np.empty((len(at), *slices.shape[1:]), np.int16)
    for plane, k, share in zip(planes, below, (at - below).astype(np.float32), strict=True):
        plane[:] = np.rint((1 - share) * slices[k] + share * slices[k + 1])
    return planes


def _even_planes(along: Floats, steps: Floats, usual: float) -> Floats:
    """Places among the slices of planes as near to each other as the slices are where they are closest."""
    step = min(usual, float(steps[steps >= usual / 2].min()))
    count = math.ceil((along[-1] - along[0]) / step - 0.01) + 1
    even = np.linspace(along[0], along[-1], count)
    return np.interp(even, along, np.arange(len(along), dtype=float))


def _geometry(grid: SliceGrid, positions: Floats, planes: int) -> VolumeGeometry:
    rows, columns = grid.shape
    if planes * rows * columns > LARGEST_VOXELS:
        raise TooLarge(f"{planes} slices of {rows} x {columns} pixels are more than any CT has")
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (planes - 1)
    affine[:3, 1] = grid.axes[1] * grid.spacing[0]
    affine[:3, 2] = grid.axes[0] * grid.spacing[1]
    affine[:3, 3] = positions[0]
    geometry = VolumeGeometry((planes, rows, columns), affine)
    longest = float((geometry.voxel_sizes_mm * geometry.shape).max())
    if longest > LONGEST_MM:
        raise InconsistentGeometry(f"by its header the image is {longest:.0f} mm long, which no body is")
    return geometry


def _check_doubles(positions: Floats, steps: Floats) -> None:
    doubled = steps < NEAREST_SLICES_MM
    if doubled.any():
        z = positions[int(doubled.argmax()), 2]
        raise InconsistentGeometry(
            f"two slices lie at z = {z:.1f} mm ({doubled.sum()} of the series are doubled), and no tag of "
            "their headers tells which of them belong together"
        )


def _check_line(positions: Floats, along: Floats) -> None:
    share = (along - along[0]) / (along[-1] - along[0])
    line = positions[0] + share[:, None] * (positions[-1] - positions[0])
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() > POSITION_TOLERANCE_MM:
        z = positions[int(off.argmax()), 2]
        raise InconsistentGeometry(
            f"the slices do not follow a straight line: the one at z = {z:.1f} mm lies {off.max():.1f} mm "
            "beside it; export the series again"
        )


def _check_gaps(positions: Floats, steps: Floats, usual: float, widest_mm: float) -> None:
    widest = int(steps.argmax())
    if steps[widest] <= widest_mm:
        return
    between = f"between z = {positions[widest, 2]:.1f} and {positions[widest + 1, 2]:.1f} mm"
    raise InconsistentGeometry(
        f"a gap of {steps[widest]:.2f} mm {between} where slices are {usual:.2f} mm apart: more than "
        f"{widest_mm:g} mm is not interpolated, export the series again"
    )
