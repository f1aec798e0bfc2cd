"""What each network's width, depth and resolution cost and give: the curve of accuracy by time.

Every variant of a network is trained for the same number of steps on the same batches, which are painted once
and kept beside the checkpoints; called again it goes on where it stopped. Accuracy is that on batches of
another seed, seconds are of one thread on an input of a whole chest. Short trainings part variants less than
long ones do, so only a variant that is as good after few steps is worth a long training.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.on_cpu import for_cpu
from vfscreen.networks.refiner import Refiner
from vfscreen.networks.weights import LAYOUTS
from vfscreen.training import detector, localizer, refiner
from vfscreen.training.loop import Batch, Loss, Plan, fit

SEED, VALIDATION_SEED = 1, 1_000_001
REPEATS = 7
"""Of each timing, of which the median counts."""


@dataclass(frozen=True)
class Kind:
    """How a network is made, trained, judged and timed."""

    make: Callable[[int, int], Batch]
    loss: Loss
    figures: tuple[str, ...]
    shape: tuple[int, ...]  # of the input for one chest of 30 cm
    variants: dict[str, Callable[[], nn.Module]]


class CoarseRefiner(Refiner):
    """The refiner on crops of 0.8 mm instead of 0.6."""

    scale = 0.75

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """As the refiner's, in pixels of the crops as they come."""
        coarse = functional.interpolate(crops, scale_factor=self.scale, mode="bilinear", antialias=True)
        keypoints, log_spreads = super().forward(coarse)
        return (keypoints + 0.5) / self.scale - 0.5, log_spreads


KINDS = {
    "localizer": Kind(
        localizer.make_batch,
        localizer.loss,
        ("error_mm", "presence_accuracy"),
        (1, 1, 112, 128, 128),
        {
            "half": partial(Localizer, (8, 12, 24, 32)),
            "two thirds": partial(Localizer, (8, 16, 32, 44)),
            "shipped": partial(Localizer, (12, 24, 48, 64)),
            "shallow": partial(Localizer, (12, 24, 48)),
        },
    ),
    "detector": Kind(
        detector.make_batch,
        detector.loss,
        ("offsets_mm", "recall"),
        (1, 1, 336, 112),
        {
            "half": partial(Detector, (8, 16, 32, 64, 64)),
            "shipped": partial(Detector, (16, 32, 64, 128, 128)),
            "shallow": partial(Detector, (16, 32, 64, 128)),
        },
    ),
    "refiner": Kind(
        refiner.make_batch,
        refiner.loss,
        ("height_mm", "ratio"),
        (14, 5, 96, 128),
        {
            "half": partial(Refiner, (12, 24, 48, 64)),
            "two thirds": partial(Refiner, (16, 32, 64, 96)),
            "shipped": partial(Refiner, (24, 48, 96, 128)),
            "shallow": partial(Refiner, (24, 48, 96)),
            "0.8 mm": partial(CoarseRefiner, (24, 48, 96, 128)),
        },
    ),
}


@dataclass(frozen=True)
class Kept:
    """Batches that are painted once for all variants."""

    make: Callable[[int, int], Batch]
    folder: Path

    def __call__(self, seed: int, step: int) -> Batch:
        path = self.folder / f"{seed}-{step:05d}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self.make(seed, step), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        batch: Batch = torch.load(path, weights_only=True)
        return batch


def main(
    out: Annotated[Path, typer.Option(help="Checkpoints, batches, curve.json and curve.svg.")],
    networks: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; all.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 600,
    validation: Annotated[int, typer.Option(min=1, help="Batches to judge by.")] = 40,
    workers: Annotated[int, typer.Option(help="Processes that paint batches.")] = 1,
) -> None:
    torch.set_num_threads(1)
    path, rows = out / "curve.json", []
    for name in networks or KINDS:
        kind = KINDS[name]
        batches = Kept(kind.make, out / name / "batches")
        for variant, build in kind.variants.items():
            torch.manual_seed(SEED)
            plan = Plan(out / name / variant, steps, SEED, "cpu", workers)
            network = fit(build(), batches, kind.loss, plan)
            rows.append({"network": name, "variant": variant, "steps": steps, **cost(network, name, kind)})
            rows[-1]["accuracy"] = accuracy(network, kind, batches, validation)
            path.write_text(json.dumps(rows, indent=1) + "\n")
            _show(rows)
    _draw(rows, out / "curve.svg")


def cost(network: nn.Module, name: str, kind: Kind) -> dict[str, float]:
    """Parameters, and seconds of one input as `vfscreen run` gives it."""
    parameters = sum(each.numel() for each in network.parameters())
    fast = for_cpu(copy.deepcopy(network)).to(memory_format=LAYOUTS[name])  # type: ignore[call-overload]
    image, seconds = torch.rand(kind.shape) * 2 - 1, []
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            start = time.process_time()
            fast(image)
            seconds.append(time.process_time() - start)
    return {"parameters": parameters, "cpu_s": median(seconds[1:])}


def accuracy(network: nn.Module, kind: Kind, batches: Kept, n: int) -> dict[str, list[float]]:
    """Mean and its standard error of each figure over batches that training never saw."""
    seen = []
    with torch.inference_mode():
        for step in range(n):
            value, figures = kind.loss(network, batches(VALIDATION_SEED, step))
            seen.append({"loss": float(value), **figures})
    values = {name: np.array([figures[name] for figures in seen]) for name in kind.figures}
    return {
        name: [float(np.nanmean(each)), float(np.nanstd(each) / np.sqrt(np.isfinite(each).sum()))]
        for name, each in values.items()
    }


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "variant", "parameters", "CPU s", "figures (standard error)")
    for row in rows:
        found = ", ".join(f"{name} {mean:.4f} ({se:.4f})" for name, (mean, se) in row["accuracy"].items())
        table.add_row(row["network"], row["variant"], f"{row['parameters']:,}", f"{row['cpu_s']:.3f}", found)
    Console().print(table)


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3), squeeze=False)
    for name, axes in zip(names, panels[0], strict=True):
        first = KINDS[name].figures[0]
        for row in (row for row in rows if row["network"] == name):
            mean, se = row["accuracy"][first]
            axes.errorbar(row["cpu_s"], mean, se, fmt="o", color="tab:blue")
            axes.annotate(row["variant"], (row["cpu_s"], mean), (4, 4), textcoords="offset points")
        axes.set(title=name, xlabel="CPU s a study", ylabel=first.replace("_", ", "))
        axes.set_xlim(left=0)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
