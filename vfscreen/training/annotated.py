"""Training samples from CT with expert annotation: the same tensors as from simulated anatomy.

Each sample follows one expert, drawn at random. Where that expert annotated nothing it is not known
what is there, see `draw_torso` and `draw_sheet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from vfscreen.curve import SpineCurve
from vfscreen.localize import window
from vfscreen.measure import MILD, genant_ratio, heights_mm
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.refiner import Refiner
from vfscreen.refine import crop, to_pixels
from vfscreen.settings import LocalizeSettings, StraightenSettings
from vfscreen.simulation.painting import Field
from vfscreen.straighten import sheet_points
from vfscreen.training import detector, localizer, refiner
from vfscreen.training.curves import ratio_figures
from vfscreen.training.loop import Batch, Figures
from vfscreen.training.refiner import Crop
from vfscreen.training.studies import AnnotatedStudy, plane_heights
from vfscreen.training.task import Task
from vfscreen.volume import AIR_HU, Floats, Volume

BEYOND_MM = LocalizeSettings().beyond_mm  # that a curve goes on past the last vertebra, as in screening
BESIDE_MM = (22.0, 34.0)  # of a sheet that misses the spine, within what is kept of the CT
NOISE_HU = (1.0, 40.0)  # that is added
SHIFT_HU, SCALE = 10.0, 0.02  # SD of calibrations
DEFORMED_WEIGHT = 3.0  # of a vertebra with G <= 0.8, where vertebrae are drawn


@dataclass(frozen=True)
class Samples:
    """Batches of the studies that a fold trains on; batch i is made from (seed, fold, i)."""

    studies: tuple[AnnotatedStudy, ...]
    fold: int

    def torsos(self, seed: int, step: int) -> Batch:
        """A batch for the localizer; every other one is simulated.

        What is annotated always holds spine: where a spine ends only the simulated ones can show.
        """
        if step % 2:
            return localizer.make_batch(seed, step)
        rng = self._generator(seed, 3, step)
        size = (
            int(rng.choice(localizer.DEPTHS)),
            int(rng.choice(localizer.SIDES)),
            int(rng.choice(localizer.SIDES)),
        )
        samples = [draw_torso(rng, self._draw(rng), size) for _ in range(localizer.BATCH)]
        images, centers, present = (np.stack(each) for each in zip(*samples, strict=True))
        return torch.from_numpy(images[:, None]), torch.from_numpy(centers), torch.from_numpy(present)

    def sheets(self, seed: int, step: int) -> Batch:
        """A batch for the detector."""
        rng = self._generator(seed, 1, step)
        sheets = [draw_sheet(rng, self._draw(rng)) for _ in range(detector.PERSONS * detector.SHEETS)]
        return detector.batch_of(sheets)

    def crops(self, seed: int, step: int) -> Batch:
        """A batch for the refiner."""
        rng = self._generator(seed, 4, step)
        crops: list[Crop] = []
        for _ in range(refiner.PERSONS * refiner.SCANS):
            crops += draw_crops(rng, self._draw(rng), refiner.CROPS)
        return refiner.batch_of(crops)

    def _generator(self, seed: int, kind: int, step: int) -> np.random.Generator:
        return np.random.default_rng([seed, 10, self.fold, kind, step])  # below 10: simulated

    def _draw(self, rng: np.random.Generator) -> AnnotatedStudy:
        return self.studies[rng.integers(len(self.studies))]


class HeldOut:
    """The refiner's learning curve of G on the studies of a fold that it never sees."""

    def __init__(self, studies: Sequence[AnnotatedStudy], seed: int) -> None:
        self._studies, self._seed = studies, seed
        self._crops: list[Crop] = []

    def __call__(self, network: nn.Module, device: str) -> Figures:
        """Mean errors against the experts' consensus, correlation and areas under the ROC curves."""
        if not self._crops:
            for i, study in enumerate(self._studies):
                rng = np.random.default_rng([self._seed, 11, i])
                self._crops += [crop_of(rng, study, study.consensus, n) for n in range(len(study.consensus))]
        heights, true_heights, _ = refiner.measured(network, device, self._crops)
        return ratio_figures(heights, true_heights)


def tasks(
    studies: Sequence[AnnotatedStudy], held_out: Sequence[str], fold: int, seed: int
) -> dict[str, Task]:
    """The training of each network on all studies but those held out."""
    samples = Samples(tuple(study for study in studies if study.name not in held_out), fold)
    kept = [study for study in studies if study.name in held_out]
    made = f"annotated CT, fold {fold}"
    return {
        task.name: task
        for task in (
            Task("localizer", Localizer, samples.torsos, localizer.loss, made),
            Task("detector", Detector, samples.sheets, detector.loss, made),
            Task("refiner", Refiner, samples.crops, refiner.loss, made, HeldOut(kept, seed)),
        )
    }


def draw_torso(
    rng: np.random.Generator, study: AnnotatedStudy, size: tuple[int, int, int]
) -> tuple[Field, Field, Field]:
    """A part of a CT at 3 mm: image (z, y, x), centres (z, 2) in voxels, presence (z).

    It is cropped to what the expert annotated, where a slice holds spine; if that is less than asked
    for, the rest is air, which holds none. In-plane the crop lies anywhere, as in simulation.
    """
    reading, volume = _reading(rng, study), study.coarse()
    z = plane_heights(volume.geometry)
    inside = np.flatnonzero((z > reading[:, :, 2].min()) & (z < reading[:, :, 2].max()))
    first = inside[0] + rng.integers(0, max(len(inside) - size[0], 0) + 1)
    depth = min(size[0], len(inside))
    row, column = _centers(volume, reading, z[first] + localizer.VOXEL_MM * np.arange(size[0]))
    corner = _corner(rng, size, (row[depth // 2], column[depth // 2]))
    hu = _cropped(volume.hu[first : first + depth], corner, size)
    centers, seen = localizer.centers_in(row - corner[0], column - corner[1], size)
    present = (seen & (np.arange(size[0]) < depth)).astype(np.float32)
    if rng.random() < 0.5:  # the heart on the right
        hu, centers[:, 1] = hu[:, :, ::-1], size[2] - 1 - centers[:, 1]
    return window(augmented(rng, hu)), centers, present


def _centers(volume: Volume, reading: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Rows and columns of the annotated curve at heights z, in voxels of the volume."""
    curve = SpineCurve.through_vertebrae(reading).points_mm[::-1]
    x, y = (detector.extended(z, curve[:, 2], curve[:, a]) for a in (0, 1))
    _, row, column = np.moveaxis(volume.geometry.to_indices(np.stack([x, y, z], -1)), -1, 0)
    return row, column


def _corner(
    rng: np.random.Generator, size: tuple[int, int, int], spine: tuple[float, float]
) -> tuple[int, int]:
    """First row and column of a crop, spread about the spine as the simulated torsos are."""
    _, ny, nx = size
    if nx * localizer.VOXEL_MM > 250:
        row, column = spine[0] + rng.uniform(50, 110) / localizer.VOXEL_MM, spine[1] + rng.uniform(-10, 10)
    else:
        row, column = spine[0] + rng.uniform(-0.05, 0.95) * ny, spine[1] + rng.uniform(-0.52, 0.52) * nx
    return round(row - ny), round(column - nx / 2)


def _cropped(hu: NDArray[np.int16], corner: tuple[int, int], size: tuple[int, int, int]) -> Field:
    """Planes from a corner on, air where there is no image."""
    out = np.full(size, AIR_HU, np.float32)
    (j, i), (_, ny, nx) = corner, hu.shape
    rows = slice(max(-j, 0), max(min(ny - j, size[1]), 0))
    columns = slice(max(-i, 0), max(min(nx - i, size[2]), 0))
    part = hu[:, max(j, 0) : max(j + size[1], 0), max(i, 0) : max(i + size[2], 0)]
    out[: len(hu), rows, columns] = part
    return out


def draw_sheet(rng: np.random.Generator, study: AnnotatedStudy) -> tuple[Field, Floats, Floats]:
    """A sheet along a displaced curve: HU (ROWS, columns), keypoints (m, 6, 2) in pixels, G (m,).

    It ends `BEYOND_MM` past the expert's first and last vertebra. What may be a vertebra and is not
    annotated has no G, and counts neither way.
    """
    settings, reading, volume = StraightenSettings(), _reading(rng, study), study.column()
    z_range = _stretch(rng, reading)
    beside_mm = rng.choice([-1, 1]) * rng.uniform(*BESIDE_MM) if rng.random() < detector.ASTRAY else 0.0
    astray_mm = (
        rng.choice([-1, 1]) * rng.uniform(*detector.BESIDE_MM) if rng.random() < detector.ASTRAY else 0.0
    )
    curve = detector.jittered(
        rng, SpineCurve.through_vertebrae(reading).points_mm, z_range, (beside_mm, astray_mm)
    )
    layers = [volume.sample(sheet_points(curve, settings, o)) for o in settings.sheet_offsets_mm]
    image, rows = detector.filled(layers)
    image[:rows] = augmented(rng, image[:rows])
    visible = detector.cut(rng, image, rows)
    doubtful = study.doubtful(reading)
    bodies = np.concatenate([doubtful, reading])  # the sure ones last: they have the last word on an anchor
    z = bodies[:, :, 2].mean(1)
    near = (z_range[0] - 15 < z) & (z < z_range[1] + 15)
    near &= np.array([detector.reaches(body, curve, settings) for body in bodies])
    if not near.any() or beside_mm:
        return image, np.empty((0, 6, 2)), np.empty(0)
    pixels, ratios = detector.on_sheet(bodies[near], curve, visible)
    ratios[: near[: len(doubtful)].sum()] = np.nan
    return image, pixels, ratios


def _stretch(rng: np.random.Generator, reading: Floats) -> tuple[float, float]:
    """Lowest and highest z of a sheet: what was annotated, or as much of it as a sheet has rows."""
    low, high = reading[:, :, 2].min() - BEYOND_MM, reading[:, :, 2].max() + BEYOND_MM
    length = detector.ROWS - 8
    if high - low > length:
        low = rng.uniform(low, high - length)
        high = low + length
    return float(low), float(high)


def draw_crops(rng: np.random.Generator, study: AnnotatedStudy, n: int) -> list[Crop]:
    """Crops of n vertebrae of one reading, the deformed ones more often, left and right changed at random."""
    reading = _reading(rng, study)
    weight = np.where(genant_ratio(heights_mm(reading)) <= MILD, DEFORMED_WEIGHT, 1.0)
    chosen = rng.choice(len(reading), n, replace=len(reading) < n, p=weight / weight.sum())
    crops = []
    for i in chosen:
        crop = crop_of(rng, study, reading, i)
        hu = augmented(rng, crop.hu[:: rng.choice([-1, 1])])
        crops.append(Crop(hu, crop.keypoints, crop.slice_mm))
    return crops


def crop_of(rng: np.random.Generator, study: AnnotatedStudy, vertebrae: Floats, index: int) -> Crop:
    """One of the vertebrae (n, 6, 3) of a study, upright but for the jitter that a detector leaves."""
    volume, keypoints = study.column(), vertebrae[index]
    frame = refiner.jittered(rng, refiner.frame_on_sheet(keypoints, SpineCurve.through_vertebrae(vertebrae)))
    hu = crop(volume, frame, refiner.SETTINGS)
    own = to_pixels(frame.to_own(keypoints), refiner.SETTINGS)
    return Crop(hu, own, float(volume.geometry.voxel_sizes_mm[0]))


def augmented(rng: np.random.Generator, hu: Field) -> Field:
    """HU (..., rows, columns) as another scanner would have given them: calibration and noise differ."""
    noise = rng.standard_normal(hu.shape, np.float32)
    grain = (0.0,) * (hu.ndim - 2) + (float(rng.uniform(0, 1)),) * 2
    noise = gaussian_filter(noise, grain)
    sd = np.exp(rng.uniform(*np.log(NOISE_HU))) / max(float(noise.std()), 1e-6)
    changed = hu * (1 + rng.normal(0, SCALE)) + rng.normal(0, SHIFT_HU) + noise * sd
    return np.clip(changed, -1024, 3071).astype(np.float32)


def _reading(rng: np.random.Generator, study: AnnotatedStudy) -> Floats:
    return study.readings[rng.integers(len(study.readings))]
