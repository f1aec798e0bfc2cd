"""Six keypoints of a vertebra to its heights, Genant's ratio, grade and shape (paper, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vfscreen.curve import SpineCurve
from vfscreen.study import Detection, Vertebra, cranial_first
from vfscreen.volume import Floats

MILD, MODERATE, SEVERE = 0.8, 0.74, 0.6  # the largest G of each grade
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
    ratio: Floats = np.divide(smallest, largest, out=np.full(smallest.shape, np.nan), where=largest > 0)
    return ratio


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


def measure(detections: Sequence[Detection], curve: SpineCurve) -> tuple[Vertebra, ...]:
    """The vertebrae of one study, cranial first.

    Keypoints on the mid-sagittal sheet (s, p) are mapped to the patient by the curve, and heights
    are distances there: a sheet is stretched where the spine bends. Raises ValueError for
    keypoints that are not finite or coincide.
    """
    return tuple(_vertebra(detection, curve) for detection in cranial_first(detections))


def _vertebra(detection: Detection, curve: SpineCurve) -> Vertebra:
    if not np.isfinite(detection.keypoints).all():
        raise ValueError("a detected vertebra has keypoints that are not finite")
    sheet = np.column_stack([detection.keypoints, np.zeros(len(detection.keypoints))])
    keypoints = curve.to_patient(sheet)
    heights = heights_mm(keypoints)
    ratio = float(genant_ratio(heights))
    return Vertebra(keypoints, heights, ratio, grade(ratio), shape(heights), detection.score)
