"""A million studies on 1 to 200 workers, on paper: events in time, with the times that were measured.

A worker screens tasks of 100 studies, 10 at a time; the storage shares its bandwidth among those that read.
Workers end at random and come back; what they had not written is screened again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import simpy
import typer
from rich.console import Console
from rich.table import Table

TASK = 100
STEP = 10  # studies that a worker screens between two looks at the storage
UNWRITTEN = 20  # studies that are lost with a worker: up to ten seconds of finished ones, and those in flight


@dataclass(frozen=True)
class Plan:
    """What the simulation is told. Lengths in seconds, sizes in bytes."""

    studies: int = 1_000_000
    study_s: float = 0.52  # a worker of two cores (README, 40 studies by one reader)
    spread: float = 0.25  # standard deviation of the logarithm of a study's time
    task_s: float = 3.0  # starting readers, and the last study of a task (cluster_runs.py)
    start_s: float = 15.0  # a new worker: Python, torch, weights
    back_s: float = 120.0  # until the batch system starts a lost worker again
    between_losses_s: float = 200 * 3600.0  # mean life of a worker
    study_bytes: float = 84e6  # 160 slices of 512 x 512, uncompressed
    storage: float = 2e9  # bytes a second of all readers together
    header_s: float = 127e-6  # README: check, 100,000 headers
    headers: int = 160
    consolidate_s: float = 151e-6  # a study: README, tables of a million


@dataclass
class Told:
    """What a simulation gives."""

    workers: int
    hours: float = 0.0
    studies_an_hour: float = 0.0
    storage_use: float = 0.0
    lost_workers: int = 0
    repeated: int = 0
    efficiency: float = 0.0


class Simulation:
    """One plan with so many workers."""

    def __init__(self, plan: Plan, workers: int, seed: int) -> None:
        self.plan, self.workers = plan, workers
        self.rng = np.random.default_rng([seed, workers])
        self.environment = simpy.Environment()
        self.tasks = deque(min(TASK, plan.studies - done) for done in range(0, plan.studies, TASK))
        self.reading = 0
        self.read_bytes = 0.0
        self.told = Told(workers)

    def run(self) -> Told:
        workers = [self.environment.process(self._worker()) for _ in range(self.workers)]
        self.environment.run(self.environment.all_of(workers))
        seconds, told, plan = self.environment.now, self.told, self.plan
        told.hours = seconds / 3600
        told.studies_an_hour = plan.studies / told.hours
        told.storage_use = self.read_bytes / (plan.storage * seconds)
        told.efficiency = plan.studies * plan.study_s / (self.workers * seconds)
        return told

    def _worker(self) -> Generator[simpy.Event, Any, None]:
        now = self.environment
        yield now.timeout(self.plan.start_s)
        end = now.now + self.rng.exponential(self.plan.between_losses_s)
        while self.tasks:
            left = self.tasks.popleft()
            yield now.timeout(self.plan.task_s)
            self.reading += 1
            while left and now.now < end:
                step = min(STEP, left)
                self.read_bytes += step * self.plan.study_bytes
                yield now.timeout(self._seconds(step))
                left -= step
            self.reading -= 1
            if now.now >= end:
                again = min(TASK, left + UNWRITTEN)
                self.told.lost_workers += 1
                self.told.repeated += again - left
                self.tasks.append(again)
                yield now.timeout(self.plan.back_s + self.plan.start_s)
                end = now.now + self.rng.exponential(self.plan.between_losses_s)

    def _seconds(self, studies: int) -> float:
        """The slower of computing and reading, of which each that reads has its share."""
        spread = self.plan.spread
        own = self.plan.study_s * self.rng.lognormal(-(spread**2) / 2, spread, studies).sum()
        return float(max(own, studies * self.plan.study_bytes * self.reading / self.plan.storage))


def main(
    studies: Annotated[int, typer.Option(min=1)] = Plan.studies,
    study_s: Annotated[float, typer.Option(help="Seconds of a study on a worker.")] = Plan.study_s,
    task_s: Annotated[
        float, typer.Option(help="Seconds that a task costs beside its studies.")
    ] = Plan.task_s,
    storage_gb_s: Annotated[float, typer.Option(help="Bandwidth of the storage.")] = Plan.storage / 1e9,
    study_mb: Annotated[float, typer.Option(help="Size of a study as it is stored.")] = Plan.study_bytes
    / 1e6,
    life_h: Annotated[float, typer.Option(help="Mean hours until a worker is lost.")] = Plan.between_losses_s
    / 3600,
    seed: Annotated[int, typer.Option()] = 1,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """Hours, storage and losses of a large archive by the number of workers."""
    plan = Plan(
        studies,
        study_s,
        task_s=task_s,
        storage=storage_gb_s * 1e9,
        study_bytes=study_mb * 1e6,
        between_losses_s=life_h * 3600,
    )
    told = [Simulation(plan, workers, seed).run() for workers in (1, 2, 5, 10, 20, 50, 100, 200)]
    table = Table("workers", "hours", "studies/h", "storage used", "workers lost", "repeated", "of ideal")
    for one in told:
        hours = f"{one.hours:.1f}"
        shares = f"{one.storage_use:.0%}", f"{one.efficiency:.0%}"
        counts = f"{one.lost_workers}", f"{one.repeated}"
        table.add_row(f"{one.workers}", hours, f"{one.studies_an_hour:,.0f}", shares[0], *counts, shares[1])
    Console().print(table)
    limit = plan.storage / plan.study_bytes * plan.study_s
    typer.echo(f"The storage is the limit from {limit:.0f} workers on.")
    listing = plan.studies * plan.headers * plan.header_s / 3600
    typer.echo(
        f"Before: {listing:.1f} h of headers (two cores). After: {plan.studies * plan.consolidate_s:.0f} s."
    )
    if out:
        out.write_text(
            json.dumps({"plan": asdict(plan), "workers": [asdict(one) for one in told]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    typer.run(main)
