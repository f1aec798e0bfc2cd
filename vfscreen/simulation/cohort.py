"""Simulated chest CTs as files with their truth: cohorts to measure on, and `sample_data/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vfscreen.evaluation.matching import is_whole
from vfscreen.measure import genant_ratio, grade, heights_mm
from vfscreen.simulation.files import write_dicom, write_nifti
from vfscreen.simulation.findings import NOTHING
from vfscreen.simulation.painting import SampleGrid, paint
from vfscreen.simulation.person import Person, draw_person
from vfscreen.simulation.scanner import Scanner, acquire, draw_scanner, fine_planes, finish, paint_slices
from vfscreen.simulation.spine import Deformities
from vfscreen.study import KEYPOINTS
from vfscreen.volume import Floats, Volume, VolumeGeometry

Format = Literal["dicom", "nifti"]


@dataclass(frozen=True)
class Field:
    """What a scan covers: from this level to that, so wide in-plane, at this pixel; mm."""

    first: str = "T1"
    last: str = "L1"
    width_mm: float = 240.0
    height_mm: float = 240.0
    pixel_mm: float = 1.25
    shift_mm: tuple[float, float] = (0.0, 0.0)  # of its middle from the usual place, x and y


@dataclass(frozen=True)
class SimulatedStudy:
    """One person scanned once. `volume` is the CT; the person lies at `offset_mm` in its LPS."""

    person: Person
    scanner: Scanner
    volume: Volume
    offset_mm: Floats

    def keypoints_mm(self) -> Floats:
        """Of all vertebrae, in the image or not, (n, 6, 3) LPS mm, cranial first."""
        return np.stack([b.keypoints_mm() for b in self.person.spine.bodies]) + self.offset_mm

    def truth(self) -> dict[str, Any]:
        """Curve and whole vertebrae in LPS mm, as JSON holds them; the cut ones by name; dose and slices."""
        geometry, keypoints = self.volume.geometry, self.keypoints_mm()
        bodies = zip(
            (b.level for b in self.person.spine.bodies), keypoints, is_whole(geometry, keypoints), strict=True
        )
        seen = [(level, k, whole) for level, k, whole in bodies if geometry.contains(k).any()]
        whole = [(level, k) for level, k, is_so in seen if is_so]
        cut = [level for level, _, is_so in seen if not is_so]
        ratios = [float(genant_ratio(heights_mm(k))) for _, k in whole]
        curve = self.person.spine.curve().points_mm + self.offset_mm
        curve = curve[self.volume.geometry.contains(curve)]
        return {
            "min_genant_ratio": round(min(ratios), 4) if ratios else None,
            "cut_levels": cut,
            "vertebrae": [_vertebra(level, k) for level, k in whole],
            "curve_mm": curve[::5].round(2).tolist(),
            "dose": "low dose" if self.scanner.noise_at_1_mm_hu > LOW_DOSE_FROM_HU else "standard",
            "slice_mm": round(self.scanner.slice_spacing_mm, 3),
        }


def simulate_study(
    rng: np.random.Generator, person: Person, scanner: Scanner, field_: Field | None = None
) -> SimulatedStudy:
    """Scan a person: slices of the scanner's thickness and spacing, HU in a Volume along LPS."""
    field_ = field_ or Field(pixel_mm=scanner.pixel_mm)
    z, y, x = _axes(person, scanner, field_)
    grid = SampleGrid(z, y, x)
    hu = finish(rng, paint_slices(person, z, y, x, scanner.slice_thickness_mm), grid, scanner)
    return _placed(rng, person, scanner, hu, grid)


def _placed(
    rng: np.random.Generator, person: Person, scanner: Scanner, hu: Floats, grid: SampleGrid
) -> SimulatedStudy:
    """The slices somewhere in the scanner's own millimetres."""
    z, y, x = grid.z_mm, grid.y_mm, grid.x_mm
    offset = np.array([*rng.uniform(-30, 30, 2), rng.uniform(-1500, 500)]).round(1)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = z[1] - z[0], y[1] - y[0], x[1] - x[0]
    affine[:3, 3] = offset + np.array([x[0], y[0], z[0]])
    affine[3, 3] = 1
    volume = Volume(np.rint(hu).astype(np.int16), VolumeGeometry(grid.shape, affine))
    return SimulatedStudy(person, scanner, volume, offset)


def simulate_cohort(out: Path, studies: int, seed: int, file_format: Format) -> None:
    """Write so many studies with deformities as frequent as in the paper, and `truth.json`."""
    truth = {}
    for i in range(studies):
        name = f"study_{seed}_{i:04d}"
        study = draw_study(seed, i)
        write = _nifti if file_format == "nifti" else _dicom
        truth[write(out, name, study, i)] = study.truth()
    _write_truth(out, truth)


def draw_study(seed: int, index: int) -> SimulatedStudy:
    """Study number `index` of the cohort of a seed."""
    rng = np.random.default_rng([seed, 2, index])
    person = draw_person(rng)
    scanner = replace(draw_scanner(rng), pixel_mm=rng.uniform(0.8, 1.4))
    return simulate_study(rng, person, scanner, _draw_field(rng, scanner))


@dataclass(frozen=True)
class Protocol:
    """How a cohort is scanned: range of slice thickness, mm, and range of noise at 1 mm, HU."""

    name: str
    slice_mm: tuple[float, float]
    noise_hu: tuple[float, float]

    def scanner(self, rng: np.random.Generator) -> Scanner:
        """A scanner like any other, but for slices side by side and the noise that goes with them."""
        slice_mm = rng.uniform(*self.slice_mm)
        noise = rng.uniform(*self.noise_hu) / np.sqrt(slice_mm)
        return replace(
            draw_scanner(rng), slice_thickness_mm=slice_mm, slice_spacing_mm=slice_mm, noise_hu=float(noise)
        )


LOW_DOSE_FROM_HU = 32.0  # noise of slices of 1 mm: between the two ranges below
STANDARD_HU, LOW_DOSE_HU = (12.0, 25.0), (40.0, 80.0)
SLICES_MM = {"1": (1.0, 1.5), "2": (1.8, 2.2), "3": (2.7, 3.3), "5": (4.8, 5.2)}
PROTOCOLS = {
    f"{name} mm, {dose}": Protocol(f"{name} mm, {dose}", slice_mm, noise)
    for name, slice_mm in SLICES_MM.items()
    for dose, noise in (("standard", STANDARD_HU), ("low dose", LOW_DOSE_HU))
}


def scan_patient(
    seed: int, index: int, protocols: Sequence[Protocol], cobb_deg: float | None = None
) -> Iterator[SimulatedStudy]:
    """Patient number `index` of a seed, painted once and scanned by each protocol: T1 to L1, 17 cm wide."""
    rng = np.random.default_rng([seed, 6, index])
    person = draw_person(rng, cobb_deg=cobb_deg)
    grid = _column_grid(person)
    parts = [slice(i, i + 48) for i in range(0, len(grid.z_mm), 48)]
    fine = np.concatenate(
        [paint(person.structures, SampleGrid(grid.z_mm[p], grid.y_mm, grid.x_mm)) for p in parts]
    )
    for protocol in protocols:
        scanner = protocol.scanner(rng)
        slices, z = acquire(rng, fine, grid, scanner)
        yield _placed(rng, person, scanner, slices, SampleGrid(z, grid.y_mm, grid.x_mm))


def _column_grid(person: Person) -> SampleGrid:
    levels = {b.level: b.center_mm[2] for b in person.spine.bodies}
    z = fine_planes(levels["L1"] - 22, levels["T1"] + 16)
    curve = person.spine.curve().points_mm
    x, y, _ = curve[(curve[:, 2] > z[0]) & (curve[:, 2] < z[-1])].mean(0)
    return SampleGrid(z, np.arange(y - 100, y + 65, 0.9), np.arange(x - 85, x + 85, 0.9))


def _draw_field(rng: np.random.Generator, scanner: Scanner) -> Field:
    """A chest or a part of it; in one scan of three the spine stands off the middle."""
    side = rng.uniform(170, 330)
    aside = rng.uniform(-0.35, 0.35, 2) * side if rng.random() < 0.33 else np.zeros(2)
    return Field(
        first=str(rng.choice(["C7", "T1", "T2", "T3"])),
        last=str(rng.choice(["T11", "T12", "L1", "L2"])),
        width_mm=side,
        height_mm=side,
        pixel_mm=scanner.pixel_mm,
        shift_mm=(float(aside[0]), float(np.clip(aside[1], -0.3 * side, 0.1 * side))),
    )


@dataclass(frozen=True)
class SamplePatient:
    """One patient of `sample_data/`."""

    name: str
    seed: int
    deformities: Deformities = field(default_factory=lambda: Deformities(0, 0, 0))
    slice_mm: float = 2.0


SAMPLE_PATIENTS = (
    SamplePatient("normal", 113),
    SamplePatient("moderate_wedge", 105, Deformities(0, 0, 0, forced=(("T8", "wedge", 0.66),))),
    SamplePatient("severe_biconcave", 111, Deformities(0, 0, 0, forced=(("T12", "biconcave", 0.5),))),
    SamplePatient("nifti", 192, Deformities(0, 0, 0, forced=(("T7", "wedge", 0.77),)), 2.5),
    SamplePatient("missing_slice", 15, slice_mm=3.0),
)


def simulate_sample(out: Path) -> None:
    """Write `sample_data/`: DICOM of three patients, one NIfTI, one series with a missing slice."""
    truth = {}
    for i, patient in enumerate(SAMPLE_PATIENTS):
        study = _sample_study(patient)
        write = _nifti if patient.name == "nifti" else _dicom
        source = write(out, patient.name, study, i)
        if patient.name == "missing_slice":
            (out / source / "IM0020").unlink()
        else:
            truth[source] = study.truth()
    _write_truth(out, truth)


def _sample_study(patient: SamplePatient) -> SimulatedStudy:
    rng = np.random.default_rng(patient.seed)
    person = draw_person(rng, patient.deformities, NOTHING, cobb_deg=5.0)
    scanner = Scanner(patient.slice_mm, patient.slice_mm, 1.4, 0.7, 0.0, 14.0, 0.8, 0.0)
    return simulate_study(rng, person, scanner, Field("T1", "L1", 200.0, 180.0, 1.4))


def _dicom(out: Path, name: str, study: SimulatedStudy, index: int) -> str:
    date = f"2020{index % 12 + 1:02d}{index % 28 + 1:02d}"
    write_dicom(out / name, study.volume, f"SIM-{name}", date, compress=True)
    return name


def _nifti(out: Path, name: str, study: SimulatedStudy, index: int) -> str:
    write_nifti(out / f"{name}.nii.gz", study.volume)
    return f"{name}.nii.gz"


def _write_truth(out: Path, truth: dict[str, Any]) -> None:
    (out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def _vertebra(level: str, keypoints: Floats) -> dict[str, Any]:
    heights = heights_mm(keypoints)
    ratio = float(genant_ratio(heights))
    return {
        "level": level,
        "heights_mm": heights.round(3).tolist(),
        "genant_ratio": round(ratio, 4),
        "grade": grade(ratio),
        "center_mm": keypoints.mean(0).round(3).tolist(),
        "keypoints_mm": dict(zip(KEYPOINTS, keypoints.round(3).tolist(), strict=True)),
    }


def _axes(person: Person, scanner: Scanner, field_: Field) -> Sequence[Floats]:
    """z of the slices and y, x of the pixels, mm, each ascending."""
    by_level = {b.level: b.keypoints_mm() for b in person.spine.bodies}
    top, bottom = by_level[field_.first][:, 2].max() + 4, by_level[field_.last][:, 2].min() - 6
    z = np.arange(bottom, top, scanner.slice_spacing_mm)
    center = person.spine.curve().points_mm
    middle = center[(center[:, 2] > bottom) & (center[:, 2] < top)].mean(0)
    x0 = middle[0] + field_.shift_mm[0]
    y0 = middle[1] + 70 - field_.height_mm / 2 + field_.shift_mm[1]
    y = np.arange(y0 - field_.height_mm / 2, y0 + field_.height_mm / 2, field_.pixel_mm)
    x = np.arange(x0 - field_.width_mm / 2, x0 + field_.width_mm / 2, field_.pixel_mm)
    return z, y, x
