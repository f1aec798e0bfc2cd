"""A CT scanner: slices of a thickness at a spacing, a kernel, noise with its correlation, streaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift

from vfscreen.simulation.painting import Field, SampleGrid, paint
from vfscreen.simulation.person import Person
from vfscreen.volume import Floats, sample_grid

FINE_MM = 0.7  # distance of the planes that one slice averages
METAL_HU = 2500.0
SHOULDERS_MM = 115.0  # z of the person: about T2, T8 being at 0


@dataclass(frozen=True)
class Scanner:
    """One protocol: lengths in mm, noise in HU."""

    slice_thickness_mm: float
    slice_spacing_mm: float
    pixel_mm: float
    blur_mm: float  # standard deviation of the in-plane point spread
    overshoot: float  # of sharp kernels
    noise_hu: float
    noise_grain_mm: float
    streaks_hu: float  # along the rows, in every slice
    shoulders_hu: float = 0.0  # the same between the shoulders, where photons starve
    metal_share: float = 0.0  # of the metal's HU that its streaks have
    cupping_hu: float = 0.0  # beam hardening: a slow drift of HU in the slice
    motion_mm: float = 0.0  # of slices against each other, breath and pulse

    @property
    def noise_at_1_mm_hu(self) -> float:
        """The noise that slices of 1 mm would have at this dose."""
        return float(self.noise_hu * np.sqrt(self.slice_thickness_mm))


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Thickness 0.6 to 5 mm, soft to sharp kernels, 4 to 90 HU of noise."""
    thickness = rng.choice([0.6, 1, 1, 1.25, 1.5, 2, 2.5, 3, 3, 5]) * rng.uniform(0.85, 1.15)
    return Scanner(
        slice_thickness_mm=thickness,
        slice_spacing_mm=max(thickness * rng.choice([0.5, 0.7, 1.0, 1.0]), 0.6),
        pixel_mm=rng.uniform(0.6, 1.1),
        blur_mm=rng.uniform(0.25, 0.9),
        overshoot=rng.uniform(0.3, 1.5) if rng.random() < 0.35 else 0.0,
        noise_hu=float(np.exp(rng.uniform(np.log(4), np.log(90)))),
        noise_grain_mm=rng.uniform(0.3, 1.2),
        streaks_hu=rng.uniform(3, 40) if rng.random() < 0.15 else 0.0,
        shoulders_hu=rng.uniform(10, 120) if rng.random() < 0.4 else 0.0,
        metal_share=rng.uniform(0.02, 0.2),
        cupping_hu=rng.uniform(5, 60) if rng.random() < 0.3 else 0.0,
        motion_mm=rng.uniform(0.2, 1.2) if rng.random() < 0.15 else 0.0,
    )


def fine_planes(low_mm: float, high_mm: float) -> Floats:
    """Heights of the planes to paint between two z, so that `acquire` can average them."""
    return np.arange(low_mm, high_mm, FINE_MM)


def acquire(
    rng: np.random.Generator, fine: Field, grid: SampleGrid, scanner: Scanner
) -> tuple[Field, Floats]:
    """Slices (z, y, x) in HU from finely painted planes, and the slices' z, ascending, mm."""
    spread = np.hypot(scanner.slice_thickness_mm / np.sqrt(12), 0.25) / FINE_MM
    profile = gaussian_filter1d(fine, spread, axis=0)
    start = grid.z_mm[0] + rng.uniform(0, scanner.slice_spacing_mm)
    z = np.arange(start, grid.z_mm[-1], scanner.slice_spacing_mm)
    index = np.interp(z, grid.z_mm, np.arange(len(grid.z_mm)))
    low = np.minimum(index.astype(int), len(fine) - 2)
    share = (index - low).astype(np.float32)[:, None, None]
    slices = profile[low] * (1 - share) + profile[low + 1] * share
    return finish(rng, slices, SampleGrid(z, grid.y_mm, grid.x_mm), scanner), z


def finish(rng: np.random.Generator, slices: Field, grid: SampleGrid, scanner: Scanner) -> Field:
    """What a scanner makes of already averaged slices: motion, blur, overshoot, artefacts, noise.

    Clipped as scanners store HU. `grid` holds the slices' places in the person.
    """
    pixel = np.array([np.inf, *(np.diff(axis[:2])[0] for axis in (grid.y_mm, grid.x_mm))])
    if scanner.motion_mm:
        slices = _moved(rng, slices, scanner.motion_mm / pixel[1])
    metal = slices > METAL_HU
    slices = _blur(slices, scanner.blur_mm / pixel)
    if scanner.overshoot:
        slices = slices + scanner.overshoot * (slices - _blur(slices, 1.2 / pixel))
    if scanner.metal_share:
        slices = slices + _metal_streaks(rng, metal, grid, scanner.metal_share)
    if scanner.cupping_hu:
        slices = slices + _cupping(rng, grid, scanner.cupping_hu)
    noise = _blur(rng.standard_normal(slices.shape, np.float32), scanner.noise_grain_mm / pixel)
    slices = slices + np.float32(scanner.noise_hu / max(float(noise.std()), 1e-6)) * noise
    if scanner.streaks_hu or scanner.shoulders_hu:
        slices = slices + _row_streaks(rng, grid, scanner)
    return np.clip(slices, -1024, 3071).astype(np.float32)


def _row_streaks(rng: np.random.Generator, grid: SampleGrid, scanner: Scanner) -> Field:
    """Streaks from left to right, each slice its own; strongest between the shoulders."""
    rows = gaussian_filter1d(rng.standard_normal(grid.shape[:2], np.float32), 1.0, axis=1)
    starved = 1 / (1 + np.exp(-(grid.z_mm - SHOULDERS_MM) / 12))
    strength = (scanner.streaks_hu + scanner.shoulders_hu * starved).astype(np.float32)
    return np.asarray((rows * strength[:, None])[:, :, None], np.float32)


def _metal_streaks(
    rng: np.random.Generator, metal: NDArray[np.bool_], grid: SampleGrid, share: float
) -> Field:
    """Bright and dark rays in the slices that hold metal, from its middle."""
    streaks = np.zeros(grid.shape, np.float32)
    for k in np.flatnonzero(metal.any((1, 2))):
        y, x = (
            axis[at].mean() for axis, at in zip((grid.y_mm, grid.x_mm), np.nonzero(metal[k]), strict=True)
        )
        dy, dx = np.meshgrid(grid.y_mm - y, grid.x_mm - x, indexing="ij")
        angle, radius = np.arctan2(dy, dx), np.hypot(dy, dx)
        rays = sum(np.cos(n * angle + rng.uniform(0, 6.3)) for n in (2, 5, 9))
        streaks[k] = share * METAL_HU * rays * np.exp(-radius / 25)
    return streaks


def _cupping(rng: np.random.Generator, grid: SampleGrid, hu: float) -> Field:
    """A drift of HU over the slice, one half-wave or two, the same in all slices."""
    y, x = grid.y_mm[:, None], grid.x_mm[None]
    ky, kx = rng.normal(0, 1 / 50, 2)
    return np.asarray(hu * np.sin(ky * y + kx * x + rng.uniform(0, 6.3)), np.float32)[None]


def _moved(rng: np.random.Generator, slices: Field, sd: float) -> Field:
    """Each slice moved along its rows' axis by a slowly changing part of a pixel and more."""
    way = gaussian_filter1d(rng.standard_normal(len(slices)), 2.0)
    way *= sd / max(float(way.std()), 1e-6)
    moved = [shift(part, (float(d), 0), order=1, mode="nearest") for part, d in zip(slices, way, strict=True)]
    return np.stack(moved)


def paint_slices(person: Person, z_mm: Floats, y_mm: Floats, x_mm: Floats, thickness_mm: float) -> Field:
    """Slices as a scanner averages them: several painted planes to a slice, (z, y, x) HU, little memory."""
    planes = max(1, int(np.ceil(thickness_mm)))
    offsets = (np.arange(planes) + 0.5) / planes - 0.5
    total = np.zeros((len(z_mm), len(y_mm), len(x_mm)), np.float32)
    for offset in offsets * thickness_mm:
        for start in range(0, len(z_mm), 48):
            part = slice(start, start + 48)
            total[part] += paint(person.structures, SampleGrid(z_mm[part] + offset, y_mm, x_mm))
    total /= planes
    return total


def _blur(slices: Field, sigma: Floats) -> Field:
    """Gaussian blur; `sigma` in samples along (z, y, x)."""
    return np.asarray(gaussian_filter(slices, sigma), np.float32)


def sample_slices(slices: Field, z_mm: Floats, grid: SampleGrid, points_mm: Floats) -> Field:
    """HU of slices (z, y, x) of a grid at LPS points (..., 3), linear in between as `Volume.sample`.

    To the left and right of a slab its outermost layers go on.
    """
    k = (points_mm[..., 2] - z_mm[0]) / (z_mm[1] - z_mm[0])
    j = (points_mm[..., 1] - grid.y_mm[0]) / (grid.y_mm[1] - grid.y_mm[0])
    x = points_mm[..., 0] - np.interp(points_mm[..., 2], grid.z_mm, grid.shift)
    i = np.clip((x - grid.x_mm[0]) / (grid.x_mm[1] - grid.x_mm[0]), 0, len(grid.x_mm) - 1)
    return sample_grid(slices, np.stack([k, j, i]))
