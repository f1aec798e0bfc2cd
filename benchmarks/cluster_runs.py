"""A LocalCluster beside one machine: are the tables the same, and what does the distribution cost a study?"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import faults
import typer
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Run:
    """One way to run the archive: what it took, and whether its tables are those of one machine."""

    name: str
    seconds: float
    cpu_s: float
    exit_code: int
    is_equal: bool
    parts: int


def main(
    studies: Annotated[int, typer.Option(min=1, help="Small simulated studies.")] = 300,
    seed: Annotated[int, typer.Option()] = 7,
    workers: Annotated[str, typer.Option(help="Numbers of workers.")] = "1,2,4",
    work: Annotated[Path | None, typer.Option(help="Folder for all files, which then stay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """The archive by one machine, then by local clusters of so many workers with one reader each."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-cluster-") as temporary:
        folder = work or Path(temporary)
        archive = folder / "archive"
        if not archive.exists():
            faults.small_archive(archive, studies, seed)
        runs = [_timed("one machine", archive, folder / "one", folder / "one", ())]
        for count in map(int, workers.split(",")):
            options = ("--cluster", "local", "--cluster-workers", count)
            runs.append(
                _timed(f"{count} workers", archive, folder / f"local{count}", folder / "one", options)
            )
        for count in (1, 2):  # what starting costs, whatever the number of studies
            options = ("--cluster", "local", "--cluster-workers", count, "--limit", 2)
            runs.append(_timed(f"{count} workers, 2 studies", archive, folder / f"two{count}", None, options))
    _show(runs, studies)
    if out:
        out.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    raise typer.Exit(0 if all(run.is_equal for run in runs) else 1)


def _timed(
    name: str, archive: Path, results: Path, expected: Path | None, options: tuple[object, ...]
) -> Run:
    before, start = _cpu_s(), time.monotonic()
    ended = faults.finish(faults.vfscreen_run(archive, results, "--workers", 1, "--device", "cpu", *options))
    seconds, cpu_s = time.monotonic() - start, _cpu_s() - before
    if ended.code:
        typer.echo(ended.stderr)
    is_equal = ended.code == 0 and (expected is None or faults.compare(expected, results).is_equal)
    return Run(name, seconds, cpu_s, ended.code, is_equal, len(list((results / "parts").glob("*.studies.*"))))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _show(runs: list[Run], studies: int) -> None:
    table = Table("", "wall, s", "CPU, s", "CPU a study more, s", "speed by CPU", "parts", "tables equal")
    one = runs[0]
    for run in runs:
        more = f"{(run.cpu_s - one.cpu_s) / studies:.3f}"
        figures = f"{run.seconds:.0f}", f"{run.cpu_s:.0f}", more, f"{one.cpu_s / run.cpu_s:.2f}"
        table.add_row(run.name, *figures, f"{run.parts}", "yes" if run.is_equal else "NO")
    Console().print(table)
    typer.echo(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    typer.run(main)
