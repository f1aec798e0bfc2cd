"""The figures as SVG: ROC, free response, Bland-Altman, scatter of G, reliability. Text stays text.

Axes and text are drawn in `INK`, which the page replaces by the colour of its own text, on no background.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vfscreen.evaluation.agreement import MEASURES
from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.evaluation import Figure as Shown
from vfscreen.evaluation.groups import ALL
from vfscreen.evaluation.thresholds import UNITS
from vfscreen.measure import MILD, MODERATE, THRESHOLDS

INK = "#1b1b1c"
MOST_POINTS = 1200  # drawn of a cloud, half of them deformed where there are so many

_COLORS = {"mild": "#3a86c8", "moderate": "#d9772b"}  # told apart with every kind of colour vision
_OTHERS = "#7a8b99"
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    "axes.titlesize": 10.0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.2,
}
_IDENTITY: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}


def draw(evaluation: Evaluation) -> dict[str, bytes]:
    """Each figure that the pairs can give, by its name, as SVG."""
    found = evaluation.pairs[evaluation.pairs.found]
    can: dict[str, bool] = {
        "roc": len(evaluation.roc) > 0,
        "free_response": len(evaluation.free_response) > 0,
        "bland_altman": len(found) > 1,
        "scatter": len(found) > 0,
        "reliability": bool(found.probability_moderate.notna().any()),
    }
    with mpl.rc_context(_STYLE):
        return {name: _svg(DRAWN[name](evaluation), name) for name, is_so in can.items() if is_so}


def cloud(pairs: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_POINTS` of the vertebrae found, drawn at random; half deformed if so many are."""
    found = pairs[pairs.found]
    if len(found) <= MOST_POINTS:
        return found
    mixed = found.sample(frac=1, random_state=0)
    deformed, normal = mixed[mixed.true_ratio <= MILD], mixed[mixed.true_ratio > MILD]
    n_deformed = max(min(len(deformed), MOST_POINTS // 2), MOST_POINTS - len(normal))
    return pd.concat([normal[: MOST_POINTS - n_deformed], deformed[:n_deformed]])


def _roc(evaluation: Evaluation) -> Figure:
    """ROC curves by vertebra and by patient, with the operating points of both thresholds."""
    figure, panels = _panels(1, 2, (7.2, 3.7))
    for unit, axes in zip(UNITS, panels, strict=True):
        axes.axline((0, 0), slope=1, **_IDENTITY)
        for grade, threshold in THRESHOLDS.items():
            curve = evaluation.roc[(evaluation.roc.unit == unit) & (evaluation.roc.grade == grade)]
            if curve.empty:
                continue
            area = evaluation.figure("table 2", f"AUC by {unit}, {grade}")
            label = f"G ≤ {threshold}: AUC {_with_interval(area)}"
            axes.plot(curve.false_positive_rate, curve.sensitivity, color=_COLORS[grade], label=label)
            _operating_point(axes, evaluation, unit, grade)
        axes.set(title=f"by {unit}", xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")
    return figure


def _operating_point(axes: Axes, evaluation: Evaluation, unit: str, grade: str) -> None:
    """Sensitivity and specificity at the threshold, with their intervals as a cross."""
    specificity = evaluation.figure("table 2", f"specificity by {unit}, {grade}")
    sensitivity = evaluation.figure("table 2", f"sensitivity by {unit}, {grade}")
    x, y, color = 1 - specificity.value, sensitivity.value, _COLORS[grade]
    axes.plot([1 - specificity.high, 1 - specificity.low], [y, y], color=color, linewidth=0.9)
    axes.plot([x, x], [sensitivity.low, sensitivity.high], color=color, linewidth=0.9)
    axes.plot(x, y, "o", color=color, markersize=5)


def _free_response(evaluation: Evaluation) -> Figure:
    """Sensitivity for vertebrae with G <= 0.74 against false alarms a scan, with the point at 0.74."""
    figure, [axes] = _panels(1, 1, (4.6, 3.5))
    curve = evaluation.free_response
    alarms, hits = np.r_[0, curve.false_alarms], np.r_[0, curve.sensitivity]
    axes.step(alarms, hits, where="post", color=_COLORS["moderate"])
    here = curve[curve.threshold <= MODERATE]
    if len(here):
        axes.plot(here.false_alarms.iloc[-1], here.sensitivity.iloc[-1], "o", color=_COLORS["moderate"])
        point = (here.false_alarms.iloc[-1], here.sensitivity.iloc[-1])
        axes.annotate(f"G ≤ {MODERATE}", point, (8, -12), textcoords="offset points")
    reach = min(4.0, max(float(curve.false_alarms.max()), 0.1))
    axes.set(xlim=(-0.02 * reach, reach), ylim=(-0.02, 1.02))
    axes.set(xlabel="false alarms a scan", ylabel="sensitivity, true G ≤ 0.74")
    return figure


def _bland_altman(evaluation: Evaluation) -> Figure:
    """Errors of G and of each height against the mean of measured and true, with limits of agreement."""
    figure, panels = _panels(2, 2, (7.2, 5.6))
    points = cloud(evaluation.pairs)
    for (measure, (true, measured, unit)), axes in zip(MEASURES.items(), panels, strict=True):
        x, y = (points[true] + points[measured]) / 2, points[measured] - points[true]
        _dots(axes, x, y, points.true_ratio)
        for name, dashed in (("mean error", False), ("lower limit of agreement", True)):
            _level(axes, evaluation, f"{measure}: {name}{unit}", dashed)
        _level(axes, evaluation, f"{measure}: upper limit of agreement{unit}", True)
        title = measure if measure == "G" else f"{measure} height"
        axes.set(title=title, xlabel=f"mean of measured and true{unit}", ylabel=f"measured − true{unit}")
    return figure


def _level(axes: Axes, evaluation: Evaluation, name: str, dashed: bool) -> None:
    value = evaluation.figure("agreement", name).value
    if np.isfinite(value):
        axes.axhline(value, **{**_IDENTITY, "linestyle": (0, (4, 3)) if dashed else "-"})
        text = (f"{value:+.3f}" if name.startswith("G:") else f"{value:+.2f}").replace("-", "−")
        axes.text(1.01, value, text, fontsize=7.5, va="center", transform=axes.get_yaxis_transform())


def _scatter(evaluation: Evaluation) -> Figure:
    """Measured against true G, with the thresholds."""
    figure, [axes] = _panels(1, 1, (4.4, 4.2))
    points = cloud(evaluation.pairs)
    _dots(axes, points.true_ratio, points.ratio, points.true_ratio)
    low = float(min(points.true_ratio.min(), points.ratio.min())) - 0.02
    axes.axline((1, 1), slope=1, **_IDENTITY)
    for threshold in (MILD, MODERATE):
        axes.axvline(threshold, color=INK, linewidth=0.5, alpha=0.5)
        axes.axhline(threshold, color=INK, linewidth=0.5, alpha=0.5)
    axes.set(xlim=(low, 1.02), ylim=(low, 1.02), xlabel="true G", ylabel="measured G", aspect="equal")
    return figure


def _reliability(evaluation: Evaluation) -> Figure:
    """Share with a true G <= 0.74 against the probability given, by tenths, with intervals and numbers."""
    figure, [axes] = _panels(1, 1, (4.4, 4.2))
    axes.axline((0, 0), slope=1, **_IDENTITY)
    rows = evaluation.figures[(evaluation.figures.table == "reliability") & (evaluation.figures.group == ALL)]
    for name in (name for name in rows.figure if name.startswith("observed")):
        observed = evaluation.figure("reliability", name)
        x = evaluation.figure("reliability", name.replace("observed", "predicted")).value
        axes.plot([x, x], [observed.low, observed.high], color=_COLORS["moderate"], linewidth=1)
        axes.plot(x, observed.value, "o", color=_COLORS["moderate"], markersize=4)
        place: Any = {"xytext": (4, -9), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(str(observed.n), (x, observed.value), **place)
    axes.set(xlim=(-0.03, 1.06), ylim=(-0.05, 1.05), aspect="equal")
    axes.set(xlabel="probability given that G ≤ 0.74", ylabel="share with true G ≤ 0.74")
    return figure


DRAWN: dict[str, Callable[[Evaluation], Figure]] = {
    "roc": _roc,
    "free_response": _free_response,
    "bland_altman": _bland_altman,
    "scatter": _scatter,
    "reliability": _reliability,
}


def _panels(rows: int, columns: int, size_inch: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(size_inch, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.patch.set_visible(False)
    return figure, list(axes.flat)


def _dots(axes: Axes, x: pd.Series, y: pd.Series, true_ratio: pd.Series) -> None:
    kinds = {
        _OTHERS: true_ratio > MILD,
        _COLORS["mild"]: (true_ratio <= MILD) & (true_ratio > MODERATE),
        _COLORS["moderate"]: true_ratio <= MODERATE,
    }
    for color, rows in kinds.items():
        axes.plot(x[rows], y[rows], ".", color=color, markersize=3.5, alpha=0.6, markeredgewidth=0)


def _with_interval(figure: Shown) -> str:
    if np.isnan(figure.low):
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _svg(figure: Figure, name: str) -> bytes:
    """The picture, the same bytes for the same input; the salt keeps ids of two figures on a page apart."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return stream.getvalue()
