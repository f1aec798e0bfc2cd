"""What each repeated look and each padding voxel costs and gives: accuracy by time without new training.

    python benchmarks/settings_curve.py --patients 60 --workers 2 --out settings_curve.json

Simulated patients that no training has seen (those of `held_out.py`), each scanned in 1 to 1.5 mm and in 3
mm slices, are measured with each variant of the settings. The scans are the same for all, so that
differences are taken by patient. Seconds are those of the processor from the volume to the result, without
reading.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import held_out
import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vfscreen import localize, provenance, screen
from vfscreen.errors import StudyError
from vfscreen.evaluation.figures import with_intervals
from vfscreen.settings import DetectSettings, RefineSettings, Settings
from vfscreen.simulation.cohort import PROTOCOLS, scan_patient
from vfscreen.study import HEIGHTS, StudyResult
from vfscreen.training.calibration import models_of_process
from vfscreen.volume import Volume, VolumeGeometry

Integers = NDArray[np.int32]

PROTOCOL_NAMES = ("1 mm, standard", "3 mm, standard")
SHIPPED = Settings()
FIGURES = (
    "recall",
    "precision",
    "height error, mm",
    "G error",
    "AUC by vertebra, moderate",
    "AUC by patient, moderate",
    "coverage of G",
)


@dataclass(frozen=True)
class Variant:
    """Settings, the multiple to which the localizer's input is padded, halvings of the pixels in-plane."""

    settings: Settings = SHIPPED
    padding: int = localize.PADDING
    halvings: int = 0


DETECTOR_LOOKS = ((0, 0), (5, 3), (10, 7), (15, 12))
REFINER_LOOKS_MM = ((0.15, 0.15, 0), (-0.45, 0.45, 1), (0.45, -0.45, -1))


def _looks(detector: int, second: int) -> Settings:
    """The first looks of the detector, and the last ones of the refiner, which lie round the middle."""
    looks_mm = REFINER_LOOKS_MM[-second:] if second > 1 else ((0.0, 0.0, 0.0),)
    refine = RefineSettings(looks_mm=looks_mm)
    return replace(SHIPPED, detect=DetectSettings(looks=DETECTOR_LOOKS[:detector]), refine=refine)


VARIANTS = {
    "shipped": Variant(),
    "detector looks 4 times, refiner 3": Variant(_looks(4, 3)),
    "the same, padding to 16 voxels": Variant(_looks(4, 3), padding=16),
    "refiner looks 3 times": Variant(_looks(2, 3)),
    "refiner looks once": Variant(_looks(2, 1)),
    "detector looks 4 times": Variant(_looks(4, 2)),
    "detector looks once": Variant(_looks(1, 2)),
    "padding to 16 voxels": Variant(padding=16),
    "both look once": Variant(_looks(1, 1)),
    "JPEG 2000 at half resolution": Variant(halvings=1),
    "JPEG 2000 at a quarter": Variant(halvings=2),
    "no refiner": Variant(replace(SHIPPED, refine=RefineSettings(enabled=False))),
}


def halved(volume: Volume) -> Volume:
    """The pixels in-plane as a decoder of JPEG 2000 gives them when it leaves out the finest level."""
    hu, affine = volume.hu.astype(np.int32), volume.geometry.affine.copy()
    for axis in (1, 2):
        hu = np.swapaxes(_low_pass(np.swapaxes(hu, axis, 2)), axis, 2)
        affine[:3, axis] *= 2  # the first pixel stays where it is
    return Volume(hu.astype(np.int16), VolumeGeometry(hu.shape, affine))


def _low_pass(hu: Integers) -> Integers:
    """Every other value along the last axis by the reversible 5/3 wavelet (ISO/IEC 15444-1, annex F)."""
    even, odd = hu[..., ::2], hu[..., 1::2]
    following = np.concatenate([even[..., 1:], even[..., -1:]], -1)[..., : odd.shape[-1]]
    detail = odd - (even[..., : odd.shape[-1]] + following) // 2
    padded = np.concatenate([detail[..., :1], detail, detail[..., -1:]], -1)
    n = even.shape[-1]
    return even + (padded[..., :n] + padded[..., 1 : n + 1] + 2) // 4


def main(
    patients: Annotated[int, typer.Option(help="Patients to draw.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the cohort; not one that training used.")] = 2020,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    variants: Annotated[list[str] | None, typer.Option(help="Beside the shipped one; all.")] = None,
    out: Annotated[Path, typer.Option(help="Figures, as JSON.")] = Path("settings_curve.json"),
) -> None:
    names = ["shipped", *(variants or list(VARIANTS)[1:])]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        found = pool.map(partial(score_patient, weights, seed, names), range(patients))
        rows = [row for scores in track(found, "screening", patients) for row in scores]
    table = pd.DataFrame(rows)
    figures = [
        row_of(table[table.protocol == protocol], protocol, variant)
        for protocol in PROTOCOL_NAMES
        for variant in names
    ]
    about = {"patients": patients, "seed": seed, "machine": provenance.machine()}
    out.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")
    show(Console(width=180), figures)


def score_patient(weights: Path | None, seed: int, names: list[str], index: int) -> list[dict[str, Any]]:
    """Every whole vertebra of a patient's scans, and every false one, by each variant."""
    models = models_of_process(weights)
    cobb = held_out.PATIENT_COBB_DEG[index % len(held_out.PATIENT_COBB_DEG)]
    scans = scan_patient(seed, index, [PROTOCOLS[name] for name in PROTOCOL_NAMES], cobb)
    rows: list[dict[str, Any]] = []
    for protocol, study in zip(PROTOCOL_NAMES, scans, strict=True):
        scan = held_out.Scan(study, {"patient": index, "scan": f"{index} {protocol}", "protocol": protocol})
        for name, variant in ((name, VARIANTS[name]) for name in names):
            localize.PADDING = variant.padding
            volume = study.volume
            for _ in range(variant.halvings):
                volume = halved(volume)
            start = time.process_time()
            result: StudyResult | None = None
            with suppress(StudyError):
                result = screen(volume, models, variant.settings)
            cpu_s = time.process_time() - start
            rows += [{**row, "cpu_s": cpu_s} for row in held_out.compare(scan, name, result)]
    return rows


def row_of(table: pd.DataFrame, protocol: str, variant: str) -> dict[str, Any]:
    own, shipped = (table[table.method == name] for name in (variant, "shipped"))
    figures = with_intervals(own, repeats=200)
    errors = {name: _by_patient(own, name) - _by_patient(shipped, name) for name in ("height", "ratio")}
    return {
        "protocol": protocol,
        "variant": variant,
        "cpu_s": float(own.groupby("scan").cpu_s.first().median()),
        **{name: [float(v) for v in figures.loc[name]] for name in FIGURES},
        **{f"{name} against shipped": [float(d.mean()), float(d.sem())] for name, d in errors.items()},
    }


def _by_patient(table: pd.DataFrame, name: str) -> pd.Series:
    """Mean absolute error of the heights in mm, or of G, of each patient."""
    columns = [f"{height}_mm" for height in HEIGHTS] if name == "height" else ["ratio"]
    errors = np.stack([np.abs(table[column] - table[f"true_{column}"]) for column in columns], -1).mean(-1)
    return pd.Series(errors, table.index).groupby(table.patient).mean()


def show(console: Console, figures: list[dict[str, Any]]) -> None:
    for protocol in PROTOCOL_NAMES:
        differences = ("height against shipped", "ratio against shipped")
        table = Table("variant", "CPU s", *FIGURES, *differences, title=protocol)
        for row in (row for row in figures if row["protocol"] == protocol):
            values = (f"{row[name][0]:.3f} ({row[name][1]:.3f}-{row[name][2]:.3f})" for name in FIGURES)
            against = (f"{row[name][0]:+.4f} ({row[name][1]:.4f})" for name in differences)
            table.add_row(row["variant"], f"{row['cpu_s']:.3f}", *values, *against)
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
