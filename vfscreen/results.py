"""The result folder: table schemas, parts written while a run goes on, and the tables made from them.

A run writes `parts/NNNNNN.vertebrae.parquet` and then `parts/NNNNNN.studies.parquet`, each complete
or absent, so that a study listed in a part has its vertebrae on disk. `consolidate` makes the
tables from the parts as often as wanted.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfscreen.errors import (
    FilesVanished,
    InputError,
    ReaderDied,
    ReaderTimeout,
    StudyError,
    UnexpectedError,
)
from vfscreen.measure import MODERATE, grade, probability_at_most, ratio_interval
from vfscreen.quality import VERTEBRA_DOUBTS
from vfscreen.study import HEIGHTS, KEYPOINTS, StudyHeader, StudyResult, Vertebra
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)

Row = dict[str, Any]
StudyKey = tuple[str, str]
"""`study_id` and `source` of a study, as the tables hold them."""

STAGES = ("read", "localize", "straighten", "detect")
SET_ASIDE = "set_aside"
WITHDRAWN = "withdrawn"  # status of a study in a part that takes its earlier rows back
TABLES = ("studies.parquet", "vertebrae.parquet", "patients.parquet", "flagged.csv")
RETRIED = {kind.code for kind in (FilesVanished, ReaderDied, ReaderTimeout, UnexpectedError)}
"""Errors that may be the machine's and not the study's: the next call tries again."""
AXES = {"x": "to the patient's left", "y": "to posterior", "z": "to cranial"}


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    """A field of a schema that tells its unit and meaning, as the data dictionary shows them."""
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning})


_TEXT, _COUNT, _NUMBER = pa.string(), pa.int32(), pa.float64()
_TEXTS = pa.list_(pa.field("element", _TEXT))  # the name that Parquet gives it
_PATIENT = column("patient_id", _TEXT, "Patient, from the manifest or else the header; null if unknown")
_STUDY = column("study_id", _TEXT, "Study: the key that joins the tables")
_GRADES = "`normal` (G > 0.8), `mild` (0.74 < G <= 0.8), `moderate` (0.6 < G <= 0.74), `severe` (G <= 0.6)"
_SECOND = "null without a second look"

STUDIES = pa.schema(
    [
        _PATIENT,
        _STUDY,
        column("study_date", pa.date32(), "Date of the study"),
        column("source", _TEXT, "Where the study was found, relative to the input"),
        column("series_uid", _TEXT, "Series that was screened"),
        column(
            "series_choice", _TEXT, "Why this series was chosen, and why the others were not; null for NIfTI"
        ),
        column(
            "status",
            _TEXT,
            "`ok`: measured; `partial`: too little of the spine could be measured, never to be counted as "
            "negative; `failed`: an error; `skipped`: nothing in it to screen",
        ),
        column("error", _TEXT, "Code of the error, listed below; null for `ok` and `partial`"),
        column("reason", _TEXT, "Why the study is `failed`, `skipped` or `partial`, in one line"),
        column("n_vertebrae", _COUNT, "Vertebrae measured; null for `failed` and `skipped`"),
        column("min_genant_ratio", _NUMBER, "Smallest G of the vertebrae; null when none was measured"),
        column("grade", _TEXT, f"Grade of the smallest G: {_GRADES}; null when none was measured"),
        column(
            "n_moderate",
            _COUNT,
            "Vertebrae with G <= 0.74; null when none was measured",
        ),
        column(
            "max_probability_moderate",
            _NUMBER,
            "Largest `probability_moderate` of the vertebrae; null when none was measured or without a "
            "second look",
        ),
        column(
            "flagged",
            pa.bool_(),
            "True: a vertebra at or below the threshold of the run (`run.json`). False: `ok`, and every "
            "vertebra above it. Null: not known (`failed`, `skipped`, or `partial` without such a vertebra)",
        ),
        column("quality", _TEXTS, "Names of the doubts about the result"),
        column("slice_spacing_mm", _NUMBER, "Distance between slices, the usual one", "mm"),
        column(
            "widest_step_mm",
            _NUMBER,
            "Largest distance between two slices; null where they are evenly spaced",
            "mm",
        ),
        column("pixel_spacing_mm", _NUMBER, "Pixel size in the slice", "mm"),
        column("n_slices", _COUNT, "Slices of the series"),
        column("seconds", _NUMBER, "Time spent on the study: the sum of the stages", "s"),
        *(column(f"seconds_{stage}", _NUMBER, f"Time spent in stage `{stage}`", "s") for stage in STAGES),
        column(
            "thumbnail",
            _TEXT,
            "Picture, relative to the result folder; null where none was made",
        ),
        column("files_digest", _TEXT, "Digest of the files' names, sizes and times: a change is noticed"),
    ]
)

VERTEBRAE = pa.schema(
    [
        _PATIENT,
        _STUDY,
        column("vertebra", _COUNT, "Number in the study; 1 is the most cranial one measured"),
        column("level", _TEXT, "Anatomical level, C7 to L5; null while unknown"),
        column("score", _NUMBER, "Objectness, 0 to 1"),
        *(column(f"height_{name}_mm", _NUMBER, f"Height, {name}", "mm") for name in HEIGHTS),
        *(
            column(
                f"height_{name}_sd_mm", _NUMBER, f"Standard deviation of that height, {name}; {_SECOND}", "mm"
            )
            for name in HEIGHTS
        ),
        column("genant_ratio", _NUMBER, "G: the smallest of the three heights by the largest"),
        column("genant_ratio_sd", _NUMBER, f"Standard deviation of G; {_SECOND}"),
        column("genant_ratio_low", _NUMBER, f"Lower end of the 90 % interval of G; {_SECOND}"),
        column("genant_ratio_high", _NUMBER, f"Upper end of the 90 % interval of G; {_SECOND}"),
        column("probability_moderate", _NUMBER, f"Probability that the true G is <= 0.74; {_SECOND}"),
        column("grade", _TEXT, _GRADES),
        column(
            "shape",
            _TEXT,
            "`normal` (G > 0.8); else by the smallest height `wedge` (anterior), `biconcave` (middle) or "
            "`crush` (posterior)",
        ),
        column("quality", _TEXTS, f"Names of the doubts about this vertebra: {', '.join(VERTEBRA_DOUBTS)}"),
        *(column(f"center_{a}_mm", _NUMBER, f"Mean of the keypoints, LPS, {AXES[a]}", "mm") for a in AXES),
        *(
            column(f"{name}_{a}_mm", _NUMBER, f"Keypoint {name.replace('_', ' ')}, LPS, {AXES[a]}", "mm")
            for name in KEYPOINTS
            for a in AXES
        ),
    ]
)

PATIENTS = pa.schema(
    [
        column("patient_id", _TEXT, "Patient; null for a study without one, which has a row of its own"),
        column("study_id", _TEXT, "Study with the smallest G; the latest one where nothing was measured"),
        column("min_genant_ratio", _NUMBER, "Smallest G over the studies; null when none was measured"),
        column("grade", _TEXT, f"Grade of the smallest G: {_GRADES}"),
        column("n_studies", _COUNT, "Studies of the patient, failed and skipped ones included"),
        column("n_measured", _COUNT, "Studies with at least one vertebra measured"),
        column(
            "flagged",
            pa.bool_(),
            "True: one study is flagged. False: every study that was not skipped was measured and not "
            "flagged. Null: not known",
        ),
        column("latest_study_id", _TEXT, "The patient's latest study"),
        column("latest_study_date", pa.date32(), "Date of that study"),
        column("study_ids", _TEXTS, "All studies of the patient, latest first, undated ones last"),
    ]
)


def _worst(of: str, name: str | None = None) -> pa.Field:
    field = VERTEBRAE.field(of)
    meaning = f"Vertebra with the smallest G: {field.metadata[b'meaning'].decode()}"
    return column(name or f"worst_{of}", field.type, meaning, field.metadata[b"unit"].decode())


_OF_VERTEBRA = {
    name: f"worst_{name}"
    for name in (
        "vertebra",
        *(f"center_{a}_mm" for a in AXES),
        *(f"height_{name}_mm" for name in HEIGHTS),
        "genant_ratio_low",
        "genant_ratio_high",
    )
}
_OF_STUDY = (
    "patient_id",
    "study_id",
    "study_date",
    "min_genant_ratio",
    "grade",
    "n_moderate",
    "max_probability_moderate",
    "status",
    "quality",
)
FLAGGED = pa.schema(
    [
        *(STUDIES.field(name) for name in _OF_STUDY),
        *(_worst(of, name) for of, name in _OF_VERTEBRA.items()),
        *(STUDIES.field(name) for name in ("thumbnail", "source")),
    ]
)


@dataclass(frozen=True)
class StudyRecord:
    """One study as the writer receives it: a result or an error, never both.

    `patient_id` is the manifest's and goes before the header's. `stage_seconds` has the stages the
    study went through, of `STAGES`.
    """

    study_id: str
    source: str
    patient_id: str | None
    result: StudyResult | None
    error: StudyError | None
    header: StudyHeader
    stage_seconds: Mapping[str, float]
    choice: str | None = None
    stamp: str = ""


def study_row(record: StudyRecord, threshold: float, thumbnail: str | None = None) -> Row:
    """The row of `STUDIES`; a vertebra with G <= `threshold` flags the study."""
    header, result = record.header, record.result
    ratios = [v.genant_ratio for v in result.vertebrae] if result else []
    smallest = min(ratios, default=None)
    status, error, reason = _outcome(record)
    return {
        "patient_id": _patient_id(record),
        "study_id": record.study_id,
        "study_date": _date(record),
        "source": record.source,
        "series_uid": header.series_uid,
        "series_choice": record.choice,
        "status": status,
        "error": error,
        "reason": reason,
        "n_vertebrae": len(ratios) if result else None,
        "min_genant_ratio": smallest,
        "grade": None if smallest is None else grade(smallest),
        "n_moderate": sum(g <= MODERATE for g in ratios) if ratios else None,
        "max_probability_moderate": max(_probabilities(result), default=None),
        "flagged": is_flagged(result, threshold),
        "quality": [doubt.name for doubt in result.doubts] if result else [],
        "slice_spacing_mm": header.slice_spacing_mm,
        "widest_step_mm": header.widest_step_mm,
        "pixel_spacing_mm": header.pixel_spacing_mm,
        "n_slices": header.n_slices,
        "seconds": float(sum(record.stage_seconds.values())),
        **{f"seconds_{stage}": record.stage_seconds.get(stage) for stage in STAGES},
        "thumbnail": thumbnail,
        "files_digest": record.stamp,
    }


def _probabilities(result: StudyResult | None) -> list[float]:
    """Of each vertebra with a second look, that its true G is <= 0.74."""
    looked = [(v.genant_ratio, v.genant_ratio_sd) for v in result.vertebrae] if result else []
    return [probability_at_most(MODERATE, ratio, sd) for ratio, sd in looked if sd is not None]


def is_flagged(result: StudyResult | None, threshold: float) -> bool | None:
    """Whether a vertebra has G <= `threshold`; None where too little was measured to know."""
    smallest = result.min_genant_ratio if result else None
    if result is None or smallest is None:
        return None
    if smallest <= threshold:
        return True
    return False if result.status == "ok" else None


def vertebra_rows(record: StudyRecord) -> list[Row]:
    """The rows of `VERTEBRAE`, cranial first; none without a result."""
    keys = {"patient_id": _patient_id(record), "study_id": record.study_id}
    vertebrae = record.result.vertebrae if record.result else ()
    return [{**keys, "vertebra": i, **_measured(vertebra)} for i, vertebra in enumerate(vertebrae, start=1)]


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
    for studies, _ in _parts(out):
        for row in studies.select(["study_id", "source", "files_digest", "status", "error"]).to_pylist():
            latest.setdefault(row["study_id"], row)
    return {
        (row["study_id"], row["source"]): Finished(row["files_digest"], row["status"], row["error"])
        for row in latest.values()
        if row["status"] != WITHDRAWN
    }


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs from writing into `out`, which is made, until the end or death of this one.

    A folder that was made and got no results is removed again. Raises InputError where another run
    holds it, or where `out` cannot be written.
    """
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(f"Results cannot be written to {out}: {error}") from error
    try:
        with stream:
            _lock(stream, out)
            yield
    finally:
        if is_new and not (out / "parts").exists():
            _remove_if_empty(out)


def _remove_if_empty(out: Path) -> None:
    """An index that was begun stays: it is hours of reading headers."""
    if [path.name for path in out.iterdir()] == [".lock"]:
        with suppress(OSError):
            (out / ".lock").unlink()
            out.rmdir()


def _lock(stream: TextIO, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"Another run is writing into {out}; wait for its end or choose another folder"
        ) from error
    except OSError as error:
        log.warning("%s cannot be locked (%s): start no second run on it meanwhile.", out, error)


def set_aside(out: Path) -> Path | None:
    """Move earlier results of a folder into a subfolder of it; None where there are none.

    The parts go first: what is broken off in between is a folder without results, never half of them.
    """
    if not (out / "run.json").exists() and not (out / "parts").exists():
        return None
    aside = out / SET_ASIDE / datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    aside.mkdir(parents=True)
    for name in ("parts", "thumbnails", *TABLES, "run.json"):
        if (out / name).exists():
            (out / name).rename(aside / name)
    return aside


def consolidate(out: Path) -> None:
    """Make studies, vertebrae and patients (`.parquet`) and flagged.csv from the parts.

    Rows are sorted by source and study, so the tables do not depend on the order of completion. Of
    a study in several parts the latest counts.
    """
    studies, vertebrae = _collect(out)
    studies = studies.sort_by([("source", "ascending"), ("study_id", "ascending")])
    rows = studies.to_pylist()
    _write_table(_in_order_of(rows, vertebrae), out / "vertebrae.parquet")
    write_parquet(patient_rows(rows), PATIENTS, out / "patients.parquet")
    write_csv(_flagged_rows(rows, vertebrae), FLAGGED, out / "flagged.csv")
    _write_table(studies, out / "studies.parquet")


def patient_rows(studies: Sequence[Row]) -> list[Row]:
    """The rows of `PATIENTS` from rows of `STUDIES`; a study without patient is a patient of its own."""
    patients = defaultdict(list)
    for row in studies:
        patients[row["patient_id"] is None, row["patient_id"] or row["study_id"]].append(row)
    return [_patient_row(patients[key]) for key in sorted(patients)]


def write_run_json(out: Path, provenance: Mapping[str, Any]) -> None:
    """Write run.json: what is needed to repeat the run. `provenance` must be serialisable as JSON."""
    text = json.dumps(provenance, indent=2, ensure_ascii=False)
    write_whole(out / "run.json", f"{text}\n".encode())


def read_run_json(out: Path) -> dict[str, Any] | None:
    """What earlier calls wrote into run.json; None where they finished nothing.

    Raises InputError where there are parts, but no run.json that tells how they were made.
    """
    if not any((out / "parts").glob("*.studies.parquet")):
        return None
    try:
        earlier = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{out} holds parts of results but no run.json, so nobody knows how they were made; "
            "choose another folder"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / 'run.json'} cannot be read ({error}); choose another folder") from error
    if not isinstance(earlier, dict):
        raise InputError(f"{out / 'run.json'} does not tell how a run was made; choose another folder")
    return earlier


def _patient_id(record: StudyRecord) -> str | None:
    """An empty PatientID is none: it must not join strangers to one patient."""
    return record.patient_id or record.header.patient_id or None


def _outcome(record: StudyRecord) -> tuple[str, str | None, str | None]:
    """Status, error code and reason."""
    if record.error is not None:
        return record.error.status, record.error.code, _one_line(str(record.error))
    if record.result is None:
        raise ValueError(f"study {record.study_id} has neither a result nor an error")
    reasons = [doubt.reason for doubt in record.result.doubts if doubt.partial]
    return record.result.status, None, _one_line(" ".join(reasons)) or None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _date(record: StudyRecord) -> datetime.date | None:
    """A date that is none is the header's fault and must not cost the night: null, with a warning."""
    text = record.header.study_date
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        log.warning("The date of study %s is none and is left out.", record.study_id)
        return None


def _measured(vertebra: Vertebra) -> Row:
    heights = zip(HEIGHTS, vertebra.heights_mm.tolist(), strict=True)
    points = zip(KEYPOINTS, vertebra.keypoints_mm.tolist(), strict=True)
    return {
        "level": None,
        "score": float(vertebra.score),
        **{f"height_{name}_mm": height for name, height in heights},
        "genant_ratio": vertebra.genant_ratio,
        **_uncertainty(vertebra),
        "grade": vertebra.grade,
        "shape": vertebra.shape,
        "quality": list(vertebra.doubts),
        **_position("center", vertebra.center_mm.tolist()),
        **{column: mm for name, point in points for column, mm in _position(name, point).items()},
    }


def _uncertainty(vertebra: Vertebra) -> Row:
    """What the second look says of its own errors; nothing without it."""
    ratio, sd, of_heights = vertebra.genant_ratio, vertebra.genant_ratio_sd, vertebra.height_sd_mm
    names = [f"height_{name}_sd_mm" for name in HEIGHTS]
    if sd is None or of_heights is None:
        others = ("genant_ratio_sd", "genant_ratio_low", "genant_ratio_high", "probability_moderate")
        return dict.fromkeys((*names, *others))
    low, high = ratio_interval(ratio, sd)
    return {
        **dict(zip(names, of_heights.tolist(), strict=True)),
        "genant_ratio_sd": sd,
        "genant_ratio_low": low,
        "genant_ratio_high": high,
        "probability_moderate": probability_at_most(MODERATE, ratio, sd),
    }


def _position(name: str, point_mm: Sequence[float]) -> Row:
    return {f"{name}_{axis}_mm": mm for axis, mm in zip(AXES, point_mm, strict=True)}


def _patient_row(studies: list[Row]) -> Row:
    dated = sorted(studies, key=_when, reverse=True)
    latest = dated[0]
    measured = [row for row in dated if row["min_genant_ratio"] is not None]
    worst = min(measured, key=lambda row: row["min_genant_ratio"], default=latest)
    return {
        **{name: worst[name] for name in ("patient_id", "study_id", "min_genant_ratio", "grade")},
        "n_studies": len(studies),
        "n_measured": len(measured),
        "flagged": _any_flagged([row["flagged"] for row in studies if row["status"] != "skipped"]),
        "latest_study_id": latest["study_id"],
        "latest_study_date": latest["study_date"],
        "study_ids": [row["study_id"] for row in dated],
    }


def _when(study: Row) -> tuple[datetime.date, str]:
    return study["study_date"] or datetime.date.min, study["study_id"]


def _any_flagged(flags: list[bool | None]) -> bool | None:
    if any(flags):
        return True
    return None if None in flags or not flags else False


def _flagged_rows(studies: Sequence[Row], vertebrae: pa.Table) -> list[Row]:
    flagged = [row for row in studies if row["flagged"]]
    ids = pa.array([row["study_id"] for row in flagged], _TEXT)
    of_them = vertebrae.select(["study_id", "genant_ratio", *_OF_VERTEBRA]).filter(
        pc.is_in(vertebrae["study_id"], ids)
    )
    falling = of_them.sort_by([("genant_ratio", "descending"), ("vertebra", "descending")]).to_pylist()
    worst = {row["study_id"]: row for row in falling}  # the last one stays
    flagged.sort(key=lambda row: (row["min_genant_ratio"], row["source"], row["study_id"]))
    return [
        {**row, **{name: worst[row["study_id"]][column] for column, name in _OF_VERTEBRA.items()}}
        for row in flagged
    ]


def _collect(out: Path) -> tuple[pa.Table, pa.Table]:
    """All studies and vertebrae of the parts, in no order; the latest part of a study counts."""
    seen: set[str] = set()
    tables = [(STUDIES.empty_table(), VERTEBRAE.empty_table())]
    for studies, vertebrae in _parts(out):
        ids = studies["study_id"].to_pylist()
        again = pa.array([study_id for study_id in ids if study_id in seen], _TEXT)
        seen.update(ids)
        tables.append((_without(studies, again), _without(vertebrae, again)))
    studies, vertebrae = map(pa.concat_tables, zip(*tables, strict=True))
    return studies.filter(pc.not_equal(studies["status"], WITHDRAWN)), vertebrae


def _without(table: pa.Table, study_ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["study_id"], study_ids)))


def _parts(out: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Studies and vertebrae of each part, latest first; a part that cannot be read is left out."""
    for path in sorted((out / "parts").glob("*.studies.parquet"), reverse=True):
        try:
            studies = pq.read_table(path, schema=STUDIES)
            of_them = pq.read_table(str(path).replace(".studies.", ".vertebrae."), schema=VERTEBRAE)
        except (OSError, pa.ArrowException) as error:
            log.warning("The part %s is unreadable (%s); its studies count as not done.", path, error)
            continue
        yield studies, of_them


def _in_order_of(studies: Sequence[Row], vertebrae: pa.Table) -> pa.Table:
    ids = pa.array([row["study_id"] for row in studies], _TEXT)
    keys = pa.table({"study": pc.index_in(vertebrae["study_id"], ids), "vertebra": vertebrae["vertebra"]})
    return vertebrae.take(pc.sort_indices(keys, [("study", "ascending"), ("vertebra", "ascending")]))


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{k: _valid(v) for k, v in row.items()} for row in rows], schema=schema)


def valid(text: str) -> str:
    """Text as the tables hold it: a file name that is no UTF-8 has surrogates, which Arrow refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


def _valid(value: Any) -> Any:
    return valid(value) if isinstance(value, str) else value


def _write_table(table: pa.Table, path: Path) -> None:
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_whole(path, content.getvalue())


def write_parquet(rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    """Write a table whole or not at all. Raises OSError when the disk refuses."""
    _write_table(_table(rows, schema), path)


def write_csv(rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    """Write a table for a spreadsheet, whole or not at all; no text in it is taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    writer.writerows([_cell(name, _valid(row[name])) for name in schema.names] for row in rows)
    write_whole(path, text.getvalue().encode())


def _cell(column: str, value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.1f}" if column.endswith("_mm") else f"{value:.4f}"
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
