"""The main tables for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.experts import ExpertsReport
from vfscreen.evaluation.sheets import (
    Sheet,
    agreement_sheet,
    differences_sheet,
    main_sheet,
    transposed,
)


def terminal_tables(evaluation: Evaluation) -> list[Table]:
    """Tables 1 and 2, the agreement, and the differences where there are two runs; groups are on the page."""
    sheets = [main_sheet(evaluation), transposed(agreement_sheet(evaluation))]
    if evaluation.differences is not None:
        sheets.append(differences_sheet(evaluation.differences))
    return [as_rich(sheet) for sheet in sheets]


def experts_table(report: ExpertsReport) -> Table:
    """Every figure of the experts beside the paper's."""
    rows = tuple(
        (
            row["figure"],
            _figure(row["value"]),
            "" if row["low"] is None else f"{_figure(row['low'])} to {_figure(row['high'])}",
            _figure(row["paper"]),
            _figure(row["difference"], sign="+"),
        )
        for row in report.rows()
    )
    title = f"Experts against each other: {report.readings} readings of {report.studies} studies"
    return as_rich(Sheet(title, ("", "vfscreen", "95 % interval", "paper", "difference"), rows))


def _figure(value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}}" if isinstance(value, int) else f"{value:{sign}.3f}"


def as_rich(sheet: Sheet) -> Table:
    """One table; texts are shown as they are, brackets too."""
    table = Table(title=sheet.title, caption=sheet.note or None)
    for column in sheet.columns:
        table.add_column(escape(column))
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table
