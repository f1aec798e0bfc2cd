"""Every column of every table: type, unit, meaning, values, and what an empty cell means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from vfscreen.measure import MILD, MODERATE, THRESHOLDS

"""The largest G of a case, by the name that tables and files give it."""

_GRADES = "normal, mild, moderate, severe"
_REASONS = "partial, failed, skipped, no_covariates, no_age, no_sex"
_UNMEASURED = "no study of the patient was measured (ok)"
_NOBODY = "nobody in the group"
_NO_CORRECTION = (
    "nobody in the group; no sensitivity and specificity given; their sum at most 1; or the cases contradict "
    "them (the whole interval outside 0 to 1)"
)


@dataclass(frozen=True)
class Column:
    """A column as the data dictionary tells of it; `type` is text, date, integer, number or 0/1."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    values: str = ""
    missing: str = "never"


ANALYSIS = (
    Column("patient_id", "text", "Patient", missing="unknown; the study is one by itself"),
    Column("study_id", "text", "The patient's latest study that was measured (ok); else the latest partial, "
           "failed, skipped one"),
    Column("study_date", "date", "Date of that study", missing="unknown"),
    Column("age", "number", "Age at that study, of the covariates, or its year less the year of birth",
           "years", values="where only another study of the patient is listed, its age and the years between",
           missing="unknown, or known at another study and one of the two has no date"),
    Column("sex", "text", "Sex, of the covariates", values="female, male, others as the covariates have them",
           missing="unknown"),
    Column("age_group", "text", "Group of that age; 50-59 holds 50 and up to, not including, 60",
           missing="age unknown"),
    Column("n_studies", "integer", "Studies of the patient in the results, of every status"),
    Column("study_status", "text", "Status of the study", values="ok, partial, failed, skipped"),
    Column("study_error", "text", "Code of the study's error: docs/errors.md", missing="ok or partial"),
    Column("n_vertebrae", "integer", "Vertebrae measured", missing=_UNMEASURED),
    Column("min_genant_ratio", "number", "Smallest G of the study's vertebrae", missing=_UNMEASURED),
    Column("grade", "text", "Grade of the smallest G", values=_GRADES, missing=_UNMEASURED),
    Column("n_moderate", "integer", f"Vertebrae with G <= {MODERATE}", missing=_UNMEASURED),
    *(
        Column(f"fracture_{grade}", "0/1", f"Smallest G <= {limit}", values="0, 1", missing=_UNMEASURED)
        for grade, limit in THRESHOLDS.items()
    ),
    Column("excluded", "text", "Why the patient is not in the prevalence", values=_REASONS,
           missing="the patient is in it"),
)  # fmt: skip

PREVALENCE = (
    Column("grouping", "text", "What the rows are grouped by",
           values="all, age_group, sex, age_group_sex, or a column of the covariates"),
    Column("age_group", "text", "Age group", values="all, or a group"),
    Column("sex", "text", "Sex", values="all, or a sex"),
    Column("value", "text", "Value of the column of the covariates",
           values="all, missing (empty in the covariates; missing_ where missing is a value), or a value"),
    Column("threshold", "text", "Which G is a case", values=", ".join(THRESHOLDS)),
    Column("max_ratio", "number", "Largest G of a case", values=", ".join(map(str, THRESHOLDS.values()))),
    Column("n", "integer", "Patients"),
    Column("cases", "integer", "Patients whose smallest G is at most max_ratio"),
    Column("prevalence", "number", "Apparent prevalence: cases by patients", missing=_NOBODY),
    Column("prevalence_low", "number", "Lower end of its 95 % interval (Wilson)", missing=_NOBODY),
    Column("prevalence_high", "number", "Upper end of its 95 % interval (Wilson)", missing=_NOBODY),
    Column("corrected", "number", "Prevalence corrected for sensitivity and specificity (Rogan and Gladen)",
           missing=_NO_CORRECTION),
    Column("corrected_low", "number", "Lower end of its 95 % interval (Lang and Reiczigel)",
           missing=_NO_CORRECTION),
    Column("corrected_high", "number", "Upper end of its 95 % interval (Lang and Reiczigel)",
           missing=_NO_CORRECTION),
    Column("truncated", "0/1", "1: the corrected prevalence or an end of its interval lay outside 0 to 1 and "
           "was set to 0 or 1", values="0, 1", missing=_NO_CORRECTION),
    Column("sensitivity", "number", "Sensitivity by patient that was used", missing="not given"),
    Column("n_positive", "integer", "Patients with a fracture that it was measured on", missing="not given"),
    Column("specificity", "number", "Specificity by patient that was used", missing="not given"),
    Column("n_negative", "integer", "Patients without one that it was measured on", missing="not given"),
)  # fmt: skip

LEVELS = (
    Column("level", "text", "Anatomical level of the vertebrae",
           values="all, C7 to L5, unknown (the results know no level)"),
    Column("n_patients", "integer", "Analysed patients with such a vertebra measured"),
    Column("n_vertebrae", "integer", "Vertebrae measured"),
    *(Column(f"n_{grade}", "integer", f"Vertebrae of grade {grade}") for grade in _GRADES.split(", ")),
    *(
        Column(f"n_{shape}", "integer", f"Vertebrae with G <= {MILD} of shape {shape}")
        for shape in ("wedge", "biconcave", "crush")
    ),
    *(
        Column(f"share_{grade}", "number", f"Share of them with G <= {limit}", missing="no vertebrae")
        for grade, limit in THRESHOLDS.items()
    ),
)  # fmt: skip

FLOW = (
    Column("step", "integer", "Number of the box, from the archive to the analysis"),
    Column("kind", "text", "kept: what is there; excluded: what leaves before it", values="kept, excluded"),
    Column("reason", "text", "The box's name, or why studies leave",
           values=f"found, measured, one_study, analysed; {_REASONS}, other_study"),
    Column("error", "text", "Code of the error: docs/errors.md", missing="not skipped or failed"),
    Column("n_studies", "integer", "Studies"),
    Column("n_patients", "integer", "kept: patients that these studies are of; excluded: patients who leave "
           "with them, since nothing of theirs stays"),
)  # fmt: skip

TABLES = {"analysis": ANALYSIS, "prevalence": PREVALENCE, "levels": LEVELS, "flow": FLOW}


def names(columns: Sequence[Column]) -> list[str]:
    """The names of columns, in order."""
    return [column.name for column in columns]


def data_dictionary(by: Sequence[str] = ()) -> pd.DataFrame:
    """One row a column of `TABLES`: `table`, `name`, `type`, `unit`, `meaning`, `values`, `missing`.

    `by` are the further covariates, which the analysis table has last.
    """
    further = tuple(Column(name, "text", "Of the covariates", missing="unknown") for name in by)
    rows = [
        {"table": table, **asdict(column)}
        for table, columns in TABLES.items()
        for column in (*columns, *(further if table == "analysis" else ()))
    ]
    return pd.DataFrame(rows)[["table", "name", "type", "unit", "meaning", "values", "missing"]]
