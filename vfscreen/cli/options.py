"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vfscreen.settings import MeasureSettings, RefineSettings, Settings


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


def place(text: str) -> Path:
    """A path, or a URL of object storage."""
    if "://" not in text:
        return Path(text)
    from vfscreen.storage import path_of  # loads numpy

    return path_of(text)


def folder(text: str) -> Path:
    """The same, and no file of this machine."""
    if Path(text).is_file():
        raise typer.BadParameter(f"Directory {text!r} is a file.")
    return place(text)


Out = Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False, rich_help_panel="Output")]


Results = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder for the results, here or on object storage (s3://, gs://).",
        metavar="<dir>",
        parser=folder,
        rich_help_panel="Output",
    ),
]


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
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Folder, NIfTI file or manifest (.csv, .parquet), here or on object storage (s3://, gs://).",
        parser=place,
    ),
]


Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Method")]


Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Start afresh: earlier results are moved into set_aside/.",
        rich_help_panel="Output",
    ),
]


Threshold = Annotated[
    float,
    typer.Option(min=0, max=1, help="A study with a G at or below is flagged.", rich_help_panel="Method"),
]


Paper = Annotated[
    bool,
    typer.Option("--paper", help="Heights by the paper's own keypoints alone.", rich_help_panel="Method"),
]


def settings_of(threshold: float, paper: bool) -> Settings:
    """What these options change."""
    return Settings(refine=RefineSettings(enabled=not paper), measure=MeasureSettings(threshold=threshold))
