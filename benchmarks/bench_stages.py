"""Seconds that each stage takes for one study, in one process.

python benchmarks/bench_stages.py STUDY --threads 1
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from vfscreen import load_models, read_volume
from vfscreen.curve import SpineCurve
from vfscreen.detect import detect
from vfscreen.localize import localize, localizer_input
from vfscreen.networks.weights import Models
from vfscreen.report.picture import draw_picture
from vfscreen.report.scene import Scene
from vfscreen.screening import finish
from vfscreen.settings import Settings
from vfscreen.straighten import straightened
from vfscreen.study import StudyHeader


class Stopwatch:
    """Seconds of each named stage, one entry a pass."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)


def main(
    study: Annotated[Path, typer.Argument(help="A folder with one DICOM study, or a NIfTI file.")],
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Of torch; all CPUs if not given.")] = None,
    repeats: Annotated[int, typer.Option(help="Passes that are timed, after one that is not.")] = 5,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    models = load_models(weights, device)
    one_pass(study, models, Stopwatch())  # the first pass also pays for imports and caches
    watch = Stopwatch()
    for _ in range(repeats):
        one_pass(study, models, watch)
    _show(Console(), watch, f"{study.name}, {models.device}, {torch.get_num_threads()} threads of torch")


def one_pass(study: Path, models: Models, watch: Stopwatch) -> None:
    settings = Settings()
    with watch.stage("read"):
        volume = read_volume(study)
    with watch.stage("reduce to 3 mm"):
        reduced = localizer_input(volume, settings.localize)
    with watch.stage("localize"):
        curve = localize([reduced], models.localizer, settings.localize)[0]
    if not isinstance(curve, SpineCurve):
        raise curve
    with watch.stage("straighten"):
        along = straightened(volume, curve, settings.straighten)
    with watch.stage("detect"):
        detections = detect([along.sheet], models.detector, settings.detect)[0]
    with watch.stage("look again and measure"):
        measured = finish(StudyHeader(), along, detections, models, settings)
    with watch.stage("picture"):
        draw_picture(Scene.of(along, measured.result, measured.detections, settings.measure.threshold))


def _show(console: Console, watch: Stopwatch, title: str) -> None:
    medians = {name: median(seconds) for name, seconds in watch.seconds.items()}
    total = sum(medians.values())
    table = Table("stage", "median, s", "range, s", "share", title=title)
    for name, seconds in watch.seconds.items():
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        table.add_row(name, f"{medians[name]:.3f}", spread, f"{medians[name] / total:.0%}")
    table.add_row("all", f"{total:.3f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
