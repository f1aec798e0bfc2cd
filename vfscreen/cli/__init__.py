"""The command line: parse, call, print. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import logging
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from vfscreen import __version__
from vfscreen.cli import adjudication, evaluation, info, screening, show, training
from vfscreen.errors import VfscreenError

HELP = """Vertebral fractures in lung-screening CT: from an archive to tables, overnight.

Examples:

    vfscreen run /archive --out results     # screen it; called again, it goes on
    vfscreen check /archive --out results   # before: what would be screened, why
"""


class _Commands(TyperGroup):
    """The commands; a wrong command line is answered by an example of a right one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TyperException as error:
            command: Any = getattr(getattr(error, "ctx", None), "command", self)
            example = re.findall(r"^    (vfscreen .*?)(?:  +#.*)?$", command.help, re.MULTILINE)[0]
            error.message = f"{error.message}\n\nFor example: {example}".strip()
            raise


app = typer.Typer(
    cls=_Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP
)
app.command("check")(screening.check)  # in the order of the work
app.command("run")(screening.run)
app.command("merge")(screening.merge)
app.command("show")(show.show)
app.command("adjudicate")(adjudication.adjudicate)
app.command("evaluate")(evaluation.evaluate)
app.command("summarize")(evaluation.summarize)
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
