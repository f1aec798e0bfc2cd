"""A CT scanner: slices of a thickness at a spacing, a kernel, noise with its correlation, streaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from vfscreen.simulation.painting import Field, SampleGrid, paint
from vfscreen.simulation.person import Person
from vfscreen.volume import Floats

FINE_MM = 0.7  # distance of the planes that one slice averages


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
    streaks_hu: float


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
    return finish(rng, slices, grid, scanner), z


def finish(rng: np.random.Generator, slices: Field, grid: SampleGrid, scanner: Scanner) -> Field:
    """In-plane blur, overshoot and noise of already averaged slices; clipped as scanners store them."""
    pixel = np.array([np.inf, *(np.diff(axis[:2])[0] for axis in (grid.y_mm, grid.x_mm))])
    slices = _blur(slices, scanner.blur_mm / pixel)
    if scanner.overshoot:
        slices = slices + scanner.overshoot * (slices - _blur(slices, 1.2 / pixel))
    noise = _blur(rng.standard_normal(slices.shape, np.float32), scanner.noise_grain_mm / pixel)
    slices = slices + np.float32(scanner.noise_hu / max(float(noise.std()), 1e-6)) * noise
    if scanner.streaks_hu:
        rows = gaussian_filter1d(rng.standard_normal(slices.shape[:2], np.float32), 1.0, axis=1)
        slices = slices + scanner.streaks_hu * rows[:, :, None]
    return np.clip(slices, -1024, 3071).astype(np.float32)


def paint_slices(person: Person, z_mm: Floats, y_mm: Floats, x_mm: Floats, thickness_mm: float) -> Field:
    """Slices as a scanner averages them: several painted planes to a slice, (z, y, x) HU, little memory."""
    planes = max(1, round(thickness_mm / 1.0))
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
