"""The paper's figures of a table of true vertebrae, with 95 % intervals by patient.

The table has one row a true whole vertebra and scan: `patient`, `scan`, `true_ratio`,
`true_anterior_mm` (and middle, posterior), `found`, and for those found `center_error_mm`,
`anterior_mm` ..., `ratio`, `ratio_sd`, `anterior_sd_mm` ...; and one row without truth for each
false detection (`is_false`). `scan_ratio` is the smallest G of all vertebrae measured in the scan.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu

from vfscreen.measure import MILD, MODERATE, SPREAD_TO_SD, spreads_within
from vfscreen.study import HEIGHTS

REPEATS = 1000

Figures = dict[str, float]


def figures_of(table: pd.DataFrame) -> Figures:
    """Every figure of some scans; NaN where they cannot give it."""
    true = table[~table.is_false]
    found = true[true.found]
    deformed = found[found.true_ratio <= MODERATE]
    errors = np.stack([found[f"{h}_mm"] - found[f"true_{h}_mm"] for h in HEIGHTS], -1)
    by_patient = _smallest(table)
    return {
        "vertebrae": float(len(true)),
        "recall": _share(true.found),
        "recall, G <= 0.74": _share(true.found[true.true_ratio <= MODERATE]),
        "precision": _share(~table.is_false[table.found | table.is_false]),
        "localization error, mm": _mean(found.center_error_mm),
        "localization error, G <= 0.74, mm": _mean(deformed.center_error_mm),
        "height error, mm": _mean(np.abs(errors)),
        "height bias, mm": _mean(errors),
        "height error, G <= 0.74, mm": _mean(np.abs(errors[(found.true_ratio <= MODERATE).to_numpy()])),
        "G error": _mean(np.abs(found.ratio - found.true_ratio)),
        "G bias": _mean(found.ratio - found.true_ratio),
        "G correlation": _correlation(found.true_ratio, found.ratio),
        "AUC by vertebra, mild": roc_auc(-found.ratio, found.true_ratio <= MILD),
        "AUC by vertebra, moderate": roc_auc(-found.ratio, found.true_ratio <= MODERATE),
        "AUC by patient, mild": roc_auc(-by_patient.ratio, by_patient.true_ratio <= MILD),
        "AUC by patient, moderate": roc_auc(-by_patient.ratio, by_patient.true_ratio <= MODERATE),
        "sensitivity at 0.74": _share(true.ratio[true.true_ratio <= MODERATE] <= MODERATE),  # missed: NaN
        "specificity at 0.74": _share(found.ratio[found.true_ratio > MODERATE] > MODERATE),
        "patient sensitivity at 0.74": _share(
            by_patient.ratio[by_patient.true_ratio <= MODERATE] <= MODERATE
        ),
        "patient specificity at 0.74": _share(by_patient.ratio[by_patient.true_ratio > MODERATE] > MODERATE),
        "coverage of G": coverage(found.ratio - found.true_ratio, found.ratio_sd),
        "coverage of heights": coverage(errors, found[[f"{h}_sd_mm" for h in HEIGHTS]].to_numpy()),
    }


def with_intervals(
    table: pd.DataFrame, figures: Callable[[pd.DataFrame], Figures] = figures_of, repeats: int = REPEATS
) -> pd.DataFrame:
    """Each figure with its 2.5th and 97.5th percentile over draws of as many patients, with repetition."""
    rng = np.random.default_rng(0)
    names = {name: pd.factorize(table[name])[0] for name in ("patient", "scan")}
    numbers = table.assign(**names).select_dtypes(["number", "bool"])
    rows = list(table.groupby("patient").indices.values())
    draws = []
    for _ in range(repeats):
        chosen = [rows[i] for i in rng.integers(0, len(rows), len(rows))]
        again = np.repeat(np.arange(len(chosen)), [len(each) for each in chosen])  # each draw is one patient
        draws.append(figures(numbers.iloc[np.concatenate(chosen)].assign(patient=again)))
    low, high = pd.DataFrame(draws).quantile([0.025, 0.975]).to_numpy()
    value = figures(numbers)
    return pd.DataFrame({"value": value, "low": low, "high": high}, index=list(value))


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores higher than a negative (Mann and Whitney); NaN without both."""
    values, is_positive = np.asarray(scores, float), np.asarray(positive, bool)
    n = is_positive.sum() * (~is_positive).sum()
    if not n:
        return float("nan")
    test = mannwhitneyu(values[is_positive], values[~is_positive], method="asymptotic")
    return float(test.statistic / n)


def coverage(errors: ArrayLike, sd: ArrayLike, of: float = 0.9) -> float:
    """Share of errors within the interval of this probability (Student's t); NaN without SDs."""
    error, spread = np.asarray(errors, float), np.asarray(sd, float) / SPREAD_TO_SD
    if not error.size or np.isnan(spread).all():
        return float("nan")
    return float((np.abs(error) <= spreads_within(of) * spread).mean())


def _smallest(table: pd.DataFrame) -> pd.DataFrame:
    """The smallest G of each patient's scan: of all that was measured, false detections too, and true.

    A scan in which nothing was measured counts as one without a deformed vertebra: G 1.
    """
    scans = table.groupby(["patient", "scan"])
    smallest = pd.DataFrame(
        {"ratio": scans.scan_ratio.first().fillna(1.0), "true_ratio": scans.true_ratio.min()}
    )
    return smallest.dropna()


def _mean(values: ArrayLike) -> float:
    return float(np.asarray(values, float).mean()) if np.size(values) else float("nan")


def _share(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _correlation(a: pd.Series, b: pd.Series) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() and b.std() else float("nan")
