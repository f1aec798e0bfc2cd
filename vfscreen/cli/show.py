"""`vfscreen show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import Device, DeviceOption, Paper, Threshold, Weights, place, settings_of
from vfscreen.cli.shown import print_vertebrae
from vfscreen.settings import MeasureSettings


def show(
    study: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="Folder of one DICOM series, or NIfTI file.", parser=place),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture, a PNG file; <study>_stages.png here unless given.",
            dir_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
    threshold: Threshold = MeasureSettings.threshold,
    paper: Paper = False,
    weights: Weights = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Draw every stage of one study, to see why its result is what it is; its vertebrae on the terminal.

    Examples:

        vfscreen show sample_data/severe_biconcave
        vfscreen show /archive/study --out study.png
    """
    from vfscreen.networks.weights import load_models
    from vfscreen.report.stages import draw_stages
    from vfscreen.stages import stages

    settings = settings_of(threshold, paper)
    out = out or Path(f"{study.resolve().name.removesuffix('.gz').removesuffix('.nii')}_stages.png")
    seen = stages(study, load_models(weights, device.value), settings)
    draw_stages(seen, settings, out)
    if seen.measured:
        print_vertebrae(Console(), seen.measured.result)
    if seen.error:
        typer.echo(f"{seen.error.code}: {seen.error}")
    typer.echo(f"Every stage: {out}")
    raise typer.Exit(0 if seen.measured and seen.measured.result.vertebrae else 1)
