"""The tables: every column with its type, unit and meaning, of which docs/data-dictionary.md is made."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from vfscreen.quality import VERTEBRA_DOUBTS
from vfscreen.study import HEIGHTS, KEYPOINTS

Row = dict[str, Any]


StudyKey = tuple[str, str]
"""`study_id` and `source` of a study, as the tables hold them."""


STAGES = ("read", "localize", "straighten", "detect")


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
        column("error", _TEXT, "Code of the error, explained in docs/errors.md; null for `ok` and `partial`"),
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


WORST = {
    name: f"worst_{name}"
    for name in (
        "vertebra",
        *(f"center_{a}_mm" for a in AXES),
        *(f"height_{name}_mm" for name in HEIGHTS),
        "genant_ratio_low",
        "genant_ratio_high",
    )
}
"""Columns of the vertebra with the smallest G, and their names in `FLAGGED`."""


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
        *(_worst(of, name) for of, name in WORST.items()),
        *(STUDIES.field(name) for name in ("thumbnail", "source")),
    ]
)
