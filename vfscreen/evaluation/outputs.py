"""The files of an evaluation: metrics.json, metrics.csv, figures as SVG, and the page."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vfscreen import __version__
from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.intervals import SEED
from vfscreen.evaluation.page import page
from vfscreen.evaluation.plots import DRAWN, draw
from vfscreen.whole_files import write_whole


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
    contents["metrics.json"] = (
        json.dumps(metrics(evaluation, about), indent=1, allow_nan=False) + "\n"
    ).encode()
    for name, content in contents.items():
        write_whole(out / name, content)
    for name in {"differences.csv", *(f"{picture}.svg" for picture in DRAWN)} - set(contents):
        (out / name).unlink(missing_ok=True)


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


def _records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    finite = table.replace([float("inf"), float("-inf")], float("nan")).astype(object)
    return finite.where(finite.notna(), None).to_dict("records")
