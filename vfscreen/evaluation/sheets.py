"""The tables as a person reads them, on the terminal and on the page: texts in rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vfscreen.evaluation.agreement import MEASURES
from vfscreen.evaluation.detection import DEFORMED
from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.free_response import RATES
from vfscreen.evaluation.grades import GRADES
from vfscreen.evaluation.groups import ALL
from vfscreen.evaluation.paper import PUBLISHED
from vfscreen.evaluation.thresholds import UNITS
from vfscreen.measure import THRESHOLDS
from vfscreen.study import HEIGHTS

NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """A table of texts; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def table_1_sheet(evaluation: Evaluation) -> Sheet:
    """The paper's Table 1, with a row for each group of scans and the paper's own."""
    errors = [f"localization error{part}, mm" for part in ("", f", {DEFORMED}")]
    names = [*(f"{of}{error}" for error in errors for of in ("", "SD of "))]
    names += ["recall", f"recall, {DEFORMED}", "precision"]
    rows = [
        (_named(group), *(_cell(evaluation, "table 1", name, group) for name in names))
        for group in _scan_groups(evaluation)
    ]
    rows += [(who, *(_number(figures.get(name)) for name in names)) for who, figures in PUBLISHED.items()]
    return Sheet("Table 1: vertebrae found", ("", *names), tuple(rows))


def table_2_sheet(evaluation: Evaluation) -> Sheet:
    """The paper's Table 2: rows for mild and moderate, of each group of scans and the paper's own."""
    rows = []
    for grade in THRESHOLDS:
        kinds = ("AUC", "specificity", "sensitivity")
        names = [f"{kind} by {unit}, {grade}" for kind in kinds for unit in UNITS]
        for group in _scan_groups(evaluation):
            cells = (_cell(evaluation, "table 2", name, group, 2) for name in names)
            rows.append((f"{grade}, {_named(group)}", *cells))
        for who, figures in PUBLISHED.items():
            rows.append((f"{grade}, {who}", *(_number(figures.get(name), 2) for name in names)))
    columns = tuple(f"{kind}, {unit}" for kind in ("AUC", "specificity", "sensitivity") for unit in UNITS)
    return Sheet(
        "Table 2: deformed (mild: G <= 0.8, moderate: G <= 0.74) or not", ("", *columns), tuple(rows)
    )


def main_sheet(evaluation: Evaluation) -> Sheet:
    """Tables 1 and 2 of all scans, a figure a row, beside the paper's."""
    rows = [
        (
            name,
            _cell(evaluation, table, name),
            *(_number(published.get(name)) for published in PUBLISHED.values()),
        )
        for table in ("table 1", "table 2")
        for name in evaluation.names(table)
    ]
    return Sheet("Tables 1 and 2 of the paper", ("", "this run", *PUBLISHED), tuple(rows))


def transposed(sheet: Sheet) -> Sheet:
    """The same with rows and columns exchanged: narrower where it has few rows."""
    columns = tuple(zip(sheet.columns, *sheet.rows, strict=True))
    return Sheet(sheet.title, columns[0], columns[1:], sheet.note)


def agreement_sheet(evaluation: Evaluation) -> Sheet:
    """Agreement of G and each height, of all."""
    rows = [(measure, *_agreement_cells(evaluation, measure, ALL)) for measure in MEASURES]
    return Sheet("Agreement with the truth (heights in mm)", _AGREEMENT, tuple(rows))


def group_sheet(evaluation: Evaluation) -> Sheet:
    """Agreement of G by level, true grade, slices and dose, with recall and coverage of the intervals."""
    groups = [group for group in evaluation.figures.group.unique() if group != ALL]
    rows = [
        (
            group,
            *_agreement_cells(evaluation, "G", group),
            _cell(evaluation, "table 1", "recall", group),
            _cell(evaluation, "coverage", "coverage of G", group),
        )
        for group in groups
    ]
    return Sheet("G by groups", (*_AGREEMENT, "recall", "coverage, 90 %"), tuple(rows))


def grades_sheet(evaluation: Evaluation) -> Sheet:
    """Numbers of vertebrae by true and by measured grade."""
    table = evaluation.confusion
    rows = [(f"true: {grade}", *(str(n) for n in table.loc[grade])) for grade in GRADES]
    kappas = [f"{name} {_cell(evaluation, 'grades', name)}" for name in _KAPPAS]
    note = f"{'; '.join(kappas)}; of the vertebrae found."
    return Sheet("Grades", ("", *map(str, table.columns)), tuple(rows), note)


def other_sheet(evaluation: Evaluation) -> Sheet:
    """Free response, calibration and coverage, by group of scans."""
    wanted = [("free response", f"sensitivity at {rate:g} false alarms a scan") for rate in RATES]
    wanted += [("calibration", name) for name in _CALIBRATION]
    wanted += [("coverage", f"coverage of {what}") for what in ("G", *(f"{h} height" for h in HEIGHTS))]
    groups = _scan_groups(evaluation)
    rows = [(name, *(_cell(evaluation, table, name, g) for g in groups)) for table, name in wanted]
    return Sheet("Free response, calibration, coverage of the 90 % intervals", ("", *groups), tuple(rows))


def differences_sheet(differences: pd.DataFrame) -> Sheet:
    """This run minus the other, of the figures of all scans."""
    shown = differences[(differences.group == ALL) & (differences.table != "reliability")]
    rows = [
        (f"{table}: {name}", _number(value), _number(other), _signed(*difference), _number(p), str(n))
        for table, _, name, value, other, *difference, p, n in shown.itertuples(index=False)
    ]
    columns = ("", "this run", "other run", "difference", "p", "n")
    return Sheet("This run against the other, in pairs", columns, tuple(rows))


def counts_sheet(counts: Mapping[str, Any]) -> Sheet:
    """What was compared, in numbers."""
    rows = [(name, _listed(value)) for name, value in counts.items()]
    return Sheet("What was compared", ("", "number"), tuple(rows))


_AGREEMENT = (
    *("", "n", "mean error", "SD of errors", "limits of agreement", "mean absolute error"),
    *("ICC(2,1)", "correlation"),
)
_KAPPAS = ("kappa, linear weights", "kappa, quadratic weights", "same grade")
_CALIBRATION = (
    *("Brier score", "expected calibration error", "calibration slope", "calibration intercept"),
    *("mean predicted probability", "share with true G <= 0.74"),
)


def _scan_groups(evaluation: Evaluation) -> list[str]:
    return list(evaluation.figures[evaluation.figures.table == "table 2"].group.unique())


def _named(group: str) -> str:
    return "this run" if group == ALL else group


def _agreement_cells(evaluation: Evaluation, measure: str, group: str) -> Iterable[str]:
    unit = MEASURES[measure][2]

    def cell(name: str) -> str:
        return _cell(evaluation, "agreement", f"{measure}: {name}", group)

    low, high = (
        evaluation.figure("agreement", f"{measure}: {end} limit of agreement{unit}", group).value
        for end in ("lower", "upper")
    )
    limits = NONE if np.isnan(low) else f"{_number(low)} to {_number(high)}"
    n = evaluation.figure("agreement", f"{measure}: mean error{unit}", group).n
    errors = (cell(f"mean error{unit}"), cell(f"SD of errors{unit}"), limits)
    return (str(n), *errors, cell(f"mean absolute error{unit}"), cell("ICC(2,1)"), cell("correlation"))


def _cell(evaluation: Evaluation, table: str, name: str, group: str = ALL, digits: int = 3) -> str:
    """The value with its interval; without a value how many there were."""
    figure = evaluation.figure(table, name, group)
    if np.isnan(figure.low):
        return f"{_number(figure.value, digits)} (n {figure.n})"
    low, high = _number(figure.low, digits), _number(figure.high, digits)
    return f"{_number(figure.value, digits)} ({low} to {high})"


def _signed(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return NONE
    return f"{value:+.3f}" if np.isnan(low) else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or NONE
    return str(value)
