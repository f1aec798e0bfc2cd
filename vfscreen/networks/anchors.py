"""The detector's anchors: four scales by four aspect ratios at every cell (paper, section 3.3)."""

from __future__ import annotations

import numpy as np

from vfscreen.volume import Floats

SCALES_MM = (17.0, 23.0, 28.0, 35.0)
ASPECTS = (0.8, 1.1, 1.3, 2.0)  # width (antero-posterior) by height
STRIDE = 2  # pixels of the sheet to a cell of the head

SIZES = np.array([(s / np.sqrt(a), s * np.sqrt(a)) for s in SCALES_MM for a in ASPECTS])
"""Height and width of the 16 anchors, in pixels of 1 mm, (16, 2); their areas are the scales squared."""


def cell_centers(cells: Floats) -> Floats:
    """Centres of cells (..., 2) in pixels of the sheet."""
    return np.asarray(cells) * STRIDE + (STRIDE - 1) / 2


def boxes_of(keypoints: Floats) -> Floats:
    """Axis-aligned boxes (..., 4) as (top, left, bottom, right) of keypoints (..., 6, 2)."""
    return np.concatenate([keypoints.min(-2), keypoints.max(-2)], -1)


def intersections(a: Floats, b: Floats) -> Floats:
    """Areas in which boxes a (n, 4) and b (m, 4) meet, (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(-1))


def areas(boxes: Floats) -> Floats:
    """Areas of boxes (n, 4), (n,)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(-1))


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes a (n, 4) and b (m, 4), (n, m)."""
    common = intersections(a, b)
    return np.asarray(common / np.maximum(areas(a)[:, None] + areas(b)[None] - common, 1e-9))
