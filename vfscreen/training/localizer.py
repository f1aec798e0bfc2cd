"""Training of the localizer on simulated torsos (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from vfscreen.localize import window
from vfscreen.networks.localizer import Localizer
from vfscreen.settings import LocalizeSettings
from vfscreen.simulation.painting import Field, SampleGrid, paint
from vfscreen.simulation.person import Person, draw_person
from vfscreen.simulation.scanner import draw_scanner, finish
from vfscreen.simulation.spine import FOR_TRAINING
from vfscreen.training.loop import Batch
from vfscreen.training.task import Task
from vfscreen.volume import AIR_HU, Floats

VOXEL_MM = LocalizeSettings().voxel_mm
BATCH = 2
STEPS = 4500
HALF_BODY_MM = 10.0  # a spine of which less than half is in the image counts as seen, at the edge
SIDES = (64, 80, 96, 112)
DEPTHS = (48, 64, 80)


def simulated(_seed: int) -> Task:
    """The training of the localizer on simulated CT."""
    return Task("localizer", Localizer, make_batch, loss, "simulated torsos")


def make_batch(seed: int, step: int) -> Batch:
    """Images (n, 1, z, y, x), true centres (n, z, 2) in voxels, and whether each slice holds one (n, z)."""
    rng = np.random.default_rng([seed, 3, step])  # 1: sheets, 2: cohorts
    size = (int(rng.choice(DEPTHS)), int(rng.choice(SIDES)), int(rng.choice(SIDES)))
    samples = [draw_sample(rng, size) for _ in range(BATCH)]
    images, centers, present = (np.stack(each) for each in zip(*samples, strict=True))
    return torch.from_numpy(images[:, None]), torch.from_numpy(centers), torch.from_numpy(present)


def loss(network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Mean absolute error of the centres (mm, a tenth) plus cross-entropy of presence."""
    images, centers, present = batch
    found, presence = network(images)
    error = (found - centers).abs().sum(-1) * VOXEL_MM
    mean = (error * present).sum() / present.sum().clamp(min=1)
    seen = functional.binary_cross_entropy_with_logits(presence, present)
    right = ((presence > 0) == (present > 0.5)).float().mean()
    error_mm = float(mean.detach()) if present.sum() > 0 else float("nan")
    return 0.1 * mean + seen, {"error_mm": error_mm, "presence_accuracy": float(right)}


def draw_sample(rng: np.random.Generator, size: tuple[int, int, int]) -> tuple[Field, Field, Field]:
    """One torso, whole or cropped anywhere, at 3 mm: image (z, y, x), centres (z, 2), presence (z)."""
    person = draw_person(rng, FOR_TRAINING)
    grid = _draw_grid(rng, person, size)
    hu = _scan(rng, paint(person.structures, grid), grid)
    shown = _cut(rng, hu)
    centers, present = _truth(person, grid)
    present *= _is_near(shown, centers)
    if rng.random() < 0.5:  # the heart on the right
        hu, centers[:, 1] = hu[:, :, ::-1], size[2] - 1 - centers[:, 1]
    return window(np.ascontiguousarray(hu)), centers, present


def _draw_grid(rng: np.random.Generator, person: Person, size: tuple[int, int, int]) -> SampleGrid:
    nz, ny, nx = size
    depth, height, width = nz * VOXEL_MM, ny * VOXEL_MM, nx * VOXEL_MM
    top = person.spine.bodies[0].center_mm[2]
    bottom = person.spine.sacrum[-1].center_mm[2]
    z0 = rng.uniform(bottom - 70, top - depth)  # down to where no spine is seen any more
    at = person.spine.curve().points_mm
    x_spine, y_spine = (np.interp(z0 + depth / 2, at[::-1, 2], at[::-1, a]) for a in (0, 1))
    whole = width > 250
    x0 = -width / 2 + (rng.uniform(-30, 30) if whole else x_spine + rng.uniform(-0.52, 0.52) * width)
    if whole:
        y0 = y_spine + rng.uniform(50, 110) - height
    else:
        y0 = y_spine + rng.uniform(-0.05, 0.95) * height - height
    axes = [start + VOXEL_MM * np.arange(n) for start, n in zip((z0, y0, x0), (nz, ny, nx), strict=True)]
    return SampleGrid(*axes)


def _scan(rng: np.random.Generator, hu: Field, grid: SampleGrid) -> Field:
    """What slices, kernels, noise, artefacts and reconstruction circles leave at 3 mm."""
    scanner = replace(
        draw_scanner(rng),
        blur_mm=rng.uniform(0, 1.35),
        noise_hu=float(np.exp(rng.uniform(np.log(2), np.log(50)))),
        noise_grain_mm=rng.uniform(0, 1.8),
    )
    return finish(rng, gaussian_filter(hu, (rng.uniform(0, 0.9), 0, 0)), grid, scanner)


def _cut(rng: np.random.Generator, hu: Field) -> NDArray[np.bool_]:
    """Circles of reconstruction, and padding as `localizer_input` adds it; returns what (y, x) is left."""
    _, ny, nx = hu.shape
    shown = np.ones((ny, nx), bool)
    if rng.random() < 0.2:
        y, x = np.ogrid[:ny, :nx]
        shown = ((y - ny / 2) / ny) ** 2 + ((x - nx / 2) / nx) ** 2 <= rng.uniform(0.25, 0.3)
        hu[:, ~shown] = -1024
    if rng.random() < 0.3:
        padding = np.zeros((ny, nx), bool)
        padding[ny - rng.integers(1, 15) :] = padding[:, nx - rng.integers(1, 15) :] = True
        hu[:, padding] = AIR_HU
        shown = shown & ~padding
    return shown


def _is_near(shown: NDArray[np.bool_], centers: Field) -> NDArray[np.bool_]:
    """Whether each centre (n, 2) lies in what is shown, or so near that the spine counts as halved."""
    distance = distance_transform_edt(~shown) * VOXEL_MM
    rows, columns = np.rint(centers).astype(int).T
    return np.asarray(distance[rows, columns] < HALF_BODY_MM)


def _truth(person: Person, grid: SampleGrid) -> tuple[Field, Field]:
    curve: Floats = person.spine.curve().points_mm[::-1]
    first, last = person.spine.bodies[0].keypoints_mm(), person.spine.bodies[-1].keypoints_mm()
    x, y = (np.interp(grid.z_mm, curve[:, 2], curve[:, a]) for a in (0, 1))
    row, column = (y - grid.y_mm[0]) / VOXEL_MM, (x - grid.x_mm[0]) / VOXEL_MM
    nearest, seen = centers_in(row, column, grid.shape)
    spine = (grid.z_mm > last[:, 2].min()) & (grid.z_mm < first[:, 2].max())
    return nearest, (seen & spine).astype(np.float32)


def centers_in(row: Floats, column: Floats, shape: tuple[int, ...]) -> tuple[Field, NDArray[np.bool_]]:
    """Centres (z, 2) in voxels, drawn to the edge of an image (z, y, x), and whether it shows them."""
    _, ny, nx = shape
    nearest = np.stack([np.clip(row, 0, ny - 1), np.clip(column, 0, nx - 1)], -1)
    beyond = np.linalg.norm(nearest - np.stack([row, column], -1), axis=-1) * VOXEL_MM
    return nearest.astype(np.float32), beyond < HALF_BODY_MM
