"""The analysis table: one row a patient, of one study that was chosen without regard to what was found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from vfscreen.epidemiology.covariates import KEYS, OLDEST, YEARS, Covariates
from vfscreen.epidemiology.dictionary import ANALYSIS, names
from vfscreen.errors import InputError
from vfscreen.measure import THRESHOLDS
from vfscreen.results.files import read_result

STATUSES = ("ok", "partial", "failed", "skipped")
"""The status of a study, the first one being the first choice."""

DAYS_A_YEAR = 365.25

_MEASURED = ("n_vertebrae", "min_genant_ratio", "grade", "n_moderate")
_OF_STUDY = ("patient_id", "study_id", "study_date", "status", "error", *_MEASURED)
_OF_VERTEBRA = ("study_id", "level", "genant_ratio", "grade", "shape")


def read_results(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Studies and vertebrae of a result folder.

    Raises InputError where it holds no tables, a study twice, or a status that is none of `STATUSES`.
    """
    studies = read_result(results / "studies.parquet", _OF_STUDY).to_pandas()
    vertebrae = read_result(results / "vertebrae.parquet", _OF_VERTEBRA).to_pandas()
    if studies.empty:
        raise InputError(f"{results / 'studies.parquet'} has no rows: nothing was screened")
    again = studies.study_id[studies.study_id.duplicated()]
    if len(again):
        raise InputError(
            f"{results / 'studies.parquet'}: study_id {again.iloc[0]} is there twice; screen again"
        )
    unknown = studies[~studies.status.isin(STATUSES)]
    if len(unknown):
        raise InputError(
            f"{results / 'studies.parquet'}: status {unknown.status.iloc[0]!r} of study_id "
            f"{unknown.study_id.iloc[0]} is none of {', '.join(STATUSES)}"
        )
    is_known = studies.min_genant_ratio.notna() | (studies.status != "ok")
    return (
        studies.assign(
            study_date=_dates(studies.study_date),
            status=studies.status.where(is_known, "partial"),  # nothing measured is no negative
            n_vertebrae=studies.n_vertebrae.astype("Int64"),
            n_moderate=studies.n_moderate.astype("Int64"),
        ),
        vertebrae,
    )


def _dates(dates: pd.Series) -> pd.Series:
    """Days; none for 0001-01-01 and its like, with which archives hide a date."""
    known = pd.Series(dates.to_numpy("datetime64[s]"), dates.index)
    return known.where(known.dt.year.between(*YEARS)).astype("datetime64[ns]")


def analysis_table(
    studies: pd.DataFrame, covariates: Covariates, age_groups: Sequence[float] = ()
) -> pd.DataFrame:
    """One row a patient, in the columns of `dictionary.ANALYSIS` and the further covariates.

    Raises InputError where the covariates know no patient of the results, or contradict them or themselves.
    """
    studies = identified(studies, covariates)
    patients = _joined(one_study_a_patient(studies), studies, covariates)
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


def identified(studies: pd.DataFrame, covariates: Covariates) -> pd.DataFrame:
    """Studies with `who`, the number of the patient, and `patient_id` also where only the covariates know it.

    A study of which neither knows the patient is a patient of its own. Raises InputError where results and
    covariates name different patients.
    """
    studies = studies.assign(patient_id=_patient_ids(studies, covariates))
    lone = studies.study_id.where(studies.patient_id.isna())
    return studies.assign(who=studies.groupby([studies.patient_id, lone], dropna=False).ngroup())


def whose_rows(studies: pd.DataFrame, covariates: Covariates) -> pd.Series:
    """The `who` of `identified` studies that each row of the covariates fits; NaN where it fits nobody."""
    table = covariates.table
    who = pd.Series(np.nan, table.index)
    for name in (name for name in KEYS if name in table):
        known = studies.dropna(subset=name).drop_duplicates(name).set_index(name).who
        who = who.fillna(table[name].map(known))
    return who


def one_study_a_patient(studies: pd.DataFrame) -> pd.DataFrame:
    """The study of each patient (`who`): the latest `ok`, else the latest `partial`, `failed`, `skipped`.

    The latest, not the one with the smallest G: who was scanned more often would have more chances to be a
    case. Undated studies come last.
    """
    ranked = studies.assign(
        rank=studies.status.map(STATUSES.index), n_studies=studies.groupby("who").study_id.transform("size")
    ).sort_values(["rank", "study_date", "study_id"], ascending=[True, False, False])
    return ranked.drop_duplicates("who").sort_values("who").drop(columns="rank")


def age_group(age: pd.Series, bounds: Sequence[float] = ()) -> pd.Series:
    """Age in years to its group: of ten years, or between these bounds, which rise.

    A group holds its lower bound and not its upper one. The categories hold empty groups in between, and none
    below or above all ages.
    """
    known = age.dropna()
    if not bounds and len(known):
        bounds = np.arange(known.min() // 10 * 10, known.max() // 10 * 10 + 11, 10).tolist()
    inner = [_between(low, high) for low, high in pairwise(bounds)]
    labels = [f"under {bounds[0]:g}", *inner, f"{bounds[-1]:g} and over"] if bounds else ["all ages"]
    groups = pd.Series(pd.cut(age, [-np.inf, *bounds, np.inf], right=False, labels=labels), age.index)
    outside = {labels[0], labels[-1]} - set(groups.dropna())
    return groups.cat.remove_categories(outside)


def _between(low: float, high: float) -> str:
    """50-59 for whole years, as ages are told; 50.5 to under 60 where a bound is none."""
    are_whole = float(low).is_integer() and float(high).is_integer()
    return f"{low:g}-{high - 1:g}" if are_whole else f"{low:g} to under {high:g}"


def _patient_ids(studies: pd.DataFrame, covariates: Covariates) -> pd.Series:
    """The results' own, and where they know none, as in NIfTI, that of the covariates."""
    if covariates.key != "study_id" or "patient_id" not in covariates.table:
        return studies.patient_id
    theirs = studies.study_id.map(covariates.table.set_index("study_id").patient_id)
    both = studies.assign(theirs=theirs).dropna(subset=["patient_id", "theirs"])
    differing = both[both.theirs != both.patient_id]
    if len(differing):
        study = differing.iloc[0]
        raise InputError(
            f"{covariates.path}: study_id {study.study_id} is of patient_id {study.theirs}, but of "
            f"{study.patient_id} in the results ({len(differing)} of {len(both)} studies differ so); mend "
            "it, or leave patient_id out where --pseudonymise gave the results other ids"
        )
    return studies.patient_id.fillna(theirs)


def _joined(patients: pd.DataFrame, studies: pd.DataFrame, covariates: Covariates) -> pd.DataFrame:
    """Patients with `sex`, `age` at their study, the further covariates, and `is_listed`."""
    _check_ids(studies, covariates)
    rows = covariates.table.assign(who=whose_rows(studies, covariates), is_listed=True).dropna(subset="who")
    _check_sexes(rows, covariates)
    rows = _row_a_patient(rows, patients, studies) if covariates.key == "study_id" else rows.assign(years=0.0)
    joined = patients.merge(rows.drop(columns=list(KEYS), errors="ignore"), "left", on="who")
    age = joined.age + joined.years if "age" in joined else joined.study_date.dt.year - joined.birth_year
    _check_ages(joined.assign(age=age), covariates)
    return joined.assign(age=age)


def _row_a_patient(rows: pd.DataFrame, patients: pd.DataFrame, studies: pd.DataFrame) -> pd.DataFrame:
    """The row of the patient's study, else of that other study of the patient which is nearest in time.

    `years` lie from the row's study to the patient's: NaN where it is another and one has no date.
    """
    chosen = patients.set_index("who")
    dates = rows.study_id.map(studies.set_index("study_id").study_date)
    is_other = rows.study_id != rows.who.map(chosen.study_id)
    days = (rows.who.map(chosen.study_date) - dates).dt.days
    years = (days / DAYS_A_YEAR).round(2).where(is_other, 0.0)  # hundredths, so that a year later is 1
    order = pd.DataFrame({"is_other": is_other, "far": years.abs()}).sort_values(["is_other", "far"])
    return rows.assign(years=years).loc[order.index].drop_duplicates("who")


def _check_ids(studies: pd.DataFrame, covariates: Covariates) -> None:
    """Refuse ids of which none is in the results, or that miss one by leading zeros alone."""
    key, table = covariates.key, covariates.table
    ours, theirs = set(studies[key].dropna()), set(table[key])
    bare = {each.lstrip("0"): each for each in ours - theirs}
    for each in sorted(theirs - ours):
        if each.lstrip("0") in bare:
            raise InputError(
                f"{covariates.path}: {key} {each} is not in the results, but {bare[each.lstrip('0')]} is: a "
                "spreadsheet drops leading zeros; write them as the results do, in cells of text"
            )
    if not ours & theirs:
        raise InputError(
            f"{covariates.path}: no {key} is one of the results: they have {_first(studies[key])}, the "
            f"covariates {_first(table[key])}. Write them alike; --pseudonymise made pseudonyms of them"
        )


def _check_sexes(rows: pd.DataFrame, covariates: Covariates) -> None:
    sexes = rows.dropna(subset="sex").drop_duplicates(["who", "sex"])
    differing = sexes[sexes.who.duplicated(keep=False)].sort_values("who", kind="stable")
    if len(differing):
        one, other = differing.index[:2]
        raise InputError(
            f"{covariates.path}, rows {one} and {other}: studies {rows.study_id[one]} and "
            f"{rows.study_id[other]} are of one patient, whose sex is {rows.sex[one]} and {rows.sex[other]}; "
            "mend one"
        )


def _first(ids: pd.Series) -> str:
    known = ids.dropna()
    others = " and others" if len(known) > 1 else ""
    return f"{known.iloc[0]!r}{others}" if len(known) else "none"


def _check_ages(patients: pd.DataFrame, covariates: Covariates) -> None:
    wrong = patients[patients.age.notna() & ~patients.age.between(0, OLDEST)]
    if len(wrong):
        row = wrong.iloc[0]
        has_year = "birth_year" in row
        known = f"birth_year {row.birth_year:.0f}" if has_year else "the age at another study of the patient"
        raise InputError(
            f"{covariates.path}: {known} of {covariates.key} {row[covariates.key]} "
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
