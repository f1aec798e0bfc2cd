"""The paper's Table 2: deformed or not, by vertebra and by patient, at G <= 0.8 and at G <= 0.74.

- A true vertebra that was not found is called normal: it lowers sensitivity. AUC and specificity are of the
  vertebrae found; what is found where there is none lowers precision (`detection`), and counts by patient.
- A patient is one scan of theirs. Their G is the smallest of all that was measured in the scan, false
  detections too; a scan without a measurement counts as not called, G 1. Their true G is the smallest of the
  true vertebrae; a scan without any is left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from vfscreen.evaluation.intervals import Draws, Estimate, auc, mean
from vfscreen.measure import THRESHOLDS

UNITS = ("vertebra", "patient")


def table_2(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """AUC, specificity and sensitivity, named as in `AUC by vertebra, mild`."""
    figures: dict[str, Estimate] = {}
    for unit, table in units(pairs).items():
        for grade, threshold in THRESHOLDS.items():
            for name, figure in _at(draws, table, threshold).items():
                figures[f"{name} by {unit}, {grade}"] = figure
    return figures


def roc(pairs: pd.DataFrame) -> pd.DataFrame:
    """The ROC curves: `unit`, `grade`, `threshold` on G, `false_positive_rate`, `sensitivity`.

    They are of the vertebrae found, and of all scans, as the AUC is. A curve without both kinds is not there.
    """
    curves = []
    for unit, table in units(pairs).items():
        table = table.dropna(subset="ratio")
        for grade, threshold in THRESHOLDS.items():
            deformed = table.true_ratio <= threshold
            if deformed.any() and not deformed.all():
                rates = roc_curve(deformed, -table.ratio)
                columns = ("false_positive_rate", "sensitivity", "threshold")
                curve = pd.DataFrame(dict(zip(columns, rates, strict=True)))
                curves.append(curve.assign(unit=unit, grade=grade, threshold=-curve.threshold))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame({"unit": [], "grade": []})


def units(pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`who`, `true_ratio` and `ratio` of every true vertebra (NaN where missed), and of every scan."""
    return {"vertebra": pairs[~pairs.is_false][["who", "true_ratio", "ratio"]], "patient": by_scan(pairs)}


def by_scan(pairs: pd.DataFrame) -> pd.DataFrame:
    """The smallest G of each scan, true and measured, and its patient."""
    scans = pairs.groupby(["who", "scan"])
    smallest = {"true_ratio": scans.true_ratio.min(), "ratio": scans.scan_ratio.first().fillna(1.0)}
    return pd.DataFrame(smallest).reset_index().dropna(subset="true_ratio")


def _at(draws: Draws, table: pd.DataFrame, threshold: float) -> dict[str, Estimate]:
    found = table.dropna(subset="ratio")
    deformed, normal = table[table.true_ratio <= threshold], found[found.true_ratio > threshold]
    return {
        "AUC": auc(
            draws,
            found.who.to_numpy(),
            -found.ratio.to_numpy(float),
            np.asarray(found.true_ratio <= threshold),
        ),
        "specificity": mean(draws, normal.who.to_numpy(), normal.ratio.to_numpy() > threshold),
        "sensitivity": mean(draws, deformed.who.to_numpy(), deformed.ratio.to_numpy() <= threshold),
    }
