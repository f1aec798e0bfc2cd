"""The main tables for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.sheets import (
    Sheet,
    agreement_sheet,
    differences_sheet,
    table_1_sheet,
    table_2_sheet,
)


def terminal_tables(evaluation: Evaluation) -> list[Table]:
    """Tables 1 and 2, the agreement, and the differences where there are two runs."""
    sheets = [
        table_1_sheet(evaluation),
        table_2_sheet(evaluation),
        agreement_sheet(evaluation),
    ]
    if evaluation.differences is not None:
        sheets.append(differences_sheet(evaluation.differences))
    return [as_rich(sheet) for sheet in sheets]


def as_rich(sheet: Sheet) -> Table:
    """One table; texts are shown as they are, brackets too."""
    table = Table(title=sheet.title, caption=sheet.note or None)
    for column in sheet.columns:
        table.add_column(escape(column))
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table
