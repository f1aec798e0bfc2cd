"""What convolutions in 8-bit integers would save, and what they would cost in accuracy.

    python benchmarks/int8.py --patients 40 --workers 2 --out int8.json

Quantisation after training: each convolution but the first and the last of a network gets weights of 8 bits
by channel, and its input and output the range that they had on scans of another cohort. Normalisation stays
in floating point. The patients, figures and differences are those of `settings_curve.py`.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import held_out
import pandas as pd
import settings_curve as curve
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.ao.nn import quantized

from vfscreen import provenance, screen
from vfscreen.errors import StudyError
from vfscreen.networks.on_cpu import OneDnnConvolution
from vfscreen.networks.weights import Models
from vfscreen.settings import Settings
from vfscreen.simulation.cohort import PROTOCOLS, SimulatedStudy, scan_patient
from vfscreen.study import HEIGHTS, StudyResult
from vfscreen.training.calibration import models_of_process

CALIBRATION_SEED, CALIBRATION_PATIENTS = 4711, 3
LEVELS = 255
VARIANTS = {
    "shipped": (),
    "localizer in int8": ("localizer",),
    "detector in int8": ("detector",),
    "refiner in int8": ("refiner",),
    "all in int8": ("localizer", "detector", "refiner"),
}


class Range(nn.Module):
    """A convolution that remembers the least and the largest value of what goes in and comes out."""

    def __init__(self, convolution: OneDnnConvolution) -> None:
        super().__init__()
        self.convolution = convolution
        self.limits = [[0.0, 0.0], [0.0, 0.0]]

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        for limits, values in zip(self.limits, (x, y), strict=True):
            limits[0] = min(limits[0], float(values.min()))
            limits[1] = max(limits[1], float(values.max()))
        return y


class Int8Convolution(nn.Module):
    """A convolution in integers between floating-point layers."""

    def __init__(self, seen: Range) -> None:
        super().__init__()
        plain = seen.convolution.plain
        kind = quantized.Conv3d if isinstance(plain, nn.Conv3d) else quantized.Conv2d
        self.layer = kind(
            plain.in_channels, plain.out_channels, plain.kernel_size, plain.stride, plain.padding
        )
        weight = plain.weight.detach().contiguous()
        steps = weight.abs().flatten(1).amax(1).clamp(min=1e-9) / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        bias = None if plain.bias is None else plain.bias.detach()
        self.layer.set_weight_bias(torch.quantize_per_channel(weight, steps, zeros, 0, torch.qint8), bias)
        (self.step, self.zero), (self.layer.scale, self.layer.zero_point) = map(_step, seen.limits)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.quantize_per_tensor(x, self.step, self.zero, torch.quint8)).dequantize()


def _step(limits: Sequence[float]) -> tuple[float, int]:
    step = max(limits[1] - limits[0], 1e-9) / LEVELS
    return step, round(-limits[0] / step)


def _replaced(network: nn.Module, of: type[nn.Module], by: Any) -> nn.Module:
    """The network with each layer of a kind replaced, which changes it."""
    for name, layer in network.named_children():
        setattr(network, name, by(layer) if isinstance(layer, of) else _replaced(layer, of, by))
    return network


@cache
def variants_of_process(weights: Path | None) -> dict[str, Models]:
    """The models of each variant, made once by each process."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.backends.quantized.engine = "onednn"
    shipped = models_of_process(weights)
    watched = _with(shipped, lambda network: _replaced(network, OneDnnConvolution, Range))
    for index in range(CALIBRATION_PATIENTS):
        for study in _scans(CALIBRATION_SEED, index):
            with suppress(StudyError):
                screen(study.volume, watched, Settings())
    in_int8 = _with(watched, _quantised)
    return {
        name: replace(shipped, **{network: getattr(in_int8, network) for network in networks})
        for name, networks in VARIANTS.items()
    }


def _with(models: Models, change: Any) -> Models:
    """The models with copies of their networks, changed."""
    names = ("localizer", "detector", "refiner")
    each = {name: copy.deepcopy(getattr(models, name)) for name in names}
    return replace(models, **{name: replace(one, network=change(one.network)) for name, one in each.items()})


def _quantised(network: nn.Module) -> nn.Module:
    seen = [layer for layer in network.modules() if isinstance(layer, Range)]
    ends = (seen[0], seen[-1])
    return _replaced(
        network, Range, lambda layer: layer.convolution if layer in ends else Int8Convolution(layer)
    )


def _scans(seed: int, index: int) -> Sequence[SimulatedStudy]:
    cobb = held_out.PATIENT_COBB_DEG[index % len(held_out.PATIENT_COBB_DEG)]
    return scan_patient(seed, index, [PROTOCOLS[name] for name in curve.PROTOCOL_NAMES], cobb)


def main(
    patients: Annotated[int, typer.Option(help="Patients to draw.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the cohort; not one that training used.")] = 2020,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    out: Annotated[Path, typer.Option(help="Figures, as JSON.")] = Path("int8.json"),
) -> None:
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        found = pool.map(partial(score_patient, weights, seed), range(patients))
        table = pd.DataFrame([row for scores in track(found, "screening", patients) for row in scores])
    figures = [
        curve.row_of(table[table.protocol == protocol], protocol, variant)
        for protocol in curve.PROTOCOL_NAMES
        for variant in VARIANTS
    ]
    about = {"patients": patients, "seed": seed, "machine": provenance.machine(), "moved_mm": moved_mm(table)}
    out.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")
    curve.show(Console(width=180), figures)
    for name, shares in about["moved_mm"].items():
        typer.echo(f"{name}: heights move by " + ", ".join(f"{mm:.3f} mm ({q})" for q, mm in shares.items()))


def moved_mm(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How far each variant's heights are from the shipped ones, vertebra by vertebra."""
    heights = table[table.found].set_index(["scan", "level"])[["method", *(f"{h}_mm" for h in HEIGHTS)]]
    of_each = {name: rows.drop(columns="method") for name, rows in heights.groupby("method")}
    shares = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "largest": 1.0}
    return {
        name: {
            q: float((of_each[name] - of_each["shipped"]).abs().stack().quantile(p))
            for q, p in shares.items()
        }
        for name in list(VARIANTS)[1:]
    }


def score_patient(weights: Path | None, seed: int, index: int) -> list[dict[str, Any]]:
    """Every whole vertebra of a patient's scans, and every false one, by each variant."""
    rows: list[dict[str, Any]] = []
    for protocol, study in zip(curve.PROTOCOL_NAMES, _scans(seed, index), strict=True):
        scan = held_out.Scan(study, {"patient": index, "scan": f"{index} {protocol}", "protocol": protocol})
        for name, models in variants_of_process(weights).items():
            start = time.process_time()
            result: StudyResult | None = None
            with suppress(StudyError):
                result = screen(study.volume, models, Settings())
            cpu_s = time.process_time() - start
            rows += [{**row, "cpu_s": cpu_s} for row in held_out.compare(scan, name, result)]
    return rows


if __name__ == "__main__":
    typer.run(main)
