"""The paper's Table 1: what was found, and how far from its place."""

from __future__ import annotations

import pandas as pd

from vfscreen.evaluation.intervals import Draws, Estimate, mean, sd
from vfscreen.measure import MODERATE

DEFORMED = f"G <= {MODERATE}"


def table_1(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Localization error, recall, and precision: the share of detections that found a true vertebra."""
    detections = pairs[pairs.found | pairs.is_false]
    precision = mean(draws, detections.who.to_numpy(), ~detections.is_false.to_numpy())
    return {**found_figures(draws, pairs), "precision": precision}


def found_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Localization error with its standard deviation, and recall; of all, and of those with G <= 0.74."""
    true = pairs[~pairs.is_false]
    return _found(draws, true, "") | _found(draws, true[true.true_ratio <= MODERATE], f", {DEFORMED}")


def _found(draws: Draws, true: pd.DataFrame, of: str) -> dict[str, Estimate]:
    who, error_mm = true.who.to_numpy(), true.center_error_mm.to_numpy(float)
    return {
        f"localization error{of}, mm": mean(draws, who, error_mm),
        f"SD of localization error{of}, mm": sd(draws, who, error_mm),
        f"recall{of}": mean(draws, who, true.found.to_numpy()),
    }
