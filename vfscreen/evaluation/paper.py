"""What the paper publishes of itself and of its experts: Tables 1 and 2 and the numbers by grade.

Pisov et al., "Keypoints Localization for Joint Vertebra Detection and Fracture Severity Quantification",
MICCAI 2020: 100 CTs, five folds; an expert against the other experts. Figures are named as in `detection` and
`thresholds`, as rounded there.
"""

from __future__ import annotations

from collections.abc import Mapping

from vfscreen.evaluation.detection import DEFORMED
from vfscreen.evaluation.thresholds import UNITS

Figures = Mapping[str, float]


def _table_1(
    error: tuple[float, float],
    deformed_error: tuple[float, float],
    recall: tuple[float, float],
    precision: float,
) -> dict[str, float]:
    """Errors as mean and the number in brackets behind it; recall of all and of G <= 0.74."""
    figures = {}
    for of, (mean, sd), share in zip(("", f", {DEFORMED}"), (error, deformed_error), recall, strict=True):
        figures[f"localization error{of}, mm"] = mean
        figures[f"SD of localization error{of}, mm"] = sd
        figures[f"recall{of}"] = share
    return {**figures, "precision": precision}


def _table_2(**grades: tuple[float, ...]) -> dict[str, float]:
    """AUC, specificity and sensitivity, each by vertebra and by patient, as they stand in a row."""
    names = [f"{name} by {unit}" for name in ("AUC", "specificity", "sensitivity") for unit in UNITS]
    return {
        f"{name}, {grade}": value
        for grade, row in grades.items()
        for name, value in zip(names, row, strict=True)
    }


PROPOSED: Figures = {
    **_table_1((0.97, 0.64), (1.14, 0.69), (0.997, 1.0), 0.993),
    **_table_2(mild=(0.87, 0.93, 0.93, 0.68, 0.65, 0.94), moderate=(0.94, 0.93, 0.98, 0.86, 0.75, 0.84)),
}
"""The networks of the paper."""

EXPERTS: Figures = {
    **_table_1((1.01, 0.98), (1.17, 0.78), (0.983, 0.973), 0.996),
    **_table_2(mild=(0.91, 0.91, 0.91, 0.60, 0.70, 0.90), moderate=(0.98, 0.95, 0.97, 0.83, 0.79, 0.88)),
}
"""The experts of the paper."""

PUBLISHED: Mapping[str, Figures] = {"paper, proposed": PROPOSED, "paper, experts": EXPERTS}
"""Both, by the name of their row."""

VERTEBRAE: Mapping[str, int] = {"normal": 1046, "mild": 125, "moderate": 80, "severe": 17}
"""Vertebrae by grade in the paper's data, 1268 in all."""

PATIENTS: Mapping[str, int] = {"normal": 30, "mild": 16, "moderate": 41, "severe": 13}
"""Patients by the grade of their worst vertebra."""
