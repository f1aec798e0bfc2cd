"""`vfscreen simulate` and `vfscreen train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfscreen.cli.options import Device, DeviceOption, Format, Network, Out, Seed, Workers
from vfscreen.errors import InputError


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
    """Make CT studies with known truth, which stands beside them in truth.json.

    Examples:

        vfscreen simulate --out cohort --studies 20 --seed 1
        vfscreen simulate --out cohort_nifti --format nifti
    """
    from vfscreen.simulation import annotation, cohort

    if sample:
        cohort.simulate_sample(out)
    elif file_format is Format.annotated:
        annotation.simulate_annotated(out, studies, seed)
    else:
        cohort.simulate_cohort(out, studies, seed, file_format.value)
    typer.echo(f"Simulated studies with their truth are in {out}")


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
    """Train on simulated or on annotated CT. Called again, it goes on where it stopped.

    Examples:

        vfscreen train --out runs --seed 1
        vfscreen train --out runs --dicom ct --annotation annotation --start shipped
    """
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
