"""A whole run as a user starts it: studies an hour, seconds by stage, memory of all its processes.

    python benchmarks/bench_night.py /tmp/chests/manifest.csv --workers 2

Memory is the sum of the proportional set sizes (PSS) of the command and its children, taken twice a
second, in which a page that several processes share counts once; where the system has no PSS it is
the sum of what each process holds alone (USS).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

SAMPLE_S = 0.5
AFTER = (20, 200)  # studies
AROUND = 10  # studies more or less


@dataclass(frozen=True)
class Sample:
    """The state of a run: seconds since its start, studies on disk, MiB and number of all processes."""

    seconds: float
    finished: int
    memory_mib: float
    processes: int


def main(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Archive or manifest.")],
    workers: Annotated[int, typer.Option(help="Reader processes.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Studies the device takes at once.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures and samples, as JSON.")] = None,
) -> None:
    options = {"--workers": workers, "--batch-size": batch_size, "--device": device, "--weights": weights}
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        command = [_vfscreen(), "run", str(source), "--out", str(results)]
        command += [str(word) for item in options.items() if item[1] is not None for word in item]
        samples = watch(command, results)
        report = figures(results, samples)
    if out:
        out.write_text(json.dumps({"command": command, **report, "samples": [vars(s) for s in samples]}))
    _show(Console(), report)


def watch(command: Sequence[str], results: Path) -> list[Sample]:
    """Run the command to its end; raises CalledProcessError where it fails."""
    start = time.monotonic()
    counted: dict[Path, int] = {}
    samples = []
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        memory = [mib for mib in map(memory_mib, _family(process)) if mib]
        samples.append(
            Sample(time.monotonic() - start, _finished(results, counted), sum(memory), len(memory))
        )
        time.sleep(SAMPLE_S)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return samples


def memory_mib(process: psutil.Process) -> float:
    """Its share of the memory, MiB; 0 for a process that has just ended."""
    try:
        info = process.memory_full_info()
    except psutil.Error:
        return 0.0
    return float(getattr(info, "pss", info.uss) / 2**20)


def figures(results: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    run = json.loads((results / "run.json").read_text())
    studies = pq.read_table(results / "studies.parquet").to_pandas()
    stages = [name for name in studies if name.startswith("seconds_")]
    seconds_each = run["seconds"] / len(studies)
    return {
        "studies": len(studies),
        "statuses": studies["status"].value_counts().to_dict(),
        "seconds": run["seconds"],
        "seconds_with_start": samples[-1].seconds,
        "seconds_each": seconds_each,
        "studies_per_hour": 3600 / seconds_each,
        "stage_seconds_each": {name.removeprefix("seconds_"): studies[name].mean() for name in stages},
        "peak_mib": max(s.memory_mib for s in samples),
        "peak_processes": max(s.processes for s in samples),
        **{f"mib_after_{n}": memory_after(samples, n) for n in AFTER},
        "machine": run["machine"],
    }


def memory_after(samples: Sequence[Sample], n: int) -> float | None:
    """Median MiB while about n studies were finished; None where the run was shorter."""
    around = [s.memory_mib for s in samples if abs(s.finished - n) <= AROUND]
    return median(around) if around else None


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return []


def _finished(results: Path, counted: dict[Path, int]) -> int:
    """Studies in the parts that are on disk."""
    for part in results.glob("parts/*.studies.parquet"):
        if part not in counted:
            counted[part] = pq.read_metadata(part).num_rows
    return sum(counted.values())


def _vfscreen() -> str:
    """The command that is installed beside this Python."""
    return str(Path(sys.executable).with_name("vfscreen"))


def _show(console: Console, report: dict[str, Any]) -> None:
    stages = report["stage_seconds_each"]
    table = Table("stage", "s a study", "share of all stages")
    for name, seconds in stages.items():
        table.add_row(name, f"{seconds:.3f}", f"{seconds / sum(stages.values()):.0%}")
    console.print(table)
    console.print(
        f"{report['studies']} studies ({report['statuses']}) in {report['seconds']:.0f} s, "
        f"{report['seconds_with_start']:.0f} s with the start of the command: "
        f"{report['seconds_each']:.2f} s a study, {report['studies_per_hour']:.0f} an hour.",
        highlight=False,
        soft_wrap=True,
    )
    after = ", ".join(
        f"{report[f'mib_after_{n}']:.0f} MiB after {n} studies" for n in AFTER if report[f"mib_after_{n}"]
    )
    console.print(
        f"Memory of all {report['peak_processes']} processes together: at most {report['peak_mib']:.0f} MiB"
        + (f"; {after}." if after else "."),
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
