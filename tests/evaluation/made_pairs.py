"""Pairs tables made on the spot: a cohort with its truth, and readers of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vfscreen.measure import genant_ratio, probability_at_most, ratio_interval
from vfscreen.study import HEIGHTS

LEVELS = [*(f"T{i}" for i in range(1, 13)), "L1", "L2"]


def cohort(patients=60, levels=10, seed=0):
    """Patients with two scans each, standard and low dose, of which half of the vertebrae lost height."""
    rng = np.random.default_rng(seed)
    heights = rng.normal(20, 1, (patients * 2, levels, 3))
    heights[..., 0] *= np.where(rng.random((patients * 2, levels)) < 0.5, rng.uniform(0.5, 1, levels), 1)
    table = pd.DataFrame(
        {
            "patient": np.repeat([f"p{i:04}" for i in range(patients)], 2 * levels),
            "scan": np.repeat([f"p{i:04}/{dose}" for i in range(patients) for dose in "ab"], levels),
            "level": np.tile(LEVELS[:levels], 2 * patients),
            "slice_mm": np.tile(np.repeat([1.0, 3.0], levels), patients),
            "dose": np.tile(np.repeat(["standard", "low"], levels), patients),
            "status": "ok",
            "is_false": False,
        }
    )
    true = {f"true_{h}_mm": heights[..., i].ravel() for i, h in enumerate(HEIGHTS)}
    return table.assign(**true, true_ratio=genant_ratio(heights).ravel())


def true_heights(table):
    return table[[f"true_{h}_mm" for h in HEIGHTS]].to_numpy()


def read_as(table, heights_mm, sd_mm=0.5, ratio_sd=0.03):
    """The pairs of a reader who finds every vertebra and measures these heights (n, 3)."""
    ratio = genant_ratio(heights_mm)
    low, high = np.array([ratio_interval(g, ratio_sd) for g in ratio]).T
    read = table.assign(
        found=True,
        center_error_mm=1.0,
        score=0.9,
        ratio=ratio,
        ratio_sd=ratio_sd,
        ratio_low=low,
        ratio_high=high,
        probability_moderate=[probability_at_most(0.74, g, ratio_sd) for g in ratio],
        **{f"{h}_mm": heights_mm[:, i] for i, h in enumerate(HEIGHTS)},
        **{f"{h}_sd_mm": sd_mm for h in HEIGHTS},
    )
    return with_scan_ratio(read)


def with_scan_ratio(pairs):
    return pairs.assign(scan_ratio=pairs.groupby("scan").ratio.transform("min"))


def perfect(table):
    return read_as(table, true_heights(table))


def noisy(table, sd_mm=1.0, seed=1):
    noise = np.random.default_rng(seed).normal(0, sd_mm, (len(table), 3))
    return read_as(table, true_heights(table) + noise)


def random(table, seed=1):
    """Heights of vertebrae drawn from all: the right distribution, and nothing known of any of them."""
    order = np.random.default_rng(seed).permutation(len(table))
    return read_as(table, true_heights(table)[order])


MEASURED = (
    "ratio",
    "center_error_mm",
    "score",
    "probability_moderate",
    "ratio_low",
    "ratio_high",
    "ratio_sd",
)


def missing(pairs, rows):
    """The pairs without the detections of these rows."""
    columns = [*MEASURED, *(f"{h}_mm" for h in HEIGHTS), *(f"{h}_sd_mm" for h in HEIGHTS)]
    pairs = pairs.copy()
    pairs.loc[rows, columns] = np.nan
    pairs.loc[rows, "found"] = False
    return with_scan_ratio(pairs)


def with_false(pairs, scans, ratio):
    """The pairs with a false detection of this G in each of these scans."""
    of_scan = pairs.drop_duplicates("scan").set_index("scan", drop=False).loc[list(scans)]
    truth = [name for name in pairs if name.startswith("true_")]
    false = of_scan.assign(is_false=True, found=False, level=None, ratio=ratio, center_error_mm=np.nan)
    false[truth] = np.nan
    return with_scan_ratio(pd.concat([pairs, false], ignore_index=True))


def numbered(pairs):
    """With `who`, as `evaluate` prepares it."""
    return pairs.assign(who=pd.factorize(pairs.patient, sort=True)[0])
