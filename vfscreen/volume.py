"""A CT volume and its place in the patient: HU as (z, y, x), affine to LPS millimetres.

Array indices are written in array order (k, j, i). The affine maps homogeneous (k, j, i, 1) to
DICOM patient coordinates (x, y, z, 1) in mm: x to the patient's left, y to posterior, z to
cranial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, map_coordinates

AIR_HU = -1000
PARALLEL = 1e-6  # voxels by which axes may go aside: header's directions are not always whole numbers

Floats = NDArray[np.floating]


def voxel_sizes_mm(affine: Floats) -> Floats:
    """Edge lengths of a voxel along the three array axes (k, j, i), mm, shape (3,)."""
    return np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)


def lps_from_ras(affine: Floats) -> Floats:
    """The same mapping with x and y negated: NIfTI's RAS millimetres become DICOM's LPS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def apply_affine(affine: Floats, points: Floats) -> Floats:
    """Map points of shape (..., 3) by a (4, 4) affine."""
    return np.asarray(points) @ affine[:3, :3].T + affine[:3, 3]


@dataclass(frozen=True)
class VolumeGeometry:
    """A voxel grid in the patient, without pixels.

    `shape` is (nz, ny, nx); `affine` (4, 4) maps (k, j, i, 1) to LPS mm.
    """

    shape: tuple[int, int, int]
    affine: Floats

    @property
    def voxel_sizes_mm(self) -> Floats:
        """Edge lengths along (k, j, i), mm."""
        return voxel_sizes_mm(self.affine)

    def to_patient(self, indices: Floats) -> Floats:
        """Array indices (..., 3) in (k, j, i) order to LPS mm (..., 3)."""
        return apply_affine(self.affine, indices)

    def to_indices(self, points_mm: Floats) -> Floats:
        """LPS mm (..., 3) to fractional array indices (k, j, i)."""
        return apply_affine(np.linalg.inv(self.affine), points_mm)

    def corners_mm(self) -> Floats:
        """The eight corners of the field of view (outer faces of the voxels), LPS mm, (8, 3)."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        return self.to_patient(np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3))

    def contains(self, points_mm: Floats, margin_mm: float = 0.0) -> NDArray[np.bool_]:
        """Whether points (..., 3) lie inside the field of view by at least `margin_mm`."""
        margin = margin_mm / self.voxel_sizes_mm
        index = self.to_indices(points_mm)
        low, high = margin - 0.5, np.asarray(self.shape) - 0.5 - margin
        return np.asarray(((index >= low) & (index <= high)).all(-1))


@dataclass(frozen=True)
class Volume:
    """A CT: `hu` int16 of shape (z, y, x) in Hounsfield units, and its geometry."""

    hu: NDArray[np.int16]
    geometry: VolumeGeometry

    def canonical(self) -> Volume:
        """The same voxels as a view whose axes run closest to cranial, posterior, left (+z, +y, +x)."""
        directions = self.geometry.affine[:3, :3] / self.geometry.voxel_sizes_mm
        order = _closest_axes(directions)
        hu = self.hu.transpose(order)
        affine = self.geometry.affine[:, [*order, 3]].copy()
        for axis, patient_axis in enumerate((2, 1, 0)):
            if affine[patient_axis, axis] < 0:
                affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
                affine[:3, axis] *= -1
                hu = np.flip(hu, axis)
        return Volume(hu, VolumeGeometry(hu.shape, affine))

    def around(self, points_mm: Floats, reach_mm: Floats) -> Volume:
        """The part that holds LPS points (n, 3) and what lies within `reach_mm` (x, y, z) of them, copied.

        At least one voxel, also where the points lie outside.
        """
        corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * reach_mm
        index = self.geometry.to_indices(points_mm[:, None] + corners)
        last = np.asarray(self.geometry.shape) - 1
        low = np.clip(np.floor(index.min((0, 1))), 0, last).astype(int)
        high = np.clip(np.ceil(index.max((0, 1))), low, last).astype(int)
        hu = self.hu[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1].copy()
        affine = self.geometry.affine.copy()
        affine[:3, 3] = self.geometry.to_patient(low.astype(float))
        return Volume(hu, VolumeGeometry(hu.shape, affine))

    def block_average(self, factors: tuple[int, int, int]) -> tuple[NDArray[np.float32], VolumeGeometry]:
        """Mean over blocks of voxels; an incomplete block at the far end is averaged over what it has."""
        order = sorted(range(3), key=lambda axis: -abs(self.hu.strides[axis]))  # as the voxels lie in memory
        means = _block_means(self.hu.transpose(order), [factors[axis] for axis in order])
        hu = means.transpose(np.argsort(order))
        affine = self.geometry.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ ((np.asarray(factors) - 1) / 2)
        affine[:3, :3] *= np.asarray(factors)
        return hu, VolumeGeometry(hu.shape, affine)

    def sample(self, points_mm: Floats) -> NDArray[np.float32]:
        """Trilinear HU at LPS points (..., 3); air outside the field of view. Float32, shape (...)."""
        index = np.moveaxis(self.geometry.to_indices(points_mm), -1, 0)
        return sample_grid(self.hu, index)

    def sample_plane(self, first_mm: Floats, steps_mm: Floats, shape: tuple[int, int]) -> NDArray[np.float32]:
        """`sample` at first + row * steps[0] + column * steps[1], LPS mm; twice as fast. Of that shape."""
        lattice = np.eye(4)
        lattice[:3, :3] = np.column_stack([np.zeros(3), *steps_mm])
        lattice[:3, 3] = first_mm
        return sample_lattice(self.hu, np.linalg.inv(self.geometry.affine) @ lattice, (1, *shape))[0]


def sample_lattice(
    grid: NDArray[np.generic], to_indices: Floats, shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """`sample_grid` at the indices to which an affine (4, 4) maps those of an array of this shape."""
    matrix, first = to_indices[:3, :3], to_indices[:3, 3]
    aside = np.abs(matrix - np.diag(matrix.diagonal())) @ shape
    if aside.max() > PARALLEL:
        values = affine_transform(
            grid, matrix, first, output_shape=shape, order=1, mode="nearest", output=np.float32
        )
    else:  # one axis after the other is ten times as fast
        values = grid
        for axis, count in enumerate(shape):
            values = _linear(values, first[axis] + matrix[axis, axis] * np.arange(count), axis)
    own = np.ogrid[tuple(slice(n) for n in shape)]
    reach = matrix * (np.asarray(shape) - 1)
    lowest, highest = first + np.minimum(reach, 0).sum(1), first + np.maximum(reach, 0).sum(1)
    for axis, size in enumerate(grid.shape):
        if lowest[axis] >= -0.5 and highest[axis] <= size - 0.5:
            continue
        steps = [step * place for step, place in zip(matrix[axis], own, strict=True) if step]
        index = first[axis] + sum(steps, np.zeros((1, 1, 1)))
        values[np.broadcast_to((index < -0.5) | (index > size - 0.5), shape)] = AIR_HU
    return np.asarray(values)


def _linear(grid: NDArray[np.generic], places: Floats, axis: int) -> NDArray[np.float32]:
    """Values at fractional places along one axis; beyond its ends those of the ends."""
    last = grid.shape[axis] - 1
    places = np.clip(places, 0, last)
    below = places.astype(int)
    share = np.asarray(places - below, np.float32).reshape(-1, *[1] * (grid.ndim - 1 - axis))
    low = np.asarray(grid.take(below, axis), np.float32)
    values = np.asarray(grid.take(np.minimum(below + 1, last), axis), np.float32)
    values -= low
    values *= share
    values += low
    return values


def sample_grid(grid: NDArray[np.generic], index: Floats) -> NDArray[np.float32]:
    """Trilinear values of a (z, y, x) grid at fractional indices (3, ...).

    Half a voxel beyond the outermost centres still belongs to the image; further out is air.
    """
    shape = np.asarray(grid.shape).reshape(3, *[1] * (index.ndim - 1))
    outside = ((index < -0.5) | (index > shape - 0.5)).any(0)
    values = map_coordinates(grid, index, order=1, mode="nearest", output=np.float32)
    values[outside] = AIR_HU
    return values


def _closest_axes(directions: Floats) -> tuple[int, int, int]:
    """The array axes that run closest to patient z, y, x: the permutation with the largest match."""
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return max(orders, key=lambda o: sum(abs(directions[p, a]) for p, a in zip((2, 1, 0), o, strict=True)))


def _block_means(values: NDArray[np.int16], factors: Sequence[int]) -> NDArray[np.float32]:
    """Means over blocks. What is summed along the first axis stays in the processor's cache meanwhile."""
    sizes = zip(values.shape, factors, strict=True)
    z, y, x = np.ix_(*[np.minimum(factor, n - np.arange(0, n, factor)) for n, factor in sizes])
    means = np.asarray(z * y * x, np.float32)  # the counts, until each block's sum is divided by its own
    plane = _laid_like(values[0])
    for k, mean in enumerate(means):
        first, *others = values[k * factors[0] : (k + 1) * factors[0]]
        plane[:] = first
        for other in others:
            plane += other
        np.divide(_sums(_sums(plane, factors[1]).T, factors[2]).T, mean, out=mean)
    return means


def _laid_like(plane: NDArray[np.int16]) -> NDArray[np.float32]:
    """An array that runs through memory as another does, backwards too: no loop over both leaps."""
    ways = tuple(slice(None, None, -1 if step < 0 else 1) for step in plane.strides)
    return np.empty(plane.shape, np.float32)[ways]


def _sums(plane: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Sums over each `factor` rows, and over the rows that remain."""
    sums = plane[::factor].copy("K")
    for offset in range(1, min(factor, len(plane))):
        rows = plane[offset::factor]
        sums[: len(rows)] += rows
    return sums
