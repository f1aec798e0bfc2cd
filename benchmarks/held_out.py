"""Accuracy on simulated studies that no training has seen, with 95 % intervals by patient.

    python benchmarks/held_out.py --studies 100 --seed 2020

Study i of a seed is drawn from the random numbers (seed, 2, i); training draws from (seed, step) and
(seed, 1, step), so a seed other than the weights' own shares nothing with it. What counts as what:

- A true vertebra is *whole* if the image shows its six keypoints, 1 mm round them, and 7 mm to both
  sides (`QualitySettings.edge_mm`, `StraightenSettings.margin_mm`): vfscreen measures no others.
- It is found if a detection's centre lies within 5 mm of its own and no other does so closer.
- A detection is not counted if the vertebra next to it, within 15 mm, is one cut by the image. Every
  other detection that finds none is false. In a study that fails, every whole vertebra is missed.
- The curve's error is the distance in the axial plane, at each mm of the true curve in the image.
- Errors of centres, heights and G, and the areas under the ROC curves by vertebra, are those of the
  vertebrae found. A patient is graded by the smallest G, true (whole vertebrae) and measured.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import mannwhitneyu

from vfscreen import load_models, provenance, screen
from vfscreen.errors import StudyError
from vfscreen.measure import MILD, MODERATE, genant_ratio, heights_mm
from vfscreen.networks.weights import Models
from vfscreen.settings import Settings
from vfscreen.simulation.cohort import SimulatedStudy, draw_study
from vfscreen.study import StudyResult
from vfscreen.volume import Floats, VolumeGeometry

MATCH_MM, CUT_MM = 5.0, 15.0
SPACINGS_MM = {"up to 1.5 mm": (0.0, 1.5), "1.5 to 3 mm": (1.5, 3.0), "over 3 mm": (3.0, np.inf)}
REPEATS = 1000

Figures = dict[str, float]


@dataclass(frozen=True)
class Score:
    """One study against its truth: n whole vertebrae, of which k were found."""

    index: int
    spacing_mm: float
    true_ratios: Floats  # (n,)
    status: str
    doubts: tuple[str, ...] = ()
    seconds: float = 0.0
    curve_error_mm: Floats = field(default_factory=lambda: np.empty(0))
    curve_covered: float = 0.0
    found: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))  # (k,) which were found
    center_error_mm: Floats = field(default_factory=lambda: np.empty(0))  # (k,)
    height_error_mm: Floats = field(default_factory=lambda: np.empty((0, 3)))  # (k, 3), signed
    ratios: Floats = field(default_factory=lambda: np.empty(0))  # (k,) measured
    n_false: int = 0
    min_ratio: float | None = None


def main(
    studies: Annotated[int, typer.Option(help="Studies to draw.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the cohort; not one that training used.")] = 2020,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    out: Annotated[Path, typer.Option(help="All figures, as JSON.")] = Path("held_out.json"),
) -> None:
    about = _about(weights, seed)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        found = pool.map(partial(score_study, weights, seed), range(studies))
        scores = list(track(found, "screening", studies))
    groups = {"all": scores} | {
        name: [s for s in scores if low < s.spacing_mm <= high] for name, (low, high) in SPACINGS_MM.items()
    }
    figures = {name: with_intervals(group) for name, group in groups.items()}
    report = {**about, **counts(scores), "figures": figures, "studies": [_row(s) for s in scores]}
    out.write_text(json.dumps(report, indent=1) + "\n")
    _show(Console(width=120), figures, {name: len(group) for name, group in groups.items()}, report)


def score_study(weights: Path | None, seed: int, index: int) -> Score:
    """Draw one study, screen it and compare."""
    models = _models(weights)
    study = draw_study(seed, index)
    start = time.perf_counter()
    try:
        result = screen(study.volume, models)
    except StudyError as error:
        return Score(index, _spacing_mm(study), _whole_ratios(study), error.code)
    return compare(index, study, result, time.perf_counter() - start)


def compare(index: int, study: SimulatedStudy, result: StudyResult, seconds: float) -> Score:
    keypoints = _keypoints(study)
    whole = is_whole(study.volume.geometry, keypoints)
    pairs, n_false = match(np.array([v.center_mm for v in result.vertebrae]), keypoints.mean(1), whole)
    found = [result.vertebrae[i] for i, _ in pairs]
    true = [j for _, j in pairs]
    centers = np.array([v.center_mm for v in found]).reshape(-1, 3)
    heights = np.array([v.heights_mm for v in found]).reshape(-1, 3)
    curve_error, covered = curve_error_mm(result.curve_mm, _curve_mm(study))
    return Score(
        index,
        _spacing_mm(study),
        _whole_ratios(study),
        result.status,
        tuple(doubt.name for doubt in result.doubts),
        seconds,
        curve_error,
        covered,
        found=np.searchsorted(np.flatnonzero(whole), true),
        center_error_mm=np.linalg.norm(centers - keypoints[true].mean(1), axis=-1),
        height_error_mm=heights - heights_mm(keypoints[true]),
        ratios=np.array([v.genant_ratio for v in found]),
        n_false=n_false,
        min_ratio=result.min_genant_ratio,
    )


def match(centers: Floats, true: Floats, whole: NDArray[np.bool_]) -> tuple[list[tuple[int, int]], int]:
    """Pairs (detection, whole vertebra), and the number of false detections, by the rules above."""
    distances = np.linalg.norm(centers.reshape(-1, 1, 3) - true[None], axis=-1)
    nearest = distances.argmin(1)
    pairs: list[tuple[int, int]] = []
    n_false = 0
    for i in distances.min(1).argsort():
        j, distance = nearest[i], distances[i, nearest[i]]
        if whole[j] and distance <= MATCH_MM and j not in [known for _, known in pairs]:
            pairs.append((int(i), int(j)))
        elif whole[j] or distance > CUT_MM:
            n_false += 1
    return pairs, n_false


def is_whole(geometry: VolumeGeometry, keypoints: Floats) -> NDArray[np.bool_]:
    """Which vertebrae (n, 6, 3) the image shows whole, (n,)."""
    settings = Settings()
    side, edge = settings.straighten.margin_mm, settings.quality.edge_mm
    round_mm = np.array(list(product((-side, side), (-edge, edge), (-edge, edge))))
    return np.asarray(geometry.contains(keypoints[:, :, None] + round_mm).all((1, 2)))


def curve_error_mm(found: Floats, true: Floats) -> tuple[Floats, float]:
    """Distances in the axial plane where both curves run, and the share of the true curve where they do."""
    up = found[found[:, 2].argsort()]
    both = (true[:, 2] >= up[0, 2]) & (true[:, 2] <= up[-1, 2])
    xy = np.column_stack([np.interp(true[both, 2], up[:, 2], up[:, axis]) for axis in (0, 1)])
    return np.linalg.norm(xy - true[both, :2], axis=1), float(both.mean())


def figures_of(scores: Sequence[Score]) -> Figures:
    """Every figure of some studies; NaN where they cannot give it."""
    curve = _joined([s.curve_error_mm for s in scores])
    center = _joined([s.center_error_mm for s in scores])
    heights = np.concatenate([np.empty((0, 3)), *[s.height_error_mm for s in scores]])
    true = _joined([s.true_ratios for s in scores])
    matched = _joined([s.true_ratios[s.found] for s in scores])
    ratios = _joined([s.ratios for s in scores])
    patients = [s for s in scores if s.min_ratio is not None and len(s.true_ratios)]
    smallest = np.array([s.true_ratios.min() for s in patients])
    measured = np.array([s.min_ratio for s in patients], float)
    deformed = matched <= MODERATE
    return {
        "curve error, mean, mm": _mean(curve),
        "curve error, median, mm": float(np.median(curve)) if len(curve) else np.nan,
        "curve covered": _mean(np.array([s.curve_covered for s in scores])),
        "recall": _share(len(matched), len(true)),
        "recall, G <= 0.74": _share(deformed.sum(), (true <= MODERATE).sum()),
        "precision": _share(len(matched), len(matched) + sum(s.n_false for s in scores)),
        "centre error, mean, mm": _mean(center),
        "centre error, SD, mm": float(center.std()) if len(center) else np.nan,
        "centre error, G <= 0.74, mean, mm": _mean(center[deformed]),
        "height error, mean absolute, mm": _mean(np.abs(heights)),
        "height error, mean signed, mm": _mean(heights),
        "G error, mean absolute": _mean(np.abs(ratios - matched)),
        "G error, mean signed": _mean(ratios - matched),
        "G correlation": _correlation(matched, ratios),
        "ROC AUC by vertebra, G <= 0.8": roc_auc(-ratios, matched <= MILD),
        "ROC AUC by vertebra, G <= 0.74": roc_auc(-ratios, deformed),
        "ROC AUC by patient, G <= 0.74": roc_auc(-measured, smallest <= MODERATE),
    }


def roc_auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores higher than a negative (Mann and Whitney)."""
    n = positive.sum() * (~positive).sum()
    if not n:
        return float("nan")
    return float(mannwhitneyu(scores[positive], scores[~positive], method="asymptotic").statistic / n)


def with_intervals(scores: Sequence[Score]) -> dict[str, list[float | None]]:
    """Each figure with its 2.5th and 97.5th percentile over draws of as many patients, with repetition."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(scores), len(scores)) for _ in range(REPEATS)] if scores else []
    repeated = [figures_of([scores[i] for i in draw]) for draw in draws]
    result = {}
    for name, value in figures_of(scores).items():
        known = [r[name] for r in repeated if not np.isnan(r[name])]
        interval = np.percentile(known, (2.5, 97.5)) if known else (np.nan, np.nan)
        result[name] = [None if np.isnan(v) else round(float(v), 4) for v in (value, *interval)]
    return result


def counts(scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "statuses": dict(Counter(s.status for s in scores)),
        "doubts": dict(Counter(doubt for s in scores for doubt in s.doubts)),
        "whole_vertebrae": sum(len(s.true_ratios) for s in scores),
        "whole_vertebrae_deformed": int(sum((s.true_ratios <= MODERATE).sum() for s in scores)),
        "patients_deformed": sum(bool((s.true_ratios <= MODERATE).any()) for s in scores),
    }


@cache
def _models(weights: Path | None) -> Models:
    """Loaded once by each process, which works on one thread: there are as many as CPUs."""
    torch.set_num_threads(1)
    return load_models(weights, "cpu")


def _about(weights: Path | None, seed: int) -> dict[str, Any]:
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


def _keypoints(study: SimulatedStudy) -> Floats:
    """Of all true vertebrae, in the image or not, (n, 6, 3) LPS mm."""
    return np.stack([b.keypoints_mm() for b in study.person.spine.bodies]) + study.offset_mm


def _whole_ratios(study: SimulatedStudy) -> Floats:
    keypoints = _keypoints(study)
    return genant_ratio(heights_mm(keypoints[is_whole(study.volume.geometry, keypoints)]))


def _curve_mm(study: SimulatedStudy) -> Floats:
    curve = study.person.spine.curve().points_mm + study.offset_mm
    return curve[study.volume.geometry.contains(curve)]


def _spacing_mm(study: SimulatedStudy) -> float:
    return float(study.volume.geometry.voxel_sizes_mm[0])


def _joined(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate([np.empty(0), *arrays])


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() and b.std() else float("nan")


def _row(score: Score) -> dict[str, Any]:
    """What to look a study up by: it is `draw_study(seed, index)`."""
    curve = _mean(score.curve_error_mm)
    return {
        "index": score.index,
        "status": score.status,
        "doubts": score.doubts,
        "slice_spacing_mm": round(score.spacing_mm, 2),
        "whole": len(score.true_ratios),
        "found": len(score.found),
        "false": score.n_false,
        "curve_error_mm": None if np.isnan(curve) else round(curve, 2),
        "true_min_ratio": round(float(score.true_ratios.min()), 3) if len(score.true_ratios) else None,
        "min_ratio": None if score.min_ratio is None else round(score.min_ratio, 3),
        "seconds": round(score.seconds, 2),
    }


def _show(
    console: Console,
    figures: dict[str, dict[str, list[float | None]]],
    sizes: dict[str, int],
    report: dict[str, Any],
) -> None:
    table = Table("", *(f"{name} ({size})" for name, size in sizes.items()))
    for name in figures["all"]:
        table.add_row(name, *_cells(name, figures))
    console.print(table)
    for name in ("statuses", "doubts", "whole_vertebrae", "whole_vertebrae_deformed", "patients_deformed"):
        console.print(f"{name}: {report[name]}", highlight=False)


def _cells(name: str, figures: dict[str, dict[str, list[float | None]]]) -> Iterator[str]:
    for group, of_group in figures.items():
        value, low, high = of_group[name]
        if value is None:
            yield "-"
        elif group == "all" and low is not None:
            yield f"{value:.3f} ({low:.3f} to {high:.3f})"
        else:
            yield f"{value:.3f}"


if __name__ == "__main__":
    typer.run(main)
