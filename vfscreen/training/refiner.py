"""Training of the refiner on crops of simulated vertebrae."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from vfscreen.curve import SpineCurve
from vfscreen.measure import FREEDOM
from vfscreen.networks.refiner import Refiner
from vfscreen.refine import Upright, crop_points, normalise, to_pixels
from vfscreen.settings import RefineSettings
from vfscreen.simulation.painting import Field, SampleGrid, paint
from vfscreen.simulation.person import Person, draw_person
from vfscreen.simulation.scanner import Scanner, acquire, draw_scanner, fine_planes, sample_slices
from vfscreen.simulation.spine import FOR_TRAINING, Body
from vfscreen.training.curves import ratio_figures
from vfscreen.training.loop import Batch, Figures
from vfscreen.training.task import Task
from vfscreen.volume import AIR_HU, Floats

SETTINGS = RefineSettings()
PERSONS, SCANS, CROPS = 2, 3, 8  # of one batch: so many crops of each scan of each person
LENGTH_MM = 190.0  # of the spine that one scan shows
LAYERS_MM = np.arange(-14.0, 14.1, 2.0)  # of the painted slab, from the curve to the left
ROW_MM = 0.7  # to posterior
HALF_MM = 48.0  # of the slab before and behind the curve
SHIFT_MM = np.array([2.0, 1.8, 2.0])  # SD of what the detector leaves, along u, v, w
TURN_DEG = np.array([4.0, 5.0, 4.0])  # SD of rotations about u (coronal), v (axial), w (in the sheet)
CUT = 0.12  # share of scans whose image ends close to the spine
VALIDATION_PERSONS = 60
STEPS = 6000


def simulated(seed: int) -> Task:
    """The training of the refiner on simulated CT."""
    return Task("refiner", Refiner, make_batch, loss, "simulated crops", Validation(seed))


@dataclass(frozen=True)
class Crop:
    """One vertebra upright: HU (sheets, rows, columns) and its true keypoints (6, 2) in pixels."""

    hu: Field
    keypoints: Floats
    slice_mm: float


def make_batch(seed: int, step: int) -> Batch:
    """Normalised crops (n, 5, rows, columns) and true keypoints (n, 6, 2) in pixels."""
    rng = np.random.default_rng([seed, 4, step])  # 1: sheets, 2: cohorts, 3: torsos
    crops: list[Crop] = []
    for _ in range(PERSONS):
        crops += draw_crops(rng, SCANS)
    return batch_of(crops)


def batch_of(crops: list[Crop]) -> Batch:
    """The tensors of some crops."""
    images = normalise(np.stack([c.hu for c in crops]))
    keypoints = np.stack([c.keypoints for c in crops]).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(keypoints)


def loss(network: nn.Module, batch: Batch) -> tuple[Tensor, Figures]:
    """Mean absolute errors of keypoints, heights (mm) and G, and the likelihood of the spreads."""
    images, true = batch
    found, log_spreads = network(images)
    points = (found - true).abs().mean() * SETTINGS.pixel_mm
    heights, true_heights = heights_of(found), heights_of(true)
    ratio, true_ratio = ratio_of(heights), ratio_of(true_heights)
    errors = torch.cat([heights - true_heights, (ratio - true_ratio)[:, None]], 1)
    sure = student_loss(errors.detach(), log_spreads)
    height, g = errors[:, :3].abs().mean(), errors[:, 3].abs().mean()
    figures = {"keypoint_mm": points, "height_mm": height, "ratio": g, "spread": sure}
    value = points + 0.5 * height + 5 * g + 0.05 * sure
    return value, {name: float(each.detach()) for name, each in figures.items()}


def student_loss(errors: Tensor, log_spreads: Tensor) -> Tensor:
    """Negative log-likelihood of errors under Student's t of these spreads, up to a constant."""
    z2 = (errors / log_spreads.exp()) ** 2
    return (log_spreads + (FREEDOM + 1) / 2 * torch.log1p(z2 / FREEDOM)).mean()


def heights_of(keypoints: Tensor) -> Tensor:
    """Heights (n, 3) in mm of keypoints (n, 6, 2) in pixels."""
    return torch.linalg.vector_norm(keypoints[:, 1::2] - keypoints[:, 0::2], dim=-1) * SETTINGS.pixel_mm


def ratio_of(heights: Tensor) -> Tensor:
    """G (n,) of heights (n, 3) (paper, section 2)."""
    return heights.amin(1) / heights.amax(1)


class Validation:
    """Crops that training never sees, and the learning curve of G on them."""

    def __init__(self, seed: int, persons: int = VALIDATION_PERSONS) -> None:
        self._seed, self._persons = seed, persons
        self._crops: list[Crop] = []

    def __call__(self, network: nn.Module, device: str) -> Figures:
        """Mean errors, correlation and areas under the ROC curves; again for slices up to 1.5 mm."""
        if not self._crops:
            for i in range(self._persons):
                self._crops += draw_crops(np.random.default_rng([self._seed, 5, i]), 1)
        thin = np.array([c.slice_mm <= 1.5 for c in self._crops])
        heights, true_heights, log_spreads = measured(network, device, self._crops)
        figures = ratio_figures(heights, true_heights)
        figures["spread"] = float(student_loss(torch.from_numpy(heights - true_heights), log_spreads))
        return figures | {
            f"{name}_thin": value for name, value in ratio_figures(heights[thin], true_heights[thin]).items()
        }


def measured(network: nn.Module, device: str, crops: list[Crop]) -> tuple[Floats, Floats, Tensor]:
    """Heights (n, 3) in mm as the network sees them, the true ones, and log spreads of their errors."""
    images, true = batch_of(crops)
    with torch.inference_mode():
        parts = [network(part.to(device)) for part in images.split(64)]
    found = torch.cat([keypoints.float().cpu() for keypoints, _ in parts])
    log_spreads = torch.cat([each.float().cpu() for _, each in parts])
    return heights_of(found).numpy(), heights_of(true).numpy(), log_spreads[:, :3]


def draw_crops(rng: np.random.Generator, scans: int) -> list[Crop]:
    """One person scanned so many times: `CROPS` of the whole vertebrae of each scan, some of them twice."""
    person = draw_person(rng, FOR_TRAINING)
    grid = _slab(rng, person)
    fine = paint(person.structures, grid)
    curve = person.spine.curve()
    crops: list[Crop] = []
    for _ in range(scans):
        scanner = draw_scanner(rng)
        slices, z = acquire(rng, fine, grid, scanner)
        whole = _cut(rng, slices, grid, [b for b in person.spine.bodies if _is_whole(b, z, grid.y_mm)])
        for i in rng.choice(len(whole), CROPS, replace=len(whole) < CROPS):
            crops.append(_crop(rng, slices, z, grid, whole[i], curve, scanner))
    return crops


def _slab(rng: np.random.Generator, person: Person) -> SampleGrid:
    """A slab about the mid-sagittal plane that follows the spine sideways, over a part of its length."""
    curve = person.spine.curve().points_mm[::-1]
    low = rng.uniform(person.spine.sacrum[0].center_mm[2] - 10, curve[-1, 2] - LENGTH_MM + 15)
    z = fine_planes(low, low + LENGTH_MM)
    x, y = (np.interp(z, curve[:, 2], curve[:, a]) for a in (0, 1))
    return SampleGrid(z, np.arange(y.min() - HALF_MM, y.max() + HALF_MM, ROW_MM), LAYERS_MM, x)


def _cut(rng: np.random.Generator, slices: Field, grid: SampleGrid, whole: list[Body]) -> list[Body]:
    """Sometimes the image ends before or behind the spine; returns the bodies that are still whole."""
    if rng.random() > CUT:
        return whole
    y, n = grid.y_mm, len(grid.y_mm)
    row = int(rng.integers(10, int(0.55 * n)))
    part = slice(0, row) if rng.random() < 0.5 else slice(n - row, n)
    left = y[row:] if part.start == 0 else y[: n - row]
    still = [b for b in whole if _is_whole(b, grid.z_mm, left)]
    if not still:
        return whole
    slices[:, part] = AIR_HU
    return still


def _is_whole(body: Body, z: Floats, y: Floats) -> bool:
    """Whether all keypoints lie inside the ranges of z and y by half a millimetre."""
    keypoints = body.keypoints_mm()[:, 1:]
    low, high = np.array([y[0], z[0]]) + 0.5, np.array([y[-1], z[-1]]) - 0.5
    return bool(((keypoints > low) & (keypoints < high)).all())


def _crop(
    rng: np.random.Generator,
    slices: Field,
    z: Floats,
    grid: SampleGrid,
    body: Body,
    curve: SpineCurve,
    scanner: Scanner,
) -> Crop:
    frame = jittered(rng, frame_on_sheet(body.keypoints_mm(), curve))
    points = crop_points(frame, SETTINGS)
    hu = sample_slices(slices, z, grid, points)
    return Crop(
        hu,
        to_pixels(frame.to_own(body.keypoints_mm()), SETTINGS),
        max(scanner.slice_thickness_mm, scanner.slice_spacing_mm),
    )


def frame_on_sheet(keypoints_mm: Floats, curve: SpineCurve) -> Upright:
    """The frame that a perfect detector would give: keypoints (6, 3) as the sheet of the curve shows them."""
    straightened = curve.to_straightened(keypoints_mm)
    straightened[:, 2] = 0.0
    return Upright.of(curve.to_patient(straightened))


def jittered(rng: np.random.Generator, frame: Upright) -> Upright:
    """The frame moved and turned as a detector would leave it."""
    turn = Rotation.from_rotvec(np.deg2rad(np.clip(rng.normal(0, TURN_DEG), -3 * TURN_DEG, 3 * TURN_DEG)))
    shift = np.clip(rng.normal(0, SHIFT_MM), -3 * SHIFT_MM, 3 * SHIFT_MM)
    return replace(frame.moved(shift), axes=turn.as_matrix() @ frame.axes)
