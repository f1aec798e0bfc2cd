"""Expert annotation of CT: its files, what the experts agree on, and folds of studies.

A file names the CT's folder and series and holds, by expert, a list of vertebrae. A vertebra is
three heights of two ends each, as six points or as `{"segments": ..., "type": level}`; a point is
`[y, x, z]` in voxels of the series stacked by InstanceNumber, z to caudal. Neither the ends nor
the heights nor the vertebrae have an order that can be relied on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vfscreen.errors import InconsistentGeometry, InputError
from vfscreen.volume import Floats, VolumeGeometry

FOLDS = 5
MATCH_MM = 10.0  # between centres of the same vertebra, as two experts see it
MIN_VERTEBRAE = 3  # of a reading: fewer give no curve
OUTSIDE_MM = 2.0  # that an expert's point may lie outside the image
SHAPES = ((6, 3), (3, 2, 3))  # of a vertebra in the two versions of the format
EXPECTED = "expected Folder, SeriesInstanceUID and Annotation, six points [y, x, z] a vertebra"


@dataclass(frozen=True)
class Annotation:
    """One file: `readings` by expert, each (n, 3, 2, 3), heights of two ends [y, x, z] as stored.

    Readings of less than `MIN_VERTEBRAE` are left out.
    """

    name: str
    folder: str
    series_uid: str
    readings: Mapping[str, Floats]
    digest: str  # of the file


def annotation_files(folder: Path) -> list[Path]:
    """The annotations in a folder, one a study. Raises InputError where there are none."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{folder} holds no annotation; one .json file a study is expected")
    return files


def read_annotation(path: Path) -> Annotation:
    """The annotation of one study. Raises InputError where the file is none."""
    text = path.read_bytes()
    try:
        content = json.loads(text)
        readings = {
            str(expert): np.array([_vertebra(v) for v in vertebrae])
            for expert, vertebrae in content["Annotation"].items()
            if len(vertebrae) >= MIN_VERTEBRAE
        }
        folder, series_uid = str(content["Folder"]), str(content["SeriesInstanceUID"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no annotation ({type(error).__name__}: {error}); {EXPECTED}") from error
    return Annotation(path.stem, folder, series_uid, readings, hashlib.sha256(text).hexdigest())


def _vertebra(stored: Any) -> Floats:
    points = np.array(stored["segments"] if isinstance(stored, dict) else stored, float)
    if points.shape not in SHAPES or not np.isfinite(points).all():
        raise ValueError(f"a vertebra has points of shape {points.shape}")
    return points.reshape(3, 2, 3)


def keypoints_mm(reading: Floats, geometry: VolumeGeometry) -> Floats:
    """Stored points (n, 3, 2, 3) as keypoints (n, 6, 3) in LPS mm, ordered as `study.KEYPOINTS`.

    `geometry` is that of the series, whose InstanceNumbers run from cranial to caudal; the
    cranial vertebra comes first. Raises InconsistentGeometry for points outside the image.
    """
    y, x, z = np.moveaxis(reading, -1, 0)
    k = geometry.shape[0] - 1 - z if geometry.affine[2, 0] > 0 else z
    points = geometry.to_patient(np.stack([k, y, x], -1))
    if not geometry.contains(points, -OUTSIDE_MM).all():
        raise InconsistentGeometry("annotated points lie outside the image: it is not the annotated one")
    ends = np.argsort(-points[..., 2], axis=2)[..., None]
    points = np.take_along_axis(points, ends, 2)
    heights = np.argsort(points[..., 1].mean(2), axis=1)[:, :, None, None]
    points = np.take_along_axis(points, heights, 1)
    return np.asarray(points[np.argsort(-points[..., 2].mean((1, 2)))].reshape(-1, 6, 3))


def consensus(readings: Sequence[Floats]) -> Floats:
    """Mean over the experts of each vertebra's keypoints, (n, 6, 3), of readings (m, 6, 3), cranial first."""
    groups: list[list[Floats]] = []
    for reading in readings:
        known = list(groups)
        for vertebra in reading:
            nearest = min(known, key=lambda group: _apart(group, vertebra), default=None)
            if nearest is not None and _apart(nearest, vertebra) < MATCH_MM:
                nearest.append(vertebra)
                known = [group for group in known if group is not nearest]
            else:
                groups.append([vertebra])
    means = np.array([np.mean(group, 0) for group in groups])
    return np.asarray(means[np.argsort(-means[:, :, 2].mean(1))])


def _apart(group: list[Floats], vertebra: Floats) -> float:
    return float(np.linalg.norm(np.mean(group, (0, 1)) - vertebra.mean(0)))


def unmatched(vertebrae: Floats, reading: Floats) -> Floats:
    """Of vertebrae (n, 6, 3) those that a reading (m, 6, 3) does not hold."""
    distances = np.linalg.norm(vertebrae.mean(1)[:, None] - reading.mean(1)[None], axis=-1)
    return np.asarray(vertebrae[distances.min(1) >= MATCH_MM])


def deal_folds(deformed: Mapping[str, int], seed: int) -> list[tuple[str, ...]]:
    """Studies, given with their numbers of deformed vertebrae, in `FOLDS` folds.

    Rounds of `FOLDS` studies of falling numbers, ties shuffled, are dealt out so that the fold with
    the fewest deformed vertebrae takes the study with the most. Folds differ by one study at most, and by
    no more vertebrae than one study has. Raises InputError for fewer studies than folds.
    """
    if len(deformed) < FOLDS:
        raise InputError(
            f"{FOLDS} folds need {FOLDS} studies or more; {len(deformed)} have image and annotation"
        )
    rng = np.random.default_rng([seed, 12])
    names = [str(name) for name in rng.permutation(sorted(deformed))]
    names.sort(key=lambda name: -deformed[name])
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for start in range(0, len(names), FOLDS):
        emptiest = sorted(folds, key=lambda fold: sum(deformed[name] for name in fold))
        for fold, name in zip(emptiest, names[start : start + FOLDS], strict=False):
            fold.append(name)
    return [tuple(sorted(fold)) for fold in folds]
