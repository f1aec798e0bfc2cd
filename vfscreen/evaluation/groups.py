"""The groups that figures are given of: of scans by dose and slices, of vertebrae by level and true grade."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from vfscreen.evaluation.grades import GRADES, grade_numbers

ALL = "all"
FEWEST = 10  # true vertebrae; a group of fewer has no figure

SLICES_MM = (0, 1.5, 2.5, 4, np.inf)
_SLICES = ("to 1.5 mm", "1.5 to 2.5 mm", "2.5 to 4 mm", "over 4 mm")


def scan_groups(pairs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Names and rows of all, and of each dose and slice spacing where more than one kind is known."""
    yield ALL, pairs
    slices = pd.cut(pairs.slice_mm.astype(float).round(2), list(SLICES_MM), labels=list(_SLICES))
    for by, values in (("dose", pairs.dose), ("slices", slices)):
        yield from _by(by, values, pairs)


def vertebra_groups(pairs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Names and rows of the true vertebrae of each level and each true grade."""
    true = pairs[~pairs.is_false]
    levels = sorted(true.level.dropna().unique(), key=_from_cranial)
    yield from _by("level", true.level.astype(pd.CategoricalDtype(levels)), true)
    grades = grade_numbers(true.true_ratio).map(dict(enumerate(GRADES)))
    yield from _by("true grade", grades.astype(pd.CategoricalDtype(list(GRADES))), true)


def _by(by: str, values: pd.Series, pairs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    groups = list(pairs.groupby(values, observed=True))
    if len(groups) > 1:
        for name, rows in groups:
            yield f"{by}: {name}", rows


def _from_cranial(level: str) -> tuple[int, int]:
    digits = "".join(filter(str.isdigit, level))
    return "CTLS".find(level[:1]), int(digits or 0)
