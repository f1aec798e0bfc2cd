"""All of it with one command, on any machine: speed beside its floor, a plain loop and a peer; scale; memory.

    python benchmarks/everything.py --out figures
    python benchmarks/everything.py --out figures --accuracy

Each script runs in a process of its own, one after the other, and leaves its output (.txt) and figures
(.json) in the folder; one that fails does not end the others, and is named at the end (exit code 1). With
`--quick` there are fewer studies and sizes. `--accuracy` adds what takes an hour or two: `held_out.py`, and
the curves of accuracy by time. At the end stand seconds a study and their ratios to floor, loop and peer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from floor import STORED, STUDIES
from rich.console import Console
from rich.table import Table

from vfscreen import provenance

HERE = Path(__file__).parent
Command = tuple[str, list[str]]  # name of the figures, script and its options


def main(
    out: Annotated[Path, typer.Option(help="Folder for figures and output.")] = Path("figures"),
    accuracy: Annotated[bool, typer.Option("--accuracy", help="The curves of accuracy by time too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer studies, smaller sizes.")] = False,
    work: Annotated[Path | None, typer.Option(help="Folder for the studies; OUT/work.")] = None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    console, work = Console(), work or out / "work"
    commands = [*speed(work, quick), *scale(quick), *(curves(out) if accuracy else ())]
    failed = [name for name, command in commands if not succeeds(console, name, command, out)]
    _show(console, out)
    if failed:
        console.print(f"Failed: {', '.join(failed)}; see {out}/*.txt")
        raise typer.Exit(1)


def speed(work: Path, quick: bool) -> Iterator[Command]:
    """Ours beside floor and loop, then the peer on the same studies, then what it depends on."""
    copies, threads = ("12" if quick else "24"), str(provenance.usable_cpus())
    yield "floor", ["floor.py", "--work", str(work), "--copies", copies]
    for study, stored in product(STUDIES, STORED):
        options = ["--threads", threads, "--repeats", "1"]
        yield f"peer_{study}_{stored}", ["peer.py", str(work / f"{study}_{stored}"), *options]
    studies = "100" if quick else "1000"
    yield "scaling", ["scaling.py", "--work", str(work), "--copies", copies, "--studies", studies]


def scale(quick: bool) -> Iterator[Command]:
    sizes = ["10000"] if quick else ["10000", "100000"]
    yield "tables", ["scale_tables.py", *_each("--studies", sizes)]
    yield "discovery", ["scale_discovery.py", *_each("--files", sizes)]
    yield "page", ["report_page.py", "--flagged", sizes[0]]


def curves(out: Path) -> Iterator[Command]:
    workers = ["--workers", str(provenance.usable_cpus())]
    yield "settings_curve", ["settings_curve.py", *workers]
    yield "network_curve", ["network_curve.py"]
    yield "held_out", ["held_out.py", *workers]


def _each(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def succeeds(console: Console, name: str, command: list[str], out: Path) -> bool:
    """Run one script to its end; its output is shown when it is there."""
    console.rule(f"{name}: {' '.join(command)}")
    into = out / (name if command[0] in ("network_curve.py", "held_out.py") else f"{name}.json")
    words = [sys.executable, str(HERE / command[0]), *command[1:], "--out", str(into)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (out / f"{name}.txt").write_text(done.stdout)
    console.print(done.stdout, markup=False, highlight=False)
    return done.returncode == 0


def _show(console: Console, out: Path) -> None:
    """Seconds a study on all cores, and their ratios."""
    if not (out / "floor.json").exists():
        return
    floor = json.loads((out / "floor.json").read_text())
    title = f"{floor['machine']['cores']} cores; seconds a study, and how many times as long"
    names = ("floor", "plain loop", "run", "peer", "run / floor", "run / loop", "peer / run", "peak, MiB")
    table = Table("slices", "stored", *names, title=title)
    for each in floor["figures"]:
        table.add_row(each["study"], each["stored"], *_cells(each, out))
    console.print(table)
    console.print("The floor is that at the machine's rate of matrix products.")


def _cells(each: dict[str, Any], out: Path) -> list[str]:
    seconds, ratio = each["seconds"], each["ratio_to_matrix_floor"]
    floor_s, peer = seconds["run"] / ratio, _peer_s(out / f"peer_{each['study']}_{each['stored']}.json")
    shown = [floor_s, seconds["loop"], seconds["run"], peer, ratio, seconds["run"] / seconds["loop"]]
    shown.append(None if peer is None else peer / seconds["run"])
    return [*("" if v is None else f"{v:.2f}" for v in shown), f"{each['run']['peak_mib']:.0f}"]


def _peer_s(path: Path) -> float | None:
    if not path.exists():
        return None
    return float(sum(seconds for seconds, _ in json.loads(path.read_text())["peer"]["parts"].values()))


if __name__ == "__main__":
    typer.run(main)
