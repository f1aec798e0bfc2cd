"""What a reference tells: the true vertebrae of studies, and by what its studies are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.distance import pdist, squareform

from vfscreen.errors import InputError
from vfscreen.evaluation.matching import MATCH_MM
from vfscreen.measure import genant_ratio, heights_mm
from vfscreen.volume import Floats

JoinedBy = Literal["position", "level", "vertebra"]


@dataclass(frozen=True)
class ReferenceStudy:
    """The whole vertebrae of one study, n of them, and others that are there but do not count, m.

    Its keys: at least one of `study_id`, `series_uid`, `source` (a file or folder) and `patient_id` is
    known. `heights_mm` (n, 3) is NaN where only G is known. `centers_mm` (n, 3) and `others_mm` (m, 3)
    are LPS; they are NaN where the reference knows no positions, and then `labels` (n,) and
    `other_labels` (m,) say which vertebra of the results each is. A detection on one of the others is
    neither found nor false.
    """

    heights_mm: Floats
    genant_ratios: Floats
    centers_mm: Floats
    others_mm: Floats
    levels: tuple[str | None, ...]
    labels: tuple[str, ...] = ()
    other_labels: tuple[str, ...] = ()
    study_id: str | None = None
    series_uid: str | None = None
    source: str | None = None
    patient_id: str | None = None
    dose: str | None = None
    slice_mm: float | None = None

    @property
    def name(self) -> str:
        """What a message and the pairs table call it."""
        return self.source or self.study_id or self.series_uid or str(self.patient_id)

    def keys(self) -> dict[str, str | None]:
        """By what the results may know it; by the patient only where nothing else is told."""
        own = {"study_id": self.study_id, "series_uid": self.series_uid, "source": self.source}
        return own if any(own.values()) else {"patient_id": self.patient_id}


def of_keypoints(keypoints: Floats, others_mm: Floats, levels: tuple[str | None, ...]) -> ReferenceStudy:
    """A study of keypoints (n, 6, 3) in LPS mm, still without keys; G is that of `vfscreen.measure`."""
    heights = heights_mm(keypoints)
    others = np.reshape(others_mm, (-1, 3))
    return ReferenceStudy(heights, genant_ratio(heights), keypoints.mean(1), others, levels)


@dataclass(frozen=True)
class Reference:
    """The truth of some studies, from `path`.

    Vertebrae are paired by position; or, where the reference knows none, by their anatomical level or
    by their number in the results.
    """

    kind: str
    path: Path
    studies: tuple[ReferenceStudy, ...]
    joined_by: JoinedBy = "position"

    def __post_init__(self) -> None:
        """Raise InputError where there is no study, or where one or a vertebra of it stands twice."""
        if not self.studies:
            raise InputError(f"{self.path} ({self.kind}) holds no study to compare with")
        for key in ("study_id", "series_uid", "source"):
            counts = Counter(getattr(study, key) for study in self.studies)
            doubled = [str(value) for value, count in counts.items() if value is not None and count > 1]
            if doubled:
                raise InputError(
                    f"{self.path} holds more than one truth of the same {key}: {', '.join(doubled[:5])}; "
                    "leave one of each"
                )
        names = Counter(study.name for study in self.studies)
        if max(names.values()) > 1:
            raise InputError(f"{self.path} calls two studies {names.most_common(1)[0][0]}; name them apart")
        for study in self.studies:
            _check_numbers(self.path, study, has_positions=self.joined_by == "position")
            _check_vertebrae(self.path, study)


def _check_numbers(path: Path, study: ReferenceStudy, has_positions: bool) -> None:
    """What is NaN would be a vertebra that no detection finds, and no message would say so."""
    needed = [study.genant_ratios]
    needed += [study.centers_mm, study.others_mm] if has_positions else []
    if not all(np.isfinite(numbers).all() for numbers in needed) or np.isinf(study.heights_mm).any():
        raise InputError(
            f"{path}: a vertebra of study {study.name} has a position, height or G that is no finite number"
        )
    if (study.genant_ratios <= 0).any() or (study.genant_ratios > 1).any():
        raise InputError(
            f"{path}: a vertebra of study {study.name} has a G that does not lie between 0 and 1"
        )
    if study.slice_mm is not None and not 0 < study.slice_mm < np.inf:
        raise InputError(f"{path}: slice_mm of study {study.name} is {study.slice_mm}; it is above 0 mm")


def _check_vertebrae(path: Path, study: ReferenceStudy) -> None:
    counts = Counter((*study.labels, *study.other_labels))
    doubled = [label for label, count in counts.items() if count > 1]
    if doubled:
        raise InputError(f"{path}: vertebra {doubled[0]} of study {study.name} stands in it twice; leave one")
    if len(study.centers_mm) < 2:
        return
    distances = squareform(pdist(study.centers_mm))
    nearest = np.where(np.eye(len(distances), dtype=bool), np.inf, distances).min(0)
    if len(nearest) > 2 and np.median(nearest) < MATCH_MM:
        raise InputError(
            f"{path}: the vertebrae of study {study.name} lie {np.median(nearest):.1f} mm apart, nearer than "
            "any do; positions are in mm"
        )
    if nearest.min() < MATCH_MM:
        raise InputError(
            f"{path}: two vertebrae of study {study.name} lie less than {MATCH_MM:.0f} mm apart; leave "
            "one reading of each vertebra"
        )
