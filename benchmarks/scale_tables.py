"""How long does a run of 100,000 studies take to finish its tables, and to find what it holds already?

    python benchmarks/scale_tables.py --studies 10000 --studies 100000 --out scale.json

The studies are made up, 13 vertebrae each and 50 studies a part, as a run leaves them; 15 % are flagged and
2 % failed. Each step has a process of its own, whose peak memory is given; `start` only imports. The parts
come from the memory of the system: no disk is measured.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from vfscreen.measure import MODERATE
from vfscreen.results import STUDIES, VERTEBRAE, consolidate, finished_studies
from vfscreen.results.parts import write_part

STUDIES_A_PART = 50
VERTEBRAE_A_STUDY = 13
STUDIES_A_PATIENT = 2.5
FAILED, FLAGGED = 0.02, 0.15
TABLES = ("studies", "vertebrae", "patients")
GRADES = ("severe", "moderate", "mild", "normal")
GRADE_LIMITS = (0.6, MODERATE, 0.8)


@dataclass(frozen=True)
class Cost:
    """What a step took."""

    seconds: float
    peak_mib: float


def main(
    studies: Annotated[list[int] | None, typer.Option(min=1, help="Once for each size.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is made up.")] = 7,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    figures = [measured(n, seed) for n in studies or [10_000, 100_000]]
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    _show(Console(), figures)


def measured(studies: int, seed: int) -> dict[str, Any]:
    """Rows and MiB of the tables, and the cost of each step, for so many studies."""
    steps: dict[str, Callable[[Path], object]] = {
        "start": _do_nothing,
        "write the parts": partial(write_parts, studies=studies, seed=seed),
        "finished_studies": finished_studies,
        "consolidate": consolidate,
    }
    with tempfile.TemporaryDirectory(prefix="vfscreen-scale-") as folder:
        results = Path(folder)
        (results / "parts").mkdir()
        costs = {name: asdict(cost(step, results)) for name, step in steps.items()}
        files = {name: results / f"{name}.parquet" for name in TABLES}
        rows = {name: pq.read_metadata(path).num_rows for name, path in files.items()}
        mib = {name: path.stat().st_size / 2**20 for name, path in files.items()}
    return {"studies": studies, "rows": rows, "mib": mib, "costs": costs}


def cost(step: Callable[[Path], object], results: Path) -> Cost:
    """Of a step in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_timed, step, results).result()


def _timed(step: Callable[[Path], object], results: Path) -> Cost:
    start = time.perf_counter()
    step(results)
    seconds = time.perf_counter() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return Cost(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def _do_nothing(results: Path) -> None:
    pass


# --- parts that are made up ----------------------------------------------------------------------


def write_parts(results: Path, studies: int, seed: int) -> None:
    """So many studies as the parts of a run."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(studies)  # readers finish in another order than they start
    for number, first in enumerate(range(0, studies, STUDIES_A_PART), start=1):
        of_studies, of_vertebrae = part(rng, order[first : first + STUDIES_A_PART])
        write_part(results / "parts" / f"{number:06d}", of_studies, of_vertebrae)


def part(rng: np.random.Generator, numbers: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """Studies of these numbers, and their vertebrae."""
    ratios = rng.uniform(MODERATE + 0.01, 1.0, (len(numbers), VERTEBRAE_A_STUDY))
    ratios[rng.random(len(numbers)) < FLAGGED, VERTEBRAE_A_STUDY // 2] = 0.7
    failed = rng.random(len(numbers)) < FAILED
    return _studies(rng, numbers, ratios, failed), _vertebrae(rng, numbers[~failed], ratios[~failed])


def _studies(
    rng: np.random.Generator, numbers: np.ndarray, ratios: np.ndarray, failed: np.ndarray
) -> pa.Table:
    smallest = ratios.min(1)
    day = datetime.date(2020, 1, 1)
    measured = {
        "n_vertebrae": np.full(len(numbers), VERTEBRAE_A_STUDY),
        "min_genant_ratio": smallest,
        "grade": _grades(smallest),
        "n_moderate": (ratios <= MODERATE).sum(1),
        "max_probability_moderate": rng.random(len(numbers)),
        "flagged": smallest <= MODERATE,
        "thumbnail": np.array([f"thumbnails/study_{n:07d}.png" for n in numbers]),
    }
    columns = {
        **_keys(numbers),
        "study_date": [day + datetime.timedelta(days=int(n) % 1500) for n in numbers],
        "source": [f"site_{n % 7}/patient_{n:07d}/study" for n in numbers],
        "series_uid": [f"1.2.826.0.1.3680043.8.498.{n:039d}" for n in numbers],
        "series_choice": ["the thinnest of 3 series with a soft kernel; the others: sharp, thick"]
        * len(numbers),
        "status": np.where(failed, "failed", "ok"),
        "error": pa.array(np.full(len(numbers), "spine_not_found"), mask=~failed),
        "quality": [["slices_missing"] if n % 10 == 0 else [] for n in numbers],
        "files_digest": [f"{n:016x}" for n in rng.integers(0, 2**62, len(numbers))],
        **{name: pa.array(values, mask=failed) for name, values in measured.items()},
    }
    return _table(rng, columns, len(numbers), STUDIES)


def _vertebrae(rng: np.random.Generator, numbers: np.ndarray, ratios: np.ndarray) -> pa.Table:
    columns = {
        **_keys(np.repeat(numbers, VERTEBRAE_A_STUDY)),
        "vertebra": np.tile(np.arange(1, VERTEBRAE_A_STUDY + 1), len(numbers)),
        "genant_ratio": ratios.ravel(),
        "grade": _grades(ratios.ravel()),
        "shape": np.where(ratios.ravel() > GRADE_LIMITS[-1], "normal", "wedge"),
        "quality": [[]] * ratios.size,
    }
    return _table(rng, columns, ratios.size, VERTEBRAE)


def _keys(numbers: np.ndarray) -> dict[str, list[str]]:
    return {
        "patient_id": [f"patient_{int(n / STUDIES_A_PATIENT):07d}" for n in numbers],
        "study_id": [f"study_{n:07d}" for n in numbers],
    }


def _grades(ratios: np.ndarray) -> np.ndarray:
    return np.array(GRADES)[np.searchsorted(GRADE_LIMITS, ratios)]


def _table(rng: np.random.Generator, columns: dict[str, Any], rows: int, schema: pa.Schema) -> pa.Table:
    """What is not named is random numbers, or null where the schema has none."""
    arrays = []
    for column in schema:
        if column.name in columns:
            arrays.append(_array(columns[column.name], column.type))
        elif column.type == pa.float64():
            arrays.append(pa.array(rng.normal(0, 100, rows)))
        else:
            arrays.append(pa.nulls(rows, column.type))
    return pa.table(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values).cast(kind)


# --- shown ---------------------------------------------------------------------------------------


def _show(console: Console, figures: list[dict[str, Any]]) -> None:
    table = Table("studies", "vertebrae", "step", "seconds", "peak MiB")
    for size in figures:
        for name, of_step in size["costs"].items():
            counts = (f"{size['studies']:,}", f"{size['rows']['vertebrae']:,}")
            table.add_row(*counts, name, f"{of_step['seconds']:.1f}", f"{of_step['peak_mib']:.0f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
