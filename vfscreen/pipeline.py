"""From an archive to tables: readers, batches on the device, one writer; all between them is bounded.

    discover -> reader process -> device thread -> same reader -> device thread -> writer thread
                read, 3 mm input  curve          sheet, column   vertebrae         pictures, tables

The main loop gives work to whoever is idle and takes what is ready; it never waits for a batch to
fill. A study that fails anywhere becomes a row with its reason, and the others go on.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfscreen import journal, provenance
from vfscreen.curve import SpineCurve
from vfscreen.detect import padded
from vfscreen.discover import discover
from vfscreen.discover.index import INDEX_NAME
from vfscreen.errors import (
    FilesVanished,
    InputError,
    ReaderDied,
    ReaderTimeout,
    StudyError,
    UnexpectedError,
    VfscreenError,
)
from vfscreen.journal import Journal
from vfscreen.localize import LocalizerInput, localize
from vfscreen.progress import OnProgress, Tally, silent
from vfscreen.pseudonyms import Pseudonyms
from vfscreen.reader_process import Forget, Prepared, Read, Reader, ReaderLimits, ReadStudy, Straighten
from vfscreen.readers import read_study
from vfscreen.report.thumbnail import thumbnail
from vfscreen.results import (
    SET_ASIDE,
    STAGES,
    Finished,
    ResultWriter,
    StudyKey,
    StudyRecord,
    consolidate,
    finished_studies,
    is_flagged,
    locked,
    set_aside,
    study_key,
)
from vfscreen.screening import Measured, measure_studies
from vfscreen.settings import Settings, Thumbnails
from vfscreen.straighten import Sheet, Straightened
from vfscreen.study import Detection, StudyFiles, StudyHeader, StudyResult
from vfscreen.threads import DeviceThread, Picture, WriterThread, unwritable

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

logger = logging.getLogger(__name__)

_Content = TypeVar("_Content")

_MAX_FAILED_STARTS = 3
_MAX_DEVICE_FAILURES = 20
_MAX_VANISHED = 20  # studies one after the other: the archive itself is gone


@dataclass(frozen=True)
class RunSummary:
    """What the tables in `out` hold, this call and earlier ones together.

    `new` studies and `seconds` are of this call; `measured` studies have at least one vertebra measured.
    """

    out: Path
    studies: int
    new: int
    seconds: float
    measured: int = 0
    ok: int = 0
    partial: int = 0
    failed: int = 0
    skipped: int = 0
    flagged: int = 0


@dataclass(frozen=True)
class RunOptions:
    """How a run works; none of it changes a measurement."""

    workers: int
    batch_size: int
    limit: int | None
    thumbnails: Thumbnails
    time_limit_s: float
    memory_mib: int  # of a reader


def run(
    source: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    models: Models | None = None,
    device: str = "auto",
    workers: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    thumbnails: Thumbnails = "flagged",
    time_limit_s: float = 600.0,
    memory_mib: int | None = None,
    series: Collection[str] = (),
    pseudonyms: Pseudonyms | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    progress: OnProgress = silent,
) -> RunSummary:
    """Screen every study of a folder, file or manifest, and write the tables into `out`.

    Studies that `out` already holds are not repeated, so the same call goes on where an earlier one
    stopped; only those whose files changed, whose reader died or hung, or whose error nobody foresaw,
    are screened again. With `retry_failed` those that failed are screened again, and no others; with
    `fresh` what `out` holds is set aside first.

    `limit` takes the first so many studies of the input. `time_limit_s` and `memory_mib` are what one
    study may cost a reader. `series` names UIDs that are screened instead of those of the rule.
    From a script, call it under `if __name__ == "__main__":`, since the readers are spawned processes.

    Raises InputError for a wrong input, and for an `out` that is unwritable, in use by another run,
    or holds results of another input, settings or weights; WeightsError for wrong weights; and
    VfscreenError when results cannot be written or the device fails; never for a single study.
    """
    source, out, settings = Path(source), Path(out), settings or Settings()
    workers = workers or default_workers()
    memory_mib = memory_mib or default_memory_mib(workers)
    options = RunOptions(workers, batch_size, limit, thumbnails, time_limit_s, memory_mib)
    models = models or _load_models(device)
    method = _method(source, settings, models, series, pseudonyms)
    with locked(out):
        if pseudonyms:
            _check_has_no_names(out, fresh)
        if fresh:
            _set_aside(out)
        journal.earlier_calls(out, method)  # refuse before the walk through an archive, which may take long
        index = None if pseudonyms else out / INDEX_NAME  # it holds names of files and patients
        studies = discover(source, settings.read, index=index, series=series)[:limit]
        results, call = _open_results(out, method, models.device, settings, options)
        finished = finished_studies(out)
        if retry_failed:
            studies = _with_row(studies, finished, pseudonyms)
        pending = _pending(studies, finished, pseudonyms, retry_failed)
        tally = Tally(total=len(studies), before=len(studies) - len(pending))
        writer = WriterThread(results)
        try:
            progress(tally)
            screening = Screening(models, settings, options, name=partial(_name, pseudonyms))
            with closing(screening.screen(pending)) as screened:
                for study in screened:
                    record = pseudonyms.record(study.record) if pseudonyms else study.record
                    writer.put(record, study.picture(settings, thumbnails))
                    tally = _counted(tally, record, settings)
                    progress(tally)
        finally:  # also after Ctrl-C: what is finished becomes tables
            writer.close()
            summary = _make_tables(call, tally.new)
        _check_rows(studies, out, pseudonyms)
    return summary


def default_workers() -> int:
    """One reader a CPU, less one for the main process; past eight the disk is the limit."""
    return max(1, min(8, provenance.usable_cpus() - 1))


def default_memory_mib(workers: int) -> int:
    """What a reader may use: its share of three quarters of the machine's memory, at least 2 GiB."""
    return max(2048, int(0.75 * provenance.memory_mib() / workers))


@dataclass(frozen=True)
class Screened:
    """A finished study: its record and, where it was measured, what its picture shows."""

    record: StudyRecord
    sheet: Sheet | None = None
    detections: tuple[Detection, ...] = ()

    def picture(self, settings: Settings, thumbnails: Thumbnails) -> Picture | None:
        """What draws the study's picture, or None when none is wanted."""
        result, sheet, threshold = self.record.result, self.sheet, settings.measure.threshold
        if sheet is None or result is None or thumbnails == "none":
            return None
        if thumbnails == "flagged" and not is_flagged(result, threshold):
            return None
        found = (self.detections, result.vertebrae)
        return partial(thumbnail, sheet.image, sheet.pixel_mm, *found, threshold, result.doubts)


@dataclass
class _Passage:
    """One study on its way through the stages."""

    study: StudyFiles
    reader: Reader
    header: StudyHeader = field(default_factory=StudyHeader)
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


class Screening:
    """The main loop: it owns the readers and the device thread, and knows where each study is."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        options: RunOptions,
        read: ReadStudy = read_study,
        name: Callable[[StudyFiles], str] = lambda study: study.source,
    ) -> None:
        """`read` is a function of a module, since it is handed to the readers by name.

        `name` is what a study is called in the log.
        """
        self._models, self._settings, self._options, self._read = models, settings, options, read
        self._name = name
        self._pending: deque[StudyFiles] = deque()
        self._passages: dict[str, _Passage] = {}
        self._inputs: list[_Waiting[LocalizerInput]] = []
        self._sheets: list[_Waiting[Straightened]] = []
        self._finished: deque[Screened] = deque()
        self._batch: Sequence[_Waiting[Any]] = []
        self._readers: list[Reader] = []
        self._retried: set[str] = set()
        self._failed_starts = 0
        self._device_failures = 0
        self._vanished = 0

    def screen(self, studies: Iterable[StudyFiles]) -> Generator[Screened, None, None]:
        """Each study once, in the order in which they are finished."""
        for study in studies:
            if study.error:
                yield Screened(_record(study, None, study.error, StudyHeader(), {}))
            else:
                self._pending.append(study)
        self._device = DeviceThread()
        try:
            while self._pending or self._passages:
                self._feed_readers()
                self._feed_device()
                self._take_what_is_ready()
                self._replace_overdue_readers()
                while self._finished:
                    yield self._finished.popleft()
        finally:
            for reader in self._readers:
                reader.end()
            self._device.close()

    # Giving work

    def _feed_readers(self) -> None:
        limits = ReaderLimits(self._options.time_limit_s, self._options.memory_mib)
        while len(self._readers) < min(self._options.workers, len(self._pending)):
            self._readers.append(Reader(self._settings, limits, self._read))
        for reader in self._readers:
            if self._pending and reader.wants_study:
                study = self._pending.popleft()
                self._passages[study.study_id] = _Passage(study, reader)
                reader.post(Read(study))

    def _feed_device(self) -> None:
        """Sheets go first, since a study that is finished frees what waits behind it."""
        if not self._device.is_idle:
            return
        if self._sheets:
            self._sheets = self._fill_batch(self._sheets)
            self._device.start(self._detect_and_measure, self._batch)
        elif self._inputs:
            self._inputs = self._fill_batch(self._inputs)
            self._device.start(self._localize, self._batch)

    def _fill_batch(self, waiting: list[_Waiting[_Content]]) -> list[_Waiting[_Content]]:
        """Put the first that waits into the batch with others of its shape; returns those that stay."""
        alike = [item for item in waiting if item.shape == waiting[0].shape]
        self._batch = alike[: self._options.batch_size]
        return [item for item in waiting if item not in self._batch]

    def _localize(self, batch: Sequence[_Waiting[LocalizerInput]]) -> Sequence[SpineCurve | StudyError]:
        inputs = [item.content for item in batch]
        return localize(inputs, self._models.localizer, self._settings.localize)

    def _detect_and_measure(self, batch: Sequence[_Waiting[Straightened]]) -> Sequence[Measured]:
        studies = [(item.passage.header, item.content) for item in batch]
        return measure_studies(studies, self._models, self._settings)

    # Taking what is ready

    def _take_what_is_ready(self) -> None:
        readers = {reader.connection: reader for reader in self._readers}
        for connection in wait([*readers, self._device.connection], timeout=1.0):
            if connection in readers:
                self._take_reply(readers[connection])
            else:
                self._take_batch_result()

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
            passage.header = reply.value.header
            content = reply.value.input
            self._inputs.append(_Waiting(passage, content, content.image.shape))
        elif isinstance(reply.value, Straightened):
            self._sheets.append(_Waiting(passage, reply.value, padded(reply.value.sheet.image).shape))
        elif reply.value:
            self._fail(passage, reply.value)
        self._count_vanished(reply.value)

    def _take_batch_result(self) -> None:
        result = self._device.take()
        for item, value in zip(self._batch, result.values, strict=True):
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

    def _take_measured(self, item: _Waiting[Straightened], measured: Measured | StudyError) -> None:
        if isinstance(measured, StudyError):
            self._fail(item.passage, measured)
        else:
            result, detections = measured
            record = item.passage.record(result=result)
            self._finish(item.passage, Screened(record, item.content.sheet, detections))

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
                f"The last {_MAX_DEVICE_FAILURES} studies failed on the device, the last with: {value}"
            )

    def _count_vanished(self, value: Any) -> None:
        """Where study after study is gone, the archive is; its other studies must not fail with it."""
        self._vanished = self._vanished + 1 if isinstance(value, FilesVanished) else 0
        if self._vanished >= _MAX_VANISHED:
            raise VfscreenError(
                f"The files of the last {_MAX_VANISHED} studies are gone: is the disk or share with the "
                "archive still there? The same command goes on from here"
            )

    # Readers that die or hang

    def _replace_overdue_readers(self) -> None:
        for reader in list(self._readers):
            if reader.is_overdue():
                self._lose(reader, died=False)

    def _lose(self, reader: Reader, *, died: bool) -> None:
        """The study it was on gets its row; the others that it held are read again, once."""
        self._readers.remove(reader)
        exit_code = reader.end(grace_s=1.0 if died else 0.0)
        if not reader.has_started:
            self._count_failed_start(exit_code)
        culprit = reader.command.study.study_id if reader.command else None
        for study in reader.studies.values():
            passage = self._passages.get(study.study_id)
            if passage is None:
                continue  # its row is written, only its volume was still to be dropped
            if study.study_id == culprit or study.study_id in self._retried:
                self._fail(passage, self._loss(exit_code, died))
            else:
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


def _counted(tally: Tally, record: StudyRecord, settings: Settings) -> Tally:
    result = record.result
    if result is not None and result.vertebrae:
        flagged = bool(is_flagged(result, settings.measure.threshold))
        return replace(tally, measured=tally.measured + 1, flagged=tally.flagged + flagged)
    if result is not None:
        return replace(tally, unmeasured=tally.unmeasured + 1)
    if record.error is not None and record.error.status == "skipped":
        return replace(tally, skipped=tally.skipped + 1)
    return replace(tally, failed=tally.failed + 1)


def _load_models(device: str) -> Models:
    from vfscreen.networks.weights import load_models  # torch, which the readers never import

    return load_models(device=device)


def _method(
    source: Path,
    settings: Settings,
    models: Models,
    series: Collection[str],
    pseudonyms: Pseudonyms | None,
) -> dict[str, Any]:
    if pseudonyms is None:
        return journal.method(source, settings, models, series)
    named = [pseudonyms.series(uid) for uid in series]
    return journal.method(source, settings, models, named, pseudonyms.key_digest)


def _name(pseudonyms: Pseudonyms | None, study: StudyFiles) -> str:
    return pseudonyms.source(study.source) if pseudonyms else study.source


def _check_has_no_names(out: Path, fresh: bool) -> None:
    """Raise InputError where pseudonyms would stand beside what they replace."""
    named = [
        name for name in (INDEX_NAME, "series.csv", "series.parquet", SET_ASIDE) if (out / name).exists()
    ]
    if named or (fresh and (out / "run.json").exists()):
        raise InputError(
            f"{out} holds names of patients or files ({', '.join(named) or 'earlier results'}), which would "
            "tell whose the pseudonyms are; choose another folder"
        )


def _set_aside(out: Path) -> None:
    try:
        aside = set_aside(out)
    except OSError as error:
        raise InputError(f"Results in {out} cannot be set aside: {error}") from error
    if aside:
        logger.info("Earlier results are in %s.", aside)


def _with_row(
    studies: Sequence[StudyFiles], finished: Mapping[StudyKey, Finished], pseudonyms: Pseudonyms | None
) -> list[StudyFiles]:
    """The studies that are finished, well or not."""
    done = [study for study in studies if _key(study, pseudonyms) in finished]
    if len(done) < len(studies):
        left = len(studies) - len(done)
        logger.warning("%d studies are not screened yet; the command without --retry-failed does.", left)
    return done


def _pending(
    studies: Sequence[StudyFiles],
    finished: Mapping[StudyKey, Finished],
    pseudonyms: Pseudonyms | None,
    retry_failed: bool,
) -> list[StudyFiles]:
    """The studies to screen in this call."""
    pending, changed = [], 0
    for study in studies:
        row = finished.get(_key(study, pseudonyms))
        if row is None:
            pending.append(study)
        elif retry_failed:
            pending += [study] if row.status == "failed" else []
        elif row.stamp != (pseudonyms.stamp(study.stamp) if pseudonyms else study.stamp):
            changed += 1
            pending.append(study)
        elif row.may_be_the_machine:
            pending.append(study)
    if changed:
        logger.warning("The files of %d studies changed; they are screened again.", changed)
    return pending


def _key(study: StudyFiles, pseudonyms: Pseudonyms | None) -> StudyKey:
    if pseudonyms is None:
        return study_key(study.study_id, study.source)
    return pseudonyms.study(study.study_id), pseudonyms.source(study.source)


def _open_results(
    out: Path, method: dict[str, Any], device: str, settings: Settings, options: RunOptions
) -> tuple[ResultWriter, Journal]:
    """The writer and the journal of this call. Raises InputError for an `out` that it must not add to."""
    try:
        results = ResultWriter(out, settings.measure.threshold)
        return results, Journal.begin(out, method, device, asdict(options))
    except OSError as error:
        raise InputError(f"Results cannot be written to {out}: {error}") from error


def _make_tables(call: Journal, new: int) -> RunSummary:
    """The tables of all that is finished, what they hold, and run.json."""
    try:
        consolidate(call.out)
        table = pq.read_table(call.out / "studies.parquet")
        by_status = Counter(table["status"].to_pylist())
        counts = {
            "studies": table.num_rows,
            "measured": sum(bool(n) for n in table["n_vertebrae"].to_pylist()),
            "flagged": sum(flag is True for flag in table["flagged"].to_pylist()),
            **{status: by_status[status] for status in ("ok", "partial", "failed", "skipped")},
        }
        seconds = {stage: pc.sum(table[f"seconds_{stage}"], min_count=0).as_py() for stage in STAGES}
        call.end(new, counts, seconds)
    except OSError as error:
        raise unwritable(error) from error
    return RunSummary(call.out, new=new, seconds=call.seconds(), **counts)


def _check_rows(studies: Sequence[StudyFiles], out: Path, pseudonyms: Pseudonyms | None) -> None:
    """No study may be lost in silence, whatever the fault."""
    table = pq.read_table(out / "studies.parquet", columns=["study_id", "source"])
    listed = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
    missing = [study.source for study in studies if _key(study, pseudonyms) not in listed]
    if missing:
        raise VfscreenError(
            f"{len(missing)} of {len(studies)} studies have no row in {out / 'studies.parquet'}, "
            f"the first is {missing[0]}. This is a fault of vfscreen, please report it"
        )
