"""The main tables of a summary for a terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from vfscreen.epidemiology.summary import Summary


def summary_tables(summary: Summary) -> list[Table]:
    """The way from archive to analysis in numbers, and prevalence of all, by age and by sex."""
    return [_flow(summary.flow), _prevalence(summary.prevalence)]


def _flow(flow: pd.DataFrame) -> Table:
    table = Table(*map(str, flow.columns), title="From archive to analysis")
    for row in flow.itertuples(index=False):
        table.add_row(*(_text(value) for value in row))
    return table


def _prevalence(prevalence: pd.DataFrame) -> Table:
    table = Table("", "G at most", "cases of n", "apparent", "corrected", title="Prevalence (95 % interval)")
    for row in prevalence[prevalence.grouping.isin(["all", "age_group", "sex"])].to_dict("records"):
        group = " ".join(dict.fromkeys(str(row[name]) for name in ("age_group", "sex") if row[name] != "all"))
        table.add_row(
            escape(group or "all"),
            _text(row["max_ratio"]),
            f"{row['cases']} of {row['n']}",
            _with_interval(row, "prevalence"),
            _with_interval(row, "corrected"),
        )
    return table


def _with_interval(row: dict[Any, Any], name: str) -> str:
    if pd.isna(row[name]):
        return ""
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"


def _text(value: Any) -> str:
    return "" if pd.isna(value) else escape(str(value))
