"""CT with expert annotation: found, read once, and kept as arrays from which samples are cut."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from vfscreen.errors import InconsistentGeometry, InputError, StudyError, TooShort, UnreadableFile
from vfscreen.localize import localizer_input
from vfscreen.measure import MODERATE, genant_ratio, heights_mm
from vfscreen.readers import read_study
from vfscreen.readers.common import cause
from vfscreen.readers.dicom_fields import FOREIGN_ERRORS
from vfscreen.readers.dicom_headers import looks_like_dicom
from vfscreen.settings import LocalizeSettings, ReadSettings
from vfscreen.study import StudyFiles
from vfscreen.training.annotation import (
    MIN_VERTEBRAE,
    Annotation,
    annotation_files,
    consensus,
    keypoints_mm,
    read_annotation,
    unmatched,
)
from vfscreen.volume import Floats, Volume, VolumeGeometry

log = logging.getLogger(__name__)

_Made = TypeVar("_Made")

REACH_MM = np.array([40.0, 45.0, 45.0])  # x, y, z round the annotated points: what samples are cut from
TAGS = ["SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient"]


@dataclass(frozen=True)
class AnnotatedStudy:
    """One study: what each expert saw, (n, 6, 3) LPS mm, cranial first, and its CT in two files.

    `column` is the CT round the annotated spine, `coarse` all of it at the localizer's 3 mm, between
    the first and the last annotated vertebra. Both stay on disk and are mapped into memory.
    """

    name: str
    readings: tuple[Floats, ...]
    column_file: Path
    column_affine: Floats
    coarse_file: Path
    coarse_affine: Floats

    def column(self) -> Volume:
        """The CT round the spine, as it was scanned."""
        return _mapped(self.column_file, self.column_affine)

    def coarse(self) -> Volume:
        """Planes to cranial, rows to posterior, columns to the left, 3 mm apart."""
        return _mapped(self.coarse_file, self.coarse_affine)

    @cached_property
    def consensus(self) -> Floats:
        """The vertebrae as the experts see them together, (n, 6, 3)."""
        return consensus(self.readings)

    @property
    def deformed(self) -> int:
        """How many vertebrae are moderately or severely deformed."""
        return int((genant_ratio(heights_mm(self.consensus)) <= MODERATE).sum())

    def doubtful(self, reading: Floats) -> Floats:
        """Vertebrae (m, 6, 3) that are there or may be, but not in a reading (n, 6, 3).

        Those that only other experts annotated, and one beyond each end, where an expert went no further.
        """
        up, down = (reading[:2].mean(1), reading[:-3:-1].mean(1))
        ends = np.stack([reading[0] + up[0] - up[1], reading[-1] + down[0] - down[1]])
        return np.concatenate([unmatched(self.consensus, reading), ends])


def load_studies(dicom: Path, annotation: Path, cache: Path) -> list[AnnotatedStudy]:
    """The studies that have both an annotation and images, read at the first call, then from `cache`.

    A study without usable images is warned of and left out. Raises InputError where no study is
    left, or where a file of `annotation` is none.
    """
    return with_images(dicom, annotation, lambda _, one: _load(one, dicom, cache))


def with_images(dicom: Path, annotation: Path, make: Callable[[Path, Annotation], _Made]) -> list[_Made]:
    """What `make` gives of each file of `annotation`, and what is in it, where the study has usable images.

    Where it raises StudyError, the study is warned of and left out. Raises InputError as `load_studies`.
    """
    if not dicom.is_dir():
        raise InputError(
            f"{dicom} is no folder; the one that holds the annotated studies' folders is expected"
        )
    files = annotation_files(annotation)
    made = []
    for path in files:
        one = read_annotation(path)
        try:
            made.append(make(path, one))
        except StudyError as error:
            log.warning("%s is left out: %s", one.name, error)
    if not made:
        raise InputError(
            f"{dicom} holds the images of none of the {len(files)} studies of {annotation}; "
            f"folders named as in the annotation are expected there, such as {dicom / one.folder}"
        )
    log.info("%d of %d annotated studies have images", len(made), len(files))
    return made


def _load(annotation: Annotation, dicom: Path, cache: Path) -> AnnotatedStudy:
    cache.mkdir(parents=True, exist_ok=True)
    facts = cache / f"{annotation.name}-{annotation.digest[:12]}.json"
    if not facts.exists():
        _store(annotation, dicom, facts)
    content = json.loads(facts.read_text())
    column, coarse = _array_files(facts)
    readings = tuple(np.array(reading) for reading in content["readings"])
    affines = [np.array(content[name]) for name in ("column", "coarse")]
    return AnnotatedStudy(annotation.name, readings, column, affines[0], coarse, affines[1])


def _store(annotation: Annotation, dicom: Path, facts: Path) -> None:
    """Read a study's CT and write what samples need of it; the facts last, so that they are never half."""
    if not annotation.readings:
        raise TooShort(f"no expert annotated {MIN_VERTEBRAE} vertebrae or more")
    files = series_files(dicom / annotation.folder, annotation.series_uid)
    as_annotated = ReadSettings(max_gap_mm=0.0)  # the annotation counts slices: none may be resampled
    volume = read_study(StudyFiles(annotation.name, annotation.name, tuple(files)), as_annotated).volume
    readings = [keypoints_mm(reading, volume.geometry) for reading in annotation.readings.values()]
    points = np.concatenate(readings).reshape(-1, 3)
    column, coarse = volume.around(points, REACH_MM), coarse_between(volume, points)
    for path, part in zip(_array_files(facts), (column, coarse), strict=True):
        np.save(path, part.hu)
    content = {
        "column": column.geometry.affine.tolist(),
        "coarse": coarse.geometry.affine.tolist(),
        "readings": [reading.tolist() for reading in readings],
    }
    temporary = facts.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, facts)
    log.info("%s is read", annotation.name)


def series_files(folder: Path, series_uid: str) -> list[Path]:
    """The files of a series anywhere below a folder, by InstanceNumber, which runs to caudal.

    Raises UnreadableFile where there are none, and InconsistentGeometry where the numbers do not
    run so: indices of the annotation would lead elsewhere.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and looks_like_dicom(path):
            header = _header(path)
            if _bare(str(header.get("SeriesInstanceUID"))) == _bare(series_uid):
                found.append((path, header.get("InstanceNumber"), header.get("ImagePositionPatient")))
    if not found:
        raise UnreadableFile(f"no image of series {series_uid} lies in {folder}")
    try:
        found.sort(key=lambda each: int(each[1]))
        heights = [float(position[2]) for _, _, position in found]
    except (TypeError, ValueError, IndexError) as error:
        raise InconsistentGeometry("a slice has no InstanceNumber or no position") from error
    if (np.diff(heights) >= 0).any():
        raise InconsistentGeometry(
            "InstanceNumber does not run from cranial to caudal, as the z of the annotation does"
        )
    return [path for path, _, _ in found]


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{path.name} cannot be read as DICOM ({cause(error)})") from error


def coarse_between(volume: Volume, points_mm: Floats) -> Volume:
    """The CT at the localizer's resolution, planes between the highest and the lowest point, int16 HU."""
    seen = localizer_input(volume, LocalizeSettings())
    z = plane_heights(seen.geometry)[: seen.depth]
    inside = np.flatnonzero((z > points_mm[:, 2].min()) & (z < points_mm[:, 2].max()))
    hu = unwindowed(seen.image[inside[0] : inside[-1] + 1])
    affine = seen.geometry.affine.copy()
    affine[:3, 3] += inside[0] * affine[:3, 0]
    return Volume(hu, VolumeGeometry(hu.shape, affine))


def plane_heights(geometry: VolumeGeometry) -> Floats:
    """z of the planes of a grid along LPS, mm."""
    return np.asarray(geometry.affine[2, 3] + geometry.affine[2, 0] * np.arange(geometry.shape[0]))


def unwindowed(image: NDArray[np.float32]) -> NDArray[np.int16]:
    """HU of what `localize.window` gave, so that noise can be added to it."""
    limit = 1 - 1e-6
    return np.rint(50 + 250 * np.arctanh(np.clip(image, -limit, limit, dtype=float))).astype(np.int16)


def _array_files(facts: Path) -> Sequence[Path]:
    return [facts.with_suffix(f".{name}.npy") for name in ("column", "coarse")]


def _mapped(path: Path, affine: Floats) -> Volume:
    hu = np.load(path, mmap_mode="r")
    return Volume(hu, VolumeGeometry(hu.shape, affine))


def _bare(uid: str) -> str:
    """A UID as some writers leave it ends in a dot or in zero bytes."""
    return uid.strip(" \0.")
