"""From the pairs table to every figure with its interval, and to the differences of two runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vfscreen.errors import InputError
from vfscreen.evaluation.agreement import agreement_figures
from vfscreen.evaluation.calibration import calibration_figures, coverage_figures, reliability_figures
from vfscreen.evaluation.detection import found_figures, table_1
from vfscreen.evaluation.free_response import free_response, free_response_figures
from vfscreen.evaluation.grades import GRADES, confusion, grade_figures, grade_numbers
from vfscreen.evaluation.groups import ALL, FEWEST, scan_groups, vertebra_groups
from vfscreen.evaluation.intervals import REPEATS, Draws, Estimate, draw_patients
from vfscreen.evaluation.thresholds import by_scan, roc, table_2
from vfscreen.volume import Floats

Family = Callable[[Draws, pd.DataFrame], dict[str, Estimate]]
Key = tuple[str, str, str]
"""Table, group and name of a figure."""

OF_SCANS: dict[str, Family] = {
    "table 1": table_1,
    "table 2": table_2,
    "free response": free_response_figures,
    "grades": grade_figures,
    "agreement": agreement_figures,
    "calibration": calibration_figures,
    "reliability": reliability_figures,
    "coverage": coverage_figures,
}
"""The figures of all scans and of groups of scans, by the name of their table."""

OF_VERTEBRAE: dict[str, Family] = {
    "table 1": found_figures,
    "agreement": agreement_figures,
    "coverage": coverage_figures,
}
"""The figures of groups of true vertebrae: a false detection belongs to none."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval, NaN where there is none, and the numbers that it is of."""

    value: float
    low: float
    high: float
    n: int
    patients: int


@dataclass(frozen=True)
class Evaluation:
    """What a comparison of results with the truth gives.

    `figures` is tidy: `table`, `group`, `figure`, `value`, `low` and `high` (the 95 % interval), `n` (of
    vertebrae or scans) and `patients` (of whom they are);
    NaN where there is no value or interval. `differences` of two runs has `value`, `other`, `difference`,
    `low`, `high`, `p`, `n` instead, `difference` being `value` - `other`; None for one run. `pairs` is what
    all is computed from, and `repeats` the number of draws.
    """

    pairs: pd.DataFrame
    figures: pd.DataFrame
    counts: Mapping[str, Any]
    confusion: pd.DataFrame
    roc: pd.DataFrame
    free_response: pd.DataFrame
    repeats: int
    differences: pd.DataFrame | None = None

    def figure(self, table: str, name: str, group: str = ALL) -> Figure:
        """One row of `figures`. Raises KeyError where there is none of this name."""
        return self._by_key[table, group, name]

    @cached_property
    def _by_key(self) -> dict[Key, Figure]:
        rows = self.figures.itertuples(index=False)
        return {(row[0], row[1], row[2]): Figure(*row[3:]) for row in rows}

    def names(self, table: str) -> list[str]:
        """The figures of a table, in their order."""
        of_all = self.figures[(self.figures.table == table) & (self.figures.group == ALL)]
        return list(of_all.figure)


def evaluate(pairs: pd.DataFrame, other: pd.DataFrame | None = None, repeats: int = REPEATS) -> Evaluation:
    """All figures of a pairs table; with the pairs of another run on the same reference, the differences.

    Raises InputError where there is no true vertebra, and for two runs that share no patients or that were
    not compared with the same truth.
    """
    if other is not None:
        pairs, other = _with_patients_of(pairs, other), _with_patients_of(other, pairs)
    n_unknown = pairs[pairs.patient.isna()].scan.nunique()
    pairs = _prepared(pairs)
    differences = None if other is None else compare(pairs, _prepared(other), repeats)
    return Evaluation(
        pairs=pairs,
        figures=_table(_estimates(pairs, repeats)),
        counts=_counts(pairs, n_unknown),
        confusion=confusion(pairs),
        roc=roc(pairs),
        free_response=free_response(pairs),
        repeats=repeats,
        differences=differences,
    )


def compare(pairs: pd.DataFrame, other: pd.DataFrame, repeats: int = REPEATS) -> pd.DataFrame:
    """Differences of every figure of two runs, `pairs` - `other`, on the scans of the reference.

    Both runs are figured on the same draws of patients, and `p` is two-sided: twice the smaller share of
    draws on one side of 0, counting one draw more on it (Davison and Hinkley 1997, ch. 4).
    Raises InputError where they share no patients, or their true vertebrae differ.
    """
    ours, theirs = _shared(pairs, other)
    first, second = _estimates(ours, repeats), _estimates(theirs, repeats)
    rows = [_difference(key, first[key], second[key]) for key in first if key in second]
    return pd.DataFrame(rows)


def _prepared(pairs: pd.DataFrame) -> pd.DataFrame:
    """The table with `who`, the patient's number; a scan of an unknown patient has one of its own."""
    if pairs.empty or pairs.is_false.all():
        raise InputError(
            "there is no true vertebra to compare with, so no figure can be given; see whether the reference "
            "belongs to these results"
        )
    pairs = pairs.astype({"is_false": bool, "found": bool}).reset_index(drop=True)
    patient = pairs.patient.fillna(pairs.scan)
    return pairs.assign(patient=patient, who=pd.factorize(patient, sort=True)[0])


def _estimates(pairs: pd.DataFrame, repeats: int) -> dict[Key, Estimate]:
    draws = draw_patients(pairs.who.max() + 1, repeats)
    figures: dict[Key, Estimate] = {}
    for families, groups in ((OF_SCANS, scan_groups), (OF_VERTEBRAE, vertebra_groups)):
        for group, rows in groups(pairs):
            for table, family in families.items():
                for name, estimate in family(draws, rows).items():
                    figures[table, group, name] = _enough(estimate, group, rows)
    return figures


def _enough(estimate: Estimate, group: str, rows: pd.DataFrame) -> Estimate:
    """The figure without a value where its group has too few true vertebrae."""
    if group == ALL or (~rows.is_false).sum() >= FEWEST:
        return estimate
    return Estimate(np.full_like(estimate.values, np.nan), estimate.n, estimate.patients)


def _table(estimates: Mapping[Key, Estimate]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (*key, estimate.value, *estimate.interval, estimate.n, estimate.patients)
            for key, estimate in estimates.items()
        ],
        columns=["table", "group", "figure", "value", "low", "high", "n", "patients"],
    )


def _with_patients_of(pairs: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The table with the patients of the scans that it knows none of, as one run lost them."""
    known = other.dropna(subset="patient").drop_duplicates("scan").set_index("scan").patient
    return pairs.assign(patient=pairs.patient.fillna(pairs.scan.map(known)))


def _shared(pairs: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both on the scans of both, which are the reference's, with the same patients."""
    ours, theirs = pairs[pairs.scan.isin(other.scan)], other[other.scan.isin(pairs.scan)]
    if ours.empty:
        raise InputError(
            "the two runs share no scan, so they cannot be compared in pairs; give the results of both on "
            "the same studies"
        )
    if not _truth(ours).equals(_truth(theirs)):
        raise InputError(
            "the two runs were not compared with the same true vertebrae; pair both with the same reference"
        )
    patient_of = ours.drop_duplicates("scan").set_index("scan").patient
    return _prepared(ours), _prepared(theirs.assign(patient=theirs.scan.map(patient_of)))


def _truth(pairs: pd.DataFrame) -> pd.DataFrame:
    columns = ["scan", "true_ratio"]
    return pairs[~pairs.is_false][columns].sort_values(columns, ignore_index=True)


def _difference(key: Key, first: Estimate, second: Estimate) -> dict[str, Any]:
    values = first.values - second.values
    difference = Estimate(values, min(first.n, second.n), min(first.patients, second.patients))
    low, high = difference.interval
    return {
        **dict(zip(("table", "group", "figure"), key, strict=True)),
        "value": first.value,
        "other": second.value,
        "difference": difference.value,
        "low": low,
        "high": high,
        "p": float("nan") if np.isnan(low) else p_value(values[1:]),
        "n": difference.n,
    }


def p_value(differences: Floats) -> float:
    """Two-sided bootstrap p of a difference of 0, from the draws' differences; NaN among them is left out."""
    known = differences[~np.isnan(differences)]
    smaller = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(known))))


def _counts(pairs: pd.DataFrame, n_unknown: int) -> dict[str, Any]:
    """Numbers of what was compared, as the page's first table shows them."""
    true, scans = pairs[~pairs.is_false], pairs.drop_duplicates(["who", "scan"])
    by_status = scans.status.fillna("not in the results").value_counts()
    per_scan = by_scan(pairs)
    return {
        "patients": int(pairs.who.nunique()),
        "scans": len(scans),
        "scans of unknown patients, each counted as one": n_unknown,
        "scans by status": {str(status): int(n) for status, n in by_status.items()},
        "scans without a measurement": int(scans.scan_ratio.isna().sum()),
        "true vertebrae": len(true),
        "true vertebrae found": int(true.found.sum()),
        "false detections": int(pairs.is_false.sum()),
        "true vertebrae by grade": _by_grade(true.true_ratio),
        "scans by smallest true G": _by_grade(per_scan.true_ratio),
    }


def _by_grade(ratios: pd.Series) -> dict[str, int]:
    counts = np.bincount(grade_numbers(ratios), minlength=len(GRADES))
    return dict(zip(GRADES, counts.tolist(), strict=True))
