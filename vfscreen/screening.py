"""One study through all stages, in this process: for a notebook, and the end of every study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfscreen import quality
from vfscreen.curve import SpineCurve
from vfscreen.detect import detect
from vfscreen.localize import localize, localizer_input
from vfscreen.measure import measure
from vfscreen.readers import read_volume
from vfscreen.settings import Settings
from vfscreen.straighten import Sheet, straighten
from vfscreen.study import Detection, StudyHeader, StudyResult
from vfscreen.volume import Volume

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models


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
    curve = localize([localizer_input(volume, settings.localize)], models.localizer, settings.localize)[0]
    if not isinstance(curve, SpineCurve):
        raise curve
    sheet = straighten(volume, curve, settings.straighten)
    detections = detect([sheet], models.detector, settings.detect)[0]
    slice_spacing = float(volume.canonical().geometry.voxel_sizes_mm[0])
    return finish(StudyHeader(slice_spacing_mm=slice_spacing), sheet, detections, settings)[0]


def finish(
    header: StudyHeader, sheet: Sheet, detections: Sequence[Detection], settings: Settings
) -> tuple[StudyResult, tuple[Detection, ...]]:
    """The result of a study from its detections, and those detections that were measured."""
    kept = quality.trusted(sheet, detections, settings.quality)
    found = quality.doubts(header, sheet, kept, settings.quality)
    status = "partial" if any(doubt.partial for doubt in found) else "ok"
    vertebrae = measure(kept, sheet.curve)
    return StudyResult(header, status, vertebrae, sheet.curve.points_mm, found), kept


def _shipped_models() -> Models:
    from vfscreen.networks.weights import load_models  # torch, which readers must not load

    return load_models()
