"""Result folders and covariates made on the spot."""

from __future__ import annotations

import datetime

import pandas as pd

from vfscreen.measure import grade
from vfscreen.results import STUDIES, VERTEBRAE, write_parquet


def study(study_id, patient_id, *ratios, status="ok", date="2020-05-01", error=None):
    """A row of the studies and the G of its vertebrae."""
    smallest = min(ratios, default=None)
    row = {
        **dict.fromkeys(STUDIES.names),
        "study_id": study_id,
        "patient_id": patient_id,
        "source": study_id,
        "study_date": datetime.date.fromisoformat(date) if date else None,
        "status": status,
        "error": error,
        "n_vertebrae": len(ratios) if status in ("ok", "partial") else None,
        "min_genant_ratio": smallest,
        "grade": grade(smallest) if ratios else None,
        "n_moderate": sum(g <= 0.74 for g in ratios) if ratios else None,
    }
    return row, ratios


def vertebra(study_id, number, ratio, level=None, shape="wedge"):
    of = {"level": level, "genant_ratio": ratio, "grade": grade(ratio)}
    named = {**of, "shape": "normal" if ratio > 0.8 else shape}
    return {**dict.fromkeys(VERTEBRAE.names), "study_id": study_id, "vertebra": number, **named}


def write_results(folder, *studies):
    """A result folder of these studies."""
    folder.mkdir(exist_ok=True)
    write_parquet([{**row, "quality": []} for row, _ in studies], STUDIES, folder / "studies.parquet")
    vertebrae = [vertebra(row["study_id"], i, g) for row, ratios in studies for i, g in enumerate(ratios, 1)]
    write_parquet([{**row, "quality": []} for row in vertebrae], VERTEBRAE, folder / "vertebrae.parquet")
    return folder


def write_covariates(path, **columns):
    """A CSV file of these columns."""
    pd.DataFrame(columns).to_csv(path, index=False)
    return path
