"""A manifest: a table that lists the studies of an input, one a row."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from vfscreen.discover.index import IndexedFolder, index, volume_reader
from vfscreen.discover.names import relative, safe_id
from vfscreen.discover.studies import FoundStudy, Look, grouped, with_unique_ids
from vfscreen.discover.walk import Folder, alone, beside, walk
from vfscreen.errors import InputError, NoSuitableSeries, StudyError, UnreadableFile
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
    places = [_folders_at(root / row.path) for row in rows]
    indexed = iter(index([folder for place in places for folder in place], look.index))
    named: list[FoundStudy] = []
    unnamed: list[FoundStudy] = []
    for row, place in zip(rows, places, strict=True):
        found = _row_study(root, row, list(islice(indexed, len(place))), look)
        (named if row.study_id else unnamed).append(found)
    return named + with_unique_ids(unnamed, {one.study.study_id for one in named})


def _rows(manifest: Path) -> list[_Row]:
    try:
        columns, records = (
            _read_csv(manifest) if manifest.suffix.lower() == ".csv" else _read_parquet(manifest)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read as a manifest: {error}") from error
    if "path" not in columns:
        raise InputError(f"{manifest} has no column path; its columns are {', '.join(columns) or 'none'}")
    if not records:
        raise InputError(f"{manifest} has no rows")
    for number, record in enumerate(records, start=1):
        if None in record:
            raise InputError(
                f"{manifest}: row {number} has more cells than columns; put text with commas into quotes"
            )
    rows = [_Row(*(_text(record.get(name)) for name in _Row._fields)) for record in records]
    for number, row in enumerate(rows, start=1):
        if not row.path:
            raise InputError(f"{manifest}: row {number} has no path")
        if row.study_id and row.study_id != safe_id(row.study_id):
            raise InputError(
                f"{manifest}: study_id {row.study_id!r} cannot name a file; use letters, digits, . _ -"
            )
    ids = Counter(row.study_id for row in rows if row.study_id)
    doubled = [study_id for study_id, count in ids.items() if count > 1]
    if doubled:
        raise InputError(f"{manifest}: study_id stands in more than one row: {', '.join(doubled[:5])}")
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and the rows; what a row has beyond its columns stands under None."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    table = pq.read_table(path)
    return table.column_names, table.to_pylist()


def _text(value: object) -> str:
    """A cell as text. Numbers with gaps are floats in Parquet: the gaps NaN, 7 as 7.0."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return "" if value is None else str(value).strip()


def _folders_at(path: Path) -> list[Folder]:
    """The files that a row means: a folder's, a NIfTI file, or those beside a DICOM file."""
    if path.is_dir():
        return walk(path)
    if not path.is_file():
        return []
    return [alone(path) if volume_reader(path) else beside(path)]


def _row_study(root: Path, row: _Row, folders: list[IndexedFolder], look: Look) -> FoundStudy:
    found = grouped(root, folders, look)
    one = found[0] if len(found) == 1 else FoundStudy(_faulty_row(root, row, len(found)))
    study = replace(
        one.study,
        study_id=row.study_id or one.study.study_id,
        patient_id=row.patient_id or one.study.patient_id,
    )
    return replace(one, study=study)


def _faulty_row(root: Path, row: _Row, found: int) -> StudyFiles:
    path = root / row.path
    error: StudyError
    if not path.exists():
        error = UnreadableFile(f"the manifest lists {row.path}, which does not exist")
    elif not found:
        error = UnreadableFile(f"{row.path} holds nothing that looks like a CT")
    else:
        error = NoSuitableSeries(f"{row.path} holds {found} studies; give each a row of its own")
    source = relative(root, path)
    return StudyFiles(safe_id(source), source, (), error=error)
