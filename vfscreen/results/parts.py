"""Parts: what a run writes while it goes on, and what the next call finds.

A part is `parts/NNNNNN.vertebrae.parquet` and then `parts/NNNNNN.studies.parquet`, each complete or absent,
so that a study listed in a part has its vertebrae on disk. Of a study in several parts the latest counts.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from vfscreen.errors import FilesVanished, ReaderDied, ReaderTimeout, UnexpectedError
from vfscreen.results.files import write_parquet
from vfscreen.results.rows import StudyRecord, study_row, vertebra_rows
from vfscreen.results.schemas import STUDIES, VERTEBRAE, Row, StudyKey
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)


WITHDRAWN = "withdrawn"  # status of a study in a part that takes its earlier rows back


RETRIED = {kind.code for kind in (FilesVanished, ReaderDied, ReaderTimeout, UnexpectedError)}
"""Errors that may be the machine's and not the study's: the next call tries again."""


def thumbnail_path(study_id: str) -> str:
    """Path of a study's picture in the result folder: any text becomes one portable file name."""
    name = quote(study_id, safe=" ", errors="backslashreplace")
    if len(name) > 200:
        name = f"{name[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"thumbnails/{name}.png"


class ResultWriter:
    """Writes records of finished studies to `out`/parts; the only writer of that folder.

    Rows reach the disk when `max_studies` wait or `max_seconds` have passed since the last part,
    and on `close`. A caller that may be idle for long calls `flush_if_due` meanwhile. Raises
    OSError when the disk refuses; the rows then stay in memory for the next attempt.
    """

    def __init__(self, out: Path, threshold: float, max_studies: int = 50, max_seconds: float = 10.0) -> None:
        """Parts that `out` already holds stay, and numbering goes on after them."""
        self._out, self._threshold = out, threshold
        self._max_studies, self._max_seconds = max_studies, max_seconds
        self._studies: list[Row] = []
        self._vertebrae: list[Row] = []
        for folder in ("parts", "thumbnails"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        numbers = (int(path.name.split(".")[0]) for path in (out / "parts").glob("[0-9]*.parquet"))
        self._number = max(numbers, default=0)
        self._last_flush = time.monotonic()

    def __enter__(self) -> ResultWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was finished before an exception is kept too."""
        self.close()

    def add(self, record: StudyRecord, thumbnail_png: bytes | None = None) -> None:
        """Take one finished study; its picture is written at once, before the row that names it."""
        thumbnail = thumbnail_path(record.study_id) if thumbnail_png is not None else None
        if thumbnail and thumbnail_png:
            write_whole(self._out / thumbnail, thumbnail_png)
        study, vertebrae = study_row(record, self._threshold, thumbnail), vertebra_rows(record)
        if not thumbnail:
            self._remove_picture(record.study_id)
        self._studies.append(study)
        self._vertebrae.extend(vertebrae)
        self.flush_if_due()

    def withdraw(self, study_id: str, source: str) -> None:
        """Take back the row of a study that is in the archive no more; it can be added again."""
        self._remove_picture(study_id)
        known = {"study_id": study_id, "source": source, "status": WITHDRAWN, "quality": []}
        self._studies.append({**dict.fromkeys(STUDIES.names), **known})
        self.flush_if_due()

    def _remove_picture(self, study_id: str) -> None:
        (self._out / thumbnail_path(study_id)).unlink(missing_ok=True)

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
        stem = self._out / "parts" / f"{self._number + 1:06d}"
        write_parquet(self._vertebrae, VERTEBRAE, stem.with_suffix(".vertebrae.parquet"))
        write_parquet(self._studies, STUDIES, stem.with_suffix(".studies.parquet"))
        self._number += 1
        self._studies, self._vertebrae = [], []
        self._last_flush = time.monotonic()


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


def finished_studies(out: Path) -> dict[StudyKey, Finished]:
    """The studies that have a row, by id and source: of each the latest."""
    latest: dict[str, Row] = {}
    for studies, _ in parts(out):
        for row in studies.select(["study_id", "source", "files_digest", "status", "error"]).to_pylist():
            latest.setdefault(row["study_id"], row)
    return {
        (row["study_id"], row["source"]): Finished(row["files_digest"], row["status"], row["error"])
        for row in latest.values()
        if row["status"] != WITHDRAWN
    }


def parts(out: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Studies and vertebrae of each part, latest first; a part that cannot be read is left out."""
    for path in sorted((out / "parts").glob("*.studies.parquet"), reverse=True):
        try:
            studies = pq.read_table(path, schema=STUDIES)
            of_them = pq.read_table(str(path).replace(".studies.", ".vertebrae."), schema=VERTEBRAE)
        except (OSError, pa.ArrowException) as error:
            log.warning("The part %s is unreadable (%s); its studies count as not done.", path, error)
            continue
        yield studies, of_them
