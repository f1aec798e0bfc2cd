"""`vfscreen run` and `vfscreen check`."""

from __future__ import annotations

import csv
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import Archive, Device, DeviceOption, Out, Series, Thumbnails, Weights, Workers
from vfscreen.cli.shown import print_check, print_summary
from vfscreen.errors import InputError
from vfscreen.settings import MeasureSettings, RefineSettings, Settings


def run(
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
    dicom_sr: Annotated[
        bool,
        typer.Option(
            "--dicom-sr",
            help="A DICOM Structured Report of each measured DICOM study, in dicom_sr/; needs highdicom.",
            rich_help_panel="Output",
        ),
    ] = False,
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
                dicom_sr=dicom_sr,
                progress=on_progress,
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(
            f"Interrupted. What is finished is in {out}; the same command goes on from there.", err=True
        )
        raise typer.Exit(143 if isinstance(interrupt, _Terminated) else 130) from None
    print_summary(Console(), summary)
    raise typer.Exit(0 if summary.measured else 1)


def check(
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
    from vfscreen.check import check as checked

    rows = checked(source, Settings().read, out, _series_uids(series))
    print_check(Console(), rows, out)
    raise typer.Exit(0 if any(row["verdict"] == "screened" for row in rows) else 1)


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
