"""A reference of vertebra masks: NIfTI label maps, or one file a vertebra, measured body by body.

Numbers of labels: those that a file names itself (`vertebrae_T12`, in the header extension that
TotalSegmentator writes); else, with a label above 28, those of TotalSegmentator 2, task `total` (27 L5 to
50 C1); else those of VerSe (Sekuboyina et al., Med Image Anal 2021): 1 C1 to 24 L5, 25 L6, 28 T13.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from vfscreen.errors import InputError, StudyError
from vfscreen.evaluation.matching import is_whole
from vfscreen.evaluation.reference.bodies import body_keypoints
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy, of_keypoints
from vfscreen.evaluation.reference.names import without_endings
from vfscreen.readers import nifti
from vfscreen.settings import ReadSettings
from vfscreen.study import LEVELS, USUAL_LEVELS, StudyFiles
from vfscreen.volume import Floats, Volume, VolumeGeometry

NOT_COUNTED = {f"C{i}" for i in range(1, 7)}  # vfscreen screens from C7 down
VERSE = {**dict(enumerate(USUAL_LEVELS, start=1)), 25: "L6", 28: "T13"}
TOTAL_SEGMENTATOR = dict(zip(range(50, 26, -1), USUAL_LEVELS, strict=True))
LARGEST_LABEL = 255
ONE_VERTEBRA = re.compile(rf"vertebrae_({'|'.join(LEVELS)})\.nii(\.gz)?")
NAMED = re.compile(r'Key="(\d+)"[^>]*>\s*<!\[CDATA\[vertebrae_([CTL]\d+)\]\]>')


@dataclass(frozen=True)
class _Vertebra:
    """One mask (z, y, x) within a margin of empty voxels, and its grid."""

    level: str
    mask: NDArray[np.bool_]
    geometry: VolumeGeometry

    def middle_mm(self) -> Floats:
        """Mean of the voxels, LPS."""
        return np.asarray(self.geometry.to_patient(np.argwhere(self.mask).mean(0)))

    def front_mm(self) -> Floats:
        """Mean of the foremost half of the voxels: near the body's middle, also of a cut vertebra."""
        points = self.geometry.to_patient(np.argwhere(self.mask).astype(float))
        return np.asarray(points[points[:, 1] <= np.median(points[:, 1])].mean(0))


def find_masks(folder: Path) -> dict[Path, list[Path]]:
    """The mask files by study: a label map is a study's own, files of one vertebra belong to their folder's.

    Where there are files of one vertebra, or some that end in `_msk` as VerSe's do, the others are images.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(nifti.SUFFIXES)]
    marked = [path for path in files if path.name.split(".nii")[0].endswith("_msk")]
    studies: dict[Path, list[Path]] = defaultdict(list)
    for path in marked or files:
        if ONE_VERTEBRA.fullmatch(path.name):
            studies[path.parent].append(path)
        else:
            studies[path].append(path)
    split = {name: paths for name, paths in studies.items() if name.is_dir()}
    return split or dict(studies)


def read_masks(folder: Path) -> Reference:
    """The vertebrae of every study below a folder, measured from their masks.

    Raises InputError where a file cannot be read or is no label map.
    """
    studies = []
    for name, files in find_masks(folder).items():
        try:
            studies.append(replace(_study(name, files), source=_source(folder, name)))
        except StudyError as error:
            raise InputError(f"{name}: {error}") from error
    return Reference("vertebra masks", folder, tuple(studies))


def _source(folder: Path, name: Path) -> str:
    """The study's name: without what ends the names of masks, and without TotalSegmentator's folder."""
    path = name.parent if name.name == "segmentations" and name != folder else name
    return without_endings(path.relative_to(folder).as_posix() if path != folder else folder.resolve().name)


def _study(name: Path, files: Sequence[Path]) -> ReferenceStudy:
    vertebrae: list[_Vertebra] = []
    for path in files:
        volume = nifti.read(StudyFiles(path.name, path.name, (path,)), ReadSettings()).volume.canonical()
        levels = _levels(path, volume)
        vertebrae += _cut_out(volume, levels)
    if not vertebrae:
        raise InputError(
            f"{name} holds no label of a vertebra, of VerSe or of TotalSegmentator 2; leave it out"
        )
    vertebrae.sort(key=lambda each: LEVELS.index(each.level))
    _check_order(name, vertebrae)
    return replace(_measured(vertebrae, volume.geometry), slice_mm=float(volume.geometry.voxel_sizes_mm[0]))


def _levels(path: Path, volume: Volume) -> Mapping[int, str]:
    """Which label is which level."""
    if volume.hu.min() < 0 or volume.hu.max() > LARGEST_LABEL:
        raise InputError(
            f"{path} is no label map: its values run from {volume.hu.min()} to {volume.hu.max()}"
        )
    alone = ONE_VERTEBRA.fullmatch(path.name)
    if alone:
        return {int(volume.hu.max()): alone[1]}
    named = _named(path)
    if not named and len(np.unique(volume.hu)) == 2:  # with the background
        raise InputError(
            f"{path} has one label only, {volume.hu.max()}, for all vertebrae; give each its own number, as "
            "VerSe or TotalSegmentator do, or write one file vertebrae_LEVEL.nii.gz each"
        )
    return named or (TOTAL_SEGMENTATOR if volume.hu.max() > max(VERSE) else VERSE)


def _named(path: Path) -> Mapping[int, str]:
    """The levels that the file's own header extension names."""
    header = nibabel.load(path).header
    texts = [each.get_content() for each in getattr(header, "extensions", [])]
    joined = " ".join(
        text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts
    )
    return {int(number): level for number, level in NAMED.findall(joined) if level in LEVELS}


def _cut_out(volume: Volume, levels: Mapping[int, str]) -> Iterator[_Vertebra]:
    for number, box in enumerate(find_objects(volume.hu), start=1):
        if box is not None and number in levels:
            affine = volume.geometry.affine.copy()
            affine[:3, 3] = volume.geometry.to_patient(np.array([side.start - 1.0 for side in box]))
            mask = np.pad(volume.hu[box] == number, 1)
            yield _Vertebra(levels[number], mask, VolumeGeometry(mask.shape, affine))


def _check_order(name: Path, vertebrae: Sequence[_Vertebra]) -> None:
    heights = [each.middle_mm()[2] for each in vertebrae]
    if (np.diff(heights) >= 0).any():
        raise InputError(
            f"{name}: the vertebrae do not follow one another from cranial to caudal, so its labels are not "
            "those of VerSe or TotalSegmentator 2; renumber them, or write one file vertebrae_LEVEL.nii.gz"
        )


def _measured(vertebrae: Sequence[_Vertebra], geometry: VolumeGeometry) -> ReferenceStudy:
    """Bodies that the image shows whole count; all others are there."""
    middles = np.array([each.middle_mm() for each in vertebrae]).reshape(-1, 3)
    whole, levels, others = [], [], []
    for i, each in enumerate(vertebrae):
        keypoints = body_keypoints(each.mask, each.geometry, _caudal(middles, i))
        if keypoints is None:
            others.append(each.front_mm())
        elif each.level in NOT_COUNTED or not is_whole(geometry, keypoints[None])[0]:
            others.append(keypoints.mean(0))
        else:
            whole.append(keypoints)
            levels.append(each.level)
    return of_keypoints(np.array(whole).reshape(-1, 6, 3), np.array(others), tuple(levels))


def _caudal(middles_mm: Floats, i: int) -> Floats:
    """The direction of the spine at vertebra i, from its neighbours; down the body where it has none."""
    if len(middles_mm) == 1:
        return np.array([0.0, 0.0, -1.0])
    return np.asarray(middles_mm[min(i + 1, len(middles_mm) - 1)] - middles_mm[max(i - 1, 0)])
