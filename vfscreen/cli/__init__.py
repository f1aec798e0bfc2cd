"""The command line: parse, call, print. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from vfscreen import __version__
from vfscreen.cli import adjudication, evaluation, info, screening, show, training
from vfscreen.errors import VfscreenError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Vertebral fractures in lung-screening CT: from an archive to tables.",
)
app.command("run")(screening.run)
app.command("check")(screening.check)
app.command("show")(show.show)
app.command("evaluate")(evaluation.evaluate)
app.command("summarize")(evaluation.summarize)
app.command("adjudicate")(adjudication.adjudicate)
app.command("simulate")(training.simulate)
app.command("train")(training.train)
app.command("info")(info.info)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"vfscreen {__version__}")
        raise typer.Exit


def main() -> None:
    """The console command: errors of vfscreen and of the disk become one line on stderr and exit code 2."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[_OnStderr()])
    logging.captureWarnings(True)
    logging.getLogger("vfscreen").setLevel(logging.INFO)
    try:
        app()
    except (VfscreenError, OSError) as error:
        typer.echo(f"vfscreen: {error}", err=True)
        sys.exit(2)


class _OnStderr(logging.Handler):
    """Writes to what is stderr at the time: the progress bar takes its place, and prints above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")
