"""Vertebrae by their level: how many, and how many of them deformed."""

from __future__ import annotations

import pandas as pd

from vfscreen.epidemiology.dictionary import LEVELS, names
from vfscreen.measure import THRESHOLDS

ORDER = ("all", "C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), "unknown")


def levels_table(vertebrae: pd.DataFrame, analysis: pd.DataFrame) -> pd.DataFrame:
    """The vertebrae of the analysed patients' studies, in the columns of `dictionary.LEVELS`.

    One row for all, one a level, and one for those of which the results know no level.
    """
    studies = analysis.study_id[analysis.excluded.isna()]
    of_them = vertebrae[vertebrae.study_id.isin(studies)]
    groups = [("all", of_them), *of_them.groupby(of_them.level.fillna("unknown"))]
    rows = [{"level": level, **_counts(of)} for level, of in groups]
    table = pd.DataFrame(rows, columns=names(LEVELS))
    return table.sort_values("level", key=lambda level: level.map(_place), ignore_index=True)


def _counts(vertebrae: pd.DataFrame) -> dict[str, float]:
    grades, shapes = (vertebrae[of].value_counts().to_dict() for of in ("grade", "shape"))
    counts = {**shapes, **grades}  # `normal` is the same in both
    of_kind = {name: int(counts.get(name[2:], 0)) for name in names(LEVELS) if name.startswith("n_")}
    return {
        **of_kind,
        "n_patients": vertebrae.study_id.nunique(),
        "n_vertebrae": len(vertebrae),
        **{f"share_{name}": (vertebrae.genant_ratio <= limit).mean() for name, limit in THRESHOLDS.items()},
    }


def _place(level: str) -> int:
    return ORDER.index(level) if level in ORDER else len(ORDER)
