"""The command line: parse, call, print. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import csv
import logging
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from vfscreen import __version__
from vfscreen.errors import InputError, VfscreenError, WeightsError
from vfscreen.settings import MeasureSettings, RefineSettings, Settings

if TYPE_CHECKING:
    from vfscreen.pipeline import RunSummary

LISTED_STUDIES = 20
"""Runs of up to so many studies end with a table of the studies."""
LISTED_SERIES = 60
"""`check` lists up to so many series on the terminal."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Vertebral fractures in lung-screening CT: from an archive to tables.",
)


class Device(str, Enum):
    """Where the networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Thumbnails(str, Enum):
    """Studies that get a picture."""

    flagged = "flagged"
    all = "all"
    none = "none"


class Format(str, Enum):
    """File format of simulated CT."""

    dicom = "dicom"
    nifti = "nifti"
    annotated = "annotated"


class Network(str, Enum):
    """What to train."""

    localizer = "localizer"
    detector = "detector"
    refiner = "refiner"
    all = "all"


Out = Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False, rich_help_panel="Output")]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto takes the GPU if there is one.", rich_help_panel="Machine")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that prepare data.", rich_help_panel="Machine")
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Folder with weights, instead of the shipped ones.", rich_help_panel="Method"),
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        metavar="UID|FILE",
        help="Screen this series, whatever the rule says: its UID, or a CSV with a column series_uid.",
        rich_help_panel="Input",
    ),
]
Archive = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Folder, NIfTI file or manifest (.csv, .parquet).")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Method")]


@app.command("run")
def run_command(
    source: Archive,
    out: Out,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N studies.", rich_help_panel="Input")
    ] = None,
    series: Series = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Only the studies that failed, again.", rich_help_panel="Input"),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Start afresh: earlier results are moved into set_aside/.",
            rich_help_panel="Output",
        ),
    ] = False,
    pseudonymise: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYFILE",
            help="Replace patient, study, series and source by keyed hashes, and shift dates.",
            rich_help_panel="Output",
        ),
    ] = None,
    thumbnails: Annotated[
        Thumbnails, typer.Option(help="Studies that get a picture.", rich_help_panel="Output")
    ] = Thumbnails.flagged,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, help="A study with a G at or below is flagged.", rich_help_panel="Method"),
    ] = MeasureSettings.threshold,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Heights by the paper's own keypoints alone.", rich_help_panel="Method"),
    ] = False,
    weights: Weights = None,
    device: DeviceOption = Device.auto,
    workers: Workers = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Studies the device takes at once.", rich_help_panel="Machine")
    ] = 8,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that reading a study may take.", rich_help_panel="Machine")
    ] = 600.0,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            help="GiB that a reader may use; a share of three quarters of the machine's unless set.",
            rich_help_panel="Machine",
        ),
    ] = None,
) -> None:
    """Screen an archive: tables, flagged studies and pictures. Called again, it goes on where it stopped."""
    from vfscreen import pipeline, progress
    from vfscreen.networks.weights import load_models
    from vfscreen.pseudonyms import Pseudonyms

    settings = Settings(
        refine=RefineSettings(enabled=not paper), measure=MeasureSettings(threshold=threshold)
    )
    try:
        with _sigterm_raised(), progress.shown(Console(stderr=True)) as on_progress:
            summary = pipeline.run(
                source,
                out,
                settings,
                models=load_models(weights, device.value),
                workers=workers,
                batch_size=batch_size,
                limit=limit,
                thumbnails=thumbnails.value,
                time_limit_s=timeout,
                memory_mib=None if memory is None else int(memory * 1024),
                series=_series_uids(series),
                pseudonyms=None if pseudonymise is None else Pseudonyms.from_file(pseudonymise),
                retry_failed=retry_failed,
                fresh=fresh,
                progress=on_progress,
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"Interrupted. What is finished is in {out}; the same command goes on from there.", err=True
        )
        raise typer.Exit(143 if isinstance(interrupt, _Terminated) else 130) from None
    _print_summary(Console(), summary)
    raise typer.Exit(0 if summary.measured else 1)


@app.command("check")
def check_command(
    source: Archive,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for series.csv and series.parquet; a run into it need not read the headers again.",
            file_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
    series: Series = None,
) -> None:
    """List the series of an archive from headers alone: which would be screened, which not, and why."""
    from vfscreen.check import check

    rows = check(source, Settings().read, out, _series_uids(series))
    _print_check(Console(), rows, out)
    raise typer.Exit(0 if any(row["verdict"] == "screened" for row in rows) else 1)


@app.command()
def simulate(
    out: Out,
    studies: Annotated[int, typer.Option(min=1, help="Number of studies.", rich_help_panel="Input")] = 10,
    seed: Seed = 0,
    file_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="File format; annotated is DICOM with experts' readings, for train.",
            rich_help_panel="Output",
        ),
    ] = Format.dicom,
    sample: Annotated[
        bool, typer.Option("--sample", help="The studies of sample_data/ instead.", rich_help_panel="Input")
    ] = False,
) -> None:
    """Make CT studies with known truth, which stands beside them in truth.json."""
    from vfscreen.simulation import annotation, cohort

    if sample:
        cohort.simulate_sample(out)
    elif file_format is Format.annotated:
        annotation.simulate_annotated(out, studies, seed)
    else:
        cohort.simulate_cohort(out, studies, seed, file_format.value)
    typer.echo(f"Simulated studies with their truth are in {out}")


@app.command()
def train(
    out: Out,
    network: Annotated[
        Network, typer.Argument(metavar="NETWORK", help="localizer, detector, refiner or all.")
    ] = Network.all,
    dicom: Annotated[
        Path | None,
        typer.Option(help="Train on this CT, with --annotation: folder of studies.", rich_help_panel="Input"),
    ] = None,
    annotation: Annotated[
        Path | None, typer.Option(help="Experts' annotation, a .json a study.", rich_help_panel="Input")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(min=0, max=4, help="Only this fold of the annotated CT.", rich_help_panel="Input"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps, instead of each network's own.", rich_help_panel="Method"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|shipped", help="Weights to fine-tune, instead of none.", rich_help_panel="Method"
        ),
    ] = None,
    patients: Annotated[
        int,
        typer.Option(
            min=0,
            help="Simulated patients on whom the intervals are calibrated, when all are trained.",
            rich_help_panel="Method",
        ),
    ] = 60,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    workers: Workers = None,
) -> None:
    """Train on simulated or on annotated CT. Called again, it goes on where it stopped."""
    from vfscreen.provenance import usable_cpus
    from vfscreen.training import runs

    if (dicom is None) != (annotation is None) or (fold is not None and dicom is None):
        raise InputError("--dicom and --annotation go together, and --fold goes with them")
    networks = list(runs.NETWORKS) if network is Network.all else [network.value]
    first = runs.start_folder(start)
    options = runs.Options(seed, steps, device.value, workers or usable_cpus(), first, patients)
    if dicom and annotation:
        runs.train_annotated(networks, out, runs.Source(dicom, annotation, fold), options)
    else:
        runs.train_simulated(networks, out, options)
    typer.echo(f"Weights, learning curves and checkpoints are in {out}")


@app.command()
def info(weights: Weights = None, device: DeviceOption = Device.auto) -> None:
    """Versions, codecs, weights and device: what a bug report needs."""
    from vfscreen import provenance

    facts = {**provenance.versions(), **provenance.machine(), **_codecs(), **_weights(weights, device.value)}
    for name, value in facts.items():
        typer.echo(f"{name}: {value}")


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


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the machine or its scheduler ends the run as Ctrl-C would."""


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """SIGTERM as an exception, so that what is finished becomes tables."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_summary(console: Console, summary: RunSummary) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(summary.out / "studies.parquet").to_pylist()
    console.print(_outcome_table(rows))
    lines = [
        f"{summary.studies} studies, {summary.flagged} flagged; "
        f"{summary.new} new in {summary.seconds:.0f} s. Results: {summary.out}"
    ]
    if len(rows) <= LISTED_STUDIES:
        console.print(_studies_table(rows))
        reasons = [f"{row['source']}: {row['reason']}" for row in rows if row["reason"]]
        lines = [*reasons, *([""] if reasons else []), *lines]
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


def _print_check(console: Console, rows: list[dict[str, Any]], out: Path | None) -> None:
    counts = Counter((row["verdict"], row["error"] or "") for row in rows)
    table = Table("verdict", "error", "series", box=SIMPLE)
    for (verdict, error), count in sorted(counts.items()):
        table.add_row(verdict, error, str(count))
    console.print(table)
    studies = {(row["study_id"], row["source"]) for row in rows}
    lines = [f"{len(studies)} studies." + (f" All series: {out / 'series.csv'}" if out else "")]
    if len(rows) <= LISTED_SERIES:
        listed = [f"{row['source']}  {row['series_uid'] or ''}  {_judged(row)}" for row in rows]
        lines = [*listed, "", *lines]
    elif out is None:
        lines.append("With --out FOLDER all series are listed there.")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _judged(row: dict[str, Any]) -> str:
    code = f" ({row['error']})" if row["error"] else ""
    return f"{row['verdict']}{code}: {row['reason']}"


def _series_uids(values: list[str] | None) -> list[str]:
    """UIDs as they are given, or as the column `series_uid` of a CSV lists them."""
    uids: list[str] = []
    for value in values or []:
        if Path(value).is_file():
            uids += _listed_uids(Path(value))
        elif re.fullmatch(r"[\d.]+", value):
            uids.append(value)
        else:
            raise InputError(f"--series {value} is neither a UID nor a file")
    return uids


def _listed_uids(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "series_uid" not in (rows.fieldnames or ()):
                raise InputError(f"{path} has no column series_uid")
            uids = [row["series_uid"].strip() for row in rows if row["series_uid"]]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error
    if not any(uids):
        raise InputError(f"the column series_uid of {path} is empty")
    return [uid for uid in uids if uid]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _codecs() -> dict[str, str]:
    """Which plugins of pydicom decode each compressed transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    found = {}
    for uid in AllTransferSyntaxes:
        try:
            decoder = get_decoder(uid)
        except NotImplementedError:
            continue
        if uid.is_compressed:
            found[uid.name] = ", ".join(decoder.available_plugins) or "none"
    return found


def _weights(folder: Path | None, device: str) -> dict[str, Any]:
    from vfscreen.networks.weights import load_models

    try:
        models = load_models(folder, device)
    except WeightsError as error:
        return {"weights": str(error)}
    weights = {
        f"weights {name}": f"sha256 {made['sha256']}, {made.get('steps', 'unknown')} steps"
        for name, made in models.provenance.items()
    }
    return {"device": models.device, **weights}
