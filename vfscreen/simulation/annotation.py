"""Simulated studies stored as the annotated ones of CTLungCa-500: DICOM and experts' readings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread

from vfscreen.simulation.cohort import SimulatedStudy, simulate_study
from vfscreen.simulation.files import write_dicom
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import draw_scanner
from vfscreen.study import KEYPOINTS
from vfscreen.volume import Floats, Volume, VolumeGeometry

EXPERTS = ("expert1", "expert2")
READING_MM = 0.4  # SD of an expert's points, to posterior and to caudal

Reading = Mapping[str, Floats]
"""What an expert saw: keypoints (6, 3) in LPS mm by level."""


def simulate_annotated(out: Path, studies: int, seed: int) -> None:
    """Write `dicom/NAME/` and `annotation/NAME.json` of so many studies, and `truth.json`."""
    truth = {}
    for i in range(studies):
        name = f"study_{seed}_{i:04d}"
        rng = np.random.default_rng([seed, 13, i])
        study = scan_chest(rng)
        truth[name] = study.truth()
        readings = {
            expert: {level: points + _noise(rng) for level, points in levels_of(truth[name]).items()}
            for expert in EXPERTS
        }
        write_annotated(out, name, study.volume, readings)
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def scan_chest(rng: np.random.Generator) -> SimulatedStudy:
    """A person's whole chest, the spine in the middle, as an archive of chest CT holds them."""
    person = draw_person(rng)
    scanner = replace(draw_scanner(rng), pixel_mm=rng.uniform(0.8, 1.4))
    return simulate_study(rng, person, scanner)


def levels_of(truth: Mapping[str, Any]) -> Reading:
    """The whole vertebrae of a study's truth."""
    return {
        vertebra["level"]: np.array([vertebra["keypoints_mm"][point] for point in KEYPOINTS])
        for vertebra in truth["vertebrae"]
    }


def write_annotated(
    out: Path, name: str, volume: Volume, readings: Mapping[str, Reading], *, named: bool = True
) -> None:
    """One study: slices numbered from cranial, and what each expert saw, in voxels.

    `named` writes a vertebra with its level (all-levels-2022), else as six points (thoracic-2020).
    `volume` lies along LPS.
    """
    stacked = cranial_first(volume)
    folder = out / "dicom" / name
    write_dicom(folder, stacked, f"SIM-{name}", "20200101", compress=True)
    header = dcmread(next(folder.iterdir()), stop_before_pixels=True)
    content = {
        "Folder": name,
        "SeriesInstanceUID": str(header.SeriesInstanceUID),
        "Annotation": {
            expert: [
                _stored(level, voxels(points, stacked.geometry), named) for level, points in reading.items()
            ]
            for expert, reading in readings.items()
        },
    }
    path = out / "annotation" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def cranial_first(volume: Volume) -> Volume:
    """The same voxels, the first plane the most cranial one."""
    affine = volume.geometry.affine.copy()
    if affine[2, 0] < 0:
        return volume
    affine[:3, 3] += affine[:3, 0] * (len(volume.hu) - 1)
    affine[:3, 0] *= -1
    return Volume(volume.hu[::-1], VolumeGeometry(volume.geometry.shape, affine))


def voxels(keypoints_mm: Floats, geometry: VolumeGeometry) -> Floats:
    """Keypoints (..., 6, 3) as [y, x, z] in voxels, those of a vertebra in one sagittal slice."""
    z, y, x = np.moveaxis(geometry.to_indices(keypoints_mm), -1, 0)
    return np.stack([y, np.broadcast_to(np.rint(x.mean(-1, keepdims=True)), x.shape), z], -1)


def _stored(level: str, points: Floats, named: bool) -> Any:
    if not named:
        return points.tolist()
    return {"segments": points.reshape(3, 2, 3).tolist(), "type": level.replace("T", "Th")}


def _noise(rng: np.random.Generator) -> Floats:
    return rng.normal(0, (0.0, READING_MM, READING_MM), (len(KEYPOINTS), 3))
