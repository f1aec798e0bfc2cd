"""Agreement of heights and G with the truth (Bland and Altman 1986; Shrout and Fleiss 1979)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vfscreen.evaluation.intervals import Draws, Estimate, Ints, divide, estimate, mean, sd
from vfscreen.study import HEIGHTS
from vfscreen.volume import Floats

WITHIN = 1.96  # standard deviations of the differences: 95 % of them, where they are normal

MEASURES = {"G": ("true_ratio", "ratio", ""), **{h: (f"true_{h}_mm", f"{h}_mm", ", mm") for h in HEIGHTS}}
"""Column of the truth, of the measurement, and the unit behind a figure's name."""


def agreement_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Of G and of each height: mean error, SD, limits, mean absolute error, ICC(2,1), correlation."""
    figures: dict[str, Estimate] = {}
    for measure, (true, measured, unit) in MEASURES.items():
        both = pairs[["who", true, measured]].dropna()
        of_measure = agreement(draws, both.who.to_numpy(), both[[true, measured]].to_numpy(float), unit)
        figures |= {f"{measure}: {name}": figure for name, figure in of_measure.items()}
    return figures


def agreement(draws: Draws, who: Ints, ratings: Floats, unit: str = "") -> dict[str, Estimate]:
    """Agreement of measured, `ratings[:, 1]`, with true values, `ratings[:, 0]`."""
    error = ratings[:, 1] - ratings[:, 0]
    bias, spread = mean(draws, who, error), sd(draws, who, error)
    return {
        f"mean error{unit}": bias,
        f"SD of errors{unit}": spread,
        f"lower limit of agreement{unit}": estimate(bias.values - WITHIN * spread.values, who),
        f"upper limit of agreement{unit}": estimate(bias.values + WITHIN * spread.values, who),
        f"mean absolute error{unit}": mean(draws, who, np.abs(error)),
        "ICC(2,1)": icc(draws, who, ratings),
        "correlation": correlation(draws, who, ratings),
    }


def icc(draws: Draws, who: Ints, ratings: Floats) -> Estimate:
    """ICC(2,1), absolute agreement of single ratings (Shrout and Fleiss 1979); `ratings` (n, k raters).

    (BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n), of the mean squares between vertebrae, between
    raters, and of the rest.
    """
    k = ratings.shape[1]
    x = ratings - ratings.mean() if ratings.size else ratings
    sums = draws.sums(who, np.column_stack([np.ones(len(x)), x, x.mean(1) ** 2, (x**2).sum(1)]))
    n, of_rater, of_means, squares = sums[:, 0], sums[:, 1 : k + 1], sums[:, -2], sums[:, -1]
    correction = divide(of_rater.sum(1) ** 2, n * k)
    between = k * of_means - correction
    raters = divide((of_rater**2).sum(1), n) - correction
    bms, jms = divide(between, n - 1), raters / (k - 1)
    ems = divide(squares - correction - between - raters, (n - 1) * (k - 1))
    spread = bms + (k - 1) * ems + k * divide(jms - ems, n)
    return estimate(divide(bms - ems, _above_rounding(spread, squares)), who)


def correlation(draws: Draws, who: Ints, ratings: Floats) -> Estimate:
    """Pearson's correlation of the two columns of `ratings` (n, 2); not defined where one is constant."""
    a, b = (ratings - ratings.mean(0)).T if ratings.size else ratings.T
    n, sa, sb, saa, sbb, sab = draws.sums(
        who, np.column_stack([np.ones_like(a), a, b, a * a, b * b, a * b])
    ).T
    var_a, var_b = (_above_rounding(ss - divide(s * s, n), ss) for s, ss in ((sa, saa), (sb, sbb)))
    return estimate(divide(sab - divide(sa * sb, n), np.sqrt(var_a * var_b)), who)


def _above_rounding(spread: Floats, squares: Floats) -> Floats:
    """The same spread; 0 where it is only what rounding left of the squares."""
    return np.where(spread > 1e-12 * np.maximum(squares, 1e-12), spread, 0.0)
