"""The training loop of both networks: seeded batches, checkpoints, exact resumption, learning curve."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vfscreen.errors import InputError
from vfscreen.networks.weights import choose_device

log = logging.getLogger(__name__)

Batch = tuple[Tensor, ...]
Figures = dict[str, float]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Figures]]
Validate = Callable[[nn.Module, str], Figures]


@dataclass(frozen=True)
class Plan:
    """One training: the same plan and seed give the same batches in the same order."""

    out: Path
    steps: int
    seed: int
    device: str = "auto"
    workers: int = 1
    peak_rate: float = 2e-3
    warm_up: float = 0.1  # share of the steps
    log_every: int = 50
    save_every: int = 200
    validate_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then half a cosine to a hundredth of the peak."""
        start = max(1.0, self.warm_up * self.steps)
        if step < start:
            return self.peak_rate * (step + 1) / start
        done = min(1.0, (step - start) / max(1.0, self.steps - start))
        return self.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


class Batches(Dataset[Batch]):
    """Batch number i is painted from (seed, i), by whichever worker asks for it."""

    def __init__(self, make: Callable[[int, int], Batch], plan: Plan) -> None:
        self.make, self.plan = make, plan

    def __len__(self) -> int:
        """Number of steps."""
        return self.plan.steps

    def __getitem__(self, index: int) -> Batch:
        """The batch of one step."""
        torch.set_num_threads(1)
        return self.make(self.plan.seed, index)


@dataclass
class Progress:
    """What the learning curve shows since its last line."""

    started: float = field(default_factory=time.monotonic)
    sums: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Since this call of the training began."""
        return round(time.monotonic() - self.started, 1)

    def add(self, values: Figures) -> None:
        """Take in the figures of one step."""
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)

    def take(self) -> Figures:
        """Means since the last call, over the steps at which a figure was a number."""
        means = {k: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for k, v in self.sums.items()}
        self.sums = {}
        return means


def fit(
    network: nn.Module,
    make: Callable[[int, int], Batch],
    loss: Loss,
    plan: Plan,
    validate: Validate | None = None,
) -> nn.Module:
    """Train to `plan.steps`, from the checkpoint in `plan.out` where there is one.

    `make(seed, step)` gives the batch of a step; `loss(network, batch)` the loss and figures for the
    learning curve; `validate(network, device)` figures on samples never trained on, for
    `validation.csv`. Resuming continues exactly: weights, optimizer, step and batches. Where the
    machine computes with bfloat16, the network does so in training; losses and weights stay float32.
    """
    device = choose_device(plan.device)
    plan.out.mkdir(parents=True, exist_ok=True)
    network.to(device).train()
    is_3d = any(isinstance(module, nn.Conv3d) for module in network.modules())
    channels_last = torch.channels_last_3d if is_3d else torch.channels_last  # faster on every device
    network.to(memory_format=channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), plan.peak_rate, weight_decay=1e-3)
    start = _resume(plan, network, optimizer, device)
    progress = Progress()
    for step, batch in enumerate(_batches(make, plan, start), start):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        with torch.autocast(device, torch.bfloat16, enabled=_has_bfloat16(device)):
            value, figures = loss(network, tuple(t.to(device) for t in batch))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        progress.add({"loss": float(value.detach()), **figures})
        done = step + 1
        if done % plan.log_every == 0 or done == plan.steps:
            _log_line(plan.out / "learning_curve.csv", done, progress.seconds, progress.take())
        if validate and (done % plan.validate_every == 0 or done == plan.steps):
            network.eval()
            _log_line(plan.out / "validation.csv", done, progress.seconds, validate(network, device))
            network.train()
        if done % plan.save_every == 0 or done == plan.steps:
            _save(plan, done, network, optimizer)
    return network.eval()


def _batches(make: Callable[[int, int], Batch], plan: Plan, start: int) -> Iterator[Batch]:
    loader: DataLoader[Batch] = DataLoader(
        Batches(make, plan),
        batch_size=None,
        sampler=range(start, plan.steps),
        num_workers=plan.workers,
        prefetch_factor=4 if plan.workers else None,
    )
    return iter(loader)


def checkpoint_path(out: Path) -> Path:
    """Where a training keeps its state."""
    return out / "checkpoint.pt"


def _resume(plan: Plan, network: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> int:
    path = checkpoint_path(plan.out)
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state["seed"] != plan.seed:
        raise InputError(
            f"{path} was trained with seed {state['seed']}, not {plan.seed}; give that --seed to go on, or "
            "another --out to begin anew"
        )
    if state["step"] > plan.steps:
        raise InputError(
            f"{path} has {state['step']} steps already, more than the {plan.steps} asked for; give more "
            "--steps to go on, or another --out to begin anew"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    for name in ("learning_curve.csv", "validation.csv"):
        _forget_after(plan.out / name, state["step"])
    log.info("going on at step %d of %d", state["step"], plan.steps)
    return int(state["step"])


def _forget_after(curve: Path, step: int) -> None:
    """Drop the lines of steps that are done again."""
    if curve.exists():
        head, *rows = curve.read_text().splitlines(keepends=True)
        curve.write_text("".join([head, *(row for row in rows if int(row.split(",")[0]) <= step)]))


def _save(plan: Plan, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": step,
        "seed": plan.seed,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    path = checkpoint_path(plan.out)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def _log_line(path: Path, step: int, seconds: float, figures: Figures) -> None:
    row = {"step": step, "seconds": seconds, **figures}
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(row)
        writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()])
    log.info(" ".join(f"{k} {v:.4g}" for k, v in row.items()))


def _has_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
