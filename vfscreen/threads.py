"""The two threads beside the main loop of a run: one computes a batch, one writes results."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from typing import Any

from vfscreen.errors import StudyError, UnexpectedError, VfscreenError
from vfscreen.reader_process import as_study_error
from vfscreen.results import ResultWriter, StudyRecord
from vfscreen.study import StudyHeader

logger = logging.getLogger(__name__)

Stage = Callable[[Sequence[Any]], Sequence[Any]]
Picture = Callable[[], bytes]
Report = Callable[[], bytes]

_QUEUED = 16
_IDLE_S = 1.0


@dataclass(frozen=True)
class BatchResult:
    """A value or a `StudyError` for each item of a batch, and the seconds that one item took."""

    values: Sequence[Any]
    seconds_each: float


class DeviceThread:
    """Computes one batch at a time, so that the main loop goes on serving the readers.

    `connection` becomes readable when the batch is done.
    """

    def __init__(self, on_cpu: bool) -> None:
        """Start without a batch; on a CPU the thread computes by itself, others beside it."""
        self.connection, self._done = Pipe(duplex=False)
        self._executor = ThreadPoolExecutor(1, "device", _on_one_core if on_cpu else None)
        self._items: Sequence[Any] = ()
        self._batch: Future[BatchResult] | None = None

    @property
    def is_idle(self) -> bool:
        """No batch is being computed or waits to be taken."""
        return self._batch is None

    def start(self, stage: Stage, items: Sequence[Any]) -> None:
        """Compute stage(items), which gives one value for each item, in their order."""
        self._items = items
        self._batch = self._executor.submit(_timed, stage, items)
        self._batch.add_done_callback(lambda _: self._done.send(None))

    def take(self) -> tuple[Sequence[Any], BatchResult]:
        """The items of the finished batch and what they gave; only when `connection` is readable."""
        if self._batch is None:
            raise RuntimeError("no batch was started")
        self.connection.recv()
        result, self._batch = self._batch.result(), None
        return self._items, result

    def close(self) -> None:
        """Wait for a batch that is still being computed, and end the thread."""
        self._executor.shutdown()


def _on_one_core() -> None:
    from vfscreen.networks.on_cpu import one_thread  # here, as it loads torch

    one_thread()


def _timed(stage: Stage, items: Sequence[Any]) -> BatchResult:
    start = time.perf_counter()
    values = _isolated(stage, items)
    return BatchResult(values, (time.perf_counter() - start) / len(items))


def _isolated(stage: Stage, items: Sequence[Any]) -> Sequence[Any]:
    """stage(items); if it raises, the items one by one, with the error in place of each that raises alone."""
    try:
        return stage(items)
    except Exception as error:  # the border between this study and the next
        if len(items) == 1:
            return [_on_device(error)]
    return [_isolated(stage, [item])[0] for item in items]


def _on_device(error: Exception) -> StudyError:
    """With the error's text: the device sees arrays, and no header that it could repeat."""
    return error if isinstance(error, StudyError) else UnexpectedError(f"{type(error).__name__}: {error}")


_Finished = tuple[StudyRecord, Picture | None, Report | None]


class WriterThread:
    """Draws and writes finished studies, so that a slow disk slows the run only when the queue is full."""

    def __init__(self, results: ResultWriter) -> None:
        """Start the thread, which closes `results` when it ends."""
        self._results = results
        self._queue: queue.Queue[_Finished | None] = queue.Queue(_QUEUED)
        self._error: Exception | None = None
        self.busy_s = 0.0
        self._thread = threading.Thread(target=self._write_until_closed, name="writer", daemon=True)
        self._thread.start()

    def put(self, record: StudyRecord, picture: Picture | None = None, report: Report | None = None) -> None:
        """Hand over a finished study. Raises VfscreenError when results can no longer be written."""
        self._put((record, picture, report))

    def close(self) -> None:
        """Write what waits and end the thread. Raises VfscreenError when that fails."""
        self._put(None)
        self._thread.join()
        self._raise_if_failed()

    def _put(self, item: _Finished | None) -> None:
        while True:
            self._raise_if_failed()
            try:
                return self._queue.put(item, timeout=_IDLE_S)
            except queue.Full:
                continue

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise unwritable(self._error) from self._error

    def _write_until_closed(self) -> None:
        try:
            with self._results:
                while (item := self._next()) is not None:
                    start = time.monotonic()
                    self._write(*item)
                    self.busy_s += time.monotonic() - start
        except Exception as error:  # any end of this thread must reach the main loop
            self._error = error

    def _next(self) -> _Finished | None:
        while True:
            try:
                return self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                self._results.flush_if_due()

    def _write(self, record: StudyRecord, picture: Picture | None, report: Report | None) -> None:
        png = _drawn(record, picture) if picture else None
        dicom_sr = _reported(record, report) if report else None
        try:
            self._results.add(record, png, dicom_sr)
        except OSError:
            raise
        except Exception as error:  # the border between this study and the next
            self._results.add(replace(record, result=None, error=as_study_error(error), header=StudyHeader()))


def unwritable(error: Exception) -> VfscreenError:
    """What to tell when results can no longer be written."""
    return VfscreenError(
        f"Results cannot be written ({error}). What was finished before is safe in the parts/ folder of "
        "the results; when the cause is removed, the same command goes on from there."
    )


def _drawn(record: StudyRecord, picture: Picture) -> bytes | None:
    """A picture that cannot be drawn is no reason to lose what was measured."""
    try:
        return picture()
    except Exception:
        logger.exception("The picture of study %s cannot be drawn.", record.study_id)
        return None


def _reported(record: StudyRecord, report: Report) -> bytes | None:
    """A report that cannot be made is no reason either. Its error's text may repeat a header's."""
    try:
        return report()
    except Exception as error:
        logger.error("Study %s has no DICOM SR, its row stays: %s.", record.study_id, as_study_error(error))
        return None
