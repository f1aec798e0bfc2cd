"""Networks that need no weights, studies that need no scanner, and readers that have accidents."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from vfscreen.networks import anchors
from vfscreen.readers import read_study
from vfscreen.settings import ReadSettings, RefineSettings, StraightenSettings
from vfscreen.study import StudyFiles, StudyImage
from vfscreen.volume import Floats

BONE_HU, FRACTURED_HU, POISONED_HU = 700, 1100, 3000
VOXEL_MM = 3.0
PROVENANCE = {name: {"sha256": f"{name}'s hash", "steps": 7} for name in ("localizer", "detector", "refiner")}


@dataclass(frozen=True)
class FakeModels:
    """Stands for `networks.weights.Models`, without torch."""

    localizer: Any
    detector: Any
    refiner: Any
    device: str = "cpu"
    provenance: Mapping[str, Any] = field(default_factory=lambda: PROVENANCE)


def fake_models(localizer: Any = None, detector: Any = None, provenance: Any = PROVENANCE) -> Any:
    return FakeModels(
        localizer or centre_of_bright_voxels,
        detector or vertebra_every_30_mm,
        the_same_box,
        provenance=provenance,
    )


def centre_of_bright_voxels(images: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A localizer: the centre of bone in each plane; present where there is bone."""
    weight = (images > 0.9).astype(float)
    total = weight.sum((2, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, images.shape[2:]), indexing="ij"), -1)
    centers = np.einsum("nzyx,yxc->nzc", weight, grid) / np.maximum(total, 1)[..., None]
    return centers, np.where(total > 0, 8.0, -8.0)


def slow_localizer(images: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A localizer that takes a second."""
    time.sleep(1.0)
    return centre_of_bright_voxels(images)


def refuses_poison(images: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A localizer that raises for a whole batch when one of its studies is poisoned."""
    if images.max() > 0.9999:
        raise RuntimeError("poison in the batch")
    return centre_of_bright_voxels(images)


def vertebra_every_30_mm(sheets: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A detector: boxes on the curve, with a middle height that falls as the bone gets brighter."""
    n, rows, columns = sheets.shape
    h, w = rows // anchors.STRIDE, columns // anchors.STRIDE
    logits = np.full((n, 16, h, w), -9.0)
    offsets = np.zeros((n, 16, 6, 2, h, w))
    box = [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.0), (0.5, 0.0), (-0.5, 0.5), (0.5, 0.5)]
    offsets[:, 5] = np.reshape(box, (1, 6, 2, 1, 1))
    middle = int(StraightenSettings.width_mm / StraightenSettings.pixel_mm) // 2  # of the sheet itself
    for row in range(15, rows - 15, 30):
        brightness = sheets[:, row, middle]
        i, j = row // anchors.STRIDE, middle // anchors.STRIDE
        logits[:, 5, i, j] = np.where(brightness > 1, 5.0, -9.0)
        offsets[:, 5, 2, 0, i, j] += 0.1 * brightness
    return logits, offsets.reshape(n, 16, 12, h, w)


def the_same_box(crops: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A refiner: the box of `vertebra_every_30_mm` about the middle of the crop, sure to 0.1 mm and 0.01."""
    middle = crops.shape[-1] // 2
    hu = 200 + 400 * np.arctanh(np.minimum(crops[:, 2, middle, middle].astype(float), 0.999999))
    box = np.array([(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.0), (0.5, 0.0), (-0.5, 0.5), (0.5, 0.5)])
    own = np.repeat((box * anchors.SIZES[5])[None], len(crops), 0)
    own[:, 2, 0] += 0.1 * anchors.SIZES[5][0] * (np.minimum(hu, 1400) - 150) / 300
    keypoints = own / RefineSettings().pixel_mm + (crops.shape[-1] - 1) / 2
    return keypoints, np.log(np.tile([0.1, 0.1, 0.1, 0.01], (len(crops), 1)))


def no_vertebra(sheets: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """A detector that sees nothing."""
    logits, offsets = vertebra_every_30_mm(sheets)
    return np.full_like(logits, -9.0), offsets


def write_study(path: Path, hu: int = BONE_HU, height: int = 40, bend: int = 0) -> Path:
    """A NIfTI volume with a column of bone in soft tissue, `height` planes of 3 mm; hu 0 is no bone."""
    voxels = np.zeros((30, 30, height), np.int16)  # x to the left, y to posterior, z to cranial
    voxels[0, 0] = -1000  # an image of one value is refused
    for k in range(height):
        x = 12 + round(bend * np.sin(np.pi * k / height))
        voxels[x : x + 6, 15:21, k] = hu
    affine = np.diag([-VOXEL_MM, -VOXEL_MM, VOXEL_MM, 1.0])  # NIfTI's RAS
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def write_nine_studies(folder: Path) -> Path:
    """One is fractured, one without bone, one unreadable."""
    for i in range(6):
        write_study(folder / f"healthy_{i}.nii.gz", bend=i)
    write_study(folder / "fractured.nii.gz", FRACTURED_HU)
    write_study(folder / "no_bone.nii.gz", hu=0)
    (folder / "truncated.nii.gz").write_bytes(b"junk")
    return folder


def read_with_accidents(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """Reads as ever, but for studies whose name tells what is to happen to the reader."""
    if "dies" in study.source:
        os._exit(3)
    if "hangs" in study.source:
        time.sleep(600)
    if "vanishes" in study.source:
        study.files[0].unlink()
    if "swells" in study.source:
        np.ones(25 * 10**9)  # 200 GB
    if "raises" in study.source:
        raise ZeroDivisionError("an exception that no stage foresaw")
    if "warns" in study.source:
        warnings.warn("an odd header", stacklevel=1)
    return read_study(study, settings)
