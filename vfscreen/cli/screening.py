"""`vfscreen run`, `vfscreen merge` and `vfscreen check`."""

from __future__ import annotations

import csv
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import (
    Archive,
    Device,
    DeviceOption,
    Fresh,
    Paper,
    Results,
    Series,
    Threshold,
    Thumbnails,
    Weights,
    Workers,
    folder,
    settings_of,
)
from vfscreen.cli.shown import print_check, print_summary
from vfscreen.errors import InputError
from vfscreen.settings import MeasureSettings, Settings
from vfscreen.shards import Shard

if TYPE_CHECKING:
    from vfscreen.cluster.dispatch import DaskCluster


def run(
    source: Archive,
    out: Results,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N studies.", rich_help_panel="Input")
    ] = None,
    series: Series = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="The I-th of N shares of the studies; each into a folder of its own, for vfscreen merge.",
            rich_help_panel="Input",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Only the studies that failed, again.", rich_help_panel="Input"),
    ] = False,
    fresh: Fresh = False,
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
    threshold: Threshold = MeasureSettings.threshold,
    paper: Paper = False,
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
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Spread the run by Dask: local, slurm, pbs, sge, lsf, or a scheduler's tcp://HOST:PORT.",
            rich_help_panel="Cluster",
        ),
    ] = None,
    cluster_workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Workers or jobs; local: one a GPU or core unless set.", rich_help_panel="Cluster"
        ),
    ] = None,
    cluster_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Settings of dask-jobqueue, as in its jobqueue.yaml.",
            dir_okay=False,
            rich_help_panel="Cluster",
        ),
    ] = None,
) -> None:
    """Screen an archive: tables, flagged studies and pictures. Called again, it goes on where it stopped.

    Examples:

        vfscreen run sample_data --out results
        vfscreen run /archive --out results --limit 20   # a first try
    """
    from vfscreen import pipeline, progress
    from vfscreen.networks.weights import load_models
    from vfscreen.pseudonyms import Pseudonyms

    settings = settings_of(threshold, paper)
    try:
        with (
            _sigterm_raised(),
            progress.shown(Console(stderr=True)) as on_progress,
            _elsewhere(cluster, cluster_workers, cluster_config, weights, device.value) as workers_elsewhere,
        ):
            summary = pipeline.run(
                source,
                out,
                settings,
                models=load_models(weights, device.value if cluster is None else "cpu"),
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
                shard=None if shard is None else Shard.parse(shard),
                cluster=workers_elsewhere,
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


def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT...", help="The folders of all shards.", parser=folder)
    ],
    out: Results,
    fresh: Fresh = False,
) -> None:
    """Put the folders of all shards of one archive together: the tables are those of one run.

    Examples:

        vfscreen merge shard1 shard2 --out results
        vfscreen merge shards/* --out results --fresh
    """
    from vfscreen.merge import merge as merged

    summary = merged(folders, out, fresh=fresh)
    print_summary(Console(), summary)
    raise typer.Exit(0 if summary.measured else 1)


def check(
    source: Archive,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for series.csv and series.parquet; a run into it need not read the headers again.",
            metavar="<dir>",
            parser=folder,
            rich_help_panel="Output",
        ),
    ] = None,
    series: Series = None,
) -> None:
    """List the series of an archive from headers alone: which would be screened, which not, and why.

    Examples:

        vfscreen check sample_data
        vfscreen check /archive --out results   # spares the run reading all headers
    """
    from vfscreen.check import check as checked

    rows = checked(source, Settings().read, out, _series_uids(series))
    print_check(Console(), rows, out)
    raise typer.Exit(0 if any(row["verdict"] == "screened" for row in rows) else 1)


@contextmanager
def _elsewhere(
    place: str | None, workers: int | None, config: Path | None, weights: Path | None, device: str
) -> Iterator[DaskCluster | None]:
    """The workers of a cluster, where one is asked for."""
    if place is None:
        if workers or config:
            raise InputError("--cluster-workers and --cluster-config are for --cluster")
        yield None
        return
    try:
        from vfscreen.cluster.dispatch import DaskCluster
        from vfscreen.cluster.places import opened
    except ModuleNotFoundError as error:
        raise InputError(f"--cluster needs {error.name}: pip install 'vfscreen[cluster]'") from error
    from vfscreen.networks.weights import load_models

    folder = None if weights is None else weights.absolute()
    with opened(place, workers, config, device) as client:
        yield DaskCluster(client, partial(load_models, folder, device), load_models(folder, "cpu").provenance)


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
            raise InputError(f"--series {value} is neither a UID nor a file; `vfscreen check` lists the UIDs")
    return uids


def _listed_uids(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "series_uid" not in (rows.fieldnames or ()):
                raise InputError(f"{path} has no column series_uid; series.csv of `vfscreen check` has it")
            uids = [row["series_uid"].strip() for row in rows if row["series_uid"]]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error
    if not any(uids):
        raise InputError(f"the column series_uid of {path} is empty; fill it in")
    return [uid for uid in uids if uid]
