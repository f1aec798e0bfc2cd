"""Six keypoints of a vertebra to its heights, Genant's ratio, grade and shape (paper, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtr, stdtrit

from vfscreen.curve import SpineCurve
from vfscreen.study import Detection, Refined, Vertebra, cranial_first
from vfscreen.volume import Floats

MILD, MODERATE, SEVERE = 0.8, 0.74, 0.6  # the largest G of each grade
THRESHOLDS = {"mild": MILD, "moderate": MODERATE}
"""At or below which a vertebra counts as deformed, by the grade from which on."""
FREEDOM = 5  # degrees of freedom of Student's t, the law of the second look's errors
SPREAD_TO_SD = np.sqrt(FREEDOM / (FREEDOM - 2))  # a spread is the scale of that law
SHAPES = ("wedge", "biconcave", "crush")  # the smallest height is the anterior, middle, posterior one


def heights_mm(keypoints: Floats) -> Floats:
    """Anterior, middle and posterior height in the unit of the points.

    `keypoints` is (..., 6, 2 or 3), ordered as `study.KEYPOINTS`; the result is (..., 3). Given LPS
    mm, a height is the distance in the patient from the superior to the inferior endplate.
    """
    points = np.asarray(keypoints, float)
    return np.asarray(np.linalg.norm(points[..., 1::2, :] - points[..., 0::2, :], axis=-1))


def genant_ratio(heights_mm: Floats) -> Floats:
    """G = min(ha, hm, hp) / max(ha, hm, hp) (paper, section 2).

    `heights_mm` is (..., 3); the result is (...). NaN where a height is NaN or all three are zero.
    """
    heights = np.asarray(heights_mm, float)
    smallest, largest = heights.min(-1), heights.max(-1)
    ratio = np.divide(smallest, largest, out=np.full(smallest.shape, np.nan), where=largest > 0)
    return np.round(ratio, 12)  # 9.3 / 15.5 is 0.6000000000000001, and would not be severe


def grade(genant_ratio: float) -> str:
    """Genant's grade (paper, section 2): `normal`, `mild`, `moderate` or `severe`.

    Normal is G > 0.8, mild 0.74 < G <= 0.8, moderate 0.6 < G <= 0.74, severe G <= 0.6.
    Raises ValueError for NaN: what was not measured has no grade.
    """
    if np.isnan(genant_ratio):
        raise ValueError("a vertebra without Genant's ratio has no grade")
    if genant_ratio > MILD:
        return "normal"
    if genant_ratio > MODERATE:
        return "mild"
    return "moderate" if genant_ratio > SEVERE else "severe"


def shape(heights_mm: Floats) -> str:
    """Type of deformity of one vertebra (Genant et al., J Bone Miner Res 1993): heights (3,) in mm.

    `normal` when G > 0.8; else `wedge` when the anterior height is the smallest, `biconcave` when
    the middle, `crush` when the posterior one. On a tie the earlier of these: a vertebra whose
    front and middle sank alike is a wedge. Genant's crush is a loss against the neighbours; one
    that lowers all three heights alike has a high G and cannot be told from a small vertebra here.
    Raises ValueError for NaN.
    """
    if grade(float(genant_ratio(heights_mm))) == "normal":
        return "normal"
    return SHAPES[int(np.argmin(heights_mm))]


def ratio_interval(ratio: float, sd: float, coverage: float = 0.9) -> tuple[float, float]:
    """Ends of the interval that holds the true G with this probability: Student's t, 0 to 1."""
    reach = spreads_within(coverage) * _spread(sd)
    return max(0.0, ratio - reach), min(1.0, ratio + reach)


def spreads_within(coverage: float) -> float:
    """Within how many spreads on either side an error lies with this probability."""
    return float(stdtrit(FREEDOM, 0.5 + coverage / 2))


def probability_at_most(threshold: float, ratio: float, sd: float) -> float:
    """Probability that the true G is at or below a threshold, given a measured one and its SD."""
    return float(stdtr(FREEDOM, (threshold - ratio) / _spread(sd)))


def _spread(sd: float) -> float:
    return float(max(sd, 1e-6) / SPREAD_TO_SD)


def measure(detections: Sequence[Detection], curve: SpineCurve) -> tuple[Vertebra, ...]:
    """The vertebrae of one study by the paper's own keypoints, cranial first.

    Keypoints on the mid-sagittal sheet (s, p) are mapped to the patient by the curve, and heights
    are distances there: a sheet is stretched where the spine bends. Raises ValueError for
    keypoints that are not finite or coincide.
    """
    if not all(np.isfinite(d.keypoints).all() for d in detections):
        raise ValueError("a detected vertebra has keypoints that are not finite")
    return tuple(_vertebra(curve.sheet_to_patient(d.keypoints), d.score) for d in cranial_first(detections))


def measure_refined(
    refined: Sequence[Refined], scores: Sequence[float], max_ratio_sd: float
) -> tuple[Vertebra, ...]:
    """The vertebrae of one study by the keypoints of the second look, in their order.

    One whose G has a standard deviation above `max_ratio_sd` is doubted as `uncertain`.
    Raises ValueError for keypoints that are not finite or coincide.
    """
    if not all(np.isfinite(each.keypoints_mm).all() for each in refined):
        raise ValueError("the second look gave keypoints that are not finite")
    return tuple(
        replace(
            _vertebra(each.keypoints_mm, score),
            height_sd_mm=each.height_sd_mm,
            genant_ratio_sd=each.genant_ratio_sd,
            doubts=_doubts(each, max_ratio_sd),
        )
        for each, score in zip(refined, scores, strict=True)
    )


def _doubts(refined: Refined, max_ratio_sd: float) -> tuple[str, ...]:
    found = {"uncertain": refined.genant_ratio_sd > max_ratio_sd, "metal": refined.has_metal}
    return tuple(name for name, is_so in found.items() if is_so)


def _vertebra(keypoints_mm: Floats, score: float) -> Vertebra:
    heights = heights_mm(keypoints_mm)
    ratio = float(genant_ratio(heights))
    return Vertebra(keypoints_mm, heights, ratio, grade(ratio), shape(heights), score)
