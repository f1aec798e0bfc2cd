"""What the picture of a study says in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from vfscreen.measure import MILD, MODERATE, SEVERE, grade, heights_mm, ratio_interval
from vfscreen.quality import VERTEBRA_DOUBTS
from vfscreen.report.scene import Scene, is_deformed
from vfscreen.study import Vertebra
from vfscreen.volume import Floats

GRADE_LIMITS = {
    "normal": f"normal: G > {MILD:g}",
    "mild": f"mild: {MODERATE:g} < G <= {MILD:g}",
    "moderate": f"moderate: {SEVERE:g} < G <= {MODERATE:g}",
    "severe": f"severe: G <= {SEVERE:g}",
}


def interval(vertebra: Vertebra) -> str:
    """The ends of the 90 % interval of G; empty without a second look."""
    if vertebra.genant_ratio_sd is None:
        return ""
    low, high = ratio_interval(vertebra.genant_ratio, vertebra.genant_ratio_sd)
    return f"{low:.2f} to {high:.2f}"


def heights(vertebra: Vertebra) -> str:
    """The three heights."""
    anterior, middle, posterior = vertebra.heights_mm
    return f"a {anterior:.1f}  m {middle:.1f}  p {posterior:.1f}  mm"


def findings(scene: Scene) -> list[str]:
    """What was found: the lowest G, how many are at or below the threshold, which have no crop."""
    vertebrae = scene.result.vertebrae
    if not vertebrae:
        return ["no vertebra measured"]
    ratios = [vertebra.genant_ratio for vertebra in vertebrae]
    lowest = min(ratios)
    threshold = scene.threshold
    lines = [
        f"lowest G {lowest:.3f}, {grade(lowest)}: vertebra {ratios.index(lowest) + 1} of {len(vertebrae)}",
        f"G at or below {threshold:g}: {sum(g <= threshold for g in ratios)} of {len(vertebrae)}",
    ]
    hidden = _without_crop(scene)
    return [*lines, f"deformed too, without a crop here: vertebra {_listed(hidden)}"] if hidden else lines


def doubts(scene: Scene) -> list[str]:
    """A sentence for each doubt of the study, with the numbers of the vertebrae that it is about."""
    result = scene.result
    lines = ["- " + _doubt(doubt.name, doubt.reason, result.vertebrae) for doubt in result.doubts]
    if any(doubt.partial for doubt in result.doubts):
        return ["partial, never to be read as negative:", *lines]
    return ["doubtful:", *lines] if lines else []


def doubts_of(vertebra: Vertebra) -> list[str]:
    """A sentence for each doubt of one vertebra."""
    return [VERTEBRA_DOUBTS[name] for name in vertebra.doubts]


def notes(scene: Scene) -> list[str]:
    """How to read the picture, and how far a ruler on it may be off."""
    has_intervals = any(vertebra.genant_ratio_sd is not None for vertebra in scene.result.vertebrae)
    lines = [
        "a, m, p: anterior, middle, posterior height, mm in the patient"
        + ("; behind G its 90 % interval" if has_intervals else ""),
        "crops: upright, in the plane in which the vertebra was measured",
    ]
    if not scene.result.vertebrae:
        return lines
    on_sheet = [heights_mm(detection.keypoints) for detection in scene.detections]
    true = [vertebra.heights_mm for vertebra in scene.result.vertebrae]
    seen = [heights_mm(vertebra.keypoints_mm[:, 1:]) for vertebra in scene.result.vertebrae]  # along x
    return [
        *lines,
        f"heights by a ruler are off by up to {_deviation(on_sheet, true)} on the straightened image, which "
        f"is stretched where the spine bends, and by up to {_deviation(seen, true)} on the sagittal one, "
        "where a vertebra leans to the side",
    ]


def _doubt(name: str, reason: str, vertebrae: Sequence[Vertebra]) -> str:
    numbers = [i for i, vertebra in enumerate(vertebrae, start=1) if name in vertebra.doubts]
    return f"{reason} ({_listed(numbers)})" if numbers else reason


def _without_crop(scene: Scene) -> list[int]:
    shown = {crop.number for crop in scene.crops}
    deformed = [i for i, v in enumerate(scene.result.vertebrae, 1) if is_deformed(v, scene.threshold)]
    return [number for number in deformed if number not in shown]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _deviation(shown: Sequence[Floats], true: Sequence[Floats]) -> str:
    """The largest relative difference of heights as they are seen from those in the patient, rounded up."""
    largest = max(float(np.abs(each / own - 1).max()) for each, own in zip(shown, true, strict=True))
    return f"{max(1, ceil(100 * largest - 0.01))}%"
