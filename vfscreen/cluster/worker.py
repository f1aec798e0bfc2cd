"""What a worker does: one task after the other through the streaming pipeline, with models that stay.

A task is run again where its worker was lost or left: what the parts of its earlier attempts hold is
left out.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import re
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed

from vfscreen import provenance
from vfscreen.child_process import keep_freed_memory
from vfscreen.errors import VfscreenError, WeightsError
from vfscreen.pipeline import Work, for_this_machine, study_key
from vfscreen.results import ResultWriter, WorkingCopy, finished_studies, working_copy
from vfscreen.storage import is_remote
from vfscreen.study import StudyFiles
from vfscreen.usage import Usage

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

logger = logging.getLogger(__name__)

TOPIC = "vfscreen"
LOGS = "logs"  # folder of the results


@dataclass(frozen=True)
class Job:
    """What all tasks of a call share.

    `load` gives the models, which must have the client's `weights`, and the packages its `versions`; parts
    are numbered `after` those of earlier calls; so many workers as `sharing` share a machine's memory.
    """

    work: Work
    load: Callable[[], Models]
    weights: Mapping[str, Any]
    versions: Mapping[str, str]
    after: int
    sharing: int


@dataclass(frozen=True)
class Task:
    """Some studies for one worker; `name` is unique among all calls."""

    name: str
    studies: tuple[StudyFiles, ...]
    job: Job

    def packed(self) -> bytes:
        """For the way through the scheduler: names of files are long and much alike."""
        return zlib.compress(pickle.dumps(self), 1)

    def not_done(self) -> list[StudyFiles]:
        """The studies that no part of the task has yet."""
        work = self.job.work
        done = finished_studies(work.out, f"{self.name}-*")
        return [study for study in self.studies if study_key(study, work.names) not in done]


def screen(packed: bytes) -> list[Usage]:
    """Screen a task's studies and write their parts; the client is told of each by events.

    Raises VfscreenError where this worker is of no use, or as `Work.screen` does.
    """
    task: Task = pickle.loads(zlib.decompress(packed))
    worker = distributed.get_worker()
    _check(worker, task.job)
    _log_into(task.job.work.out, worker)
    models = _models(task.job)
    studies = task.not_done()
    logger.info("Task %s: %d of %d studies are to be screened.", task.name, len(studies), len(task.studies))
    numbers = {study.study_id: number for number, study in enumerate(task.studies)}

    def tell(study_id: str, **what: Any) -> None:
        worker.log_event(TOPIC, {"task": task.name, "study": numbers[study_id], **what})

    work = replace(task.job.work, options=for_this_machine(task.job.work.options, task.job.sharing))
    usages: list[Usage] = []
    with (
        working_copy(work.out) as copy,
        closing(
            work.screen(
                studies, models, _results(task, copy), usages, begin=lambda study: tell(study.study_id)
            )
        ) as outcomes,
    ):
        for outcome in outcomes:
            tell(outcome.study_id, count=outcome.count, flagged=outcome.flagged)
            if not _is_wanted(task, worker):
                logger.info("Nobody waits for task %s any more.", task.name)
                break
    return usages


def _is_wanted(task: Task, worker: distributed.Worker) -> bool:
    """False once the client has gone: the next one must not wait for what nobody counts."""
    known = worker.state.tasks.get(task.name)
    return known is not None and known.state != "cancelled"


def _results(task: Task, copy: WorkingCopy) -> ResultWriter:
    """Each attempt has a name of its own, since a worker that seems lost may still be writing."""
    threshold = task.job.work.settings.measure.threshold
    writer = f"{task.name}-{uuid.uuid4().hex[:8]}"
    return ResultWriter(copy.folder, threshold, writer=writer, after=task.job.after, written=copy.keep)


def _check(worker: distributed.Worker, job: Job) -> None:
    """Raise VfscreenError where this worker cannot do what the client's machine would."""
    if multiprocessing.current_process().daemon:
        raise VfscreenError(
            f"The worker {worker.name} cannot start readers: start workers with the environment "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False"
        )
    if worker.state.nthreads != 1:
        raise VfscreenError(
            f"The worker {worker.name} takes several tasks at once: start it with --nthreads 1"
        )
    differences = provenance.differences(job.versions, provenance.versions())
    if differences:
        raise VfscreenError(f"The worker {worker.name} has other versions: {differences[0]}")


_held: dict[bytes, Models] = {}  # by how they are loaded: a worker lives through many tasks, and calls


def _models(job: Job) -> Models:
    how = pickle.dumps(job.load)
    if how not in _held:
        keep_freed_memory()
        _held.clear()
        _held[how] = job.load()
    models = _held[how]
    differences = provenance.differences(job.weights, models.provenance)
    if differences:
        raise WeightsError(f"A worker has other weights: {differences[0]}")
    return models


def _log_into(out: Path, worker: distributed.Worker) -> None:
    """Let what is logged in this process go to a file of its own; on object storage none can grow."""
    if is_remote(out):
        return
    path = out / LOGS / f"{re.sub(r'[^A-Za-z0-9.]+', '-', f'{worker.name}').strip('-')}.log"
    ours = logging.getLogger("vfscreen")
    files = [handler for handler in ours.handlers if isinstance(handler, logging.FileHandler)]
    if any(handler.baseFilename == str(path) for handler in files):
        return
    for handler in files:
        ours.removeHandler(handler)
        handler.close()
    path.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
