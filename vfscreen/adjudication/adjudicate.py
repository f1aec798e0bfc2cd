"""Readers' verdicts to tables of their own, beside the automatic ones, which stay as they are."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vfscreen.adjudication.agreement import Agreement, agreement
from vfscreen.adjudication.consensus import conflict_row, one_a_reader, study_row
from vfscreen.adjudication.reading import Reading, read_verdicts
from vfscreen.adjudication.schemas import CONFLICTS, STUDIES_READ, VERDICT_ROWS
from vfscreen.errors import InputError
from vfscreen.results import Row, valid, write_csv, write_parquet
from vfscreen.results.files import read_result
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)

FOLDER = "adjudicated"
"""Where the tables go, in the result folder, unless told otherwise."""

_OF_STUDY = [
    *("patient_id", "study_id", "study_date", "status", "flagged", "grade", "min_genant_ratio"),
    *("thumbnail", "source"),
]


@dataclass(frozen=True)
class Adjudication:
    """The tables as rows of `schemas.py`, and the figures."""

    out: Path
    verdicts: list[Row]
    superseded: list[Row]
    studies: list[Row]
    conflicts: list[Row]
    agreement: Agreement


def adjudicate(
    results: Path, files: Sequence[Path], out: Path | None = None, reader: str = "", arbiter: str = ""
) -> Adjudication:
    """Merge the verdicts of all these files and write the tables into `out`, each whole or not at all.

    The tables are made anew of the files given, so the same files give the same tables. So that nothing gets
    lost, an `out` that holds the verdict of a reader on a study that is in none of them is refused: give all
    files each time, or `out`/verdicts.csv along with the new ones, or another `out`. A verdict that is
    another one now than before is named in the log.

    `reader` is who read where a file does not say so, `arbiter` the reader whose verdict decides.

    Raises InputError for files that cannot be read, verdicts that are none or that fit no study or vertebra,
    two verdicts of one reader of which none is the later, an `arbiter` who read nothing, and an `out` that
    cannot be written, has verdicts that are missing now, or holds results of a run.
    """
    out = out or results / FOLDER
    flagged, studies = _read_results(results)
    readings = [reading for path in dict.fromkeys(files) for reading in read_verdicts(path, reader)]
    if not readings:
        raise InputError(
            f"no row of {_listed(path.name for path in files)} has a verdict; fill in the column verdict of "
            "flagged.xlsx and save it, or give the file that `Save verdicts` of report.html saved"
        )
    _check_studies(readings, studies)
    _check_vertebrae(readings, results)
    counting, superseded = one_a_reader(readings)
    readers = {reading.reader for reading in counting}
    if arbiter and arbiter.casefold() not in map(str.casefold, readers):
        raise InputError(f"--arbiter {arbiter} has read nothing; there are verdicts of {_listed(readers)}")
    _check_keeps(out, counting)
    by_study = [(studies[id_], list(of)) for id_, of in groupby(counting, lambda each: each.study_id)]
    rows = [study_row(study, of, arbiter) for study, of in by_study]
    made = Adjudication(
        out,
        verdicts=[_verdict_row(reading, studies) for reading in counting],
        superseded=[_verdict_row(reading, studies) for reading in superseded],
        studies=rows,
        conflicts=[
            conflict_row(study, of)
            for (study, of), row in zip(by_study, rows, strict=True)
            if row["basis"] == "conflict"
        ],
        agreement=agreement(rows, counting, flagged),
    )
    _write(made)
    return made


def _read_results(results: Path) -> tuple[int, dict[str, Row]]:
    """How many studies are flagged, and every study by its id."""
    table = read_result(results / "studies.parquet", _OF_STUDY)
    return pc.sum(table["flagged"], min_count=0).as_py(), {row["study_id"]: row for row in table.to_pylist()}


def _check_studies(readings: Iterable[Reading], studies: Collection[str]) -> None:
    for reading in readings:
        if reading.study_id not in studies:
            raise InputError(
                f"{reading.place}: there is no such study in the results{_hint(reading, studies)}"
            )


def _hint(reading: Reading, studies: Collection[str]) -> str:
    bare = reading.study_id.lstrip("0")
    for study in studies:
        if study.lstrip("0") == bare:
            return f", but {study}: a spreadsheet drops leading zeros; write ids into cells of text"
    near = difflib.get_close_matches(reading.study_id, studies, n=1)
    return f"; did you mean {near[0]}?" if near else "; is the file of another run, or of pseudonyms?"


def _check_vertebrae(readings: Sequence[Reading], results: Path) -> None:
    ids = pa.array({reading.study_id for reading in readings if reading.vertebra is not None}, pa.string())
    table = read_result(
        results / "vertebrae.parquet", ["study_id", "vertebra"], pc.field("study_id").isin(ids)
    ).to_pydict()
    known = set(zip(table["study_id"], table["vertebra"], strict=True))
    for reading in readings:
        if reading.vertebra is not None and (reading.study_id, reading.vertebra) not in known:
            numbers = sorted(number for study, number in known if study == reading.study_id)
            measured = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "none was measured"
            raise InputError(f"{reading.place}: {reading.vertebra} is no vertebra of this study; {measured}")


def _check_keeps(out: Path, readings: Iterable[Reading]) -> None:
    """Raise InputError where tables would be overwritten that are not ours, or verdicts that are missing."""
    path = out / "verdicts.parquet"
    if not path.exists():
        if (out / "studies.parquet").exists():
            raise InputError(
                f"{out} holds the automatic results, which stay as they are; choose another --out"
            )
        return
    now = {(reading.study_id, reading.reader.casefold()): reading for reading in readings}
    names = ["study_id", "reader", "file", "verdict", "verdict_grade", "verdict_vertebra"]
    earlier = {
        (row["study_id"], row["reader"].casefold()): row for row in read_result(path, names).to_pylist()
    }
    missing = [row for key, row in earlier.items() if key not in now]
    if missing:
        first = missing[0]
        raise InputError(
            f"{len(missing)} of {len(earlier)} verdicts in {out} are in none of the files, the first is of "
            f"{first['reader']} on study_id {first['study_id']}, from {first['file']}; give that file too, "
            f"or add --verdicts {out / 'verdicts.csv'}, or choose another --out"
        )
    for key, row in earlier.items():
        if now[key].decision != tuple(row[name] for name in names[3:]):
            log.warning("%s: %s said %r before", now[key].place, row["reader"], row["verdict"])


def _verdict_row(reading: Reading, studies: dict[str, Row]) -> Row:
    return {
        "patient_id": studies[reading.study_id]["patient_id"],
        "study_id": reading.study_id,
        "reader": reading.reader,
        "verdict": reading.verdict,
        "verdict_grade": reading.grade,
        "verdict_vertebra": reading.vertebra,
        "verdict_comment": reading.comment,
        "read_at": reading.read_at,
        "file": valid(reading.file),
        "row": reading.row,
    }


def _write(made: Adjudication) -> None:
    tables = {
        "verdicts": (made.verdicts, VERDICT_ROWS),
        "superseded": (made.superseded, VERDICT_ROWS),
        "studies": (made.studies, STUDIES_READ),
        "conflicts": (made.conflicts, CONFLICTS),
    }
    text = json.dumps(asdict(made.agreement), indent=2, ensure_ascii=False)
    try:
        made.out.mkdir(parents=True, exist_ok=True)
        for name, (rows, schema) in tables.items():
            write_csv(rows, schema, made.out / f"{name}.csv")
            if name in ("verdicts", "studies"):
                write_parquet(rows, schema, made.out / f"{name}.parquet")
        write_whole(made.out / "agreement.json", f"{text}\n".encode())
    except OSError as error:
        raise InputError(
            f"the tables cannot be written to {made.out}: {error}; make room, or choose another --out"
        ) from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
