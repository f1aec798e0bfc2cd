"""`vfscreen adjudicate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def adjudicate(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Result folder of a run.")],
    verdicts: Annotated[
        list[Path],
        typer.Option(
            help="flagged.xlsx as filled in, the page's CSV, or a CSV; once for each file.",
            rich_help_panel="Input",
        ),
    ],
    reader: Annotated[
        str, typer.Option(help="Who read, where a file does not say so.", rich_help_panel="Input")
    ] = "",
    arbiter: Annotated[
        str, typer.Option(help="The reader whose verdict decides.", rich_help_panel="Method")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the tables, instead of RESULTS/adjudicated.",
            file_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
) -> None:
    """The readers' verdicts as tables beside the automatic ones, with their agreement.

    Examples:

        vfscreen adjudicate results --verdicts results/flagged.xlsx
        vfscreen adjudicate results --verdicts a.csv --verdicts b.csv --arbiter K
    """
    from vfscreen.adjudication.adjudicate import adjudicate as adjudicated
    from vfscreen.adjudication.terminal import adjudication_lines, adjudication_table

    made, console = adjudicated(results, verdicts, out, reader, arbiter), Console()
    console.print(adjudication_table(made))
    for line in adjudication_lines(made):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    typer.echo(f"The tables are in {made.out}")
