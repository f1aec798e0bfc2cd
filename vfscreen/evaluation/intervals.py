"""Figures with 95 % intervals by bootstrap over patients (Efron and Tibshirani 1993, ch. 13, percentile).

As many patients as there are are drawn with repetition, and all their scans with them. A draw is a weight
for each patient, how often it was drawn, so that a figure made of sums is computed for all draws at once.
`who` (n,) is the patient of each row, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vfscreen.volume import Floats

REPEATS, SEED = 1000, 0
FEWEST_PATIENTS = 5  # a figure of fewer has no interval
MOST_WITHOUT = 0.05  # share of the draws that may lack the figure where it has an interval

_DRAWS_AT_ONCE = 64  # bounds the memory of what is not made of sums by patient

Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure of all patients, `values[0]`, and of each draw, the rest; NaN where it is not defined.

    `n` is the number of rows (vertebrae, scans) that it is a figure of, `patients` that of their patients.
    """

    values: Floats
    n: int
    patients: int

    @property
    def value(self) -> float:
        """The figure of all patients."""
        return float(self.values[0])

    @property
    def interval(self) -> tuple[float, float]:
        """The 2.5th and 97.5th percentile of the draws; NaN for too few patients or draws."""
        known = self.values[1:][np.isfinite(self.values[1:])]
        enough = len(known) >= max(1.0, (1 - MOST_WITHOUT) * (len(self.values) - 1))
        if not enough or self.patients < FEWEST_PATIENTS or np.isnan(self.value):
            return float("nan"), float("nan")
        low, high = np.percentile(known, [2.5, 97.5])
        return float(low), float(high)


@dataclass(frozen=True)
class Draws:
    """How often each patient is in each draw, (1 + repeats, patients); the first row has each once."""

    weights: Floats

    def sums(self, who: Ints, values: Floats) -> Floats:
        """Sums of `values` (n, k) of each draw, (1 + repeats, k)."""
        n_patients = self.weights.shape[1]
        of_patient = [np.bincount(who, column, n_patients) for column in np.asarray(values, float).T]
        return self.weights @ np.stack(of_patient, -1)

    def some(self, who: Ints) -> Iterator[tuple[slice, Floats]]:
        """The weights of the rows, (draws, n), of some draws after the other, and which draws these are."""
        for first in range(0, len(self.weights), _DRAWS_AT_ONCE):
            part = slice(first, first + _DRAWS_AT_ONCE)
            yield part, self.weights[part][:, who]


def draw_patients(n_patients: int, repeats: int = REPEATS, seed: int = SEED) -> Draws:
    """Draw as many patients as there are, with repetition, this many times."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), repeats)
    return Draws(np.concatenate([np.ones((1, n_patients)), drawn]))


def mean(draws: Draws, who: Ints, values: ArrayLike) -> Estimate:
    """The mean of values (n,), or the share of those that are true; NaN is left out."""
    x = np.asarray(values, float)
    known = ~np.isnan(x)
    total, count = draws.sums(who[known], np.stack([x[known], np.ones(known.sum())], -1)).T
    return estimate(divide(total, count), who[known])


def sd(draws: Draws, who: Ints, values: ArrayLike) -> Estimate:
    """The standard deviation of values (n,), with n - 1; NaN is left out."""
    x = np.asarray(values, float)
    known = ~np.isnan(x)
    x = x[known] - (x[known].mean() if known.any() else 0)  # small: no digits are lost
    total, squares, count = draws.sums(who[known], np.stack([x, x**2, np.ones_like(x)], -1)).T
    variance = divide(squares - divide(total, count) * total, count - 1)
    return estimate(np.sqrt(np.maximum(variance, 0)), who[known])


def auc(draws: Draws, who: Ints, scores: Floats, positive: Bools) -> Estimate:
    """Area under the ROC curve: P(a positive scores higher than a negative) + half P(tie) (Hanley 1982).

    `scores` and `positive` are (n,). Not defined without both. `n` counts both.
    """
    order = np.argsort(scores, kind="stable")
    who, scores, positive = who[order], scores[order], positive[order]
    values = np.full(len(draws.weights), np.nan)
    if len(scores):
        starts = np.flatnonzero(np.r_[True, np.diff(scores) > 0])
        for part, weights in draws.some(who):
            above = np.add.reduceat(weights * positive, starts, axis=1)
            below = np.add.reduceat(weights * ~positive, starts, axis=1)
            wins = (above * (below.cumsum(1) - below / 2)).sum(1)
            values[part] = divide(wins, above.sum(1) * below.sum(1))
    fewest = min(_number_of(who[positive]), _number_of(who[~positive]))
    return Estimate(values, len(scores), fewest)


def estimate(values: Floats, who: Ints) -> Estimate:
    """A figure of the rows of these patients."""
    return Estimate(values, len(who), _number_of(who))


def divide(a: Floats, b: Floats) -> Floats:
    """a / b; NaN where b is not above 0."""
    quotient: Floats = np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)
    return quotient


def _number_of(who: Ints) -> int:
    return len(np.unique(who))
