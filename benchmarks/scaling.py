"""How do seconds a study depend on readers, batch, slices and the number of studies?

    python benchmarks/scaling.py --out scaling.json

One thing at a time is changed; the rest is as `vfscreen run` chooses for this machine. The study is the
uncompressed chest of `floor.py`, 512 x 512 voxels a slice. Seconds a study are the slope between a short
and a long run, so that the start does not count; for the number of studies they are the whole time without
the start. A batch matters on a GPU: on a CPU each core has one study. Where discovery, tables or memory
grow faster than the number of studies, the last rows show it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import chest_archive
import floor
import typer
from rich.console import Console
from rich.table import Table

from vfscreen import provenance
from vfscreen.simulation.files import write_dicom

READERS = (1, 2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)
SLICES = (80, 160, 320, 640)
STUDIES = (10, 100, 1000)
LENGTH_MM = 320.0
"""Of a chest, whatever the number of its slices."""


def main(
    copies: Annotated[int, typer.Option(min=floor.FEW + 1, help="Studies of the long run.")] = 24,
    studies: Annotated[int, typer.Option(help="Largest number of studies.")] = STUDIES[-1],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    work: Annotated[Path | None, typer.Option(help="Folder for the studies, which then stay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    console, rows = Console(), []
    with tempfile.TemporaryDirectory(prefix="vfscreen-scaling-") as temporary:
        for row in measured(work or Path(temporary), copies, studies, ("--device", device)):
            rows.append(row)
            console.print(
                ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            )
    if out:
        out.write_text(json.dumps({"machine": provenance.machine(), "figures": rows}, indent=1) + "\n")
    _show(console, rows)


def measured(work: Path, copies: int, most: int, device: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each setting of each thing that is changed."""
    study = floor.written(work, "2mm", "uncompressed")
    cores = provenance.usable_cpus()
    for readers in (n for n in READERS if n <= cores):
        yield {"changed": "readers", "to": readers, **slope(study, copies, *device, "--workers", readers)}
    for batch in BATCHES:
        yield {"changed": "batch", "to": batch, **slope(study, copies, *device, "--batch-size", batch)}
    for slices in SLICES:
        yield {"changed": "slices", "to": slices, **slope(chest(work, slices), copies, *device)}
    start_s = slope(study, copies, *device)["start_s"]
    for n in (n for n in STUDIES if n <= most):
        run = floor.one_run(study, n, *device)
        seconds_each = (run["seconds"] - start_s) / n
        yield {"changed": "studies", "to": n, "seconds_each": seconds_each, "peak_mib": run["peak_mib"]}


def chest(work: Path, slices: int) -> Path:
    """The folder of a chest of so many slices, made where it is not there yet."""
    folder = work / f"{slices}_slices"
    if not folder.exists():
        volume = chest_archive.simulate_chest(slices, LENGTH_MM / slices, last="L2")
        write_dicom(folder, volume, f"SIM-{slices}", "20200101", compress=False)
    return folder


def slope(study: Path, copies: int, *options: object) -> dict[str, float]:
    """Seconds a study between a short and a long run, those of the start, peak memory of all processes."""
    few, many = (floor.one_run(study, n, *options) for n in (floor.FEW, copies))
    span = copies - floor.FEW
    seconds_each, cpu_s_each = ((many[key] - few[key]) / span for key in ("seconds", "cpu_s"))
    return {
        "seconds_each": seconds_each,
        "cpu_s_each": cpu_s_each,
        "start_s": few["seconds"] - floor.FEW * seconds_each,
        "peak_mib": many["peak_mib"],
    }


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table("changed", "to", "s a study", "CPU s a study", "peak, MiB")
    for row in rows:
        cpu_s = f"{row['cpu_s_each']:.2f}" if "cpu_s_each" in row else ""
        memory = f"{row['peak_mib']:.0f}"
        table.add_row(row["changed"], str(row["to"]), f"{row['seconds_each']:.2f}", cpu_s, memory)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
