"""One network to train: from nothing, or fine-tuned from weights that exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vfscreen.networks.weights import load_weights, save_weights, weights_path
from vfscreen.training.loop import Batch, Loss, Plan, Validate, fit

FINE_TUNING_RATE = 5e-4  # a quarter of the peak from nothing: what was learned is not to be lost


@dataclass(frozen=True)
class Task:
    """What to train on what. `name` is that of the network, and of the file of its weights."""

    name: str
    network: Callable[[], nn.Module]
    make: Callable[[int, int], Batch]
    loss: Loss
    trained_on: str
    validate: Validate | None = None


def run(task: Task, plan: Plan, start: Path | None = None) -> None:
    """Train as planned and write the weights with their SHA256SUMS to `plan.out`; called again it goes on.

    `start` is a folder with weights to fine-tune, at a lower rate. Raises WeightsError where it
    holds none of this network.
    """
    torch.manual_seed(plan.seed)
    network = task.network()
    made = {"steps": plan.steps, "seed": plan.seed, "trained_on": task.trained_on}
    if start is not None:
        made["fine_tuned_from"] = load_weights(weights_path(start, task.name), network)["sha256"]
        plan = replace(plan, peak_rate=FINE_TUNING_RATE)
    network = fit(network, task.make, task.loss, plan, task.validate)
    save_weights(network, weights_path(plan.out, task.name), made)
