"""The analysis table: one row a patient, of one study that was chosen without regard to what was found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from vfscreen.epidemiology.covariates import OLDEST, Covariates
from vfscreen.epidemiology.dictionary import ANALYSIS, names
from vfscreen.errors import InputError
from vfscreen.measure import THRESHOLDS

STATUSES = ("ok", "partial", "failed", "skipped")
"""The status of a study, the first one being the first choice."""

_MEASURED = ("n_vertebrae", "min_genant_ratio", "grade", "n_moderate")
_OF_STUDY = ("patient_id", "study_id", "study_date", "status", "error", *_MEASURED)
_OF_VERTEBRA = ("study_id", "level", "genant_ratio", "grade", "shape")


def read_results(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Studies and vertebrae of a result folder. Raises InputError where it holds no tables."""
    studies = _read(results / "studies.parquet", _OF_STUDY)
    vertebrae = _read(results / "vertebrae.parquet", _OF_VERTEBRA)
    if studies.empty:
        raise InputError(f"{results / 'studies.parquet'} has no rows: nothing was screened")
    again = studies.study_id[studies.study_id.duplicated()]
    if len(again):
        raise InputError(
            f"{results / 'studies.parquet'}: study_id {again.iloc[0]} is there twice; screen again"
        )
    is_known = studies.min_genant_ratio.notna() | (studies.status != "ok")
    return (
        studies.assign(
            study_date=pd.to_datetime(studies.study_date).astype("datetime64[ns]"),
            status=studies.status.where(is_known, "partial"),  # nothing measured is no negative
            n_vertebrae=studies.n_vertebrae.astype("Int64"),
            n_moderate=studies.n_moderate.astype("Int64"),
        ),
        vertebrae,
    )


def analysis_table(
    studies: pd.DataFrame, covariates: Covariates, age_groups: Sequence[float] = ()
) -> pd.DataFrame:
    """One row a patient, in the columns of `dictionary.ANALYSIS` and the further covariates.

    Raises InputError where the covariates know no patient of the results.
    """
    patients = _joined(one_study_a_patient(studies, covariates), covariates)
    is_measured = patients.status == "ok"
    measured = {name: patients[name].where(is_measured) for name in _MEASURED}
    table = patients.assign(
        **measured,
        **{
            f"fracture_{name}": (patients.min_genant_ratio <= limit).astype("Int8").where(is_measured)
            for name, limit in THRESHOLDS.items()
        },
        age_group=age_group(patients.age, age_groups),
        study_status=patients.status,
        study_error=patients.error,
        excluded=_why_excluded(patients),
    )
    return table[[*names(ANALYSIS), *covariates.by]].reset_index(drop=True)


def one_study_a_patient(studies: pd.DataFrame, covariates: Covariates) -> pd.DataFrame:
    """The study of each patient: the latest `ok`, else the latest `partial`, `failed`, `skipped`.

    The latest, not the one with the smallest G: who was scanned more often would have more chances to be a
    case. Undated studies come last. A study of which neither results nor covariates know the patient is a
    patient of its own.
    """
    studies = studies.assign(patient_id=_patient_ids(studies, covariates))
    lone = studies.study_id.where(studies.patient_id.isna())
    studies = studies.assign(who=studies.groupby([studies.patient_id, lone], dropna=False).ngroup())
    ranked = studies.assign(
        rank=studies.status.map(STATUSES.index), n_studies=studies.groupby("who").study_id.transform("size")
    ).sort_values(["rank", "study_date", "study_id"], ascending=[True, False, False])
    return ranked.drop_duplicates("who").sort_values("who").drop(columns=["who", "rank"])


def age_group(age: pd.Series, bounds: Sequence[float] = ()) -> pd.Series:
    """Age in years to its group: of ten years, or between these bounds, which rise.

    A group holds its lower bound and not its upper one. The categories hold empty groups in between, and none
    below or above all ages.
    """
    known = age.dropna()
    if not bounds and len(known):
        bounds = np.arange(known.min() // 10 * 10, known.max() // 10 * 10 + 11, 10).tolist()
    inner = [f"{low:g}-{high - 1:g}" for low, high in pairwise(bounds)]
    labels = [f"under {bounds[0]:g}", *inner, f"{bounds[-1]:g} and over"] if bounds else ["all ages"]
    groups = pd.Series(pd.cut(age, [-np.inf, *bounds, np.inf], right=False, labels=labels), age.index)
    outside = {labels[0], labels[-1]} - set(groups.dropna())
    return groups.cat.remove_categories(outside)


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=list(columns))
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: give a folder that vfscreen run has finished") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} is no table of vfscreen run: {error}") from error


def _patient_ids(studies: pd.DataFrame, covariates: Covariates) -> pd.Series:
    """The results' own, and where they know none, as in NIfTI, that of the covariates."""
    if covariates.key != "study_id" or "patient_id" not in covariates.table:
        return studies.patient_id
    known = covariates.table.set_index("study_id").patient_id
    return studies.patient_id.fillna(studies.study_id.map(known))


def _joined(patients: pd.DataFrame, covariates: Covariates) -> pd.DataFrame:
    table, key = covariates.table, covariates.key
    if key == "study_id":
        table = table.drop(columns="patient_id", errors="ignore")
    joined = patients.merge(table.assign(is_listed=True), "left", on=key)
    if joined.is_listed.isna().all():
        raise InputError(
            f"{covariates.path}: no {key} is one of the results: they have {_first(patients[key])}, "
            f"the covariates {_first(table[key])}. Write them alike; --pseudonymise made pseudonyms of them"
        )
    if "age" not in joined:
        joined["age"] = joined.study_date.dt.year - joined.birth_year
        _check_ages(joined, covariates)
    return joined


def _first(ids: pd.Series) -> str:
    known = ids.dropna()
    return f"{known.iloc[0]!r} and others" if len(known) else "none"


def _check_ages(patients: pd.DataFrame, covariates: Covariates) -> None:
    wrong = patients[patients.age.notna() & ~patients.age.between(0, OLDEST)]
    if len(wrong):
        row = wrong.iloc[0]
        raise InputError(
            f"{covariates.path}: birth_year {row.birth_year:.0f} of {covariates.key} {row[covariates.key]} "
            f"gives an age of {row.age:.0f} at the study of {row.study_date:%Y-%m-%d}; mend it or empty it"
        )


def _why_excluded(patients: pd.DataFrame) -> pd.Series:
    """The first reason that holds; None for those who are analysed."""
    why = pd.Series(None, patients.index, dtype=object)
    reasons = {
        "no_sex": patients.sex.isna(),
        "no_age": patients.age.isna(),
        "no_covariates": patients.is_listed.isna(),
        **{status: patients.status == status for status in STATUSES[1:]},
    }
    for reason, holds in reasons.items():  # the last one stays
        why[holds] = reason
    return why
