"""A finished study as rows of the tables."""

from __future__ import annotations

import datetime
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vfscreen.errors import StudyError
from vfscreen.measure import MODERATE, grade, probability_at_most, ratio_interval
from vfscreen.results.schemas import AXES, STAGES, Row
from vfscreen.study import HEIGHTS, KEYPOINTS, StudyHeader, StudyResult, Vertebra

log = logging.getLogger(__name__)


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


OF_STUDIES = ["patient_id", "study_id", "study_date", "status", "min_genant_ratio", "grade", "flagged"]
"""Columns of `STUDIES` that tell all about patients."""


def patient_rows(studies: Sequence[Row]) -> list[Row]:
    """The rows of `PATIENTS` from rows of `STUDIES`; a study without patient is a patient of its own."""
    patients = defaultdict(list)
    for row in studies:
        patients[patient_key(row)].append(row)
    return [_patient_row(patients[key]) for key in sorted(patients)]


def patient_key(study: Row) -> tuple[bool, str]:
    """What the studies of one patient share; patients are sorted by it."""
    return study["patient_id"] is None, study["patient_id"] or study["study_id"]


def _probabilities(result: StudyResult | None) -> list[float]:
    """Of each vertebra with a second look, that its true G is <= 0.74."""
    looked = [(v.genant_ratio, v.genant_ratio_sd) for v in result.vertebrae] if result else []
    return [probability_at_most(MODERATE, ratio, sd) for ratio, sd in looked if sd is not None]


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
    return record.result.status, None, _one_line("; ".join(reasons)) or None


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
