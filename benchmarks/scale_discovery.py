"""How long does it take to list an archive of a million files, and how much memory?

    python benchmarks/scale_discovery.py --files 100000 --files 1000000 --out discovery.json

The archives are those of `check_archive.py`, without pixels: 200 files a study, in two to four series. Each
is listed twice, the second time with the index that the first one left, in a process of its own whose peak
memory is given, and what of that a study takes; `start` only imports. With `--work` on a disk of memory no
disk is measured.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from check_archive import SLICES, write_archive
from rich.console import Console
from rich.table import Table
from scale_tables import cost

from vfscreen.discover import discover


def main(
    files: Annotated[list[int] | None, typer.Option(min=1, help="Once for each size.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the UIDs.")] = 7,
    work: Annotated[Path | None, typer.Option(help="Folder in which the archives are made.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    figures = [measured(n, seed, work) for n in files or [100_000, 1_000_000]]
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    _show(Console(), figures)


def measured(files: int, seed: int, work: Path | None) -> dict[str, Any]:
    """The cost of each step for so many files, and the size of the index."""
    steps = {"start": _nothing, "first": _list, "again": _list}
    with tempfile.TemporaryDirectory(prefix="vfscreen-discovery-", dir=work) as temporary:
        folder = Path(temporary)
        write_archive(folder / "archive", files, seed)
        costs = {name: asdict(cost(step, folder)) for name, step in steps.items()}
        index_mib = _index(folder).stat().st_size / 2**20
    return {"files": files, "studies": -(-files // SLICES), "index_mib": index_mib, "costs": costs}


def _list(folder: Path) -> None:
    discover(folder / "archive", index=_index(folder))


def _nothing(folder: Path) -> None:
    pass


def _index(folder: Path) -> Path:
    return folder / "index.sqlite"


def _show(console: Console, figures: list[dict[str, Any]]) -> None:
    table = Table("files", "studies", "step", "seconds", "peak MiB", "kB a study")
    for size in figures:
        for name, of_step in size["costs"].items():
            counts = (f"{size['files']:,}", f"{size['studies']:,}")
            peak_mib = of_step["peak_mib"]
            kb = (peak_mib - size["costs"]["start"]["peak_mib"]) * 2**20 / 1000 / size["studies"]
            table.add_row(*counts, name, f"{of_step['seconds']:.1f}", f"{peak_mib:.0f}", f"{kb:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
