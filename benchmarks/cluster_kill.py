"""Workers, nannies, scheduler, client of a cluster killed at random: are the tables those of one machine?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import faults
import numpy as np
import psutil
import typer

TARGETS = ("worker", "nanny", "scheduler", "client")
PORT = 18786
LONGEST_PAUSE_S = 20.0  # between a sign of life and the next kill
PATIENCE_S = 240.0
PLAIN_CALLS = 4  # undisturbed repetitions at the end, of which the last finds nothing to do
RETRIED = ("reader_died", "reader_timeout", "worker_died", "unexpected_error")


@dataclass
class Cluster:
    """A scheduler and nannies, each started again where it ended."""

    nannies: int
    scheduler: psutil.Popen | None = None
    of_workers: list[psutil.Popen | None] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{PORT}"

    def mend(self) -> None:
        self.of_workers = self.of_workers or [None] * self.nannies
        if self.scheduler is None or not _is_alive(self.scheduler):
            options = ("--host", "127.0.0.1", "--port", str(PORT), "--no-dashboard")
            self.scheduler = _start("scheduler", *options)
        for number, nanny in enumerate(self.of_workers):
            if nanny is None or not _is_alive(nanny):
                options = ("--nthreads", "1", "--no-dashboard", "--name", f"w{number}-{time.time_ns()}")
                self.of_workers[number] = _start("worker", self.address, *options)

    def process(self, target: str, rng: np.random.Generator) -> psutil.Process | None:
        nanny = self.of_workers[int(rng.integers(self.nannies))]
        if target == "scheduler":
            return self.scheduler
        if target == "nanny" or nanny is None or not _is_alive(nanny):
            return nanny
        return max(nanny.children(), key=lambda child: child.memory_info().rss, default=None)

    def end(self) -> None:
        for process in (*self.of_workers, self.scheduler):
            if process is not None and _is_alive(process):
                for child in (*process.children(recursive=True), process):
                    _kill(child)


def main(
    studies: Annotated[int, typer.Option(min=1, help="Studies in the archive.")] = 300,
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 30,
    folders: Annotated[int, typer.Option(min=1, help="Result folders that share the kills.")] = 3,
    seed: Annotated[int, typer.Option()] = 7,
    work: Annotated[Path | None, typer.Option(help="Folder for all files, which then stay.")] = None,
    expected: Annotated[
        Path | None, typer.Option(help="Results of one machine, where there are some.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """SIGKILL to a process of the cluster or the client, and the same command again where it ended."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-cluster-kill-") as temporary:
        folder = work or Path(temporary)
        archive = folder / "archive"
        if not archive.exists():
            faults.small_archive(archive, studies, seed)
        if expected is None:
            expected = folder / "one"
            faults.finish(faults.vfscreen_run(archive, expected, "--workers", 1))
        rng, killed = np.random.default_rng(seed), Counter[str]()
        cluster = Cluster(nannies=2)
        ends = []
        try:
            for number in range(folders):
                results = folder / f"killed{number}"
                share = kills // folders + (number < kills % folders)
                targets = [TARGETS[(number + i) % len(TARGETS)] for i in range(share)]
                rng.shuffle(targets)
                _kill_often(cluster, archive, results, targets, rng, killed)
                ends.append(_finish(cluster, archive, results, expected))
        finally:
            cluster.end()
    lines = [f"killed: {dict(killed)}", *map(str, ends)]
    faults.report(lines, {"killed": killed, "ends": ends}, out)
    raise typer.Exit(0 if all(end["equal"] for end in ends) else 1)


def _kill_often(
    cluster: Cluster,
    archive: Path,
    results: Path,
    targets: list[Any],
    rng: np.random.Generator,
    killed: Counter[str],
) -> None:
    client: psutil.Popen | None = None
    for target in targets:
        cluster.mend()
        if client is None or not _is_alive(client):
            client = _client(cluster, archive, results)
        _wait_for_life(cluster, client, results)
        time.sleep(float(rng.uniform(0, LONGEST_PAUSE_S)))
        process = client if target == "client" else cluster.process(target, rng)
        if process is not None and _is_alive(process):
            _kill(process)
            killed[target] += 1
        if target in ("client", "scheduler"):
            client.wait(PATIENCE_S)
    if client is not None and _is_alive(client):
        _kill(client)
        killed["client"] += 1


def _wait_for_life(cluster: Cluster, client: psutil.Popen, results: Path) -> None:
    """Until a worker writes a new part, or the client ends."""
    before, deadline = len(list(results.glob("parts/*"))), time.monotonic() + PATIENCE_S
    while _is_alive(client) and time.monotonic() < deadline:
        if len(list(results.glob("parts/*"))) > before:
            return
        cluster.mend()
        time.sleep(0.5)


def _finish(cluster: Cluster, archive: Path, results: Path, expected: Path) -> dict[str, Any]:
    """Undisturbed calls until nothing is left to be tried again; then the tables beside the expected ones."""
    codes = []
    for _ in range(PLAIN_CALLS):
        cluster.mend()
        client = _client(cluster, archive, results)
        while _is_alive(client):
            cluster.mend()
            time.sleep(1)
        codes.append(client.wait())
        if codes[-1] == 0 and not set(RETRIED) & set(
            faults.timeless(results, "studies")["error"].to_pylist()
        ):
            break
    compared = faults.compare(expected, results)
    return {
        "folder": results.name,
        "exit codes": codes,
        "equal": compared.is_equal,
        "differences": compared.differences,
        "doubled": compared.doubled,
        "unreadable parts": faults.unreadable_parts(results),
    }


def _client(cluster: Cluster, archive: Path, results: Path) -> psutil.Popen:
    options = ("--cluster", cluster.address, "--workers", 1, "--device", "cpu")
    with (results.parent / f"{results.name}.stderr").open("ab") as log:
        command = faults.vfscreen_run(archive, results, *options)
        return psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


def _start(kind: str, *options: str) -> psutil.Popen:
    environment = {
        **os.environ,
        "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
        "DASK_LOGGING__DISTRIBUTED": "error",
    }
    command = [sys.executable, "-m", "dask", kind, *options]
    return psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass


if __name__ == "__main__":
    typer.run(main)
