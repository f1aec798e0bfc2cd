"""A run whose processes are killed a hundred times must end with the tables of an undisturbed one."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import faults
import numpy as np
import psutil
import typer

PHASES = ("start-up", "discovery", "running", "consolidation")
OUTPUTS = 4
"""Result folders among which the kills are shared; each is finished and compared."""
POLL_S = 0.005
HASTE = 0.8
ORPHANS_LIMIT_S = 30.0
RETRIED = ("reader_died", "reader_timeout", "unexpected_error")
PATIENCE = 5
"""Plain repetitions that a folder gets, of which the first should end with 0."""


@dataclass(frozen=True)
class Pace:
    """Seconds of the phases of an undisturbed run."""

    start: float  # imports and weights
    discovery: float
    running: float
    consolidation: float

    @property
    def whole(self) -> float:
        return self.start + self.discovery + self.running + self.consolidation


@dataclass
class Tally:
    """What happened while processes were killed."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    orphans: int = 0

    @property
    def done(self) -> int:
        return sum(self.kills.values())


@dataclass(frozen=True)
class Archive:
    """What is run, and how an undisturbed run of it went."""

    source: Path
    studies: int
    expected: Path
    pace: Pace
    options: tuple[object, ...]


def main(
    studies: Annotated[int, typer.Option(min=1, help="Studies in the archive.")] = 300,
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of everything random but the machine's pace.")] = 7,
    workers: Annotated[int, typer.Option(min=1, help="Reader processes.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Studies the device takes at once.")] = 8,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for all files, which then stay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """SIGKILL to the command or a child of it, again and again, and the same command after it."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-kill-") as temporary:
        folder = work or Path(temporary)
        source = faults.small_archive(folder / "archive", studies, seed)
        options = ("--workers", workers, "--batch-size", batch_size, "--weights", weights)
        archive = _undisturbed(source, studies, folder / "undisturbed", options)
        rng, tally = np.random.default_rng([seed, 2]), Tally()
        ends: list[dict[str, Any]] = []
        while tally.done < kills:
            results = folder / f"killed{len(ends)}"
            share = min(kills - tally.done, -(-kills // OUTPUTS))
            _kill_often(archive, results, _phases(share, len(ends), rng), rng, tally)
            ends.append(_finish(archive, results))
    figures = _figures(archive, tally, ends)
    faults.report(_lines(figures, seed), {"studies": studies, "seed": seed, **figures}, out)
    raise typer.Exit(0 if figures["passed"] else 1)


# --- the undisturbed run -------------------------------------------------------------------------


def _undisturbed(source: Path, studies: int, out: Path, options: tuple[object, ...]) -> Archive:
    """Run it once and take the time at which each phase ends."""
    started = time.monotonic()
    process = _start(source, out, options)
    marks = {
        "found": _seconds_until(process, started, lambda: (out / "run.json").exists()),
        "done": _seconds_until(process, started, lambda: _finished(out) >= studies),
    }
    code = process.wait()
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with {code}: {_stderr_of(out)}")
    if _finished(out) != studies:
        raise RuntimeError(f"the undisturbed run has {_finished(out)} rows for {studies} studies")
    end = time.monotonic() - started
    start = min(_start_up_s(options), 0.9 * marks["found"])
    pace = Pace(start, marks["found"] - start, marks["done"] - marks["found"], max(end - marks["done"], 0.05))
    return Archive(source, studies, out, pace, options)


def _start_up_s(options: Sequence[object]) -> float:
    """Imports and weights, as `vfscreen info` needs them too: where discovery begins shows nowhere else."""
    weights = dict(zip(options[::2], options[1::2], strict=True)).get("--weights")
    given = ["--weights", str(weights)] if weights else []
    return faults.finish([*faults.VFSCREEN, "info", *given]).seconds


def _seconds_until(process: subprocess.Popen[bytes], started: float, reached: Callable[[], bool]) -> float:
    while process.poll() is None and not reached():
        time.sleep(POLL_S)
    return time.monotonic() - started


def _finished(out: Path) -> int:
    return faults.finished_count(out, {})


# --- kills ---------------------------------------------------------------------------------------


def _phases(kills: int, number: int, rng: np.random.Generator) -> list[str]:
    """In which phase each process is to be killed, uniform over all.

    Consolidation comes last, when all studies are finished; in every second folder discovery comes first,
    while the index of headers is still to be made.
    """
    phases = [str(phase) for phase in rng.choice(PHASES, kills)]
    return sorted(phases, key=lambda phase: (phase == PHASES[-1], number % 2 == 0 and phase != PHASES[1]))


@dataclass
class Call:
    """One call of the command, and whether all studies were finished when it began."""

    process: subprocess.Popen[bytes]
    started: float
    was_full: bool

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


def _kill_often(
    archive: Archive, out: Path, phases: Sequence[str], rng: np.random.Generator, tally: Tally
) -> None:
    """A kill in each of the phases; fewer where all studies are finished before the last that is to run."""
    call = _call(archive, out)
    for phase in phases:
        haste = 1.0
        while True:
            if call.has_ended:
                _note_end(call.process, out, tally)
                call = _call(archive, out)
            if phase == "running" and call.was_full:
                call.process.wait()
                _note_end(call.process, out, tally)
                return
            if _wait_for(phase, archive, out, call, rng, haste) and _kill_one(archive, out, call, rng, tally):
                break
            haste *= HASTE  # the call ended before: this machine is faster now
    call.process.wait()
    _note_end(call.process, out, tally)


def _call(archive: Archive, out: Path) -> Call:
    was_full = _finished(out) >= archive.studies
    return Call(_start(archive.source, out, archive.options), time.monotonic(), was_full)


def _start(source: Path, out: Path, options: Sequence[object]) -> subprocess.Popen[bytes]:
    with _stderr_of(out).open("ab") as log:
        return subprocess.Popen(faults.vfscreen_run(source, out, *options), stdout=log, stderr=log)


def _stderr_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def _wait_for(
    phase: str, archive: Archive, out: Path, call: Call, rng: np.random.Generator, haste: float
) -> bool:
    """Wait for a random moment of the phase; False where the process ended before it."""
    pace = archive.pace
    found = pace.start + pace.discovery
    if phase == "start-up":
        moment = rng.uniform(0, pace.start)
    elif phase == "discovery":
        moment = pace.start + rng.uniform(0, pace.discovery)
    elif phase == "running":
        moment = max(found, call.seconds) + rng.uniform(0, 0.25) * pace.running
    elif call.was_full:
        moment = found + rng.uniform(0, 1.2) * pace.consolidation
    else:
        _seconds_until(call.process, call.started, lambda: _finished(out) >= archive.studies)
        moment = call.seconds / haste + rng.uniform(0, 1.2) * pace.consolidation
    while not call.has_ended and call.seconds < moment * haste:
        time.sleep(POLL_S)
    return not call.has_ended


def _kill_one(archive: Archive, out: Path, call: Call, rng: np.random.Generator, tally: Tally) -> bool:
    """SIGKILL to the main process or, as often, to one of its children where it has any."""
    phase = _phase_of(archive, out, call)
    try:
        children = psutil.Process(call.process.pid).children(recursive=True)
        is_child = bool(children) and rng.random() < 0.5
        victim = children[rng.integers(len(children))] if is_child else psutil.Process(call.process.pid)
        victim.kill()
    except psutil.Error:  # it has just ended by itself
        return False
    tally.kills[f"{phase}, {'child' if is_child else 'main'}"] += 1
    if not is_child:
        call.process.wait()
        _, alive = psutil.wait_procs(children, ORPHANS_LIMIT_S)
        tally.orphans += len(alive)
    return True


def _phase_of(archive: Archive, out: Path, call: Call) -> str:
    """The phase in which a call is, by the pace of the undisturbed one; a child may have died before."""
    if call.seconds < archive.pace.start:
        return "start-up"
    if call.seconds < archive.pace.start + archive.pace.discovery:
        return "discovery"
    return "consolidation" if _finished(out) >= archive.studies else "running"


def _note_end(process: subprocess.Popen[bytes], out: Path, tally: Tally) -> None:
    """Ends other than by a kill or with tables are problems: the command must always be able to go on."""
    tally.exits[str(process.returncode)] += 1
    if process.returncode not in (0, 1, -9):
        lines = _stderr_of(out).read_text(errors="replace").splitlines()
        tally.problems.append(f"exit code {process.returncode}: {lines[-1] if lines else ''}")


# --- the end -------------------------------------------------------------------------------------


def _finish(archive: Archive, out: Path) -> dict[str, Any]:
    """Plain repetitions until one ends with 0; then the tables are compared."""
    before = len(faults.temporary_files(out)) if out.exists() else 0
    ends: list[faults.Ended] = []
    while not ends or (ends[-1].code != 0 and len(ends) < PATIENCE):
        ends.append(faults.finish(faults.vfscreen_run(archive.source, out, *archive.options)))
    words = [end.last_words for end in ends if end.code]
    if ends[-1].code != 0:
        return {"codes": [end.code for end in ends], "last_words": words, "equal": False}
    compared = faults.compare(archive.expected, out)
    return {
        "codes": [end.code for end in ends],
        "last_words": words,
        "equal": compared.is_equal,
        "temporary_before": before,
        "unreadable_parts": faults.unreadable_parts(out),
        "retried_left": _retried_rows(out),
        **asdict(compared),
    }


def _retried_rows(out: Path) -> int:
    errors = faults.timeless(out, "studies")["error"].to_pylist()
    return sum(error in RETRIED for error in errors)


def _figures(archive: Archive, tally: Tally, ends: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "kills": tally.done,
        "kills_by": dict(sorted(tally.kills.items())),
        "exits": dict(tally.exits),
        "problems": tally.problems,
        "orphans": tally.orphans,
        "pace": asdict(archive.pace),
        "outputs": list(ends),
        "passed": all(end["equal"] and end["codes"] == [0] for end in ends) and not tally.problems,
    }


def _lines(figures: Mapping[str, Any], seed: int) -> list[str]:
    ends = figures["outputs"]
    equal = sum(end["equal"] for end in ends)
    largest = max((end.get("largest", float("inf")) for end in ends), default=0)
    doubled = sum(end.get("doubled", 0) for end in ends)
    before, after = (sum(end.get(name, 0) for end in ends) for name in ("temporary_before", "temporary"))
    differences = [difference for end in ends for difference in end.get("differences", ())]
    return [
        f"{figures['kills']} kills, seed {seed}: "
        + ", ".join(f"{count} {name}" for name, count in figures["kills_by"].items()),
        f"{equal} of {len(ends)} result folders equal to the undisturbed one; largest difference "
        f"{largest:.3g}; {doubled} rows twice; last plain repetitions ended with "
        f"{[end['codes'] for end in ends]}",
        f"temporary files: {before} before the last repetition, {after} after it; "
        f"{figures['orphans']} processes outlived the command by {ORPHANS_LIMIT_S:.0f} s",
        f"ends of the commands: {figures['exits']}",
        *figures["problems"][:5],
        *differences[:10],
    ]


if __name__ == "__main__":
    typer.run(main)
