"""Are the probabilities and intervals true? Of the vertebrae found, where the results give them.

Predicted is `probability_moderate`, that the true G is <= 0.74; what happened is that it is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from vfscreen.evaluation.intervals import Bools, Draws, Estimate, Ints, divide, estimate, mean
from vfscreen.measure import MODERATE, SPREAD_TO_SD, spreads_within
from vfscreen.study import HEIGHTS
from vfscreen.volume import Floats

COVERAGE = 0.9  # of the intervals that the results give
BINS = 10  # of equal width: deciles of the vertebrae would all but one lie near 0

_SURE = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken
_STEPS, _STEEPEST = 30, 100.0  # of the fit; a steeper slope means that it has none


def calibration_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Brier score (1950), expected calibration error (Naeini 2015), slope and intercept (Cox 1958)."""
    who, predicted, happened = _predictions(pairs)
    slope, intercept = logistic_line(draws, who, predicted, happened)
    return {
        "Brier score": mean(draws, who, (predicted - happened) ** 2),
        "expected calibration error": expected_calibration_error(draws, who, predicted, happened),
        "calibration slope": slope,
        "calibration intercept": intercept,
        "mean predicted probability": mean(draws, who, predicted),
        "share with true G <= 0.74": mean(draws, who, happened),
    }


def reliability_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Mean predicted probability and share observed, of each tenth of the scale that has any."""
    who, predicted, happened = _predictions(pairs)
    figures = {}
    for i in np.unique(_bin(predicted)):
        inside = _bin(predicted) == i
        name = f"{i / BINS:g} to {(i + 1) / BINS:g}"
        figures[f"predicted, {name}"] = mean(draws, who[inside], predicted[inside])
        figures[f"observed, {name}"] = mean(draws, who[inside], happened[inside])
    return figures


def coverage_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Share of true G and of true heights within their 90 % intervals."""
    found = pairs[pairs.found]
    holds = found.true_ratio.between(found.ratio_low, found.ratio_high)
    figures = {"coverage of G": (found.ratio_low.notna() & found.true_ratio.notna(), holds)}
    for height in HEIGHTS:
        error, sd = (found[f"{height}_mm"] - found[f"true_{height}_mm"]).abs(), found[f"{height}_sd_mm"]
        holds = error <= spreads_within(COVERAGE) * sd / SPREAD_TO_SD
        figures[f"coverage of {height} height"] = (error.notna() & sd.notna(), holds)
    return {
        name: mean(draws, found.who[known].to_numpy(), holds[known].to_numpy())
        for name, (known, holds) in figures.items()
    }


def expected_calibration_error(draws: Draws, who: Ints, predicted: Floats, happened: Bools) -> Estimate:
    """Sum over the bins of their share of all, times |mean predicted - share that happened|."""
    in_bin = np.eye(BINS)[_bin(predicted)]
    gaps = np.abs(draws.sums(who, in_bin * (predicted - happened)[:, None])).sum(1)
    return estimate(divide(gaps, draws.sums(who, np.ones((len(who), 1)))[:, 0]), who)


def logistic_line(draws: Draws, who: Ints, predicted: Floats, happened: Bools) -> tuple[Estimate, Estimate]:
    """Slope b and intercept a of logit(P(happened)) = a + b logit(predicted), maximum likelihood.

    1 and 0 where the probabilities are true. Not defined where nothing or everything happened, or where the
    probabilities part the two without an overlap.
    """
    x = logit(np.clip(predicted, _SURE, 1 - _SURE))
    lines = np.full((2, len(draws.weights)), np.nan)
    if happened.any() and not happened.all():
        for part, weights in draws.some(who):
            lines[:, part] = np.array([_newton(x, happened, w) for w in weights]).T
    return estimate(lines[0], who), estimate(lines[1], who)


def _newton(x: Floats, y: Bools, weights: Floats) -> tuple[float, float]:
    """Slope and intercept of the weighted logistic regression of y on x; NaN where it does not settle."""
    design = np.stack([x, np.ones_like(x)])
    line = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        expected = expit(line @ design)
        gradient = design @ (weights * (y - expected))
        curvature = (design * (weights * expected * (1 - expected))) @ design.T
        if np.linalg.cond(curvature) > 1e12:
            break
        step = np.linalg.solve(curvature, gradient)
        line = line + step
        if np.abs(step).max() < 1e-8:
            return float(line[0]), float(line[1])
        if np.abs(line).max() > _STEEPEST:
            break
    return float("nan"), float("nan")


def _predictions(pairs: pd.DataFrame) -> tuple[Ints, Floats, Bools]:
    known = pairs[pairs.found & pairs.probability_moderate.notna()]
    happened = np.asarray(known.true_ratio <= MODERATE)
    return known.who.to_numpy(), known.probability_moderate.to_numpy(float), happened


def _bin(predicted: Floats) -> NDArray[np.intp]:
    return np.minimum((predicted * BINS).astype(int), BINS - 1)
