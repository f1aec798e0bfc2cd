"""Markdown tables of what `held_out.py` found, for the pages that quote it.

python benchmarks/tables.py held_out/figures.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

WITHOUT_INTERVAL = ("vertebrae",)


def main(
    figures: Annotated[Path, typer.Argument(help="figures.json of `held_out.py`.")],
    only: Annotated[str, typer.Option(help="Tables whose title holds this.")] = "",
) -> None:
    for title, groups in json.loads(figures.read_text())["figures"].items():
        if only in title:
            print(f"### {title}\n\n{table(groups)}\n")


def table(groups: dict[str, dict[str, list[float | None]]]) -> str:
    """A row for each figure, a column for each group: value (95 % interval)."""
    lines = [f"| | {' | '.join(groups)} |", f"| --- {'| --- ' * len(groups)}|"]
    for name in next(iter(groups.values())):
        cells = " | ".join(_cell(name, of_group[name]) for of_group in groups.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def _cell(name: str, figure: list[float | None]) -> str:
    value, low, high = figure
    if value is None:
        return "-"
    if name in WITHOUT_INTERVAL or low is None or high is None:
        return f"{value:.0f}" if name in WITHOUT_INTERVAL else f"{value:.3f}"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    typer.run(main)
