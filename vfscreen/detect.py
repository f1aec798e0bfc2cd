"""Detect: the straightened sheet to vertebrae with six keypoints each (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vfscreen.networks import anchors
from vfscreen.settings import DetectSettings
from vfscreen.straighten import Sheet
from vfscreen.study import Detection, cranial_first
from vfscreen.volume import AIR_HU, Floats

PADDING = 64  # rows are padded to multiples of it, so that studies of like length share a batch
AGREEING_IOU = 0.6  # of boxes that are averaged with the one kept


class DetectorNetwork(Protocol):
    """Normalised sheets (n, rows, columns) to objectness logits and offsets (see `networks.detector`)."""

    def __call__(self, images: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Objectness (n, 16, h, w) and offsets (n, 16, 12, h, w) of a batch."""
        ...


def normalise(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU to about zero mean and unit variance over bone and soft tissue; the same for every study."""
    return (np.clip(hu, -600, 1400) - np.float32(150)) / np.float32(300)


def padded(image: NDArray[np.float32], shift: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
    """The sheet in air, moved by (rows, columns) < 16: rows are a multiple of `PADDING`, columns of 16."""
    sides = []
    for n, move, multiple in zip(image.shape, shift, (PADDING, 16), strict=True):
        sides.append((move, -(n + 16) % multiple + 16 - move))
    return np.pad(image, sides, constant_values=AIR_HU)


def detect(
    sheets: Sequence[Sheet], network: DetectorNetwork, settings: DetectSettings
) -> list[tuple[Detection, ...]]:
    """Vertebrae of each sheet, cranial first; the padded sheets of one call have equal shapes.

    The network looks at each sheet several times, moved by some pixels: what depends on where a
    vertebra lies between the cells is averaged out.
    """
    looks = [padded(sheet.image, shift) for sheet in sheets for shift in settings.looks]
    scores, offsets = network(normalise(np.stack(looks)))
    n = len(settings.looks)
    return [
        _detections(sheet, scores[i * n : (i + 1) * n], offsets[i * n : (i + 1) * n], settings)
        for i, sheet in enumerate(sheets)
    ]


def _detections(
    sheet: Sheet, logits: Floats, offsets: Floats, settings: DetectSettings
) -> tuple[Detection, ...]:
    looks = [
        _candidates(*each, settings.min_score) for each in zip(logits, offsets, settings.looks, strict=True)
    ]
    scores, keypoints = (np.concatenate(each) for each in zip(*looks, strict=True))
    found = []
    for index, agreeing in suppress(scores, keypoints, settings.max_overlap):
        mean = np.average(keypoints[agreeing], axis=0, weights=scores[agreeing] ** 2)
        found.append(Detection(sheet.to_millimetres(mean), float(scores[index])))
    return tuple(cranial_first(found))


def _candidates(
    logits: Floats, offsets: Floats, shift: tuple[int, int], min_score: float
) -> tuple[Floats, Floats]:
    """Scores (n,) and keypoints (n, 6, 2) in pixels of the sheet of all anchors above the score."""
    scores = 1 / (1 + np.exp(-np.asarray(logits, float)))
    which, row, column = np.nonzero(scores > min_score)
    centers = anchors.cell_centers(np.stack([row, column], -1))
    shifts = offsets[which, :, row, column].reshape(-1, 6, 2) * anchors.SIZES[which][:, None]
    return scores[which, row, column], centers[:, None] + shifts - np.array(shift)


def suppress(scores: Floats, keypoints: Floats, max_overlap: float) -> list[tuple[int, NDArray[np.bool_]]]:
    """Non-maximum suppression: the best of each vertebra, and the candidates that agree with it.

    Boxes overlap by the area in which they meet over the smaller area.
    """
    boxes = anchors.boxes_of(keypoints)
    area = anchors.areas(boxes)
    alive = np.ones(len(scores), bool)
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if not alive[index]:
            continue
        common = anchors.intersections(boxes[index : index + 1], boxes)[0]
        agreeing = alive & (common / (area + area[index] - common + 1e-9) > AGREEING_IOU)
        alive &= common <= max_overlap * np.minimum(area, area[index])
        alive[index] = False
        kept.append((int(index), agreeing))
    return kept
