"""What `run`, `check` and `show` print when they are done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from vfscreen.pipeline import RunSummary
    from vfscreen.study import StudyResult


LISTED_STUDIES = 20
"""Runs of up to so many studies end with a table of the studies."""


LISTED_SERIES = 60
"""`check` lists up to so many series on the terminal."""


def print_summary(console: Console, summary: RunSummary) -> None:
    """How the studies ended, each one where they are few, and where the results are."""
    import pyarrow.parquet as pq

    with (summary.out / "studies.parquet").open("rb") as file:  # which may be on object storage
        rows = pq.read_table(file).to_pylist()
    console.print(_outcome_table(rows))
    lines = [
        f"{_counted(summary.studies)}, {summary.flagged} flagged; "
        f"{summary.new} new in {summary.seconds:.0f} s. Results: {summary.out}",
        _next(summary),
    ]
    if len(rows) <= LISTED_STUDIES:
        console.print(_studies_table(rows))
        reasons = [f"{row['source']}: {row['reason']}" for row in rows if row["reason"]]
        lines = [*reasons, *([""] if reasons else []), *lines]
    if summary.usage and summary.new > LISTED_STUDIES:
        lines.append(summary.usage.sentence())
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_check(console: Console, rows: list[dict[str, Any]], out: Path | None) -> None:
    """What becomes of the series: how many of each verdict, and each one where they are few."""
    counts = Counter((row["verdict"], row["error"] or "") for row in rows)
    table = Table("verdict", "error", "series", box=SIMPLE)
    for (verdict, error), count in sorted(counts.items()):
        table.add_row(verdict, error, str(count))
    console.print(table)
    studies = {(row["study_id"], row["source"]) for row in rows}
    lines = [f"{_counted(len(studies))}." + (f" All series: {out / 'series.csv'}" if out else "")]
    if len(rows) <= LISTED_SERIES:
        listed = [f"{row['source']}  {row['series_uid'] or ''}  {_judged(row)}" for row in rows]
        lines = [*listed, "", *lines]
    elif out is None:
        lines.append("With --out FOLDER all series are listed there.")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _next(summary: RunSummary) -> str:
    page = summary.out / "report.html"
    if not summary.measured:
        return f"Not one study could be measured. {page} lists each reason, with what to do."
    return f"Next: open {page} in a browser."


def _counted(studies: int) -> str:
    return f"{studies} {'study' if studies == 1 else 'studies'}"


def print_vertebrae(console: Console, result: StudyResult) -> None:
    """The vertebrae of one study with heights in mm, G and its interval, and what is doubtful."""
    from vfscreen.measure import ratio_interval

    names = ("", "a", "m", "p", "G", "90 %", "grade", "shape", "doubts")
    table = Table(*(Column(name, no_wrap=True) for name in names), box=SIMPLE, pad_edge=False)
    for number, vertebra in enumerate(result.vertebrae, start=1):
        sd = vertebra.genant_ratio_sd
        ends = () if sd is None else ratio_interval(vertebra.genant_ratio, sd)
        table.add_row(
            str(number),
            *(f"{mm:.1f}" for mm in vertebra.heights_mm),
            f"{vertebra.genant_ratio:.3f}",
            " to ".join(f"{end:.2f}" for end in ends),
            vertebra.grade,
            vertebra.shape,
            ", ".join(vertebra.doubts),
        )
    if result.vertebrae:
        console.print(table)
        console.print("a, m, p: anterior, middle, posterior height, mm", highlight=False)
    lines = [
        f"status {result.status}",
        *(f"{doubt.name}: {doubt.reason}" for doubt in result.doubts),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _outcome_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("status", "error", "studies", box=SIMPLE)
    outcomes = Counter((row["status"], row["error"] or "") for row in rows)
    for (status, error), count in sorted(outcomes.items()):
        table.add_row(status, error, str(count))
    return table


def _studies_table(rows: list[dict[str, Any]]) -> Table:
    names = ("status", "vertebrae", "min G", "grade", "flagged")
    others = [Column(name, no_wrap=True) for name in names]
    table = Table(Column("study", overflow="fold"), *others, box=SIMPLE, pad_edge=False)
    for row in rows:
        smallest = row["min_genant_ratio"]
        table.add_row(
            escape(row["source"]),
            row["status"],
            _text(row["n_vertebrae"]),
            "" if smallest is None else f"{smallest:.3f}",
            _text(row["grade"]),
            {True: "yes", False: "no", None: ""}[row["flagged"]],
        )
    return table


def _judged(row: dict[str, Any]) -> str:
    code = f" ({row['error']})" if row["error"] else ""
    return f"{row['verdict']}{code}: {row['reason']}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
