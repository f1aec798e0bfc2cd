"""The main loop: studies stream through readers, batches on the device, and come out finished.

    reader process -> device thread -> same reader -> device thread -> whoever iterates
    read, 3 mm input  curve          sheet, column   vertebrae

It gives work to whoever is idle and takes what is ready; it never waits for a batch to fill. A study
that fails anywhere comes out with its reason, and the others go on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vfscreen.curve import SpineCurve
from vfscreen.detect import padded
from vfscreen.errors import (
    FilesVanished,
    ReaderDied,
    ReaderTimeout,
    StudyError,
    UnexpectedError,
    VfscreenError,
)
from vfscreen.localize import LocalizerInput, localize
from vfscreen.provenance import usable_cpus
from vfscreen.reader_process import Forget, Prepared, Read, Reader, ReaderLimits, ReadStudy, Straighten
from vfscreen.readers import read_study, read_study_with_images
from vfscreen.report.picture import draw_picture
from vfscreen.report.scene import Scene
from vfscreen.results import StudyRecord, is_flagged
from vfscreen.screening import Measured, measure_studies
from vfscreen.settings import Settings, Thumbnails
from vfscreen.straighten import Straightened
from vfscreen.study import SourceImages, StudyFiles, StudyHeader, StudyResult
from vfscreen.threads import DeviceThread, Picture

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

logger = logging.getLogger(__name__)

_Content = TypeVar("_Content")

_MAX_FAILED_STARTS = 3
_MAX_DEVICE_FAILURES = 20
_MAX_VANISHED = 20  # studies one after the other: the archive itself is gone


@dataclass(frozen=True)
class RunOptions:
    """How a run works; none of it changes a measurement.

    For workers of a cluster, `workers` and `memory_mib` are 0 where each machine has its own.
    """

    workers: int
    batch_size: int
    limit: int | None
    thumbnails: Thumbnails
    time_limit_s: float
    memory_mib: int  # of a reader
    dicom_sr: bool = False


@dataclass(frozen=True)
class Screened:
    """A finished study: its record and, where wanted, what draws its picture and what its DICOM SR names."""

    record: StudyRecord
    picture: Picture | None = None
    images: SourceImages | None = None


@dataclass
class _Passage:
    """One study on its way through the stages."""

    study: StudyFiles
    reader: Reader
    header: StudyHeader = field(default_factory=StudyHeader)
    images: SourceImages | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def record(self, result: StudyResult | None = None, error: StudyError | None = None) -> StudyRecord:
        study = self.study
        return _record(study, result, error, self.header, self.seconds)


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[_Content]):
    """What the device is to look at; those of one shape can share a batch."""

    passage: _Passage
    content: _Content
    shape: tuple[int, ...]


def n_device_threads(device: str) -> int:
    """So many studies are looked at side by side: a GPU takes one batch after the other."""
    return usable_cpus() if device == "cpu" else 1


class Screening:
    """The main loop: it owns the readers and the device threads, and knows where each study is."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        options: RunOptions,
        read: ReadStudy | None = None,
        name: Callable[[StudyFiles], str] = lambda study: study.source,
        begin: Callable[[StudyFiles], None] = lambda study: None,
    ) -> None:
        """`read`, instead of that of `readers`, is a function of a module, since it is handed over by name.

        `name` is what a study is called in the log; `begin` is told of each study that a reader gets.
        """
        self._models, self._settings, self._options = models, settings, options
        self._read = read or (read_study_with_images if options.dicom_sr else read_study)
        self._name, self._begin = name, begin
        self._pending: deque[StudyFiles] = deque()
        self._passages: dict[str, _Passage] = {}
        self._inputs: list[_Waiting[LocalizerInput]] = []
        self._sheets: list[_Waiting[Straightened]] = []
        self._finished: deque[Screened] = deque()
        self._readers: list[Reader] = []
        self._retried: set[str] = set()
        self._failed_starts = 0
        self._device_failures = 0
        self._vanished = 0

    def screen(self, studies: Iterable[StudyFiles]) -> Generator[Screened, None, None]:
        """Each study once, in the order in which they are finished."""
        on_cpu = self._models.device == "cpu"
        for study in studies:
            if study.error:
                yield Screened(_record(study, None, study.error, StudyHeader(), {}))
            else:
                self._pending.append(study)
        self._devices = [DeviceThread(on_cpu) for _ in range(n_device_threads(self._models.device))]
        try:
            while self._pending or self._passages:
                self._feed_readers()
                self._feed_devices()
                self._take_what_is_ready()
                self._replace_overdue_readers()
                while self._finished:
                    yield self._finished.popleft()
        finally:
            for reader in self._readers:
                reader.end()
            for device in self._devices:
                device.close()

    # Giving work

    def _feed_readers(self) -> None:
        limits = ReaderLimits(self._options.time_limit_s, self._options.memory_mib)
        while len(self._readers) < min(self._options.workers, len(self._pending)):
            self._readers.append(Reader(self._settings, limits, self._read))
        for reader in self._readers:
            if self._pending and reader.wants_study:
                study = self._pending.popleft()
                self._passages[study.study_id] = _Passage(study, reader)
                self._begin(study)
                reader.post(Read(study))

    def _feed_devices(self) -> None:
        """Sheets go first, since a study that is finished frees what waits behind it."""
        for device in (device for device in self._devices if device.is_idle):
            if self._sheets:
                device.start(self._detect_and_measure, self._taken(self._sheets))
            elif self._inputs:
                device.start(self._localize, self._taken(self._inputs))

    def _taken(self, waiting: list[_Waiting[_Content]]) -> Sequence[_Waiting[_Content]]:
        """A batch of the first that waits and others of its shape, which wait no longer.

        On a CPU, where a batch gains nothing, each study goes to a thread of its own.
        """
        size = 1 if self._models.device == "cpu" else self._options.batch_size
        batch = [item for item in waiting if item.shape == waiting[0].shape][:size]
        waiting[:] = [item for item in waiting if item not in batch]
        return batch

    def _localize(self, batch: Sequence[_Waiting[LocalizerInput]]) -> Sequence[SpineCurve | StudyError]:
        inputs = [item.content for item in batch]
        return localize(inputs, self._models.localizer, self._settings.localize)

    def _detect_and_measure(
        self, batch: Sequence[_Waiting[Straightened]]
    ) -> Sequence[tuple[StudyResult, Picture | None]]:
        studies = [(item.passage.header, item.content) for item in batch]
        measured = measure_studies(studies, self._models, self._settings)
        return [(each.result, self._picture(item, each)) for item, each in zip(batch, measured, strict=True)]

    def _picture(self, item: _Waiting[Straightened], measured: Measured) -> Picture | None:
        """What draws the picture, if one is wanted: of the CT it keeps the small images that it shows."""
        threshold, wanted = self._settings.measure.threshold, self._options.thumbnails
        if wanted == "none" or (wanted == "flagged" and not is_flagged(measured.result, threshold)):
            return None
        try:
            scene = Scene.of(item.content, measured.result, measured.detections, threshold)
        except Exception:  # no reason to lose what was measured
            logger.exception("The picture of study %s cannot be sampled.", self._name(item.passage.study))
            return None
        return partial(draw_picture, scene)

    # Taking what is ready

    def _take_what_is_ready(self) -> None:
        readers = {reader.connection: reader for reader in self._readers}
        devices: dict[Any, DeviceThread] = {device.connection: device for device in self._devices}
        for connection in wait([*readers, *devices], timeout=1.0):
            if connection in readers:
                self._take_reply(readers[connection])
            else:
                self._take_batch(devices[connection])

    def _take_reply(self, reader: Reader) -> None:
        command = reader.command
        try:
            reply = reader.receive()
        except (EOFError, OSError):
            self._lose(reader, died=True)
            return
        self._failed_starts = 0
        if command is None or isinstance(command, Forget):
            return
        for message in reply.messages:
            logger.warning("%s: %s", self._name(command.study), message)
        passage = self._passages[command.study.study_id]
        stage = "read" if isinstance(command, Read) else "straighten"
        passage.seconds[stage] = reply.seconds
        if isinstance(reply.value, Prepared):
            passage.header, passage.images = reply.value.header, reply.value.images
            content = reply.value.input
            self._inputs.append(_Waiting(passage, content, content.image.shape))
        elif isinstance(reply.value, Straightened):
            self._sheets.append(_Waiting(passage, reply.value, padded(reply.value.sheet.image).shape))
        elif reply.value:
            self._fail(passage, reply.value)
        self._count_vanished(reply.value)

    def _take_batch(self, device: DeviceThread) -> None:
        batch, result = device.take()
        for item, value in zip(batch, result.values, strict=True):
            if not self._is_current(item.passage):
                continue  # its reader was lost meanwhile
            self._count_device_failures(value)
            is_sheet = isinstance(item.content, Straightened)
            item.passage.seconds["detect" if is_sheet else "localize"] = result.seconds_each
            if is_sheet:
                self._take_measured(item, value)
            else:
                self._take_curve(item.passage, value)

    def _take_curve(self, passage: _Passage, curve: SpineCurve | StudyError) -> None:
        if isinstance(curve, StudyError):
            passage.reader.post(Forget(passage.study))
            self._fail(passage, curve)
        else:
            passage.reader.post(Straighten(passage.study, curve))

    def _take_measured(
        self, item: _Waiting[Straightened], seen: tuple[StudyResult, Picture | None] | StudyError
    ) -> None:
        if isinstance(seen, StudyError):
            self._fail(item.passage, seen)
        else:
            result, picture = seen
            passage = item.passage
            self._finish(passage, Screened(passage.record(result=result), picture, passage.images))

    # Finishing

    def _finish(self, passage: _Passage, screened: Screened) -> None:
        del self._passages[passage.study.study_id]
        self._finished.append(screened)

    def _fail(self, passage: _Passage, error: StudyError) -> None:
        self._finish(passage, Screened(passage.record(error=error)))

    def _is_current(self, passage: _Passage) -> bool:
        return self._passages.get(passage.study.study_id) is passage

    def _count_device_failures(self, value: Any) -> None:
        """A device that fails again and again is broken; the rest of the archive must not fail with it."""
        self._device_failures = self._device_failures + 1 if isinstance(value, UnexpectedError) else 0
        if self._device_failures >= _MAX_DEVICE_FAILURES:
            raise VfscreenError(
                f"The last {_MAX_DEVICE_FAILURES} studies failed on the device, the last with: {value}. The "
                "same command screens them again and goes on; with --device cpu it does so without the GPU"
            )

    def _count_vanished(self, value: Any) -> None:
        """Where study after study is gone, the archive is; its other studies must not fail with it."""
        self._vanished = self._vanished + 1 if isinstance(value, FilesVanished) else 0
        if self._vanished >= _MAX_VANISHED:
            raise VfscreenError(
                f"The files of the last {_MAX_VANISHED} studies are gone or give no answer: is the disk or "
                "share with the archive still there? The same command goes on from here"
            )

    # Readers that die or hang

    def _replace_overdue_readers(self) -> None:
        for reader in list(self._readers):
            if reader.is_overdue():
                self._lose(reader, died=False)

    def _lose(self, reader: Reader, *, died: bool) -> None:
        """The study it was on gets its row; the others that it held are read again.

        Where it was on none, nothing tells which of those it held is to blame: they are read again once.
        """
        self._readers.remove(reader)
        exit_code = reader.end(grace_s=1.0 if died else 0.0)
        if not reader.has_started:
            self._count_failed_start(exit_code)
        culprit = reader.command.study.study_id if reader.command else None
        for study in reader.studies.values():
            passage = self._passages.get(study.study_id)
            if passage is None:
                continue  # its row is written, only its volume was still to be dropped
            if study.study_id == culprit or (culprit is None and study.study_id in self._retried):
                self._fail(passage, self._loss(exit_code, died))
                continue
            if culprit is None:
                self._retried.add(study.study_id)
            del self._passages[study.study_id]
            self._pending.appendleft(study)
        self._inputs = [item for item in self._inputs if self._is_current(item.passage)]

    def _loss(self, exit_code: int | None, died: bool) -> StudyError:
        if died:
            return ReaderDied(f"the reader process ended (exit code {exit_code}) while it held this study")
        return ReaderTimeout(f"reading took longer than {self._options.time_limit_s:g} s")

    def _count_failed_start(self, exit_code: int | None) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise VfscreenError(
                f"The reader processes do not start (exit code {exit_code}). In a script, the call of "
                'vfscreen.run must stand under `if __name__ == "__main__":`.'
            )


def _record(
    study: StudyFiles,
    result: StudyResult | None,
    error: StudyError | None,
    header: StudyHeader,
    seconds: Mapping[str, float],
) -> StudyRecord:
    return StudyRecord(
        study.study_id,
        study.source,
        study.patient_id,
        result,
        error,
        header,
        seconds,
        study.choice,
        study.stamp,
    )
