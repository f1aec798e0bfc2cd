"""Where the workers are: on this machine, at an address, or in the queue of a batch system."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import distributed
import yaml

from vfscreen.errors import InputError
from vfscreen.provenance import usable_cpus

logger = logging.getLogger(__name__)

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
"""Batch systems, and the classes of dask-jobqueue."""

_NOT_DAEMONIC = "export DASK_DISTRIBUTED__WORKER__DAEMON=False"  # daemons cannot start readers
_SILENT = logging.ERROR  # Dask has a line for each connection, and warnings for each that ends
_ADDRESS = ("tcp://", "tls://", "ucx://", "ws://", "wss://")


@contextmanager
def opened(place: str, workers: int | None, config: Path | None, device: str) -> Iterator[distributed.Client]:
    """A client of the cluster at `place`: `local`, an address, or a batch system of `QUEUES`.

    `workers` is their number, None for one a GPU or core here. `config` is dask-jobqueue's own file.
    Raises InputError where no cluster can be had there.
    """
    logging.getLogger("distributed").setLevel(_SILENT)
    if place.startswith(_ADDRESS):
        with _client(place) as client:
            yield client
    elif place == "local":
        with local_cluster(workers, device) as cluster, _client(cluster) as client:
            yield client
    elif place in QUEUES:
        with queue_cluster(place, config) as cluster, _client(cluster) as client:
            cluster.adapt(minimum_jobs=workers or 1, maximum_jobs=workers or 1)  # lost jobs are put in again
            yield client
    else:
        places = ", ".join(["local", *QUEUES])
        raise InputError(f"--cluster {place} is none: give {places}, or an address such as tcp://host:8786")


@contextmanager
def _client(cluster: Any) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(cluster, set_as_default=False)
    except OSError as error:
        raise InputError(f"No scheduler answers at {cluster} ({error}): is it running?") from error
    with client:
        yield client


@contextmanager
def local_cluster(workers: int | None, device: str) -> Iterator[distributed.SpecCluster]:
    """Worker processes of this machine, each with its own GPU or its share of the cores."""
    gpus = [] if device == "cpu" else _gpus()
    count = workers or len(gpus) or usable_cpus()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    specs = {number: _local_worker(number, count, gpus, cores) for number in range(count)}
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
    }
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        distributed.SpecCluster(workers=specs, scheduler=scheduler, silence_logs=_SILENT) as cluster,
    ):
        yield cluster


def _local_worker(number: int, count: int, gpus: list[str], cores: list[int]) -> dict[str, Any]:
    options: dict[str, Any] = {"nthreads": 1, "name": f"worker-{number}", "silence_logs": _SILENT}
    if gpus:
        options["env"] = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}
    if cores:
        options["plugins"] = [OnCores(share_of_cores(number, count, cores))]
    return {"cls": distributed.Nanny, "options": options}


def share_of_cores(number: int, count: int, cores: list[int]) -> list[int]:
    """The cores of worker `number` of `count`: none has two, unless there are more workers than cores."""
    if count > len(cores):
        return [cores[number % len(cores)]]
    return cores[number * len(cores) // count : (number + 1) * len(cores) // count]


class OnCores(distributed.WorkerPlugin):
    """Keeps a worker and its readers on its share of the cores: all that counts cores sees only these."""

    def __init__(self, cores: list[int]) -> None:
        self.cores = cores

    def setup(self, worker: distributed.Worker) -> None:
        """Before the thread of the tasks starts, which has the cores of the one that starts it."""
        os.sched_setaffinity(0, self.cores)


def _gpus() -> list[str]:
    from vfscreen.networks.weights import count_gpus  # here, as it loads torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(count_gpus())]


@contextmanager
def queue_cluster(place: str, config: Path | None) -> Iterator[Any]:
    """Workers as jobs of a batch system, by the settings of dask-jobqueue; none is started yet.

    A job is one worker with one task at a time, whatever the settings say. Raises InputError for settings
    that dask-jobqueue does not take.
    """
    import dask_jobqueue

    settings = {**_settings(place, config), "processes": 1}
    settings["job_script_prologue"] = [*settings.get("job_script_prologue", []), _NOT_DAEMONIC]
    settings["worker_extra_args"] = [*settings.get("worker_extra_args", []), "--nthreads", "1"]
    try:
        cluster = getattr(dask_jobqueue, QUEUES[place])(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{config}: dask-jobqueue does not take these settings: {error}") from error
    with cluster:
        yield cluster


def _settings(place: str, config: Path | None) -> dict[str, Any]:
    """The part of a batch system in a file as dask-jobqueue's own `jobqueue.yaml`."""
    if config is None:
        raise InputError(
            f"--cluster {place} needs --cluster-config FILE.yaml: queue, cores, memory, walltime"
        )
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{config} cannot be read as YAML: {error}") from error
    found = content.get("jobqueue", {}).get(place) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"{config} has no settings under jobqueue: {place}:, as dask-jobqueue writes them")
    return {str(name).replace("-", "_"): value for name, value in found.items()}
