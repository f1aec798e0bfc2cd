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
Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, float]]]


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

    def add(self, values: dict[str, float]) -> None:
        """Take in the figures of one step."""
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        """Means since the last call, over the steps at which a figure was a number."""
        means = {k: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for k, v in self.sums.items()}
        self.sums = {}
        return means


def fit(network: nn.Module, make: Callable[[int, int], Batch], loss: Loss, plan: Plan) -> nn.Module:
    """Train to `plan.steps`, from the checkpoint in `plan.out` where there is one.

    `make(seed, step)` gives the batch of a step; `loss(network, batch)` the loss and figures for the
    learning curve. Resuming continues exactly: weights, optimizer, step and batches.
    """
    device = choose_device(plan.device)
    plan.out.mkdir(parents=True, exist_ok=True)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.peak_rate, weight_decay=1e-3)
    start = _resume(plan, network, optimizer, device)
    progress = Progress()
    for step, batch in enumerate(_batches(make, plan, start), start):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        value, figures = loss(network, tuple(t.to(device) for t in batch))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        progress.add({"loss": float(value.detach()), **figures})
        done = step + 1
        if done % plan.log_every == 0 or done == plan.steps:
            _log_line(plan, done, progress)
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
        raise InputError(f"{path} was trained with seed {state['seed']}, not {plan.seed}")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    _forget_after(plan.out / "learning_curve.csv", state["step"])
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


def _log_line(plan: Plan, step: int, progress: Progress) -> None:
    row = {"step": step, "seconds": round(time.monotonic() - progress.started, 1), **progress.take()}
    path = plan.out / "learning_curve.csv"
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(row)
        writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()])
    log.info(" ".join(f"{k} {v:.4g}" for k, v in row.items()))
