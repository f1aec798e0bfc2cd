"""One study through all stages, in this process: for a notebook, and the end of every study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vfscreen import quality
from vfscreen.curve import SpineCurve
from vfscreen.detect import detect
from vfscreen.localize import LocalizerInput, localize, localizer_input
from vfscreen.measure import measure, measure_refined
from vfscreen.readers import read_volume
from vfscreen.refine import refine
from vfscreen.settings import Settings
from vfscreen.straighten import Straightened, straightened
from vfscreen.study import Detection, Removed, StudyHeader, StudyResult, cranial_first
from vfscreen.volume import Volume

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models


@dataclass(frozen=True)
class Measured:
    """A study's result, the detections of its vertebrae in their order, and those that do not count."""

    result: StudyResult
    detections: tuple[Detection, ...]
    removed: tuple[Removed, ...] = ()


def screen(
    study: str | Path | Volume, models: Models | None = None, settings: Settings | None = None
) -> StudyResult:
    """Measure one study: a folder of one DICOM series, a NIfTI file, or a Volume.

    `models` defaults to the shipped weights on the best device. Raises StudyError where the study
    cannot be measured, with the reason; the pipeline writes the same reason as a row.
    """
    settings = settings or Settings()
    models = models or _shipped_models()
    volume = study if isinstance(study, Volume) else read_volume(study)
    curve = curve_of(localizer_input(volume, settings.localize), models, settings)
    along = straightened(volume, curve, settings.straighten)
    return measure_studies([(header_of(volume), along)], models, settings)[0].result


def curve_of(reduced: LocalizerInput, models: Models, settings: Settings) -> SpineCurve:
    """The spine's curve of one study. Raises SpineNotFound."""
    (curve,) = localize([reduced], models.localizer, settings.localize)
    if not isinstance(curve, SpineCurve):
        raise curve
    return curve


def header_of(volume: Volume) -> StudyHeader:
    """What the voxels alone tell of a study, without keys."""
    return StudyHeader(slice_spacing_mm=float(volume.canonical().geometry.voxel_sizes_mm[0]))


def measure_studies(
    studies: Sequence[tuple[StudyHeader, Straightened]], models: Models, settings: Settings
) -> list[Measured]:
    """Detect, look again and measure each study.

    The padded sheets of one call have equal shapes. Without a second look (`settings.refine`) heights
    are those of the paper's keypoints.
    """
    detections = detect([study.sheet for _, study in studies], models.detector, settings.detect)
    return [
        finish(header, study, found, models, settings)
        for (header, study), found in zip(studies, detections, strict=True)
    ]


def finish(
    header: StudyHeader,
    study: Straightened,
    detections: Sequence[Detection],
    models: Models,
    settings: Settings,
) -> Measured:
    """The second look at the detections of one study, its measurements and its doubts."""
    sheet = study.sheet
    edge_mm = settings.quality.coarse_edge_mm if settings.refine.enabled else settings.quality.edge_mm
    reasons = [quality.why_not_trusted(sheet, d, settings.quality, edge_mm) for d in detections]
    removed = [Removed(d, why) for d, why in zip(detections, reasons, strict=True) if why]
    kept = tuple(cranial_first([d for d, why in zip(detections, reasons, strict=True) if not why]))
    if settings.refine.enabled:
        refined = refine(study.column, sheet.curve, kept, models.refiner, settings.refine)
        agreed, disagreed = quality.agreeing(sheet, kept, refined, settings.quality)
        kept, refined = tuple(d for d, _ in agreed), tuple(r for _, r in agreed)
        vertebrae = measure_refined(refined, [d.score for d in kept], settings.quality.max_ratio_sd)
        removed += disagreed
    else:
        vertebrae = measure(kept, sheet.curve)
    found = quality.doubts(header, sheet, kept, settings.quality)
    found += quality.second_look_doubts(vertebrae, sum(each.unconfirmed for each in removed))
    status = "partial" if any(doubt.partial for doubt in found) else "ok"
    result = StudyResult(header, status, vertebrae, sheet.curve.points_mm, found)
    return Measured(result, kept, tuple(removed))


def _shipped_models() -> Models:
    from vfscreen.networks.weights import load_models  # torch, which readers must not load

    return load_models()
