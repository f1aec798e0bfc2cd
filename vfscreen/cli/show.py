"""`vfscreen show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import Device, DeviceOption, Weights
from vfscreen.cli.shown import print_vertebrae
from vfscreen.settings import MeasureSettings, RefineSettings, Settings


def show(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder of one DICOM series, or NIfTI file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture, a PNG file; <study>_stages.png here unless given.",
            dir_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
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
) -> None:
    """Draw every stage of one study, to see why its result is what it is; its vertebrae on the terminal.

    Examples:

        vfscreen show sample_data/severe_biconcave
        vfscreen show /archive/study --out study.png
    """
    from vfscreen.networks.weights import load_models
    from vfscreen.report.stages import draw_stages
    from vfscreen.stages import stages

    settings = Settings(
        refine=RefineSettings(enabled=not paper), measure=MeasureSettings(threshold=threshold)
    )
    out = out or Path(f"{study.resolve().name.removesuffix('.gz').removesuffix('.nii')}_stages.png")
    seen = stages(study, load_models(weights, device.value), settings)
    draw_stages(seen, settings, out)
    if seen.measured:
        print_vertebrae(Console(), seen.measured.result)
    if seen.error:
        typer.echo(f"{seen.error.code}: {seen.error}")
    typer.echo(f"Every stage: {out}")
    raise typer.Exit(0 if seen.measured and seen.measured.result.vertebrae else 1)
