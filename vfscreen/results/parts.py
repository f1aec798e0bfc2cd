"""Parts: what a run writes while it goes on, and what the next call finds.

A part is `parts/NNNNNN.vertebrae.parquet` and then `parts/NNNNNN.studies.parquet`, each complete or absent,
so that a study listed in a part has its vertebrae on disk. Of a study in several parts the latest counts.
Workers of a cluster write side by side: theirs are `NNNNNN-WRITER.studies.parquet`, no two of one name.
The file of the studies holds the checksum of the other one: damage is seen without unpacking all vertebrae.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from vfscreen.errors import FilesVanished, ReaderDied, ReaderTimeout, UnexpectedError, WorkerDied
from vfscreen.results.files import parquet_bytes, table_of, write_table
from vfscreen.results.folder import DICOM_SR
from vfscreen.results.rows import StudyRecord, study_row, vertebra_rows
from vfscreen.results.schemas import STUDIES, VERTEBRAE, Row, StudyKey
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)


WITHDRAWN = "withdrawn"  # status of a study in a part that takes its earlier rows back


CHECKSUM = b"vertebrae_crc32"  # key of the metadata of a part's studies


RETRIED = {kind.code for kind in (FilesVanished, ReaderDied, ReaderTimeout, UnexpectedError, WorkerDied)}
"""Errors that may be the machine's and not the study's: the next call tries again."""


def thumbnail_path(study_id: str) -> str:
    """Path of a study's picture in the result folder."""
    return f"thumbnails/{_file_name(study_id)}.png"


def dicom_sr_path(study_id: str) -> str:
    """Path of a study's DICOM Structured Report in the result folder."""
    return f"{DICOM_SR}/{_file_name(study_id)}.dcm"


def _file_name(study_id: str) -> str:
    """Any text becomes one portable file name, without its suffix."""
    name = quote(study_id, safe=" ", errors="backslashreplace")
    if len(name) > 200:
        name = f"{name[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name


class ResultWriter:
    """Writes records of finished studies to `out`/parts; the only writer of that folder and name.

    Rows reach the disk when `max_studies` wait or `max_seconds` have passed since the last part,
    and on `close`. A caller that may be idle for long calls `flush_if_due` meanwhile. Raises
    OSError when the disk refuses; the rows then stay in memory for the next attempt.
    """

    def __init__(
        self,
        out: Path,
        threshold: float,
        max_studies: int = 50,
        max_seconds: float = 10.0,
        *,
        writer: str = "",
        after: int | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Parts that `out` already holds stay, and numbering goes on after them, or after number `after`.

        `writer` is a name that no other writer of `out` has; `written` is called after each part.
        """
        self._out, self._threshold = out, threshold
        self._max_studies, self._max_seconds = max_studies, max_seconds
        self._studies: list[Row] = []
        self._vertebrae: list[Row] = []
        for folder in ("parts", "thumbnails"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        self._number = last_number(out) if after is None else after
        self._suffix = f"-{writer}" if writer else ""
        self._written = written
        self._last_flush = time.monotonic()

    @property
    def number(self) -> int:
        """The number of the latest part."""
        return self._number

    def __enter__(self) -> ResultWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was finished before an exception is kept too."""
        self.close()

    def add(
        self, record: StudyRecord, thumbnail_png: bytes | None = None, dicom_sr: bytes | None = None
    ) -> None:
        """Take one finished study; picture and report are written at once, before the row."""
        thumbnail = thumbnail_path(record.study_id) if thumbnail_png is not None else None
        if thumbnail and thumbnail_png:
            write_whole(self._out / thumbnail, thumbnail_png)
        study, vertebrae = study_row(record, self._threshold, thumbnail), vertebra_rows(record)
        if not thumbnail:
            self._remove(thumbnail_path(record.study_id))
        if dicom_sr:
            (self._out / DICOM_SR).mkdir(exist_ok=True)
            write_whole(self._out / dicom_sr_path(record.study_id), dicom_sr)
        else:
            self._remove(dicom_sr_path(record.study_id))
        self._studies.append(study)
        self._vertebrae.extend(vertebrae)
        self.flush_if_due()

    def withdraw(self, study_id: str, source: str) -> None:
        """Take back the row of a study that is in the archive no more; it can be added again."""
        self._remove(thumbnail_path(study_id))
        self._remove(dicom_sr_path(study_id))
        known = {"study_id": study_id, "source": source, "status": WITHDRAWN, "quality": []}
        self._studies.append({**dict.fromkeys(STUDIES.names), **known})
        self.flush_if_due()

    def _remove(self, path: str) -> None:
        """What an earlier call wrote of a study that has another result now."""
        (self._out / path).unlink(missing_ok=True)

    def flush_if_due(self) -> None:
        """Write a part if enough studies wait, or any has waited long enough."""
        waited = time.monotonic() - self._last_flush >= self._max_seconds
        if self._studies and (waited or len(self._studies) >= self._max_studies):
            self._flush()

    def close(self) -> None:
        """Write what waits."""
        if self._studies:
            self._flush()

    def _flush(self) -> None:
        stem = self._out / "parts" / f"{self._number + 1:06d}{self._suffix}"
        write_part(stem, table_of(self._studies, STUDIES), table_of(self._vertebrae, VERTEBRAE))
        self._number += 1
        self._studies, self._vertebrae = [], []
        self._last_flush = time.monotonic()
        self._written()


@dataclass(frozen=True)
class Finished:
    """What the tables hold of a study: its files' digest, status and error."""

    stamp: str
    status: str
    error: str | None

    @property
    def is_measured(self) -> bool:
        """Whether there are vertebrae of it, or it was seen that there are none."""
        return self.error is None

    @property
    def may_be_the_machine(self) -> bool:
        """Whether the error may be the machine's and not the study's: the next call tries again."""
        return self.error in RETRIED


def finished_studies(out: Path, writers: str = "*") -> dict[StudyKey, Finished]:
    """The studies that have a row, by id and source: of each the latest.

    `writers` is a pattern of names: only the parts of these writers count.
    """
    latest: dict[str, tuple[str, Finished]] = {}  # by id
    names = ("study_id", "source", "files_digest", "status", "error")
    for studies, _ in parts(out, writers):
        columns = [studies[name].to_pylist() for name in names]
        for study_id, source, stamp, status, error in zip(*columns, strict=True):
            latest.setdefault(study_id, (source, Finished(stamp, status, error)))
    return {
        (study_id, source): found for study_id, (source, found) in latest.items() if found.status != WITHDRAWN
    }


def write_part(stem: Path, studies: pa.Table, vertebrae: pa.Table) -> None:
    """Write the two files of a part, each whole or not at all. Raises OSError when the disk refuses."""
    content = parquet_bytes(vertebrae)
    write_whole(stem.with_name(f"{stem.name}.vertebrae.parquet"), content)
    checked = studies.replace_schema_metadata({CHECKSUM: _checksum(content)})
    write_table(checked, stem.with_name(f"{stem.name}.studies.parquet"))


def parts(out: Path, writers: str = "*") -> Iterator[tuple[pa.Table, Path]]:
    """Studies of each part and the file of their vertebrae, latest first; a damaged part is left out."""
    pattern = "*.studies.parquet" if writers == "*" else f"*-{writers}.studies.parquet"
    for path in sorted((out / "parts").glob(pattern), reverse=True):
        of_them = path.with_name(path.name.replace(".studies.", ".vertebrae."))
        try:
            studies = _read(path, STUDIES)
            _check(of_them, (studies.schema.metadata or {}).get(CHECKSUM))
        except (OSError, pa.ArrowException) as error:
            log.warning("The part %s is unreadable (%s); its studies count as not done.", path, error)
            continue
        yield studies.replace_schema_metadata(None), of_them


def copy_parts(source: Path, out: Path) -> None:
    """Copy the parts of another folder, its pictures and reports, in their order, behind those of `out`."""
    paths = sorted((source / "parts").glob("*.studies.parquet"))
    for number, path in enumerate(paths, last_number(out) + 1):
        stem = out / "parts" / f"{number:06d}"
        of_them = path.with_name(path.name.replace(".studies.", ".vertebrae."))
        for file, suffix in ((of_them, ".vertebrae.parquet"), (path, ".studies.parquet")):
            write_whole(stem.with_suffix(suffix), file.read_bytes())
    for path in [*(source / "thumbnails").glob("*.png"), *(source / DICOM_SR).glob("*.dcm")]:
        (out / path.parent.name).mkdir(exist_ok=True)
        write_whole(out / path.parent.name / path.name, path.read_bytes())


def last_number(out: Path) -> int:
    """The number of the latest part of `out`; 0 where there is none."""
    numbers = (int(re.split(r"[.-]", path.name)[0]) for path in (out / "parts").glob("[0-9]*.parquet"))
    return max(numbers, default=0)


def read_vertebrae(path: Path) -> pa.Table:
    """The vertebrae of a part."""
    return _read(path, VERTEBRAE)


def _check(path: Path, checksum: bytes | None) -> None:
    """Raise OSError or ArrowException where a file is damaged; what has no checksum yet is read for it."""
    if checksum is None:
        read_vertebrae(path)
    elif checksum != _checksum(path.read_bytes()):
        raise OSError(f"{path.name} is not as it was written")


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    """A file of a part; columns that an earlier version did not write are null."""
    content = pa.BufferReader(path.read_bytes())
    with pq.ParquetFile(content) as file:
        if file.schema_arrow.equals(schema):
            return file.read(use_threads=False)  # in half the time
    return pq.read_table(content, schema=schema)
