"""Memory, threads and open files of a long run: do they stay flat?"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import faults
import numpy as np
import psutil
import typer

DISTINCT = 5
SETTLED = 200
"""Studies after which a slope counts: caches and allocators have found their size."""
QUANTITIES = {"pss_mib": "MiB PSS", "rss_mib": "MiB RSS", "threads": "threads", "handles": "open files"}


@dataclass(frozen=True)
class Sample:
    """All processes of a run together at one moment."""

    seconds: float
    finished: int
    processes: int
    pss_mib: float
    rss_mib: float
    threads: int
    handles: int


def main(
    studies: Annotated[int, typer.Option(min=1, help="Studies of the run.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the simulated studies.")] = 7,
    workers: Annotated[int, typer.Option(min=1, help="Reader processes.")] = 2,
    every: Annotated[float, typer.Option(help="Seconds between two samples.")] = 1.0,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures and samples, as JSON.")] = None,
) -> None:
    """Sample memory, threads and handles of all processes over a run, and fit slopes."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-memory-") as temporary:
        folder = Path(temporary)
        manifest = _manifest(folder / "archive", studies, seed)
        options = ("--workers", workers, "--weights", weights)
        command = faults.vfscreen_run(manifest, folder / "results", *options)
        samples, code = watch(command, folder / "results", folder / "log", every)
        last = (folder / "log").read_text(errors="replace").splitlines()[-1:]
    figures = {"exit_code": code, "last_words": last, "seconds": samples[-1].seconds, **slopes(samples)}
    lines = _lines(figures, studies, seed)
    everything = {"studies": studies, "seed": seed, **figures, "samples": [asdict(s) for s in samples]}
    faults.report(lines, everything, out)
    raise typer.Exit(code)


def _manifest(folder: Path, studies: int, seed: int) -> Path:
    """A few studies, each listed under many names."""
    faults.small_archive(folder, 2 * faults.DICOM_EVERY, seed)
    files = sorted(folder.iterdir())
    chosen = files[:: len(files) // DISTINCT]
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "study_id", "patient_id"])
        names = [chosen[i % len(chosen)].name for i in range(studies)]
        writer.writerows([name, f"study_{i:06d}", f"patient_{i // 2:06d}"] for i, name in enumerate(names))
    return manifest


def watch(command: Sequence[str], results: Path, log: Path, every_s: float) -> tuple[list[Sample], int]:
    """Samples until the command ends, and its exit code."""
    counted: dict[Path, int] = {}
    samples = []
    start = time.monotonic()
    with log.open("wb") as stream:
        process = psutil.Popen(command, stdout=stream, stderr=stream)
        while process.poll() is None:
            seconds = time.monotonic() - start
            samples.append(_sample(process, seconds, faults.finished_count(results, counted)))
            time.sleep(max(0.0, every_s - (time.monotonic() - start - seconds)))
    return samples, int(process.returncode)


def _sample(process: psutil.Process, seconds: float, finished: int) -> Sample:
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        family = []
    states = [state for state in map(_state, family) if state]
    pss, rss, threads, handles = (sum(column) for column in zip(*states, strict=True)) if states else (0,) * 4
    return Sample(seconds, finished, len(states), pss / 2**20, rss / 2**20, int(threads), int(handles))


def _state(process: psutil.Process) -> tuple[float, float, int, int] | None:
    """Bytes of PSS (else USS) and RSS, threads, open files; None for a process that has just ended."""
    try:
        memory = process.memory_full_info()
        return getattr(memory, "pss", memory.uss), memory.rss, process.num_threads(), process.num_fds()
    except psutil.Error:
        return None


def slopes(samples: Sequence[Sample]) -> dict[str, Any]:
    """Of each quantity its maximum and its slope for a thousand studies, with the standard error."""
    settled = [s for s in samples if s.finished >= SETTLED and s.processes][:-3]  # the last ones are the end
    most = max(s.processes for s in samples)
    figures: dict[str, Any] = {"samples_settled": len(settled), "processes_max": most}
    seconds = np.array([s.seconds for s in settled])
    pace, _ = _slope(seconds, np.array([s.finished for s in settled], float))
    thousand = 1000 / pace if pace else float("nan")
    for name in QUANTITIES:
        values = np.array([getattr(s, name) for s in settled], float)
        slope, error = _slope(seconds, values)
        figures[name] = {
            "max": max(getattr(s, name) for s in samples),
            "median": float(np.median(values)) if len(values) else None,
            "slope": slope * thousand,
            "slope_error": error * thousand,
        }
    return figures


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares; its standard error counts runs of alike samples as so many fewer."""
    if len(x) < 10 or not np.ptp(x):
        return float("nan"), float("nan")
    (slope, offset) = np.polyfit(x, y, 1)
    rest = y - slope * x - offset
    ratio = float((rest[1:] * rest[:-1]).sum() / max((rest**2).sum(), 1e-12))
    count = max(3.0, len(x) * (1 - ratio) / (1 + ratio))
    return float(slope), float(np.sqrt((rest**2).mean() / (count - 2)) / x.std())


def _lines(figures: Mapping[str, Any], studies: int, seed: int) -> list[str]:
    lines = [
        f"{studies} studies, seed {seed}: exit code {figures['exit_code']} after {figures['seconds']:.0f} s, "
        f"at most {figures['processes_max']} processes; {figures['samples_settled']} samples after study "
        f"{SETTLED}"
    ]
    for name, words in QUANTITIES.items():
        of_it = figures[name]
        median = "unknown" if of_it["median"] is None else f"{of_it['median']:.0f}"
        lines.append(
            f"{words}: median {median}, at most {of_it['max']:.0f}; "
            f"{of_it['slope']:+.2f} (standard error {of_it['slope_error']:.2f}) a thousand studies"
        )
    return lines


if __name__ == "__main__":
    typer.run(main)
