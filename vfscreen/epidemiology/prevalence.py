"""Prevalence with its interval, apparent and corrected for imperfect reading."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest, norm

from vfscreen.epidemiology.dictionary import PREVALENCE, names
from vfscreen.errors import InputError
from vfscreen.measure import THRESHOLDS

MOST_PATIENTS = 10**9

_GROUPINGS = {"age_group": ["age_group"], "sex": ["sex"], "age_group_sex": ["age_group", "sex"]}
_EVERYONE = {"grouping": "all", "age_group": "all", "sex": "all", "value": "all"}


@dataclass(frozen=True)
class Accuracy:
    """Sensitivity and specificity by patient at one threshold, and how many patients each was measured on.

    Raises InputError for a share outside 0 to 1 or a number outside 1 to `MOST_PATIENTS`.
    """

    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int

    def __post_init__(self) -> None:
        """Check the figures."""
        for name, share in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is {share}; give a share from 0 to 1")
        if not all(1 <= n <= MOST_PATIENTS for n in (self.n_positive, self.n_negative)):
            raise InputError(
                "sensitivity and specificity need the number of patients that they were measured on, "
                f"1 to {MOST_PATIENTS:,}, not {self.n_positive:,} and {self.n_negative:,}"
            )


@dataclass(frozen=True)
class Corrected:
    """A corrected prevalence and its 95 % interval, 0 to 1; `truncated` where one of the three was beyond."""

    value: float
    low: float
    high: float
    truncated: bool


def accuracy_of_metrics(path: Path) -> dict[str, Accuracy]:
    """Sensitivity and specificity by patient from the metrics.json of `vfscreen evaluate`, by threshold.

    Where patients have several scans it counts patients, since scans of one are alike. A threshold at
    which it gives none is left out. Raises InputError where it gives none at all.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "readings" in content:
            raise InputError(
                f"{path} is of `vfscreen evaluate experts` and tells of experts; give the metrics.json of "
                "`vfscreen evaluate RESULTS --reference REF`"
            )
        rows = [row for row in content["figures"] if (row["table"], row["group"]) == ("table 2", "all")]
        figures = {
            row["figure"]: (
                row["value"] if row["value"] is None else float(row["value"]),
                int(row["patients"]),
            )
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no metrics.json of vfscreen evaluate: {error!r}") from error
    found = {}
    for name in THRESHOLDS:
        (se, n_positive), (sp, n_negative) = (
            figures.get(f"{of} by patient, {name}", (None, 0)) for of in ("sensitivity", "specificity")
        )
        if se is not None and sp is not None:
            found[name] = Accuracy(se, sp, n_positive, n_negative)
    if not found:
        raise InputError(f"{path} gives no sensitivity and specificity by patient; evaluate on more patients")
    return found


def wilson(cases: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, J Am Stat Assoc 1927); NaN for nobody."""
    if not n:
        return math.nan, math.nan
    interval = binomtest(cases, n).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def rogan_gladen(cases: int, n: int, accuracy: Accuracy) -> Corrected | None:
    """Corrected prevalence (Rogan and Gladen, Am J Epidemiol 1978) and interval (Lang and Reiczigel).

    P = (p + Sp - 1) / (Se + Sp - 1), p = cases / n. The interval (Prev Vet Med 2014, equations 4, 6, 7, 16
    and 17) carries the uncertainty of p, Se and Sp, with z = 1.96, p' = (n p + z^2/2) / (n + z^2),
    Se' = (n_positive Se + 1) / (n_positive + 2), Sp' alike, and P' of these; it was made for Se and Sp of at
    least 0.5. None for nobody; where Se + Sp or Se' + Sp' is at most 1, as the reader then tells nothing; and
    where the whole interval lies outside 0 to 1, as the cohort then contradicts Se and Sp.
    """
    z = float(norm.ppf(0.975))
    p_, n_ = (cases + z**2 / 2) / (n + z**2), n + z**2
    se_, n_se = _with_two_more(accuracy.sensitivity, accuracy.n_positive)
    sp_, n_sp = _with_two_more(accuracy.specificity, accuracy.n_negative)
    if not n or accuracy.sensitivity + accuracy.specificity <= 1 or se_ + sp_ <= 1:
        return None
    value = _true_share(cases / n, accuracy.sensitivity, accuracy.specificity)
    share = _true_share(p_, se_, sp_)
    of_se, of_sp = se_ * (1 - se_) / n_se, sp_ * (1 - sp_) / n_sp
    shift = 2 * z**2 * (share * of_se - (1 - share) * of_sp)
    variance = p_ * (1 - p_) / n_ + share**2 * of_se + (1 - share) ** 2 * of_sp
    reach = z * math.sqrt(variance) / (se_ + sp_ - 1)
    low, high = share + shift - reach, share + shift + reach
    if high < 0 or low > 1:
        return None
    truncated = min(value, low) < 0 or max(value, high) > 1
    return Corrected(_within_0_to_1(value), _within_0_to_1(low), _within_0_to_1(high), truncated)


def prevalence_table(
    analysis: pd.DataFrame, by: Sequence[str] = (), accuracy: Mapping[str, Accuracy] | None = None
) -> pd.DataFrame:
    """Prevalence of the patients who are not excluded, in the columns of `dictionary.PREVALENCE`.

    Of all, by age group, sex, both and each column of `by`, at each threshold; `accuracy` is by threshold and
    taken to be the same in every group.
    """
    cohort = analysis[analysis.excluded.isna()]
    rows = [
        {**group, "threshold": name, "max_ratio": limit, **_figures(of[f"fracture_{name}"], given)}
        for group, of in _groups(cohort, by)
        for name, limit in THRESHOLDS.items()
        for given in [(accuracy or {}).get(name)]
    ]
    whole = dict.fromkeys(("n", "cases", "truncated", "n_positive", "n_negative"), "Int64")
    return pd.DataFrame(rows, columns=names(PREVALENCE)).astype(whole)


def _with_two_more(share: float, n: int) -> tuple[float, int]:
    """A share and its n with one patient more on either side (Lang and Reiczigel)."""
    return (n * share + 1) / (n + 2), n + 2


def _within_0_to_1(share: float) -> float:
    return min(1.0, max(0.0, share))


def _true_share(p: float, sensitivity: float, specificity: float) -> float:
    return (p + specificity - 1) / (sensitivity + specificity - 1)


def _groups(cohort: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    yield _EVERYONE, cohort
    for grouping, columns in _GROUPINGS.items():
        for values, of in cohort.groupby(columns, observed=False):
            named = dict(zip(columns, map(str, values), strict=True))
            yield {**_EVERYONE, "grouping": grouping, **named}, of
    for name in by:
        for value, of in cohort.groupby(cohort[name].fillna(_name_of_empty(cohort[name]))):
            yield {**_EVERYONE, "grouping": name, "value": str(value)}, of


def _name_of_empty(values: pd.Series) -> str:
    name = "missing"
    while (values == name).any():
        name += "_"
    return name


def _figures(is_case: pd.Series, accuracy: Accuracy | None) -> dict[str, Any]:
    n, cases = len(is_case), int(is_case.sum())
    low, high = wilson(cases, n)
    figures = {
        "n": n,
        "cases": cases,
        "prevalence": cases / n if n else math.nan,
        "prevalence_low": low,
        "prevalence_high": high,
    }
    if accuracy is None:
        return figures
    corrected = rogan_gladen(cases, n, accuracy)
    if corrected is not None:
        figures["corrected"] = corrected.value
        figures["corrected_low"], figures["corrected_high"] = corrected.low, corrected.high
        figures["truncated"] = int(corrected.truncated)
    return {**figures, **vars(accuracy)}
