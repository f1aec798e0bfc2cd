"""Training of the detector on simulated straightened sheets (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional

from vfscreen.curve import SpineCurve
from vfscreen.detect import normalise
from vfscreen.measure import genant_ratio, heights_mm
from vfscreen.networks import anchors
from vfscreen.networks.detector import Detector
from vfscreen.settings import StraightenSettings
from vfscreen.simulation.painting import Field, SampleGrid, paint
from vfscreen.simulation.person import Person, draw_person
from vfscreen.simulation.scanner import acquire, draw_scanner, fine_planes, sample_slices
from vfscreen.simulation.spine import FOR_TRAINING
from vfscreen.straighten import sheet_points
from vfscreen.training.loop import Batch
from vfscreen.training.task import Task
from vfscreen.volume import AIR_HU, Floats

ROWS = 192
STEPS = 6000
PERSONS, SHEETS = 2, 4  # a batch: so many persons, each scanned so many times
LAYERS_MM = np.arange(-4.5, 4.6, 1.5)  # the slab that is painted, from the curve to the left
ROW_MM = 0.8  # of the painted slab, to posterior
ASTRAY, BESIDE_MM = (
    0.08,
    (22.0, 40.0),
)  # how often a curve misses the spine, and how far: then nothing is found
POSITIVE_IOU = 0.5
DOUBTFUL_IOU = 0.2  # anchors that meet a vertebra cut by the edge count neither way


def simulated(_seed: int) -> Task:
    """The training of the detector on simulated CT."""
    return Task("detector", Detector, make_batch, loss, "simulated sheets")


@dataclass(frozen=True)
class Targets:
    """What the head should say, each (16, h, w): 1 vertebra, 0 none, -1 doubtful; offsets have 12 more."""

    objectness: Field
    offsets: Field
    weight: Field  # 1 / G of the vertebra (paper: a lower G weighs more)


def make_batch(seed: int, step: int) -> Batch:
    """Normalised sheets (n, 1, rows, columns) and their targets: objectness, offsets, weights."""
    rng = np.random.default_rng([seed, 1, step])
    return batch_of([sheet for _ in range(PERSONS) for sheet in draw_sheets(rng, SHEETS)])


def batch_of(sheets: list[tuple[Field, Floats, Floats]]) -> Batch:
    """The tensors of some sheets, each its HU, keypoints and G as `draw_sheets` gives them."""
    images = [normalise(image) for image, _, _ in sheets]
    targets = [make_targets(keypoints, ratios, image.shape) for image, keypoints, ratios in sheets]
    stacked = [np.stack([getattr(t, name) for t in targets]) for name in ("objectness", "offsets", "weight")]
    return (torch.from_numpy(np.stack(images)[:, None]), *(torch.from_numpy(s) for s in stacked))


def loss(network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of objectness plus mean over positives of the offsets' error over G (paper, eq. 1)."""
    sheets, objectness, offsets, weight = batch
    scores, found = network(sheets)
    known, positive = objectness >= 0, objectness > 0.5
    seen = functional.binary_cross_entropy_with_logits(scores[known], objectness[known])
    error = (found.movedim(2, -1)[positive] - offsets.movedim(2, -1)[positive]).abs()
    fit_ = (error.mean(-1) * weight[positive]).sum() / positive.sum().clamp(min=1)
    pixels = error.detach().mean() * anchors.SIZES.mean() if len(error) else torch.tensor(float("nan"))
    recall = float(((scores > 0) & positive).sum() / positive.sum().clamp(min=1))
    return seen + fit_, {"objectness": float(seen.detach()), "offsets_mm": float(pixels), "recall": recall}


def make_targets(keypoints: Floats, ratios: Floats, shape: tuple[int, ...]) -> Targets:
    """Targets of one sheet from keypoints (n, 6, 2) in pixels; G is NaN where the edge cuts a vertebra."""
    h, w = shape[0] // anchors.STRIDE, shape[1] // anchors.STRIDE
    cells = anchors.cell_centers(np.indices((h, w)).reshape(2, -1).T.astype(float))
    objectness = np.zeros((len(anchors.SIZES), h * w), np.float32)
    offsets = np.zeros((len(anchors.SIZES), 12, h * w), np.float32)
    weight = np.zeros_like(objectness)
    for points, ratio in zip(keypoints, ratios, strict=True):
        box = anchors.boxes_of(points)[None]
        near = np.flatnonzero((np.abs(cells - points.mean(0)) < 20).all(1))
        overlaps = [
            anchors.iou(np.hstack([cells[near] - size / 2, cells[near] + size / 2]), box)[:, 0]
            for size in anchors.SIZES
        ]
        best = 0.9 * max(overlap.max(initial=0.0) for overlap in overlaps)  # of the smallest vertebrae
        for a, (size, overlap) in enumerate(zip(anchors.SIZES, overlaps, strict=True)):
            if np.isnan(ratio):
                objectness[a, near[overlap > DOUBTFUL_IOU]] = -1
                continue
            hit = near[overlap > min(POSITIVE_IOU, best)]
            objectness[a, hit] = 1
            weight[a, hit] = 1 / max(float(ratio), 0.3)
            offsets[a][:, hit] = ((points[None] - cells[hit][:, None]) / size).reshape(-1, 12).T
    grid = (len(anchors.SIZES), h, w)
    return Targets(objectness.reshape(grid), offsets.reshape(grid[0], 12, h, w), weight.reshape(grid))


def draw_sheets(rng: np.random.Generator, n: int) -> list[tuple[Field, Floats, Floats]]:
    """One person scanned n times: sheet HU (ROWS, columns), keypoints (m, 6, 2) in pixels, G (m,)."""
    person = draw_person(rng, FOR_TRAINING)
    beside_mm = rng.choice([-1, 1]) * rng.uniform(*BESIDE_MM) if rng.random() < ASTRAY else 0.0
    grid = _slab(rng, person, beside_mm)
    fine = paint(person.structures, grid)
    return [_sheet(rng, person, fine, grid, beside_mm) for _ in range(n)]


def _slab(rng: np.random.Generator, person: Person, beside_mm: float) -> SampleGrid:
    """A slab about the mid-sagittal plane, or beside the spine, that follows it sideways."""
    curve = person.spine.curve().points_mm[::-1]
    low = rng.uniform(person.spine.sacrum[-1].center_mm[2], curve[-1, 2] - ROWS + 30)
    z = fine_planes(low, low + ROWS - 8)
    x, y = (np.interp(z, curve[:, 2], curve[:, a]) for a in (0, 1))
    half = StraightenSettings().width_mm / 2 + 14  # a sheet astray meets the end of the image
    return SampleGrid(z, np.arange(y.min() - half, y.max() + half, ROW_MM), LAYERS_MM, x + beside_mm)


def _sheet(
    rng: np.random.Generator, person: Person, fine: Field, grid: SampleGrid, beside_mm: float
) -> tuple[Field, Floats, Floats]:
    settings = StraightenSettings()
    slices, z = acquire(rng, fine, grid, draw_scanner(rng))
    astray_mm = rng.choice([-1, 1]) * rng.uniform(*BESIDE_MM) if rng.random() < ASTRAY else 0.0
    true = person.spine.curve().points_mm
    curve = jittered(rng, true, (float(z[0]), float(z[-1])), (beside_mm, astray_mm))
    layers = [
        sample_slices(slices, z, grid, sheet_points(curve, settings, o)) for o in settings.sheet_offsets_mm
    ]
    image, rows = filled(layers)
    visible = cut(rng, image, rows)
    bodies = [b.keypoints_mm() for b in person.spine.bodies]
    near = [k for k in bodies if z[0] - 15 < k[:, 2].mean() < z[-1] + 15 and reaches(k, curve, settings)]
    if not near or beside_mm:
        return image, np.empty((0, 6, 2)), np.empty(0)
    return image, *on_sheet(np.stack(near), curve, visible)


def filled(layers: list[Field]) -> tuple[Field, int]:
    """The mean of parallel sheets in an image of `ROWS` rows, and how many of them it fills."""
    image = np.full((ROWS, layers[0].shape[1]), AIR_HU, np.float32)
    rows = min(ROWS, len(layers[0]))
    image[:rows] = np.mean(layers, 0)[:rows]
    return image, rows


def on_sheet(
    keypoints_mm: Floats, curve: SpineCurve, visible: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Keypoints (n, 6, 2) in pixels of the curve's sheet and G (n,), NaN where the edge cuts a vertebra."""
    settings = StraightenSettings()
    pixels = curve.to_straightened(keypoints_mm)[..., :2] / settings.pixel_mm
    pixels[..., 1] += (round(settings.width_mm / settings.pixel_mm) - 1) / 2
    whole = ((pixels > visible[0]) & (pixels < visible[1])).all((1, 2))
    return pixels, np.where(whole, genant_ratio(heights_mm(keypoints_mm)), np.nan)


def reaches(keypoints: Floats, curve: SpineCurve, settings: StraightenSettings) -> bool:
    """Whether a vertebra lies near enough to the curve to be seen on its sheet."""
    distances = np.linalg.norm(keypoints[:, None] - curve.points_mm[None], axis=-1).min(1)
    return bool(distances.max() < settings.width_mm / 2 + 5)


def jittered(
    rng: np.random.Generator, true: Floats, z_range: tuple[float, float], astray_mm: tuple[float, float]
) -> SpineCurve:
    """The true curve (m, 3) between two heights, displaced smoothly as a localizer would, or led astray."""
    low, high = z_range
    z = np.arange(high, low, -1.0)
    knots = np.linspace(high, low, 6)
    error = rng.normal(0, (0.8, 1.5), 2) + rng.normal(0, (0.8, 1.2), (6, 2))
    shift = make_interp_spline(knots[::-1], np.clip(error, (-2.5, -5), (2.5, 5))[::-1], k=3)(z)
    x, y = (extended(z, true[::-1, 2], true[::-1, a]) for a in (0, 1))
    smooth = gaussian_filter1d(np.column_stack([x, y]), 6.0, axis=0, mode="nearest")
    return SpineCurve.through(np.column_stack([smooth + shift + astray_mm, z]))


def extended(z: Floats, known: Floats, values: Floats) -> Floats:
    """Interpolation that goes on straight beyond the ends, as a localizer's curve does over the sacrum."""
    slope = np.gradient(values, known)
    low, high = np.minimum(z - known[0], 0), np.maximum(z - known[-1], 0)
    return np.asarray(np.interp(z, known, values) + low * slope[0] + high * slope[-1])


def cut(rng: np.random.Generator, image: Field, rows: int) -> tuple[Floats, Floats]:
    """Sometimes the field of view ends within the sheet; returns the visible corners (row, column)."""
    low, high = np.array([0.0, 0.0]), np.array([rows - 1.0, image.shape[1] - 1.0])
    if rng.random() < 0.15:
        column = rng.integers(4, 30)
        if rng.random() < 0.5:
            image[:, :column] = AIR_HU
            low[1] = column
        else:
            image[:, -column:] = AIR_HU
            high[1] -= column
    if rng.random() < 0.3:
        row = rng.integers(1, 60)
        if rng.random() < 0.5:
            image[:row] = AIR_HU
            low[0] = row
        else:
            image[rows - row :] = AIR_HU
            high[0] -= row
    return low, high
