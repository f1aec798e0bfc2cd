"""NIfTI files -> HU and geometry.

A NIfTI file names no patient and no date, so a study read from one has only what the manifest
says. Where its header leaves the unit of length open ("unknown", as many converters write), the
affine is taken as mm, the unit of the standard's own reference frames.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import NDArray

from vfscreen.errors import MissingGeometry, UnreadableFile
from vfscreen.readers.common import DAMAGE_ERRORS, LOWEST_HU, cause, to_hu
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Floats, Volume, VolumeGeometry, lps_from_ras

SUFFIXES = (".nii", ".nii.gz")
MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
FOREIGN_ERRORS = (*DAMAGE_ERRORS, ImageFileError, HeaderDataError, HeaderTypeError)
DEFLATE_RATIO = 1032  # more than this gzip cannot shrink anything
LARGEST_BYTES = 20e9  # of pixels: ten times a whole body in slices of 0.5 mm
BLOCK_BYTES = 2**20


def can_read(files: Sequence[Path]) -> bool:
    """Whether the files are one NIfTI file, by its suffix."""
    return len(files) == 1 and files[0].name.lower().endswith(SUFFIXES)


def read_geometry(study: StudyFiles) -> tuple[VolumeGeometry, StudyHeader]:
    """Grid and linking keys, without pixels. Raises UnreadableFile or MissingGeometry."""
    _, geometry = _open(study.files[0])
    return geometry, StudyHeader(patient_id=study.patient_id)


def read(study: StudyFiles) -> StudyImage:
    """The volume, indexed (k, j, i): the reverse of the axes stored. Raises as `read_geometry`."""
    path = study.files[0]
    image, geometry = _open(path)
    try:
        stored = _stored(image, path).reshape(geometry.shape[::-1], order="F")
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"the pixels of {path.name} cannot be read ({cause(error)})") from error
    hu = _hounsfield(stored.T, image.dataobj.slope, image.dataobj.inter)
    return StudyImage(Volume(hu, geometry), StudyHeader(patient_id=study.patient_id))


def _open(path: Path) -> tuple[Any, VolumeGeometry]:
    """The image, its pixels unread, and its grid."""
    try:
        if not path.stat().st_size:
            raise UnreadableFile(f"{path.name} is empty")
        image = nibabel.load(path)
        geometry = _geometry(image, path.name)
        _check_size(image, path)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{path.name} cannot be read as NIfTI ({cause(error)})") from error
    return image, geometry


def _stored(image: Any, path: Path) -> NDArray[Any]:
    """The values as stored, unscaled; those of a packed file are checked against its checksum."""
    if not _is_packed(path):
        return np.asarray(image.dataobj.get_unscaled())
    with gzip.open(path) as stream:
        values = type(image).from_stream(stream).dataobj.get_unscaled()
        while stream.read(BLOCK_BYTES):  # gzip compares the checksum where the stream ends
            pass
    return np.asarray(values)


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _check_size(image: Any, path: Path) -> None:
    """Raise where a damaged header promises so many pixels that there may be no memory for them."""
    promised = math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    size = path.stat().st_size
    held = size * DEFLATE_RATIO if _is_packed(path) else size - int(image.dataobj.offset)
    if promised > min(held, LARGEST_BYTES):
        raise UnreadableFile(
            f"the header of {path.name} promises {promised} bytes of pixels; the file has {size} bytes"
        )


def _geometry(image: Any, name: str) -> VolumeGeometry:
    header = image.header
    if header.get_data_dtype().kind not in "iuf":
        raise UnreadableFile(f"{name} holds {header.get_data_dtype()} values, not one number a voxel")
    shape = image.shape[:3]
    if len(shape) < 3 or min(shape) < 1 or image.shape != shape + (1,) * (len(image.shape) - 3):
        raise UnreadableFile(f"{name} has the shape {image.shape}; one volume of three axes is expected")
    if not (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise MissingGeometry(f"{name} has neither sform nor qform: its orientation is unknown")
    unit = header.get_xyzt_units()[0]
    if unit not in MM_PER_UNIT:
        raise MissingGeometry(f"{name} gives its geometry in {unit}, which is not a length")
    affine = lps_from_ras(np.diag([*[MM_PER_UNIT[unit]] * 3, 1.0]) @ image.affine)
    if not _spans_space(affine[:3, :3]):
        raise MissingGeometry(f"{name} has an affine that maps the volume onto a plane or to nowhere")
    return VolumeGeometry(shape[::-1], affine[:, [2, 1, 0, 3]])


def _spans_space(axes: Floats) -> bool:
    lengths = np.linalg.norm(axes, axis=0)
    return bool(np.isfinite(axes).all() and lengths.all() and abs(np.linalg.det(axes / lengths)) > 1e-3)


def _hounsfield(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.int16]:
    """Scaled slice by slice, so that no second volume of floats is held."""
    hu = np.empty(stored.shape, np.int16)
    for target, values in zip(hu, stored, strict=True):
        scaled = values * np.float32(slope) + np.float32(intercept)
        finite = np.nan_to_num(scaled, nan=LOWEST_HU, posinf=LOWEST_HU, neginf=LOWEST_HU)
        target[:] = to_hu(finite)
    return hu
