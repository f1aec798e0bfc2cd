"""The flow table as a chart: boxes from the archive to the analysis, with what is excluded beside them.

It is the form of STROBE, item 13 (von Elm et al., Lancet 2007), and CONSORT, item 13. CONSORT-AI (Liu et al.,
Nat Med 2020) asks that input which was poor or not available be told apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vfscreen.measure import THRESHOLDS

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vfscreen",
    "font.family": "sans-serif",
    "font.size": 9,
}
_INK = "#1b1b1c"

_WIDTH, _MARGIN = 7.6, 0.1  # inches, as all that follows
_MAIN, _SIDE = (0.1, 2.9), (3.4, 4.1)  # left end and width of the boxes
_LINE, _PAD, _GAP = 0.19, 0.1, 0.16  # a line of text, the margin in a box, the space between boxes

_KEPT = {
    "found": "Studies found",
    "measured": "Studies measured",
    "one_study": "Patients, latest measured study",
    "analysed": "Patients analysed",
}
_EXCLUDED = {
    "partial": "partial, too little of the spine measured",
    "other_study": "other studies of the same patients",
    "no_covariates": "not in the covariates",
    "no_age": "age unknown",
    "no_sex": "sex unknown",
}

_IN_BRACKETS = "(in brackets: patients of whom no study was measured)"

Box = list[str]
"""The lines of a box, the first one in bold; none for no box."""


def flow_chart(flow: pd.DataFrame, analysis: pd.DataFrame) -> bytes:
    """The chart of a flow table as SVG, text as text; the last box tells the cases of the analysis table."""
    kept, excluded = (flow[flow.kind == kind] for kind in ("kept", "excluded"))
    boxes = [_kept(row) for _, row in kept.iterrows()]
    boxes[-1] += _cases(analysis)
    sides = [_excluded(excluded[excluded.step == step]) for step in kept.step[1:]]
    with mpl.rc_context(_STYLE):
        stream = io.BytesIO()
        _figure(boxes, sides).savefig(stream, format="svg", metadata={"Date": None})
        return stream.getvalue()


def _kept(row: pd.Series) -> Box:
    if row.reason in ("found", "measured"):
        return [_KEPT[row.reason], f"{_studies(row.n_studies)} of {_patients(row.n_patients)}"]
    return [_KEPT[row.reason], f"n = {row.n_patients:,}"]


def _cases(analysis: pd.DataFrame) -> Box:
    analysed = analysis[analysis.excluded.isna()]
    return [f"G ≤ {limit}: {analysed[f'fracture_{name}'].sum():,}" for name, limit in THRESHOLDS.items()]


def _excluded(rows: pd.DataFrame) -> Box:
    """What leaves at a step, as studies until there is one a patient."""
    rows = rows[rows.n_studies > 0]
    if rows.empty:
        return []
    studies, patients = int(rows.n_studies.sum()), int(rows.n_patients.sum())
    title = {
        2: f"Excluded: {_studies(studies)} ({_patients(patients)})",
        3: f"Excluded: {_studies(studies)}",
        4: f"Excluded: {_patients(patients)}",
    }
    step = int(rows.step.iloc[0])
    return [
        title[step],
        *(_reason(row) for _, row in rows.iterrows()),
        *([_IN_BRACKETS] if step == 2 else []),
    ]


def _studies(n: int) -> str:
    return "1 study" if n == 1 else f"{n:,} studies"


def _patients(n: int) -> str:
    return "1 patient" if n == 1 else f"{n:,} patients"


def _reason(row: pd.Series) -> str:
    reason = row.reason if isinstance(row.error, str) else _EXCLUDED.get(row.reason, row.reason)
    code = f", {row.error}" if isinstance(row.error, str) else ""
    patients = f" ({row.n_patients:,})" if row.step == 2 else ""
    return f"{reason}{code}: {row.n_studies:,}{patients}"


def _figure(boxes: Sequence[Box], sides: Sequence[Box]) -> Figure:
    """Boxes from top to bottom; between two of them the side box of what leaves."""
    tops = [_MARGIN]
    for box, side in zip(boxes, sides, strict=False):
        tops.append(tops[-1] + _height(box) + _height(side) + 2 * _GAP)
    bottom = tops[-1] + _height(boxes[-1]) + _MARGIN
    figure = Figure(figsize=(_WIDTH, bottom))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(bottom, 0))
    axes.axis("off")
    for top, box in zip(tops, boxes, strict=True):
        _draw(axes, _MAIN, top, box)
    middle = _MAIN[0] + _MAIN[1] / 2
    for (top, below), box, side in zip(pairwise(tops), boxes, sides, strict=False):
        end = top + _height(box)
        _arrow(axes, (middle, end), (middle, below))
        if side:
            _draw(axes, _SIDE, end + _GAP, side)
            _arrow(axes, (middle, (end + below) / 2), (_SIDE[0], (end + below) / 2))
    return figure


def _height(box: Box) -> float:
    return len(box) * _LINE + 2 * _PAD if box else 0.0


def _draw(axes: Axes, column: tuple[float, float], top: float, box: Box) -> None:
    left, width = column
    axes.add_patch(Rectangle((left, top), width, _height(box), fill=False, edgecolor=_INK, linewidth=0.8))
    for i, line in enumerate(box):
        weight = "bold" if i == 0 else "normal"
        y = top + _PAD + (i + 0.5) * _LINE
        axes.text(left + _PAD, y, line, color=_INK, weight=weight, verticalalignment="center")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": _INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
