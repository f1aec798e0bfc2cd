"""What the scripts of `night_faults.py` share: small archives, starting a run, comparing results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.files import write_dicom, write_nifti
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.simulation.spine import Deformities
from vfscreen.volume import Volume, VolumeGeometry

TABLES = ("studies", "vertebrae", "patients")
PEOPLE = 12
"""Simulated people; every study of an archive is one of them with its own noise, place and cut."""
DICOM_EVERY = 4
"""Every fourth study is a DICOM series, the others are NIfTI files, which are cheaper to find."""
PIXEL_MM = 1.5
SLICE_MM = 3.0
VFSCREEN = (sys.executable, "-c", "from vfscreen.cli import main; main()")


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, or minus the signal, seconds, and what it said."""

    code: int
    seconds: float
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def vfscreen_run(source: Path, out: Path, *options: object) -> list[str]:
    """The command line of a run. Of `options` those whose value is None are left out with their name."""
    given: list[str] = []
    for name, value in zip(options[::2], options[1::2], strict=True):
        given += [] if value is None else [str(name), str(value)]
    return [*VFSCREEN, "run", str(source), "--out", str(out), *given]


def finish(command: Sequence[str], limit_s: float | None = None) -> Ended:
    """Run a command to its end; -9 where it had to be killed at the limit."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, errors="replace")
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, stdout, stderr = -9, _text(late.stdout), _text(late.stderr)
    return Ended(code, time.monotonic() - start, stdout, stderr)


def _text(output: object) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")


def report(lines: Sequence[str], figures: Mapping[str, Any], out: Path | None) -> None:
    for line in lines:
        typer.echo(line)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1, default=str) + "\n")


# --- small archives ------------------------------------------------------------------------------


def small_archive(folder: Path, studies: int, seed: int) -> Path:
    """Studies of some 60 slices of 97 x 97 pixels with about seven vertebrae each, all of them different."""
    people = [_scan(seed, i) for i in range(min(PEOPLE, studies))]
    for i in range(studies):
        volume = _varied(people[i % len(people)], np.random.default_rng([seed, 1, i]))
        name = f"study_{i:05d}"
        if i % DICOM_EVERY == DICOM_EVERY - 1:
            date = f"{2000 + i // 336}{i // 28 % 12 + 1:02d}{i % 28 + 1:02d}"
            write_dicom(folder / name, volume, f"SIM-{i // 8:03d}", date, compress=False)
        else:
            write_nifti(folder / f"{name}.nii.gz", volume)
    return folder


def _scan(seed: int, index: int) -> Volume:
    rng = np.random.default_rng([seed, 0, index])
    wedge = (("T8", "wedge", 0.55),) if index % 3 == 0 else ()
    person = draw_person(rng, Deformities(0, 0, 0, forced=wedge), cobb_deg=5.0)
    scanner = Scanner(SLICE_MM, SLICE_MM, PIXEL_MM, 0.7, 0.0, 12.0, 0.8, 0.0)
    return simulate_study(rng, person, scanner, Field("T5", "T11", 145.0, 145.0, PIXEL_MM)).volume


def _varied(volume: Volume, rng: np.random.Generator) -> Volume:
    """The same person again: a few slices fewer, elsewhere on the table, with noise of its own."""
    first = int(rng.integers(0, 4))
    hu = volume.hu[first:].astype(np.float32)
    hu += rng.normal(0, 8, hu.shape).astype(np.float32)
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += first * affine[:3, 0] + rng.uniform(-50, 50, 3).round(1)
    return Volume(np.rint(hu).astype(np.int16), VolumeGeometry(hu.shape, affine))


# --- comparing results ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What differs between two result folders, and what is wrong in the second by itself."""

    differences: tuple[str, ...]
    largest: float  # difference of two numbers
    doubled: int
    temporary: int

    @property
    def is_equal(self) -> bool:
        return not self.differences and not self.doubled


def compare(expected: Path, got: Path) -> Comparison:
    """Tables but for `seconds*`, flagged.csv and pictures byte by byte; rows twice; temporary files."""
    found: list[str] = []
    largest = 0.0
    for name in TABLES:
        here, far = _table_differences(name, *(timeless(folder, name) for folder in (expected, got)))
        found += here
        largest = max(largest, far)
    if (expected / "flagged.csv").read_bytes() != (got / "flagged.csv").read_bytes():
        found.append("flagged.csv differs")
    found += _picture_differences(expected, got)
    return Comparison(tuple(found), largest, doubled_rows(got), len(temporary_files(got)))


def timeless(results: Path, name: str) -> pa.Table:
    """A table without the columns that tell how long something took."""
    table = pq.read_table(results / f"{name}.parquet")
    return table.select([column for column in table.column_names if not column.startswith("seconds")])


def _table_differences(name: str, expected: pa.Table, got: pa.Table) -> tuple[list[str], float]:
    if expected.equals(got):
        return [], 0.0
    if expected.num_rows != got.num_rows or expected.column_names != got.column_names:
        return [f"{name}: {got.num_rows} rows instead of {expected.num_rows}, or other columns"], 0.0
    columns = [c for c in expected.column_names if not expected[c].equals(got[c])]
    far = [_largest_difference(expected[c], got[c]) for c in columns]
    return [f"{name}.{c} differs by up to {d:.3g}" for c, d in zip(columns, far, strict=True)], max(far)


def _largest_difference(expected: pa.ChunkedArray, got: pa.ChunkedArray) -> float:
    """Of two columns of numbers; infinite for texts, and where one has a null more."""
    if not pa.types.is_floating(expected.type):
        return float("inf")
    a, b = (np.array(column.to_pylist(), float) for column in (expected, got))
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b)))


def _picture_differences(expected: Path, got: Path) -> list[str]:
    a, b = (
        {path.name: path.read_bytes() for path in (folder / "thumbnails").glob("*.png")}
        for folder in (expected, got)
    )
    other = [name for name in a.keys() & b.keys() if a[name] != b[name]]
    return [
        *(f"picture {name} is missing" for name in sorted(a.keys() - b.keys())),
        *(f"picture {name} is one too many" for name in sorted(b.keys() - a.keys())),
        *(f"picture {name} differs" for name in sorted(other)),
    ]


def doubled_rows(results: Path) -> int:
    table = pq.read_table(results / "studies.parquet", columns=["study_id", "source"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return len(rows) - len(set(rows))


def temporary_files(results: Path) -> list[Path]:
    return [path for path in results.rglob("*") if path.name.endswith((".tmp", "-journal"))]


def unreadable_parts(results: Path) -> list[str]:
    """Parts under their final names that cannot be read."""
    bad = []
    for path in sorted(results.glob("parts/[!.]*.parquet")):
        try:
            pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            bad.append(f"{path.name}: {error}")
    return bad


def finished_count(results: Path, counted: dict[Path, int]) -> int:
    """Rows in the parts that are on disk; `counted` remembers those already looked at."""
    for part in results.glob("parts/[!.]*.studies.parquet"):
        if part not in counted:
            counted[part] = pq.read_metadata(part).num_rows
    return sum(counted.values())


# --- networks that cost nothing ------------------------------------------------------------------


@dataclass(frozen=True)
class BlindModels:
    """Stands for `networks.weights.Models`: sees no spine anywhere, so that a run only reads."""

    device: str = "cpu"

    @property
    def provenance(self) -> dict[str, Any]:
        return {name: {"sha256": "none", "steps": 0} for name in ("localizer", "detector", "refiner")}

    def localizer(self, images: Any) -> tuple[Any, Any]:
        planes = images.shape[:2]
        return np.zeros((*planes, 2)), np.full(planes, -8.0)

    def detector(self, sheets: Any) -> Any:
        raise AssertionError("without a curve nothing is detected")

    refiner = detector


def blind_run(source: Path, out: Path, workers: int, time_limit_s: float) -> list[str]:
    """The command line of a run with networks that see no spine."""
    code = "import sys; from faults import run_blind; run_blind(*sys.argv[1:])"
    words = [str(word) for word in (source, out, workers, time_limit_s, Path(__file__).parent)]
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[5]); {code}", *words]


def run_blind(source: str, out: str, workers: str, time_limit_s: str, _: str) -> None:
    from vfscreen import pipeline

    models: Any = BlindModels()
    limit_s = float(time_limit_s)
    summary = pipeline.run(
        source, out, models=models, workers=int(workers), thumbnails="none", time_limit_s=limit_s
    )
    print(json.dumps(asdict(summary), default=str))
