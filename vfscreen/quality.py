"""Quality: which detections can be trusted, and what may be wrong with a study's result, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vfscreen.refine import on_sheet
from vfscreen.settings import QualitySettings
from vfscreen.straighten import Sheet
from vfscreen.study import Detection, Doubt, Refined, Removed, StudyHeader, Vertebra, along_mm
from vfscreen.volume import Floats

BAND_MM = 12.0  # half width of the vertebral bodies' column on the sheet
HEIGHTS_MM = (3.0, 45.0)  # C4 to L5, the most crushed to the tallest
DEPTHS_MM = (8.0, 55.0)
VERTEBRA_DOUBTS = {
    "uncertain": "the heights are too uncertain to tell the grade",
    "metal": "metal or cement in or near the body, heights may be those of its artefacts",
}
"""Doubts about one vertebra, `vertebrae.quality`; the study has the doubt too."""


def why_not_trusted(
    sheet: Sheet, detection: Detection, settings: QualitySettings, edge_mm: float
) -> str | None:
    """What is wrong with a detection that cannot be trusted.

    None where its vertebra is wholly in the image, with `edge_mm` round it, on the curve, and of a vertebra's
    size.
    """
    if not is_plausible(detection.keypoints):
        return "no vertebra by order and distances of its keypoints"
    if not is_on_curve(detection.keypoints, settings.off_curve_mm):
        return "beside the curve of the spine"
    if not is_whole(sheet, detection.keypoints, edge_mm):
        return "not wholly in the image"
    return None


def is_on_curve(keypoints: Floats, margin_mm: float) -> bool:
    """Whether the spine's curve passes through a vertebra or that near: spinous processes lie behind it."""
    return bool(keypoints[:, 1].min() - margin_mm < 0 < keypoints[:, 1].max() + margin_mm)


def is_plausible(keypoints: Floats) -> bool:
    """Whether keypoints (6, 2) in mm of the sheet stand in anatomical order at possible distances."""
    heights = keypoints[1::2, 0] - keypoints[0::2, 0]
    depths = keypoints[4:, 1] - keypoints[:2, 1]
    middle = keypoints[2:4, 1]
    ordered = (middle > keypoints[:2, 1]).all() and (middle < keypoints[4:, 1]).all()
    return bool(ordered and _all_within(heights, HEIGHTS_MM) and _all_within(depths, DEPTHS_MM))


def _all_within(values: Floats, limits: tuple[float, float]) -> bool:
    return bool(((values > limits[0]) & (values < limits[1])).all())


def is_whole(sheet: Sheet, keypoints: Floats, edge_mm: float) -> bool:
    """Whether the image shows each keypoint (6, 2), that much round it, and the body to both sides there."""
    steps = edge_mm * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    row, column = np.moveaxis(np.rint(sheet.to_pixels(keypoints[:, None] + steps)).astype(int), -1, 0)
    rows, columns = sheet.inside.shape
    if row.min() < 0 or column.min() < 0 or row.max() >= rows or column.max() >= columns:
        return False
    return bool(sheet.inside[row, column].all())


Confirmed = tuple[Detection, Refined]


def agreeing(
    sheet: Sheet, detections: Sequence[Detection], refined: Sequence[Refined], settings: QualitySettings
) -> tuple[list[Confirmed], list[Removed]]:
    """Detections that the second look confirms, with its keypoints on the sheet, and those that it does not.

    Not confirmed is what moved far or is no vertebra any more. Left out without a doubt is what turns
    out to be cut by the image, or came to a vertebra that a detection of higher score has taken.
    """
    pairs: list[Confirmed] = []
    removed: list[Removed] = []
    for detection, look in sorted(zip(detections, refined, strict=True), key=lambda p: -p[0].score):
        moved = _as_seen(sheet, detection, look, settings)
        if moved is None:
            removed.append(Removed(detection, "not confirmed by the second look", unconfirmed=True))
            continue
        middle = moved.keypoints.mean(0)
        apart = [np.linalg.norm(middle - other.keypoints.mean(0)) for other, _ in pairs]
        reason = why_not_trusted(sheet, moved, settings, settings.edge_mm)
        if min(apart, default=np.inf) < settings.min_apart_mm:
            reason = "the vertebra of a detection with a higher score"
        if reason is None:
            pairs.append((moved, look))
        else:
            removed.append(Removed(detection, reason))
    return sorted(pairs, key=lambda pair: along_mm(pair[0])), removed


def _as_seen(
    sheet: Sheet, detection: Detection, look: Refined, settings: QualitySettings
) -> Detection | None:
    """The detection with the keypoints of the second look; None where that saw something else."""
    try:
        moved = replace(detection, keypoints=on_sheet(look, sheet.curve))
    except ValueError:  # far from the curve
        return None
    distance = np.linalg.norm(moved.keypoints.mean(0) - detection.keypoints.mean(0))
    return moved if distance <= settings.max_move_mm and is_plausible(moved.keypoints) else None


def second_look_doubts(vertebrae: Sequence[Vertebra], unconfirmed: int) -> tuple[Doubt, ...]:
    """What the second look doubts: vertebrae that it does not confirm, or cannot measure well.

    All of it makes a study `partial`, since any such vertebra may be a fracture.
    """
    found = []
    if unconfirmed:
        why = f"{unconfirmed} of the vertebrae detected were not confirmed and left out"
        found.append(Doubt("second_look_disagrees", why, partial=True))
    for name, why in VERTEBRA_DOUBTS.items():
        n = sum(name in v.doubts for v in vertebrae)
        if n:
            found.append(Doubt(name, f"{n} of {len(vertebrae)} vertebrae: {why}", partial=True))
    return tuple(found)


def doubts(
    header: StudyHeader, sheet: Sheet, kept: Sequence[Detection], settings: QualitySettings
) -> tuple[Doubt, ...]:
    """What may be wrong with a study; `partial` where a fracture could have been missed for it."""
    checks = (
        _edge(sheet, settings),
        _few(kept, settings),
        _gap(kept, settings),
        _end(sheet, kept, settings),
        _thick(header, settings),
        _uneven(header, settings),
    )
    return tuple(doubt for doubt in checks if doubt)


def _edge(sheet: Sheet, settings: QualitySettings) -> Doubt | None:
    columns = np.arange(sheet.image.shape[1])
    p = sheet.to_millimetres(np.column_stack([np.zeros_like(columns), columns]))[:, 1]
    share = float(sheet.inside[:, np.abs(p) < BAND_MM].mean())
    if share >= settings.min_column_inside:
        return None
    return Doubt(
        "spine_at_edge",
        f"the image ends in or beside the spine: it shows {share:.0%} of the vertebral bodies' column",
        partial=True,
    )


def _few(kept: Sequence[Detection], settings: QualitySettings) -> Doubt | None:
    if len(kept) >= settings.min_vertebrae:
        return None
    reason = f"only {len(kept)} whole vertebra{'e' * (len(kept) > 1)} could be measured"
    if not kept:
        reason = "no whole vertebra could be measured: the image ends in the spine or does not show it"
    return Doubt("few_vertebrae", reason, partial=True)


def _gap(kept: Sequence[Detection], settings: QualitySettings) -> Doubt | None:
    steps = np.diff([along_mm(d) for d in kept])
    if len(steps) < 3 or steps.max() <= settings.max_step * np.median(steps):
        return None
    above = int(steps.argmax()) + 1
    return Doubt(
        "vertebra_missed",
        f"{steps.max():.0f} mm lie between vertebrae {above} and {above + 1}: one may have been missed",
        partial=True,
    )


def _end(sheet: Sheet, kept: Sequence[Detection], settings: QualitySettings) -> Doubt | None:
    if len(kept) < settings.min_vertebrae:
        return None  # which is doubt enough
    above = float(kept[0].keypoints[:, 0].min())
    below = sheet.curve.length_mm - float(kept[-1].keypoints[:, 0].max())
    if max(above, below) <= settings.max_end_mm:
        return None
    where = "uppermost" if above > below else "lowest"
    return Doubt(
        "spine_end_missed",
        f"the {where} {max(above, below):.0f} mm of the spine hold no vertebra that could be measured",
        partial=True,
    )


def _thick(header: StudyHeader, settings: QualitySettings) -> Doubt | None:
    spacing = header.slice_spacing_mm
    if spacing is None or spacing <= settings.max_slice_spacing_mm:
        return None
    return Doubt("thick_slices", f"slices stand {spacing:.1f} mm apart: heights are coarse")


def _uneven(header: StudyHeader, settings: QualitySettings) -> Doubt | None:
    widest = header.widest_step_mm
    if widest is None:
        return None
    why = f"slices are missing or unevenly spaced, up to {widest:.1f} mm apart: resampled from where they are"
    return Doubt("slices_missing", why, partial=widest > settings.max_slice_spacing_mm)
