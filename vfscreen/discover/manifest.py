"""A manifest: a table that lists the studies of an input, one a row."""

from __future__ import annotations

import csv
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from vfscreen.discover.contents import Contents
from vfscreen.discover.index import Store, index, volume_reader
from vfscreen.discover.names import relative, safe_id
from vfscreen.discover.series import Series
from vfscreen.discover.studies import FoundStudy, Look, grouped, with_unique_ids
from vfscreen.discover.walk import Folder, alone, listed, walk
from vfscreen.errors import InputError, UnreadableFile
from vfscreen.study import StudyFiles

MANIFEST_SUFFIXES = (".csv", ".parquet")


class _Row(NamedTuple):
    path: str
    study_id: str | None
    patient_id: str | None


def manifest_studies(manifest: Path, look: Look) -> list[FoundStudy]:
    """A study for each row. Raises InputError where the manifest itself is wrong."""
    root = manifest.parent
    rows = _rows(manifest)
    with closing(Store(look.index)) as store:
        places = _Places(root, look, store, [root / row.path for row in rows])
        by_place = sorted(enumerate(rows), key=lambda numbered: places.place(numbered[1]))
        found = {number: look.kept(_row_study(row, places)) for number, row in by_place}
    named: list[FoundStudy] = []
    unnamed: list[FoundStudy] = []
    for number, row in enumerate(rows):
        (named if row.study_id else unnamed).append(found[number])
    return named + with_unique_ids(unnamed, {one.study.study_id for one in named})


def _rows(manifest: Path) -> list[_Row]:
    try:
        columns, records = (
            _read_csv(manifest) if manifest.suffix.lower() == ".csv" else _read_parquet(manifest)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{manifest} cannot be read as a manifest: {error}; give a CSV in UTF-8, or Parquet"
        ) from error
    if "path" not in columns:
        raise InputError(
            f"{manifest} has no column path; its columns are {', '.join(columns) or 'none'}. Rename the one "
            "with the folders or files of the studies"
        )
    if not records:
        raise InputError(f"{manifest} has no rows; give one row a study")
    for number, record in enumerate(records, start=1):
        if None in record:
            raise InputError(
                f"{manifest}: row {number} has more cells than columns; put text with commas into quotes"
            )
    rows = [_Row(*(_text(record.get(name)) for name in _Row._fields)) for record in records]
    for number, row in enumerate(rows, start=1):
        if not row.path:
            raise InputError(f"{manifest}: row {number} has no path; fill it in or drop the row")
        if row.study_id and row.study_id != safe_id(row.study_id):
            raise InputError(
                f"{manifest}: study_id {row.study_id!r} cannot name a file; use letters, digits, . _ -"
            )
    ids = Counter(row.study_id for row in rows if row.study_id)
    doubled = [study_id for study_id, count in ids.items() if count > 1]
    if doubled:
        raise InputError(
            f"{manifest}: study_id stands in more than one row: {', '.join(doubled[:5])}; a row is a study: "
            "name them apart, or leave the column out"
        )
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and the rows; what a row has beyond its columns stands under None."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open("rb") as file:
        table = pq.read_table(file)
    return table.column_names, table.to_pylist()


def _text(value: object) -> str:
    """A cell as text. Numbers with gaps are floats in Parquet: the gaps NaN, 7 as 7.0."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return "" if value is None else str(value).strip()


class _Place(NamedTuple):
    """What is looked at for a row: a folder and all below it, a NIfTI file, or the files beside a slice."""

    path: Path
    is_beside: bool

    @classmethod
    def of(cls, path: Path) -> _Place:
        is_slice = path.is_file() and volume_reader(path) is None
        return cls(path.parent, True) if is_slice else cls(path, False)

    def folders(self) -> Iterable[Folder]:
        if self.is_beside:
            return [listed(self.path)]
        if self.path.is_file():
            return [alone(self.path)]
        return walk(self.path) if self.path.is_dir() else []


class _Places:
    """The studies at the paths of a manifest. What several rows mean is listed and read once."""

    def __init__(self, root: Path, look: Look, store: Store, paths: Sequence[Path]) -> None:
        self._root, self._look, self._store = root, look, store
        self._places = {path: _Place.of(path) for path in paths}
        self._contents = {
            place: Contents(root, look.settings) for place in sorted(set(self._places.values()))
        }
        indexed: deque[_Place] = deque()  # whose folders come next
        for folder in index(self._folders(indexed), store):
            self._contents[indexed.popleft()].add(folder)
        self._last: _Place | None = None
        self._studies: list[FoundStudy] = []
        self._by_file: dict[Path, tuple[FoundStudy, Series]] = {}

    def _folders(self, places: deque[_Place]) -> Iterator[Folder]:
        for place in self._contents:
            for folder in place.folders():
                places.append(place)
                yield folder

    def place(self, row: _Row) -> _Place:
        """Where a row points to."""
        return self._places[self._root / row.path]

    def source(self, row: _Row) -> str:
        """A row's path as the tables show it."""
        return relative(self._root, self._root / row.path)

    def exists(self, row: _Row) -> bool:
        """Whether there is anything."""
        return (self._root / row.path).exists()

    def studies(self, row: _Row) -> list[FoundStudy]:
        """What a row's folder holds, or the study of its slice; packed files beside it do not count."""
        path = self._root / row.path
        place = self.place(row)
        found = self._found(place)
        if place.is_beside:
            return self._of_file(path, found)
        return [one for one in found if one.study.files] or list(found[:1])

    def _found(self, place: _Place) -> list[FoundStudy]:
        """The studies of a place; they are forgotten with the next place, since there may be a million."""
        if place != self._last:
            self._last, self._studies = place, self._grouped(place, self._look)
            self._by_file = _by_file(self._studies) if place.is_beside else {}
        return self._studies

    def _grouped(self, place: _Place, look: Look) -> list[FoundStudy]:
        keep = _all if place.is_beside else look.kept
        return grouped(self._root, self._contents[place], self._store, look, keep)

    def _of_file(self, path: Path, found: Sequence[FoundStudy]) -> list[FoundStudy]:
        """The study with a DICOM file, and of its series the one with the file where that can be screened."""
        if path not in self._by_file:
            return [one for one in found if one.study.source == relative(self._root, path)] or [
                one for one in found if isinstance(one.study.error, UnreadableFile)
            ]
        study, series = self._by_file[path]
        uid = series.kind.series_uid
        if series is not study.chosen and uid and not series.kind.unsuitable:
            look = replace(self._look, wanted=frozenset({uid}))
            study, _ = _by_file(self._grouped(self._places[path], look))[path]
        return [study]


def _all(found: FoundStudy) -> FoundStudy:
    return found


def _by_file(found: Sequence[FoundStudy]) -> dict[Path, tuple[FoundStudy, Series]]:
    return {image.path: (one, series) for one in found for series in one.series for image in series.images}


def _row_study(row: _Row, places: _Places) -> FoundStudy:
    found = places.studies(row)
    one = found[0] if len(found) == 1 else FoundStudy(_faulty_row(row, places, len(found)))
    study = replace(
        one.study,
        study_id=row.study_id or one.study.study_id,
        patient_id=row.patient_id or one.study.patient_id,
    )
    return replace(one, study=study)


def _faulty_row(row: _Row, places: _Places, found: int) -> StudyFiles:
    if not places.exists(row):
        reason = f"the manifest lists {row.path}, which does not exist"
    elif not found:
        reason = f"{row.path} holds nothing that looks like a CT"
    else:
        reason = f"{row.path} holds {found} studies; give each a row of its own"
    source = places.source(row)
    return StudyFiles(safe_id(source), source, (), error=UnreadableFile(reason))
