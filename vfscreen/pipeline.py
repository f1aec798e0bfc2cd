"""A run: from an archive to tables. What is done already is left out, and what is finished is written.

    discover -> streaming -> writer thread -> tables

`streaming.py` is the way of a study through readers and device.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfscreen import journal, provenance
from vfscreen.child_process import keep_freed_memory
from vfscreen.discover import discover
from vfscreen.discover.index import INDEX_NAME
from vfscreen.errors import InputError, VfscreenError
from vfscreen.journal import Journal, earlier_calls
from vfscreen.progress import OnProgress, Outcome, Tally, silent
from vfscreen.pseudonyms import Plain, Pseudonyms
from vfscreen.results import (
    SET_ASIDE,
    STAGES,
    Finished,
    ResultWriter,
    StudyKey,
    StudyRecord,
    WorkingCopy,
    consolidate,
    finished_studies,
    is_flagged,
    locked,
    set_aside,
    working_copy,
)
from vfscreen.settings import Settings, Thumbnails
from vfscreen.shards import Shard
from vfscreen.storage import is_remote, path_of
from vfscreen.streaming import RunOptions, Screening, n_device_threads
from vfscreen.study import StudyFiles
from vfscreen.threads import WriterThread, unwritable
from vfscreen.usage import BusySeconds, Usage, mean

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models
    from vfscreen.report.dicom_sr import Reports

logger = logging.getLogger(__name__)

Names = Pseudonyms | Plain


@dataclass(frozen=True)
class RunSummary:
    """What the tables in `out` hold, this call and earlier ones together.

    `new` studies, `seconds` and `usage` are of this call; `measured` studies have at least one vertebra
    measured.
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
    usage: Usage | None = None


@dataclass(frozen=True)
class Work:
    """What is done with each study, by this process or by workers elsewhere."""

    out: Path
    settings: Settings
    options: RunOptions
    names: Names

    def screen(
        self,
        studies: Sequence[StudyFiles],
        models: Models,
        results: ResultWriter,
        usages: list[Usage],
        begin: Callable[[StudyFiles], None] = lambda study: None,
    ) -> Generator[Outcome, None, None]:
        """Screen the studies in this process and write them; how busy its parts were goes to `usages`.

        `begin` is told of each study that a reader gets. Raises VfscreenError when results cannot be
        written or the device fails.
        """
        writer, busy, started = WriterThread(results), BusySeconds(), time.monotonic()
        reports = _dicom_reports()(models.provenance) if self.options.dicom_sr else None
        screening = Screening(
            models,
            self.settings,
            self.options,
            name=lambda study: self.names.source(study.source),
            begin=begin,
        )
        try:
            with closing(screening.screen(studies)) as screened:
                for study in screened:
                    record = self.names.record(study.record)
                    report = reports.of(record, study.images) if reports else None
                    writer.put(record, study.picture, report)
                    busy.add(record.stage_seconds)
                    yield _outcome(study.record, self.settings)
        finally:
            writer.close()
            busy.writer = writer.busy_s
            if reports:
                reports.tell()
            n_devices = n_device_threads(models.device)
            usages.append(busy.of(time.monotonic() - started, self.options.workers, n_devices))


class Cluster(Protocol):
    """Workers elsewhere that screen studies."""

    def screen(
        self, studies: Sequence[StudyFiles], work: Work, results: ResultWriter, usages: list[Usage]
    ) -> Generator[Outcome, None, None]:
        """As `Work.screen`. The workers write parts of their own, `results` what only this process knows."""


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
    shard: Shard | None = None,
    cluster: Cluster | None = None,
    dicom_sr: bool = False,
    progress: OnProgress = silent,
) -> RunSummary:
    """Screen every study of a folder, file or manifest, and write the tables into `out`.

    Studies that `out` already holds are not repeated, so the same call goes on where an earlier one
    stopped; only those whose files changed, whose reader died or hung, or whose error nobody foresaw,
    are screened again. With `retry_failed` those that failed are screened again, and no others; with
    `fresh` what `out` holds is set aside first.

    `limit` takes the first so many studies of the input, `shard` those of them that are its own; folders
    of all shards are put together by `merge`. `time_limit_s` and `memory_mib` are what one study may cost
    a reader. `series` names UIDs that are screened instead of those of the rule. `dicom_sr` writes a DICOM
    Structured Report of each measured DICOM study; it needs highdicom. With a `cluster` its workers
    screen, `workers` and `memory_mib` are those of each; input and `out` have one path everywhere.
    From a script, call it under `if __name__ == "__main__":`, since the readers are spawned processes.

    Raises InputError for a wrong input, and for an `out` that is unwritable, in use by another run,
    or holds results of another input, settings or weights; WeightsError for wrong weights; and
    VfscreenError when results cannot be written or the device fails; never for a single study.
    """
    source, out, settings = path_of(source), path_of(out), settings or Settings()
    if out.resolve() == source.resolve():
        raise InputError(
            f"{out} is the archive itself; give another folder for the results, such as {out}_results"
        )
    options = RunOptions(workers or 0, batch_size, limit, thumbnails, time_limit_s, memory_mib or 0, dicom_sr)
    if cluster is None:
        options = for_this_machine(options)
    else:
        source, out = source.absolute(), out.absolute()
    if dicom_sr:
        _check_dicom_sr(pseudonyms)
    models = models or _load_models(device)
    names = pseudonyms or Plain()
    named = [names.series(uid) for uid in series]
    method = journal.method(source, settings, models, named, names.key_digest, shard)
    if fresh and retry_failed:
        raise InputError("--fresh screens everything again and --retry-failed only some: choose one of them")
    keep_freed_memory()
    with working_copy(out) as copy, locked(copy.folder):
        bring(copy)
        out = copy.folder
        if pseudonyms:
            _check_has_no_names(out, fresh)
        elif fresh:
            journal.check_without_names(out)
        if not fresh:  # refuse before the walk through an archive, which may take long
            earlier_calls(out, method)
        index = None if pseudonyms else out / INDEX_NAME  # it holds names of files and patients
        listed = discover(source, settings.read, index=index, series=series)
        wanted = [study for study in listed[:limit] if shard is None or shard.has(study.study_id)]
        if fresh:
            put_aside(copy)
        computed_on = models.device if cluster is None else "each worker's own"
        results, call = _open_results(copy, method, computed_on, settings, options)
        finished = finished_studies(out)
        for key in _superseded(listed, finished, names):
            results.withdraw(*key)
        studies = _with_row(wanted, finished, names) if retry_failed else wanted
        pending = _pending(studies, finished, names, retry_failed)
        if cluster is not None and is_remote(copy.out):  # whose workers cannot see what was kept of a study
            for key in finished.keys() & {study_key(study, names) for study in pending}:
                results.withdraw(*key)
        tally = Tally(total=len(studies), before=len(studies) - len(pending))
        work, usages = Work(copy.out, settings, options, names), list[Usage]()
        try:
            progress(tally)
            if cluster is None:
                screened = work.screen(pending, models, results, usages)
            else:
                screened = cluster.screen(pending, work, results, usages)
            with closing(screened) as outcomes:
                for outcome in outcomes:
                    tally = tally.plus(outcome)
                    progress(tally)
        finally:  # also after Ctrl-C: what is finished becomes tables
            _close(results)
            bring(copy)  # what workers elsewhere and readers of the workbook wrote
            summary = make_tables(
                call, tally.new, mean(usages), {study_key(study, names) for study in wanted}, copy
            )
        _check_rows(studies, out, names)
    return summary


def for_this_machine(options: RunOptions, sharing: int = 1) -> RunOptions:
    """The options with what was left open, if as many processes as `sharing` share the memory."""
    workers = options.workers or default_workers()
    memory_mib = options.memory_mib or default_memory_mib(workers * sharing)
    return replace(options, workers=workers, memory_mib=memory_mib)


def default_workers() -> int:
    """One reader a CPU, less one for the main process; past eight the disk is the limit."""
    return max(1, min(8, provenance.usable_cpus() - 1))


def default_memory_mib(workers: int) -> int:
    """What a reader may use: its share of three quarters of the machine's memory, at least 2 GiB."""
    return max(2048, int(0.75 * provenance.memory_mib() / workers))


def _outcome(record: StudyRecord, settings: Settings) -> Outcome:
    result, study_id = record.result, record.study_id
    if result is not None and result.vertebrae:
        return Outcome(study_id, "measured", bool(is_flagged(result, settings.measure.threshold)))
    if result is not None:
        return Outcome(study_id, "unmeasured")
    is_skipped = record.error is not None and record.error.status == "skipped"
    return Outcome(study_id, "skipped" if is_skipped else "failed")


def _load_models(device: str) -> Models:
    from vfscreen.networks.weights import load_models  # torch, which the readers never import

    return load_models(device=device)


def _dicom_reports() -> type[Reports]:
    """Raises InputError without highdicom, which only `--dicom-sr` needs."""
    try:
        from vfscreen.report.dicom_sr import Reports
    except ModuleNotFoundError as error:
        raise InputError(
            f"--dicom-sr needs the package {error.name}: pip install -c constraints.txt -e '.[dicom-sr]'"
        ) from error
    return Reports


def _check_dicom_sr(pseudonyms: Pseudonyms | None) -> None:
    """Raise InputError with pseudonyms, or without highdicom: now, not when the first study is done."""
    if pseudonyms:
        raise InputError(
            "--dicom-sr goes without --pseudonymise: a DICOM SR refers to its images by the archive's own "
            "UIDs, which would tell whose the pseudonyms are"
        )
    _dicom_reports()


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


def put_aside(copy: WorkingCopy) -> None:
    """Move earlier results out of the way, also where they are kept: no new run.json may stand beside them.

    Raises InputError where they cannot be moved.
    """
    try:
        aside = set_aside(copy.folder)
        copy.keep()
    except OSError as error:
        raise InputError(
            f"Results in {copy.out} cannot be set aside: {error}; move the folder yourself, or choose another"
        ) from error
    if aside:
        logger.info("Earlier results are in %s.", copy.out / aside.relative_to(copy.folder))


def _superseded(
    listed: Sequence[StudyFiles], finished: Mapping[StudyKey, Finished], names: Names
) -> list[StudyKey]:
    """Rows of studies that the archive holds no more, or under another id.

    A measured study that was only moved away or deleted keeps its row: nothing measured is lost.
    """
    ids = {names.study(study.study_id) for study in listed}
    sources = {names.source(study.source) for study in listed}
    stamps = {names.stamp(study.stamp) for study in listed}
    gone = {key: row for key, row in finished.items() if key[0] not in ids}
    superseded = [
        key for key, row in gone.items() if key[1] in sources or row.stamp in stamps or not row.is_measured
    ]
    kept = len(gone) - len(superseded)
    if kept:
        logger.warning("%d studies of earlier calls are in the archive no more; their rows stay.", kept)
    return superseded


def _with_row(
    studies: Sequence[StudyFiles], finished: Mapping[StudyKey, Finished], names: Names
) -> list[StudyFiles]:
    """The studies that are finished, well or not."""
    done = [study for study in studies if study_key(study, names) in finished]
    if len(done) < len(studies):
        left = len(studies) - len(done)
        logger.warning("%d studies are not screened yet; the command without --retry-failed does.", left)
    return done


def _pending(
    studies: Sequence[StudyFiles],
    finished: Mapping[StudyKey, Finished],
    names: Names,
    retry_failed: bool,
) -> list[StudyFiles]:
    """The studies to screen in this call."""
    pending, changed = [], 0
    for study in studies:
        row = finished.get(study_key(study, names))
        if row is None:
            pending.append(study)
        elif retry_failed:
            pending += [study] if row.status == "failed" else []
        elif row.stamp != names.stamp(study.stamp):
            changed += 1
            pending.append(study)
        elif row.may_be_the_machine:
            pending.append(study)
    if changed:
        logger.warning("The files of %d studies changed; they are screened again.", changed)
    return pending


def study_key(study: StudyFiles, names: Names) -> StudyKey:
    """What the tables know the study by."""
    return names.study(study.study_id), names.source(study.source)


def _open_results(
    copy: WorkingCopy, method: dict[str, Any], device: str, settings: Settings, options: RunOptions
) -> tuple[ResultWriter, Journal]:
    """The writer and the journal of this call. Raises InputError for an `out` that it must not add to."""
    out = copy.folder
    try:
        results = ResultWriter(out, settings.measure.threshold, writer=_writer(copy), written=copy.keep)
        call = Journal.begin(out, method, device, asdict(options), earlier_calls(out, method))
        copy.keep()
    except OSError as error:
        raise InputError(
            f"Results cannot be written to {copy.out}: {error}; make room, or choose another folder"
        ) from error
    return results, call


def _writer(copy: WorkingCopy) -> str:
    """A name for parts on a storage that cannot be locked: no run replaces those of another."""
    return uuid.uuid4().hex[:8] if is_remote(copy.out) else ""


def bring(copy: WorkingCopy) -> None:
    """Have here what is kept on object storage. Raises VfscreenError where it cannot be read."""
    try:
        copy.bring()
    except OSError as error:
        raise VfscreenError(
            f"Results cannot be read ({error}); see the spelling of the bucket, and whether you may read and "
            "write there"
        ) from error


def _close(results: ResultWriter) -> None:
    try:
        results.close()
    except OSError as error:
        raise unwritable(error) from error


def make_tables(
    call: Journal, new: int, usage: Usage | None, wanted: Collection[StudyKey], copy: WorkingCopy
) -> RunSummary:
    """The tables of all that is finished, what they hold, and run.json; `wanted` is the input of the call.

    Raises VfscreenError when the disk refuses.
    """
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
        unscreened = len(set(wanted) - _rows(table))
        call.end(new, counts, seconds, asdict(usage) if usage else {}, unscreened)
        write_for_readers(call.out)
        copy.keep()
    except OSError as error:
        raise unwritable(error) from error
    return RunSummary(copy.out, new=new, seconds=call.seconds(), usage=usage, **counts)


def _rows(studies: pa.Table) -> set[StudyKey]:
    return set(zip(studies["study_id"].to_pylist(), studies["source"].to_pylist(), strict=True))


def write_for_readers(out: Path) -> None:
    """What people open in the morning: flagged.xlsx and report.html, of the finished tables and run.json."""
    from vfscreen.report.page import (
        write_page,  # these bring pandas and templates, which a night does not need
    )
    from vfscreen.report.workbook import write_workbook

    write_workbook(out)
    write_page(out)


def _check_rows(studies: Sequence[StudyFiles], out: Path, names: Names) -> None:
    """No study may be lost in silence, whatever the fault."""
    table = pq.read_table(out / "studies.parquet", columns=["study_id", "source"])
    listed = _rows(table)
    missing = [study.source for study in studies if study_key(study, names) not in listed]
    if missing:
        raise VfscreenError(
            f"{len(missing)} of {len(studies)} studies have no row in {out / 'studies.parquet'}, "
            f"the first is {missing[0]}. This is a fault of vfscreen, please report it"
        )
