"""What travels between the stages: a study found, a study read, a study measured."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import overload

import numpy as np

from vfscreen.errors import StudyError
from vfscreen.volume import Floats, Volume

KEYPOINTS = (
    "anterior_superior",
    "anterior_inferior",
    "middle_superior",
    "middle_inferior",
    "posterior_superior",
    "posterior_inferior",
)
"""The order of the six keypoints of a vertebra in every array of keypoints."""

HEIGHTS = ("anterior", "middle", "posterior")

LEVELS = (*(f"C{i}" for i in range(1, 8)), *(f"T{i}" for i in range(1, 14)), *(f"L{i}" for i in range(1, 7)))
"""From cranial to caudal, with T13 and L6, which few people have."""
USUAL_LEVELS = tuple(level for level in LEVELS if level not in ("T13", "L6"))


@dataclass(frozen=True, slots=True)
class PackedPaths(Sequence[Path]):
    """Paths that are made when they are asked for: an archive has a hundred million of them."""

    folders: tuple[tuple[Path, int], ...]  # each with the number of its files
    names: bytes

    @classmethod
    def of(cls, paths: Sequence[Path]) -> PackedPaths:
        """The same paths in the same order."""
        names = "/".join(path.name for path in paths)
        folders = ((folder, len(list(files))) for folder, files in groupby(path.parent for path in paths))
        return cls(tuple(folders), zlib.compress(os.fsencode(names), 1))

    def __iter__(self) -> Iterator[Path]:
        """Make them."""
        names = iter(os.fsdecode(zlib.decompress(self.names)).split("/"))
        for folder, count in self.folders:
            for name in islice(names, count):
                yield folder / name

    def __len__(self) -> int:
        """Their number."""
        return sum(count for _, count in self.folders)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Path]: ...
    def __getitem__(self, place: int | slice) -> Path | Sequence[Path]:
        """One of them, or some."""
        return tuple(self)[place]


@dataclass(frozen=True)
class StudyFiles:
    """A study found by `discover`: the files of the one series to screen, or why there is none.

    A file of many frames stands in `files` once for each frame that is used; `frames` then numbers them.
    """

    study_id: str
    source: str  # path relative to the input, as `studies.source` shows it
    files: Sequence[Path]
    patient_id: str | None = None  # from the manifest; otherwise the header's
    error: StudyError | None = None
    frames: tuple[int, ...] = ()
    choice: str | None = None  # why this series was chosen
    stamp: str = ""  # digest of the files' names, sizes and times: another one is another study


@dataclass(frozen=True)
class StudyHeader:
    """The part of the headers that results may show: linking keys and geometry, nothing else."""

    patient_id: str | None = None
    study_date: str | None = None  # YYYY-MM-DD
    series_uid: str | None = None
    n_slices: int | None = None
    slice_spacing_mm: float | None = None
    pixel_spacing_mm: float | None = None
    widest_step_mm: float | None = None  # from slice to slice, where they are not evenly spaced


@dataclass(frozen=True)
class SourceImages:
    """The DICOM instances that a study was read from, as a DICOM SR refers to them: UIDs, and a time."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    frame_of_reference_uid: str
    instance_uids: tuple[str, ...]
    study_time: str = ""  # as DICOM writes it


@dataclass(frozen=True)
class StudyImage:
    """A study read by a reader: the volume, the header's linking keys and, where asked for, the instances."""

    volume: Volume
    header: StudyHeader
    images: SourceImages | None = None


@dataclass(frozen=True)
class Detection:
    """One vertebra on the straightened sheet (paper, section 3.3).

    `keypoints` is (6, 2): (along the curve to caudal, to posterior) in mm of the sheet, ordered
    as `KEYPOINTS`; `score` is the objectness, 0 to 1.
    """

    keypoints: Floats
    score: float


@dataclass(frozen=True)
class Removed:
    """A detection that is not counted, and why; `unconfirmed` when the second look did not see it."""

    detection: Detection
    reason: str
    unconfirmed: bool = False


def cranial_first(detections: Sequence[Detection]) -> list[Detection]:
    """Detections by the mean of their keypoints along the curve: the order of every list of them."""
    return sorted(detections, key=along_mm)


def along_mm(detection: Detection) -> float:
    """The mean of a detection's keypoints along the curve."""
    return float(detection.keypoints[:, 0].mean())


@dataclass(frozen=True)
class Refined:
    """One vertebra after the second look: keypoints (6, 3) in LPS mm, and standard deviations.

    `height_sd_mm` is (3,), anterior, middle and posterior.
    """

    keypoints_mm: Floats
    height_sd_mm: Floats
    genant_ratio_sd: float
    has_metal: bool = False


@dataclass(frozen=True)
class Vertebra:
    """One measured vertebra: keypoints (6, 3) in LPS mm, heights (3,) in mm, Genant's ratio.

    The standard deviations are those of the second look, None without it; `doubts` names what may be
    wrong with this vertebra.
    """

    keypoints_mm: Floats
    heights_mm: Floats
    genant_ratio: float
    grade: str  # normal, mild, moderate, severe
    shape: str  # normal, wedge, biconcave, crush
    score: float
    height_sd_mm: Floats | None = None
    genant_ratio_sd: float | None = None
    doubts: tuple[str, ...] = ()

    @property
    def center_mm(self) -> Floats:
        """Mean of the six keypoints, LPS mm, (3,)."""
        return np.asarray(self.keypoints_mm.mean(0))


@dataclass(frozen=True)
class Doubt:
    """Something that may be wrong with a result; `partial` when it makes the study incomplete."""

    name: str
    reason: str
    partial: bool = False


@dataclass(frozen=True)
class StudyResult:
    """What was measured in one study, cranial vertebra first."""

    header: StudyHeader
    status: str  # ok, partial
    vertebrae: tuple[Vertebra, ...] = ()
    curve_mm: Floats = field(default_factory=lambda: np.empty((0, 3)))
    doubts: tuple[Doubt, ...] = ()

    @property
    def min_genant_ratio(self) -> float | None:
        """The smallest G of the study (paper: the grade of a patient); None without vertebrae."""
        return min((v.genant_ratio for v in self.vertebrae), default=None)
