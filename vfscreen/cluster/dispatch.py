"""The client: it cuts the studies into tasks, counts what workers tell, and deals with what they lose.

Dask tells of a lost worker at once. What the parts of its task hold is done. The studies that the worker
was on are suspects: each becomes a task of its own, and one that loses its worker again gets its row. So
a study that kills workers kills two, and no other study is lost with the second.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import distributed
from distributed.scheduler import KilledWorker

from vfscreen import provenance
from vfscreen.cluster import worker
from vfscreen.cluster.worker import TOPIC, Job, Task
from vfscreen.errors import VfscreenError, WorkerDied
from vfscreen.pipeline import Work
from vfscreen.progress import Outcome
from vfscreen.results import ResultWriter, StudyRecord
from vfscreen.study import StudyFiles, StudyHeader
from vfscreen.usage import Usage

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

logger = logging.getLogger(__name__)

LARGEST_TASK = 100  # studies; what a lost worker costs, and starting readers a tenth of a second each
TASKS_A_WORKER = 4  # at least, where the studies suffice: at the end no worker waits long for another
QUEUED_A_WORKER = 2  # with Dask at a time: the scheduler's memory does not grow with the archive
MOST_DEATHS = 5  # of workers with one task that began no study
_WAIT_S = 1.0
_TELL_EVERY_S = 60.0


@dataclass
class _Running:
    """A task with Dask: which of its studies were begun and ended, by their numbers."""

    task: Task
    future: distributed.Future[list[Usage]]
    begun: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)


class DaskCluster:
    """The workers of a Dask cluster, as `pipeline.run` takes them."""

    def __init__(
        self, client: distributed.Client, load: Callable[[], Models], weights: Mapping[str, Any]
    ) -> None:
        """`load` is called once by each worker, and must give models with these `weights`."""
        self._client, self._load, self._weights = client, load, weights

    def screen(
        self, studies: Sequence[StudyFiles], work: Work, results: ResultWriter, usages: list[Usage]
    ) -> Generator[Outcome, None, None]:
        """As `pipeline.Cluster.screen`. Raises VfscreenError also where the scheduler is lost."""
        results.close()  # what is withdrawn comes before what workers write
        if studies:
            count, sharing = _wait_for_workers(self._client)
            versions = provenance.versions()
            job = Job(work, self._load, self._weights, versions, results.number, sharing)
            yield from _Call(self._client, job, results, usages).screen(studies, count)


class _Call:
    """One call's tasks: those that wait, and those that Dask has, by their keys."""

    def __init__(
        self, client: distributed.Client, job: Job, results: ResultWriter, usages: list[Usage]
    ) -> None:
        self._client, self._job, self._results, self._usages = client, job, results, usages
        self._name = uuid.uuid4().hex[:8]
        self._made = 0
        self._waiting: deque[Task] = deque()
        self._running: dict[str, _Running] = {}
        self._deaths: dict[str, int] = {}  # of workers with a task that began no study
        self._suspected: set[str] = set()
        self._counted: set[str] = set()
        self._inbox: queue.Queue[Callable[[], Iterator[Outcome]]] = queue.Queue()

    def screen(self, studies: Sequence[StudyFiles], n_workers: int) -> Generator[Outcome, None, None]:
        """Each study once, about in the order in which they are finished."""
        self._n_workers = n_workers
        self._client.run_on_scheduler(_tell_of_lost_workers_at_once)
        self._client.subscribe_topic(TOPIC, self._on_event)
        size = max(1, min(LARGEST_TASK, -(-len(studies) // (TASKS_A_WORKER * n_workers))))
        for start in range(0, len(studies), size):
            self._add(studies[start : start + size])
        try:
            while self._waiting or self._running:
                self._submit()
                try:
                    take = self._inbox.get(timeout=_WAIT_S)
                except queue.Empty:
                    self._look_round()
                else:
                    yield from take()
        finally:
            if self._client.status == "running":
                self._client.unsubscribe_topic(TOPIC)
                self._client.cancel([running.future for running in self._running.values()])

    # Tasks out

    def _add(self, studies: Sequence[StudyFiles], *, first: bool = False) -> Task:
        self._made += 1
        task = Task(f"{self._name}_{self._made:06d}", tuple(studies), self._job)
        if first:
            self._waiting.appendleft(task)
        else:
            self._waiting.append(task)
        return task

    def _submit(self) -> None:
        while self._waiting and len(self._running) < QUEUED_A_WORKER * self._n_workers:
            task = self._waiting.popleft()
            future = self._client.submit(worker.screen, task.packed(), key=task.name, pure=False)
            self._running[task.name] = _Running(task, future)
            future.add_done_callback(lambda future: self._inbox.put(partial(self._take, future)))

    def _look_round(self) -> None:
        """How many workers there are, or that nobody is there to ask."""
        self._n_workers = len(_workers(self._client))

    # What comes back

    def _on_event(self, event: tuple[float, dict[str, Any]]) -> None:
        self._inbox.put(partial(self._count, event[1]))

    def _count(self, told: dict[str, Any]) -> Iterator[Outcome]:
        """A study was begun, or ended with a count."""
        running = self._running.get(told["task"])
        if running is None:
            return  # of another call, or of a worker that was given up
        running.begun.add(told["study"])
        if "count" in told:
            running.ended.add(told["study"])
            study_id = running.task.studies[told["study"]].study_id
            yield from self._once(Outcome(study_id, told["count"], told["flagged"]))

    def _once(self, outcome: Outcome) -> Iterator[Outcome]:
        """What ended, but was not on disk when its worker was lost, ends twice."""
        if outcome.study_id not in self._counted:
            self._counted.add(outcome.study_id)
            yield outcome

    def _take(self, future: distributed.Future[list[Usage]]) -> Iterator[Outcome]:
        self._look_round()
        running = self._running.pop(str(future.key))
        if future.status == "finished":
            self._usages.extend(future.result())
            return
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            yield from self._take_loss(running)
        elif isinstance(error, VfscreenError):
            raise error
        elif error is not None:
            raise VfscreenError(f"A worker of the cluster failed ({type(error).__name__}: {error})")
        else:
            raise VfscreenError(_LOST)

    # What workers lose

    def _take_loss(self, running: _Running) -> Iterator[Outcome]:
        task = running.task
        left = task.not_done()
        suspects = {task.studies[number].study_id for number in running.begun - running.ended}
        logger.warning(
            "A worker was lost with task %s: %d of %d studies are left, it was on %d of them.",
            task.name,
            len(left),
            len(task.studies),
            len(suspects),
        )
        if not suspects:
            self._try_again(running, left)
            return
        others = [study for study in left if study.study_id not in suspects]
        if others:
            self._add(others, first=True)
        for study in left:
            if study.study_id in suspects & self._suspected:
                yield from self._give_up(study)
            elif study.study_id in suspects:
                self._add([study], first=True)
        self._suspected |= suspects

    def _try_again(self, running: _Running, left: Sequence[StudyFiles]) -> None:
        """No study is to blame, but workers that die again and again before they begin one are of no use."""
        deaths = 0 if running.begun else self._deaths.pop(running.task.name, 0) + 1
        if deaths >= MOST_DEATHS:
            raise VfscreenError(
                f"{deaths} workers ended one after the other before they began a study: look into the logs "
                f"of the workers, in {self._job.work.out / worker.LOGS} and where the cluster keeps its own"
            )
        if left:
            self._deaths[self._add(left, first=True).name] = deaths

    def _give_up(self, study: StudyFiles) -> Iterator[Outcome]:
        error = WorkerDied(
            "the worker process ended twice while it screened this study, the second time alone"
        )
        record = StudyRecord(
            study.study_id,
            study.source,
            study.patient_id,
            None,
            error,
            StudyHeader(),
            {},
            study.choice,
            study.stamp,
        )
        self._results.add(self._job.work.names.record(record))
        yield from self._once(Outcome(study.study_id, "failed"))


def _wait_for_workers(client: distributed.Client) -> tuple[int, int]:
    """The number of workers, once there is one, and of those that share a machine."""
    logger.info("Waiting for the workers of the cluster; its dashboard: %s", client.dashboard_link)
    next_line = time.monotonic() + _TELL_EVERY_S
    while not (workers := _workers(client)):
        time.sleep(_WAIT_S)
        if time.monotonic() > next_line:
            next_line += _TELL_EVERY_S
            logger.info("No worker has come yet: look whether its jobs wait, or end at once.")
    hosts = Counter(urlsplit(address).hostname for address in workers)
    return len(workers), max(hosts.values())


def _workers(client: distributed.Client) -> list[str]:
    """Their addresses. Raises VfscreenError where the scheduler is lost."""
    if client.status != "running":
        raise VfscreenError(_LOST)
    try:
        return list(client.nthreads())
    except OSError as error:
        raise VfscreenError(_LOST) from error


_LOST = (
    "The scheduler of the cluster is gone. What was finished is in the parts/ folder of the results; the "
    "same command goes on from there"
)


def _tell_of_lost_workers_at_once(dask_scheduler: distributed.Scheduler) -> None:
    """Dask itself would try a task on three more workers, each of which a study may kill."""
    dask_scheduler.allowed_failures = 0
