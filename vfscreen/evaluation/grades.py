"""Genant's grades against the truth: the confusion of the four, and weighted kappa (Cohen 1968)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vfscreen.evaluation.intervals import Draws, Estimate, divide, estimate
from vfscreen.measure import MILD, MODERATE, SEVERE
from vfscreen.volume import Floats

GRADES = ("normal", "mild", "moderate", "severe")
MISSED = "not found"


def grade_numbers(ratios: pd.Series) -> pd.Series:
    """The grades' places in `GRADES`, of ratios that are no NaN."""
    return (ratios <= MILD).astype(int) + (ratios <= MODERATE) + (ratios <= SEVERE)


def confusion(pairs: pd.DataFrame) -> pd.DataFrame:
    """Numbers of true vertebrae: a row a true grade, a column a measured one, and those not found."""
    true = pairs[~pairs.is_false]
    measured = grade_numbers(true.ratio).map(dict(enumerate(GRADES))).where(true.ratio.notna(), MISSED)
    table = pd.crosstab(grade_numbers(true.true_ratio).map(dict(enumerate(GRADES))), measured)
    return table.reindex(index=list(GRADES), columns=[*GRADES, MISSED], fill_value=0)


def grade_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Kappa of the grades of the vertebrae found, with linear and with quadratic weights; exact agreement."""
    found = pairs[pairs.found]
    who = found.who.to_numpy()
    cell = 4 * grade_numbers(found.true_ratio) + grade_numbers(found.ratio)
    tables = draws.sums(who, np.eye(16)[cell.to_numpy()]).reshape(-1, 4, 4)
    apart = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    exact = divide(np.trace(tables, axis1=1, axis2=2), tables.sum((1, 2)))
    return {
        "kappa, linear weights": estimate(_kappa(tables, apart), who),
        "kappa, quadratic weights": estimate(_kappa(tables, apart**2), who),
        "same grade": estimate(exact, who),
    }


def _kappa(tables: Floats, disagreement: Floats) -> Floats:
    """1 - sum(w observed) / sum(w expected), of tables (draws, 4, 4)."""
    expected = divide(
        tables.sum(2)[:, :, None] * tables.sum(1)[:, None, :], tables.sum((1, 2))[:, None, None] + 0 * tables
    )
    kappa: Floats = 1 - divide((tables * disagreement).sum((1, 2)), (expected * disagreement).sum((1, 2)))
    return kappa
