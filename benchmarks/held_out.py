"""Accuracy on simulated patients that no training has seen, with 95 % intervals by patient.

    python benchmarks/held_out.py --patients 200 --seed 2020

Patient i of a seed is drawn from the random numbers (seed, 6, i), which no training uses, and calibration
only from i = 100,000 on; deformities are as frequent as in the paper's data, and every fourth patient has a
scoliosis of 30 or 50 degrees. Each is scanned in 1 to 1.5 mm slices at standard and at low dose, and in 2, 3
and 5 mm slices at one of both (`simulation.cohort.PROTOCOLS`), and each scan is measured twice, by the
paper's own keypoints and with the second look. What counts as found, false and whole stands in
`vfscreen.evaluation.matching`. In a study that fails, every whole vertebra is missed. A patient is graded
by the smallest G of all that was measured, false detections included. `thin/` holds what `vfscreen evaluate`
would say of the scans in thin slices, by dose.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vfscreen import load_models, provenance
from vfscreen.curve import SpineCurve
from vfscreen.evaluation.evaluation import evaluate
from vfscreen.evaluation.figures import with_intervals
from vfscreen.evaluation.matching import is_whole, match
from vfscreen.evaluation.outputs import write_evaluation
from vfscreen.evaluation.terminal import terminal_tables
from vfscreen.localize import localize, localizer_input
from vfscreen.measure import MODERATE, genant_ratio, heights_mm, probability_at_most, ratio_interval
from vfscreen.networks.weights import Models
from vfscreen.screening import measure_studies
from vfscreen.settings import RefineSettings, Settings
from vfscreen.simulation.cohort import PROTOCOLS, SimulatedStudy, scan_patient
from vfscreen.straighten import straightened
from vfscreen.study import HEIGHTS, StudyHeader, StudyResult, Vertebra
from vfscreen.training.calibration import models_of_process

METHODS = {"paper": Settings(refine=RefineSettings(enabled=False)), "second look": Settings()}
REPEATS = 400  # of the bootstrap
COBB_DEG = (0, 10, 20, 40, 70)
PATIENT_COBB_DEG = (None, None, None, 30.0, None, None, None, 50.0)  # every fourth one has a scoliosis

Row = dict[str, Any]


@dataclass(frozen=True)
class Scan:
    """A simulated study, which knows its truth, and what its rows say of it."""

    study: SimulatedStudy
    about: Row  # patient, scan, protocol, Cobb's angle


def main(
    patients: Annotated[int, typer.Option(help="Patients to draw.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the cohort; not one that training used.")] = 2020,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder: every vertebra, and all figures.")] = Path("held_out"),
) -> None:
    about = _about(weights, seed)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        found = pool.map(partial(score_patient, weights, seed), range(patients))
        rows = [row for scores in track(found, "screening", patients) for row in scores]
        table = pd.DataFrame(rows)
        out.mkdir(parents=True, exist_ok=True)
        table.to_parquet(out / "vertebrae.parquet")
        report(table, out, about, pool)
    thin = table[(table.method == "second look") & table.protocol.str.startswith("1 mm")]
    evaluation = evaluate(thin.assign(patient=thin.patient.astype(str)))
    write_evaluation(evaluation, out / "thin", about)
    for each in terminal_tables(evaluation):
        Console(width=150).print(each)


def report(table: pd.DataFrame, out: Path, about: Row, pool: ProcessPoolExecutor) -> None:
    """Figures by protocol, and by what else may matter, as JSON and on the terminal."""
    console = Console(width=150)
    figures: dict[str, Any] = {}
    second = table[table.method == "second look"]
    thin = second[second.protocol.str.startswith("1 mm")]
    for name, groups in {
        "paper's keypoints": _by(table[table.method == "paper"], "protocol"),
        "second look": _by(second, "protocol"),
        "second look, 1 mm, by Cobb's angle": _by(thin, "cobb"),
        "second look, 1 mm, by deformity": _by(_true(thin), "kind"),
        "second look, 1 mm, by finding": _by_finding(_true(thin)),
        "second look, by dose": _by(second, "dose"),
    }.items():
        found = pool.map(partial(with_intervals, repeats=REPEATS), groups.values())
        of_group = dict(zip(groups, found, strict=True))
        _show(console, name, of_group)
        figures[name] = {group: _as_json(each) for group, each in of_group.items()}
    (out / "figures.json").write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


def _true(table: pd.DataFrame) -> pd.DataFrame:
    """Without false detections, which have no deformity and no finding."""
    return table[~table.is_false]


def _by(table: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    return {str(name): part for name, part in table.groupby(column, sort=False) if len(part)}


def _by_finding(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    names = sorted({name for findings in table.findings for name in findings.split()})
    groups = {"none": table[table.findings == ""]}
    return groups | {name: table[table.findings.str.split().map(lambda f, n=name: n in f)] for name in names}


def protocols_of(index: int) -> list[str]:
    """How a patient is scanned: thin at both doses, thicker slices at one of them in turn."""
    dose = ("standard", "low dose")[index // 8 % 2]  # with scoliosis or without
    return ["1 mm, standard", "1 mm, low dose", *(f"{mm} mm, {dose}" for mm in (2, 3, 5))]


def score_patient(weights: Path | None, seed: int, index: int) -> list[Row]:
    """The rows of one patient: every whole vertebra of each scan by each method, and false detections."""
    models = models_of_process(weights)
    cobb = PATIENT_COBB_DEG[index % len(PATIENT_COBB_DEG)]
    protocols = protocols_of(index)
    scans = scan_patient(seed, index, [PROTOCOLS[name] for name in protocols], cobb)
    rows: list[Row] = []
    for protocol, study in zip(protocols, scans, strict=True):
        about = {
            "patient": index,
            "scan": f"{index} {protocol}",
            "protocol": protocol,
            "dose": protocol.split(", ")[1],
            "slice_mm": float(study.volume.geometry.voxel_sizes_mm[0]),
            "cobb": str(pd.cut([study.person.spine.cobb_deg], COBB_DEG, right=False)[0]),
        }
        rows += score(Scan(study, about), models)
    return rows


def score(scan: Scan, models: Models) -> list[Row]:
    """One scan measured by each method; the spine is localized once."""
    volume, settings = scan.study.volume, Settings()
    start = time.perf_counter()
    curve = localize([localizer_input(volume, settings.localize)], models.localizer, settings.localize)[0]
    if not isinstance(curve, SpineCurve):
        return [row for method in METHODS for row in compare(scan, method, None)]
    along = straightened(volume, curve, settings.straighten)
    header = StudyHeader(slice_spacing_mm=float(volume.geometry.voxel_sizes_mm[0]))
    before = time.perf_counter() - start
    rows: list[Row] = []
    for method, method_settings in METHODS.items():
        start = time.perf_counter()
        result = measure_studies([(header, along)], models, method_settings)[0].result
        seconds = before + time.perf_counter() - start
        rows += [{**row, "seconds": seconds} for row in compare(scan, method, result)]
    return rows


def compare(scan: Scan, method: str, result: StudyResult | None) -> Iterator[Row]:
    """A row for each whole vertebra, found or not, and for each false detection."""
    study, bodies = scan.study, scan.study.person.spine.bodies
    keypoints = study.keypoints_mm()
    whole = is_whole(study.volume.geometry, keypoints)
    vertebrae = result.vertebrae if result else ()
    centers = np.array([v.center_mm for v in vertebrae]).reshape(-1, 3)
    pairs, false = match(centers, keypoints.mean(1), whole)
    found = {j: vertebrae[i] for i, j in pairs}
    about = {
        **scan.about,
        "method": method,
        "status": result.status if result else "spine_not_found",
        "scan_ratio": result.min_genant_ratio if result else None,
    }
    for j in np.flatnonzero(whole):
        true = heights_mm(keypoints[j])
        yield {
            **about,
            "is_false": False,
            "level": bodies[j].level,
            "kind": bodies[j].kind or "normal",
            "findings": " ".join(sorted(bodies[j].findings)),
            "true_ratio": float(genant_ratio(true)),
            **{f"true_{h}_mm": float(mm) for h, mm in zip(HEIGHTS, true, strict=True)},
            "found": j in found,
            **(_measured(found[j], keypoints[j].mean(0)) if j in found else {}),
        }
    for i in false:
        measured = _measured(vertebrae[i], np.nan)
        yield {**about, **measured, "is_false": True, "found": False, "findings": "", "kind": "false"}


def _measured(vertebra: Vertebra, true_center: Any) -> Row:
    sd = vertebra.height_sd_mm if vertebra.height_sd_mm is not None else np.full(3, np.nan)
    return {
        "center_error_mm": float(np.linalg.norm(vertebra.center_mm - true_center)),
        "ratio": vertebra.genant_ratio,
        **_uncertainty(vertebra),
        "score": vertebra.score,
        **{f"{h}_mm": float(mm) for h, mm in zip(HEIGHTS, vertebra.heights_mm, strict=True)},
        **{f"{h}_sd_mm": float(mm) for h, mm in zip(HEIGHTS, sd, strict=True)},
        "doubts": " ".join(vertebra.doubts),
    }


def _uncertainty(vertebra: Vertebra) -> Row:
    sd, ratio = vertebra.genant_ratio_sd, vertebra.genant_ratio
    if sd is None:
        return dict.fromkeys(("ratio_sd", "ratio_low", "ratio_high", "probability_moderate"), np.nan)
    low, high = ratio_interval(ratio, sd)
    probability = probability_at_most(MODERATE, ratio, sd)
    return {"ratio_sd": sd, "ratio_low": low, "ratio_high": high, "probability_moderate": probability}


def _about(weights: Path | None, seed: int) -> Row:
    made = dict(load_models(weights, "cpu").provenance)
    trained = {name: about.get("seed") for name, about in made.items()}
    if seed in trained.values():
        raise typer.BadParameter(f"the weights were trained with this seed: {trained}", param_hint="--seed")
    return {
        "seed": seed,
        "weights": made,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


def _as_json(figures: pd.DataFrame) -> dict[str, list[float | None]]:
    return {
        name: [None if np.isnan(v) else round(float(v), 4) for v in row]
        for name, row in zip(figures.index, figures.to_numpy(), strict=True)
    }


def _show(console: Console, title: str, groups: dict[str, pd.DataFrame]) -> None:
    table = Table("", *groups, title=title)
    for name in next(iter(groups.values())).index:
        table.add_row(name, *(_cell(each.loc[name]) for each in groups.values()))
    console.print(table)


def _cell(figure: pd.Series) -> str:
    if np.isnan(figure.value):
        return "-"
    if figure.value > 100:
        return f"{figure.value:.0f}"
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


if __name__ == "__main__":
    typer.run(main)
