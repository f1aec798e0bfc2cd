"""Localize: the CT at 3 mm to the smooth curve through the vertebral bodies (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_smoothing_spline
from scipy.ndimage import median_filter

from vfscreen.curve import SpineCurve
from vfscreen.errors import SpineNotFound
from vfscreen.settings import LocalizeSettings
from vfscreen.volume import AIR_HU, Floats, Volume, VolumeGeometry, sample_lattice

PADDING = 8  # grids are padded to multiples of it, so that studies of like size share a batch


class LocalizerNetwork(Protocol):
    """Images (n, z, y, x) in [-1, 1] to centres (n, z, 2), (y, x) in voxels, and presence logits (n, z)."""

    def __call__(self, images: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Centres and presence of a batch."""
        ...


@dataclass(frozen=True)
class LocalizerInput:
    """What the localizer sees: `image` (z, y, x) in [-1, 1] on an LPS grid; `depth` planes hold the study.

    Planes run to cranial, rows to posterior, columns to the left; the rest is padding with air.
    """

    image: NDArray[np.float32]
    geometry: VolumeGeometry
    depth: int


def window(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU to [-1, 1], steep where bone and soft tissue differ."""
    return np.tanh((hu - np.float32(50)) / np.float32(250))


def localizer_input(volume: Volume, settings: LocalizeSettings) -> LocalizerInput:
    """Block averages near 3 mm, brought to an isotropic grid along the patient's axes."""
    canonical = volume.canonical()
    spacing = canonical.geometry.voxel_sizes_mm
    factors = np.maximum(1, np.floor(settings.voxel_mm / spacing + 0.01)).astype(int)
    coarse, geometry = canonical.block_average((int(factors[0]), int(factors[1]), int(factors[2])))
    grid = _patient_grid(canonical.geometry, settings.voxel_mm)
    hu = sample_lattice(coarse, np.linalg.inv(geometry.affine) @ grid.affine, grid.shape)
    padding = [(0, -n % PADDING) for n in grid.shape]
    padded = np.pad(hu, padding, constant_values=AIR_HU)
    return LocalizerInput(window(padded), VolumeGeometry(padded.shape, grid.affine), grid.shape[0])


def _patient_grid(geometry: VolumeGeometry, voxel_mm: float) -> VolumeGeometry:
    """The isotropic grid along LPS z, y, x that covers a field of view."""
    corners = geometry.corners_mm()[:, ::-1]  # z, y, x
    low, high = corners.min(0), corners.max(0)
    shape = np.maximum(1, np.ceil((high - low) / voxel_mm - 1e-3)).astype(int)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = voxel_mm
    affine[:3, 3] = ((low + high) / 2 - (shape - 1) * voxel_mm / 2)[::-1]
    affine[3, 3] = 1
    return VolumeGeometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


@dataclass(frozen=True)
class Track:
    """What the localizer says of each plane: `centers_mm` (depth, 3) LPS and `presence` (depth,), 0 to 1."""

    centers_mm: Floats
    presence: Floats


def localize(
    inputs: Sequence[LocalizerInput], network: LocalizerNetwork, settings: LocalizeSettings
) -> list[SpineCurve | SpineNotFound]:
    """The spine's curve of each study; inputs of one call have equal shapes and form one batch."""
    centers, presence = network(np.stack([i.image for i in inputs]))
    return [_curve(*each, settings) for each in zip(inputs, centers, presence, strict=True)]


def track(study: LocalizerInput, network: LocalizerNetwork) -> Track:
    """The centres that the curve of one study is drawn through, those of planes without spine too."""
    (centers,), (presence,) = network(study.image[None])
    planes = np.arange(study.depth)
    points = study.geometry.to_patient(np.column_stack([planes, centers[: study.depth]]))
    return Track(points, _share(presence[: study.depth]))


def _share(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.asarray(logits, float))))


def _curve(
    study: LocalizerInput, centers: Floats, presence: Floats, settings: LocalizeSettings
) -> SpineCurve | SpineNotFound:
    share = _share(presence[: study.depth])
    track = median_filter(centers[: study.depth], (5, 1), mode="nearest")
    astray = np.linalg.norm(centers[: study.depth] - track, axis=1) * settings.voxel_mm > settings.max_leap_mm
    leaps = np.linalg.norm(np.diff(track, axis=0), axis=1) * settings.voxel_mm > settings.max_leap_mm
    share[astray] = 0.0
    first, last = _longest_run(share > settings.min_presence, leaps)
    length = (last - first) * settings.voxel_mm
    if length < settings.min_length_mm:
        return SpineNotFound(
            f"the spine is seen over {length:.0f} mm only; {settings.min_length_mm:.0f} mm are needed"
        )
    k = np.arange(first, last)
    points = study.geometry.to_patient(np.column_stack([k, centers[first:last]]))
    return smooth_curve(points, share[first:last], settings)


def smooth_curve(points_mm: Floats, weights: Floats, settings: LocalizeSettings) -> SpineCurve:
    """The curve through centres (n, 3) of ascending z: a cubic smoothing spline, weighted by presence."""
    z = points_mm[:, 2]
    # the penalty at which waves shorter than 2 pi times the smoothing length are damped to half
    stiffness = settings.smoothing_mm**4 / settings.voxel_mm
    weights = np.clip(weights, 0.1, 1.0)
    dense = np.arange(z[-1], z[0], -0.5)
    xy = [make_smoothing_spline(z, points_mm[:, a], weights, lam=stiffness)(dense) for a in (0, 1)]
    return SpineCurve.through(_beyond_ends(np.column_stack([*xy, dense]), settings.beyond_mm))


def _beyond_ends(points_mm: Floats, beyond_mm: float) -> Floats:
    """The points, and straight on at both ends: a tilted vertebra reaches past the last slice's centre."""
    if not beyond_mm:
        return points_mm
    ends = []
    for end, inner in ((points_mm[0], points_mm[10]), (points_mm[-1], points_mm[-11])):
        outwards = (end - inner) / np.linalg.norm(end - inner)
        ends.append(end + beyond_mm * outwards)
    return np.vstack([ends[0], points_mm, ends[1]])


def _longest_run(present: NDArray[np.bool_], leaps: NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last index of the longest run of slices.

    Gaps of up to two slices do not end it; a leap of the centre to the next slice does.
    """
    closed = present.copy()
    for k in range(1, len(present) - 1):
        closed[k] |= closed[k - 1] and bool(present[k + 1 : k + 3].any())
    closed[1:] &= ~leaps
    edges = np.flatnonzero(np.diff(np.concatenate([[False], closed, [False]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return 0, 0
    first, last = runs[np.diff(runs, axis=1)[:, 0].argmax()]
    return int(first), int(last)
