"""The way from the archive to the analysis in numbers: how many studies and patients leave, and why."""

from __future__ import annotations

import pandas as pd

from vfscreen.epidemiology.cohort import STATUSES
from vfscreen.epidemiology.dictionary import FLOW, names

WITHOUT_COVARIATES = ("no_covariates", "no_age", "no_sex")

Line = tuple[int, str, str, str | None, int, int]
"""A row of the flow table."""


def flow_table(studies: pd.DataFrame, analysis: pd.DataFrame) -> pd.DataFrame:
    """Studies and patients at each step, in the columns of `dictionary.FLOW`.

    What is kept is what was kept a step before less what is excluded in between, in studies and in patients.
    """
    is_ok = analysis.study_status == "ok"
    excluded = analysis.excluded[is_ok].value_counts()
    n_ok, n_patients = int((studies.status == "ok").sum()), int(is_ok.sum())
    n_analysed = int(analysis.excluded.isna().sum())
    rows = [
        (1, "kept", "found", None, len(studies), len(analysis)),
        *_not_measured(studies, analysis),
        (2, "kept", "measured", None, n_ok, n_patients),
        (3, "excluded", "other_study", None, n_ok - n_patients, 0),
        (3, "kept", "one_study", None, n_patients, n_patients),
        *((4, "excluded", why, None, *[int(excluded.get(why, 0))] * 2) for why in WITHOUT_COVARIATES),
        (4, "kept", "analysed", None, n_analysed, n_analysed),
    ]
    return pd.DataFrame(rows, columns=names(FLOW))


def _not_measured(studies: pd.DataFrame, analysis: pd.DataFrame) -> list[Line]:
    """The studies skipped, failed and partial, by code; patients leave with the study chosen."""
    found = studies.groupby(["status", studies.error.fillna("")]).size()
    leaving = analysis.groupby(["study_status", analysis.study_error.fillna("")]).size()
    return [
        (2, "excluded", status, code or None, int(n), int(leaving.get((status, code), 0)))
        for status in reversed(STATUSES[1:])
        for code, n in (found[status].items() if status in found else ())
    ]
