"""The free-response curve (Bunch et al. 1977): deformed vertebrae found against false alarms a scan.

The threshold on the measured G moves. A hit is a true vertebra with G <= 0.74 that was found with a G at or
below it; a false alarm is a false detection, or a vertebra whose true G is above 0.74, at or below it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vfscreen.evaluation.intervals import Bools, Draws, Estimate, Ints, divide, estimate
from vfscreen.measure import MODERATE
from vfscreen.volume import Floats

RATES = (0.125, 0.25, 0.5, 1.0, 2.0)  # false alarms a scan


def free_response_figures(draws: Draws, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """Sensitivity at the largest threshold that gives no more than this many false alarms a scan."""
    deformed = pairs[pairs.true_ratio <= MODERATE]
    values = np.full((len(RATES), len(draws.weights)), np.nan)
    ordered = _ordered(pairs)
    if len(deformed) and len(ordered.who):
        of_scans = _patients_of_scans(pairs)
        scans = draws.sums(of_scans, np.ones((len(of_scans), 1)))
        total = draws.sums(deformed.who.to_numpy(), np.ones((len(deformed), 1)))
        for part, weights in draws.some(ordered.who):
            alarms, hits = ordered.curve(weights, scans[part], total[part])
            for i, rate in enumerate(RATES):
                last = (alarms <= rate).sum(1) - 1
                values[i, part] = np.where(last < 0, 0.0, hits[np.arange(len(hits)), last])
            values[:, part][:, total[part, 0] == 0] = np.nan
    return {
        f"sensitivity at {rate:g} false alarms a scan": estimate(each, deformed.who.to_numpy())
        for rate, each in zip(RATES, values, strict=True)
    }


def free_response(pairs: pd.DataFrame) -> pd.DataFrame:
    """The curve: `threshold` on G, `false_alarms` a scan, `sensitivity`; empty without deformed vertebrae.

    Of the thresholds it holds those at which sensitivity rises, the last below 0.74, and the last: the steps
    between them are flat.
    """
    ordered = _ordered(pairs)
    n_deformed = int((pairs.true_ratio <= MODERATE).sum())
    if not n_deformed or not len(ordered.who):
        return pd.DataFrame({"threshold": [], "false_alarms": [], "sensitivity": []})
    once = np.ones((1, len(ordered.who)))
    alarms, hits = ordered.curve(once, np.array([[len(_patients_of_scans(pairs))]]), np.array([[n_deformed]]))
    columns = {"threshold": ordered.ratio[ordered.ends], "false_alarms": alarms[0], "sensitivity": hits[0]}
    curve = pd.DataFrame(columns)
    is_corner = curve.sensitivity.diff().fillna(1) > 0
    at_moderate = (curve.threshold <= MODERATE) & (curve.threshold.shift(-1, fill_value=1.1) > MODERATE)
    return curve[is_corner | at_moderate | (curve.index == len(curve) - 1)].reset_index(drop=True)


class _Ordered:
    """Detections by rising G: their patients, and which of them are hits; `ends` of those with the same G."""

    def __init__(self, who: Ints, ratio: Floats, is_hit: Bools) -> None:
        order = np.argsort(ratio, kind="stable")
        self.who, self.ratio, self.is_hit = who[order], ratio[order], is_hit[order]
        self.ends = np.flatnonzero(np.r_[np.diff(self.ratio) > 0, np.ones(min(len(ratio), 1), bool)])

    def curve(self, weights: Floats, scans: Floats, deformed: Floats) -> tuple[Floats, Floats]:
        """False alarms a scan and sensitivity at each threshold, (draws, thresholds)."""
        hits = (weights * self.is_hit).cumsum(1)[:, self.ends]
        alarms = (weights * ~self.is_hit).cumsum(1)[:, self.ends]
        return divide(alarms, scans * np.ones_like(alarms)), divide(hits, deformed * np.ones_like(hits))


def _ordered(pairs: pd.DataFrame) -> _Ordered:
    seen = pairs[pairs.ratio.notna()]
    return _Ordered(seen.who.to_numpy(), seen.ratio.to_numpy(float), np.asarray(seen.true_ratio <= MODERATE))


def _patients_of_scans(pairs: pd.DataFrame) -> Ints:
    return pairs[["who", "scan"]].drop_duplicates().who.to_numpy()
