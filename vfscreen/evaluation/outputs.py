"""The files of an evaluation: metrics.json, metrics.csv, figures as SVG, and the page."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vfscreen import __version__
from vfscreen.errors import InputError
from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.experts import ExpertsReport
from vfscreen.evaluation.intervals import SEED
from vfscreen.evaluation.page import page
from vfscreen.evaluation.plots import DRAWN, draw
from vfscreen.whole_files import write_whole

ABOUT = ("versions", "weights", "settings")
"""What of run.json stands beside the figures: no path, which may tell of patients and users."""


def write_evaluation(evaluation: Evaluation, out: Path, about: Mapping[str, Any]) -> None:
    """Write all files into `out`, which is made; each appears whole or not at all.

    Those of an earlier evaluation that this one cannot give are removed. `about` tells of the run (versions,
    weights and their hashes, settings) and must be JSON. Raises OSError when the disk refuses.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = draw(evaluation)
    contents = {f"{name}.svg": svg for name, svg in pictures.items()}
    contents["metrics.csv"] = evaluation.figures.to_csv(index=False).encode()
    if evaluation.differences is not None:
        contents["differences.csv"] = evaluation.differences.to_csv(index=False).encode()
    contents["evaluation.html"] = page(evaluation, pictures, about).encode()
    contents["metrics.json"] = _as_json(metrics(evaluation, about))
    for name, content in contents.items():
        write_whole(out / name, content)
    for name in {"differences.csv", *(f"{picture}.svg" for picture in DRAWN)} - set(contents):
        (out / name).unlink(missing_ok=True)


def write_experts(report: ExpertsReport, out: Path) -> None:
    """Write metrics.json and metrics.csv of experts into `out`, which is made. Raises OSError as above."""
    out.mkdir(parents=True, exist_ok=True)
    rows = report.rows()
    content = {
        "vfscreen": __version__,
        "studies": report.studies,
        "readings": report.readings,
        "studies with one reader": report.one_reader,
        "studies with a known in-plane spacing": report.spacing_found,
        "bootstrap": {"repeats": report.repeats, "seed": SEED, "of": "patients"},
        "figures": rows,
    }
    write_whole(out / "metrics.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    write_whole(out / "metrics.json", _as_json(content))


def about_run(results: Path) -> dict[str, Any]:
    """What run.json tells of how results were made; nothing where there is none, as of another tool's.

    Raises InputError where it cannot be read.
    """
    try:
        content = json.loads((results / "run.json").read_text(encoding="utf-8"))
        return {name: content[name] for name in ABOUT if name in content}
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{results / 'run.json'} cannot be read ({error}); give the folder of a run"
        ) from error


def metrics(evaluation: Evaluation, about: Mapping[str, Any]) -> dict[str, Any]:
    """The content of metrics.json; what cannot be computed is null, with its `n`.

    `vfscreen summarize` takes from it the figures of `table 2`, group `all`: `sensitivity by patient, mild`
    and its like.
    """
    return {
        "vfscreen": __version__,
        "about": dict(about),
        "counts": dict(evaluation.counts),
        "bootstrap": {"repeats": evaluation.repeats, "seed": SEED, "of": "patients"},
        "figures": _records(evaluation.figures),
        "differences": None if evaluation.differences is None else _records(evaluation.differences),
        "confusion": evaluation.confusion.to_dict("index"),
        "roc": _records(evaluation.roc),
        "free_response": _records(evaluation.free_response),
    }


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    finite = table.replace([float("inf"), float("-inf")], float("nan")).astype(object)
    return finite.where(finite.notna(), None).to_dict("records")
