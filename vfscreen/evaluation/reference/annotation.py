"""The public expert annotation with its CT: the experts' consensus, in the millimetres of the DICOM."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vfscreen.errors import TooShort
from vfscreen.evaluation.matching import is_whole
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy, of_keypoints
from vfscreen.readers import read_geometry
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles
from vfscreen.training.annotation import (
    MATCH_MM,
    MIN_VERTEBRAE,
    Annotation,
    consensus,
    keypoints_mm,
)
from vfscreen.training.studies import series_files, with_images
from vfscreen.volume import Floats

AS_ANNOTATED = ReadSettings(max_gap_mm=0.0)  # the annotation counts slices: none may be resampled
BEYOND = np.arange(1.0, 4.1, 0.5)  # vertebrae beyond the ends of the annotation
UNNAMED = ""

Levels = Mapping[str, Sequence[str]]
"""What each expert calls the vertebrae, cranial first."""


def read_annotated(annotation: Path, dicom: Path) -> Reference:
    """The consensus of each annotated study whose images lie below `dicom`; only headers are read.

    A vertebra counts that every expert annotated and the image shows whole. A study without images is
    warned of and left out. Raises InputError where no study is left, or a file is no annotation.
    """
    studies = with_images(dicom, annotation, lambda path, one: _study(one, _stored_levels(path), dicom))
    return Reference("expert annotation", annotation, tuple(studies))


def _study(annotation: Annotation, levels: Levels, dicom: Path) -> ReferenceStudy:
    if not annotation.readings:
        raise TooShort(f"no expert annotated {MIN_VERTEBRAE} vertebrae or more")
    files = series_files(dicom / annotation.folder, annotation.series_uid)
    geometry, header = read_geometry(StudyFiles(annotation.name, annotation.name, tuple(files)), AS_ANNOTATED)
    readings = {name: keypoints_mm(reading, geometry) for name, reading in annotation.readings.items()}
    vertebrae = consensus(list(readings.values()))
    called = [_calls(vertebrae, reading, levels[name]) for name, reading in readings.items()]
    seen = np.array([[call is not None for call in calls] for calls in called]).all(0)
    counted = seen & is_whole(geometry, vertebrae)
    others = np.concatenate([vertebrae[~counted].mean(1), _beyond(vertebrae.mean(1))])
    agreed = [_agreed({calls[i] for calls in called}) for i in np.flatnonzero(counted)]
    study = of_keypoints(vertebrae[counted], others, tuple(agreed))
    return replace(
        study,
        series_uid=annotation.series_uid,
        source=annotation.folder,
        slice_mm=header.slice_spacing_mm,
    )


def _stored_levels(path: Path) -> Levels:
    """The levels that the later version of the annotation names (`Th1`), as we call them (`T1`)."""
    levels = {}
    for expert, vertebrae in json.loads(path.read_bytes())["Annotation"].items():
        points = [each["segments"] if isinstance(each, dict) else each for each in vertebrae]
        order = sorted(range(len(points)), key=lambda i: np.array(points[i])[..., 2].mean())
        names = [str(each.get("type", UNNAMED)) if isinstance(each, dict) else UNNAMED for each in vertebrae]
        levels[str(expert)] = [names[i].replace("Th", "T") for i in order]
    return levels


def _calls(vertebrae: Floats, reading: Floats, levels: Sequence[str]) -> list[str | None]:
    """What one expert calls each of the vertebrae (n, 6, 3); None for those that it does not hold."""
    distances = np.linalg.norm(vertebrae.mean(1)[:, None] - reading.mean(1), axis=-1)
    held = distances.min(1) < MATCH_MM
    return [levels[i] if is_held else None for i, is_held in zip(distances.argmin(1), held, strict=True)]


def _agreed(names: set[str | None]) -> str | None:
    """The level that all experts name; None where they name none, or not the same."""
    return (names.pop() or None) if len(names) == 1 else None


def _beyond(centers_mm: Floats) -> Floats:
    """Where vertebrae may be of which the annotation says nothing: in a line with its ends.

    At half the distance of two, since the vertebrae there may be larger or smaller.
    """
    ends = ((centers_mm[0], centers_mm[0] - centers_mm[1]), (centers_mm[-1], centers_mm[-1] - centers_mm[-2]))
    return np.concatenate([end + BEYOND[:, None] * step for end, step in ends])
