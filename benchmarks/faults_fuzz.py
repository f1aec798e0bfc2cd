"""Thousands of damaged and contradicting files in one run: does it end, and is none read wrongly?"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import faults
import pyarrow.parquet as pq
import typer
from faults_mutants import Mutant, write_archive
from faults_truth import verdict

READ = (None, "spine_not_found")
"""Errors of studies whose images were read: the networks of this run see no spine anywhere."""
DEATHS = ("reader_died", "reader_timeout", "unexpected_error")
KEPT_OF_A_KIND = 20


@dataclass
class Findings:
    """What the rows say of each mutant; names of folders by what is to be told of them."""

    outcomes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    by_kind: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    suspects: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def main(
    files: Annotated[int, typer.Option(min=1, help="Mutated files in the archive.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 7,
    workers: Annotated[int, typer.Option(min=1, help="Reader processes.")] = 2,
    time_limit: Annotated[float, typer.Option(help="Seconds that a reader may take for a study.")] = 60.0,
    limit: Annotated[float, typer.Option(help="Seconds after which the run counts as hanging.")] = 7200.0,
    keep: Annotated[Path | None, typer.Option(help="Folder for the mutants that went wrong.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the archive, which then stays.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """Mutated files in one archive: every study a row, none with a wrong geometry."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-fuzz-") as temporary:
        folder = work or Path(temporary)
        archive, results = folder / "archive", folder / "results"
        mutants = write_archive(archive, files, seed)
        ended = faults.finish(faults.blind_run(archive, results, workers, time_limit), limit)
        figures = _figures(archive, results, mutants, ended)
        if keep:
            _keep(archive, keep, mutants, figures["suspects"], ended)
    faults.report(_lines(figures, files, seed), {"files": files, "seed": seed, **figures}, out)
    raise typer.Exit(0 if figures["passed"] else 1)


def _figures(archive: Path, results: Path, mutants: Sequence[Mutant], ended: faults.Ended) -> dict[str, Any]:
    rows = _rows(results)
    owners = _by_folder(rows, archive)
    found = Findings()
    for mutant in mutants:
        _judge(archive, mutant, owners.get(mutant.name, []), found)
    ids = Counter(row["study_id"] for row in rows)
    doubled = sum(count - 1 for count in ids.values())
    wrong = {name: len(found.suspects[name]) for name in ("lost", "wrong geometry", "sound but not read")}
    return {
        "studies": len(mutants),
        "rows": len(rows),
        "exit_code": ended.code,
        "seconds": round(ended.seconds, 1),
        "last_words": ended.last_words if ended.code else "",
        "doubled": doubled,
        **{name.replace(" ", "_"): count for name, count in wrong.items()},
        "passed": ended.code == 0 and not doubled and not any(wrong.values()),
        "outcomes": dict(found.outcomes.most_common()),
        "verdicts": dict(found.verdicts.most_common()),
        "by_kind": {kind: dict(count.most_common()) for kind, count in sorted(found.by_kind.items())},
        "suspects": {name: dict(of_them) for name, of_them in sorted(found.suspects.items()) if of_them},
    }


def _rows(results: Path) -> list[dict[str, Any]]:
    path = results / "studies.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else []


def _by_folder(rows: Iterable[Mapping[str, Any]], archive: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by the mutant's folder in which their study was found."""
    found = defaultdict(list)
    for row in rows:
        found[row["source"].removeprefix(f"{archive.name}/").split("/")[0]].append(row)
    return found


def _judge(archive: Path, mutant: Mutant, rows: Sequence[Mapping[str, Any]], found: Findings) -> None:
    kind = " + ".join(mutant.kinds) if len(mutant.kinds) == 1 else "several" if mutant.kinds else "sound"
    what = "; ".join(mutant.details) or mutant.form
    if not rows:
        found.suspects["lost"][mutant.name] = what
    if not mutant.kinds and not any(row["error"] in READ for row in rows):
        found.suspects["sound but not read"][mutant.name] = what
    for row in rows:
        outcome = f"{row['status']} {row['error'] or ''}".strip()
        found.outcomes[outcome] += 1
        if row["error"] in DEATHS:
            found.suspects[row["error"]][mutant.name] = f"{mutant.form}, {what}: {row['reason']}"
        if row["error"] in READ:
            outcome = verdict(archive / mutant.name, mutant.form, mutant.files, row)
            found.verdicts[outcome] += 1
            _suspect(mutant, row, outcome, what, found)
        found.by_kind[kind][outcome] += 1


def _suspect(mutant: Mutant, row: Mapping[str, Any], outcome: str, what: str, found: Findings) -> None:
    said = f"{row['n_slices']} slices, {row['slice_spacing_mm']} mm, pixels {row['pixel_spacing_mm']} mm"
    if outcome == "wrong" or (not mutant.kinds and outcome != "sound"):
        found.suspects["wrong geometry"][mutant.name] = f"{mutant.form}, {what}: read as {said}"
    elif outcome in ("left out", "odd length"):
        found.suspects[outcome][mutant.name] = f"{mutant.form}, {what}: read as {said}"


def _keep(
    archive: Path, keep: Path, mutants: Sequence[Mutant], suspects: Mapping[str, Any], ended: faults.Ended
) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    (keep / "stderr.txt").write_text(ended.stderr)
    for name, of_them in suspects.items():
        for folder in list(of_them)[:KEPT_OF_A_KIND]:
            shutil.copytree(archive / folder, keep / name.replace(" ", "_") / folder, dirs_exist_ok=True)
    names = {name for of_them in suspects.values() for name in of_them}
    made = {mutant.name: asdict(mutant) for mutant in mutants if mutant.name in names}
    faults.report([], {"suspects": suspects, "mutants": made}, keep / "suspects.json")


def _lines(figures: Mapping[str, Any], files: int, seed: int) -> list[str]:
    suspects = figures["suspects"]
    deaths = ", ".join(f"{len(suspects.get(name, ()))} {name}" for name in DEATHS)
    examples = [
        f"  {name}, {folder}: {what}"
        for name, of_them in suspects.items()
        for folder, what in list(of_them.items())[:3]
    ]
    return [
        f"{files} mutated files in {figures['studies']} studies, seed {seed}: the run ended with exit code "
        f"{figures['exit_code']} after {figures['seconds']:.0f} s, {figures['rows']} rows",
        f"lost {figures['lost']}, doubled {figures['doubled']}, wrong geometry {figures['wrong_geometry']}, "
        f"sound but not read {figures['sound_but_not_read']}; {deaths}",
        "rows: " + ", ".join(f"{count} {name}" for name, count in figures["outcomes"].items()),
        "geometry of what was read: " + ", ".join(f"{n} {name}" for name, n in figures["verdicts"].items()),
        *([f"last words: {figures['last_words']}"] if figures["last_words"] else []),
        *examples,
    ]


if __name__ == "__main__":
    typer.run(main)
