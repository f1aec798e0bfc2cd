"""NIfTI files (.nii, .nii.gz; NIfTI-1 and NIfTI-2) -> HU and geometry.

A NIfTI file names no patient and no date, so a study read from one has only what the manifest
says. Where its header leaves the unit of length open ("unknown", as many converters write), the
affine is taken as mm, the unit of the standard's own reference frames.

Where the image lies may stand in a header three times: in the sform, in the qform and, as to the
lengths, in pixdim. What contradicts is refused, since nobody knows which is right:

- sform and qform that are both set place each corner of the image alike, to 1 mm. A qform cannot
  hold shears; one that is the sform without its shears agrees with it.
- Without a qform, pixdim has the lengths of the sform's columns, to 1 %. So write nibabel (unless
  `set_sform` or `set_zooms` is called alone), ITK and dcm2niix. Of a tilted gantry dcm2niix writes
  two files: the sheared one, whose forms contradict, and one named `_Tilt`, which is accepted.

Header extensions are skipped unread. Pairs of .hdr and .img are not supported.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import NDArray

from vfscreen.errors import InconsistentGeometry, MissingGeometry, TooLarge, UnreadableFile
from vfscreen.readers.common import (
    DAMAGE_ERRORS,
    LARGEST_VOXELS,
    LONGEST_MM,
    LOWEST_HU,
    cause,
    rescaled,
    to_hu,
)
from vfscreen.settings import ReadSettings
from vfscreen.storage import one_look
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Floats, Volume, VolumeGeometry, apply_affine, lps_from_ras, voxel_sizes_mm

SUFFIXES = (".nii", ".nii.gz")
HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
"""By the size of the header in bytes, with which a file begins."""
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""By the code of the unit: unknown, m, mm, micrometre."""
FORM_TOLERANCE_MM = 1.0  # between sform and qform, at a corner of the image
PIXDIM_TOLERANCE = 0.01  # of a length
FOREIGN_ERRORS = (*DAMAGE_ERRORS, HeaderDataError, HeaderTypeError)
DEFLATE_RATIO = 1032  # more than this gzip cannot shrink anything
LARGEST_OFFSET = 2**28  # bytes before the pixels, which may be extensions
LONGEST_REST = 512  # bytes behind the pixels, all zero: a block


@dataclass(frozen=True)
class _Layout:
    """How a file holds its pixels: the first axis runs fastest, and HU are slope * stored + intercept."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int  # bytes before the first pixel
    slope: float
    intercept: float

    @property
    def slice_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def pixel_bytes(self) -> int:
        return self.shape[2] * self.slice_bytes


def can_read(files: Sequence[Path]) -> bool:
    """Whether the files are one NIfTI file, by its suffix."""
    return len(files) == 1 and files[0].name.lower().endswith(SUFFIXES)


def read_geometry(study: StudyFiles, settings: ReadSettings) -> tuple[VolumeGeometry, StudyHeader]:
    """Grid and linking keys, without pixels.

    Raises UnreadableFile, MissingGeometry, InconsistentGeometry or TooLarge.
    """
    _, geometry = _header(one_look(study.files[0]))
    return geometry, StudyHeader(patient_id=study.patient_id)


def read(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """The volume, indexed (k, j, i): the reverse of the axes stored. Raises as `read_geometry`.

    Beside the volume it holds one slice of stored values at a time.
    """
    path = study.files[0]
    layout, geometry = _header(path)
    with _translated(f"the pixels of {path.name} cannot be read"), _stream(path) as stream:
        hu = _hounsfield(stream, layout, path.name)
    return StudyImage(Volume(hu, geometry), StudyHeader(patient_id=study.patient_id))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of other libraries as UnreadableFile; numpy keeps silent about overflow by absurd numbers."""
    try:
        with np.errstate(all="ignore"):
            yield
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{what} ({cause(error)})") from error


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if _is_packed(path):
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


# --- the header ----------------------------------------------------------------------------------


def _header(path: Path) -> tuple[_Layout, VolumeGeometry]:
    with _translated(f"{path.name} cannot be read as NIfTI"):
        size = path.stat().st_size
        if not size:
            raise UnreadableFile(f"{path.name} is empty")
        with _stream(path) as stream:
            header = _parsed(stream.read(max(HEADERS)), path.name)
        layout = _layout(header, path.name)
        _check_size(layout, size, path)
        return layout, _geometry(header, layout.shape, path.name)


def _parsed(start: bytes, name: str) -> Any:
    """The header in nibabel's terms, unchecked: nibabel mends what is wrong, and logs what it reads."""
    for order, endianness in (("little", "<"), ("big", ">")):
        kind = HEADERS.get(int.from_bytes(start[:4], order))  # type: ignore[arg-type]
        if kind is not None:
            if len(start) < kind.sizeof_hdr:
                raise UnreadableFile(f"{name} ends within its header")
            header = kind(start[: kind.sizeof_hdr], endianness, check=False)
            break
    else:
        raise UnreadableFile(f"{name} is no NIfTI file: it does not begin with the size of its header")
    if header["magic"].item()[:3] != kind.single_magic[:3]:
        raise UnreadableFile(f"{name} is no NIfTI file that holds its own pixels; .hdr with .img is not read")
    return header


def _layout(header: Any, name: str) -> _Layout:
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise UnreadableFile(f"{name} has an unknown datatype: {int(header['datatype'])}") from error
    if dtype.kind not in "iuf":
        raise UnreadableFile(f"{name} holds {dtype} values, not one number a voxel")
    n_axes, *sizes = map(int, header["dim"])
    sizes = sizes[: max(0, n_axes)]
    if not 3 <= n_axes <= 7 or min(sizes[:3]) < 1 or any(size != 1 for size in sizes[3:]):
        raise UnreadableFile(f"{name} has the shape {tuple(sizes)}; one volume of three axes is expected")
    offset = float(header["vox_offset"])
    if not header.single_vox_offset <= offset <= LARGEST_OFFSET or not offset.is_integer():
        raise UnreadableFile(f"{name} has no valid vox_offset: {offset:g}")
    return _Layout((sizes[0], sizes[1], sizes[2]), dtype, int(offset), *_scaling(header, name))


def _scaling(header: Any, name: str) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 means that there is no scaling."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    for field, value in (("scl_slope", slope), ("scl_inter", intercept)):
        if not np.isfinite(np.float32(value)):
            raise UnreadableFile(f"{name} has no valid {field}: {value}")
    return slope, intercept


def _check_size(layout: _Layout, size: int, path: Path) -> None:
    """Raise where a header promises more pixels than the file can hold, or than there is memory for."""
    held = size * DEFLATE_RATIO if _is_packed(path) else size
    if layout.offset + layout.pixel_bytes > held:
        raise UnreadableFile(
            f"the header of {path.name} promises {layout.pixel_bytes} bytes of pixels; the file has {size} "
            "bytes"
        )
    voxels = math.prod(layout.shape)
    if voxels > LARGEST_VOXELS:
        raise TooLarge(f"{path.name} holds {voxels} voxels; more than {LARGEST_VOXELS} are not read")


# --- geometry ------------------------------------------------------------------------------------


def _geometry(header: Any, shape: tuple[int, int, int], name: str) -> VolumeGeometry:
    affine = lps_from_ras(_affine(header, shape, name))
    longest = float((voxel_sizes_mm(affine) * shape).max())
    if longest > LONGEST_MM:
        raise InconsistentGeometry(
            f"{name} is {longest:.3g} mm long: its affine or its unit of length is wrong"
        )
    return VolumeGeometry((shape[2], shape[1], shape[0]), affine[:, [2, 1, 0, 3]])


def _affine(header: Any, shape: tuple[int, int, int], name: str) -> Floats:
    """Indices (i, j, k, 1) to RAS mm. Of two forms that agree the sform, which may also hold shears."""
    scale, forms = _millimetres(header, name), {}
    if header["sform_code"] > 0:
        forms["sform"] = scale @ header.get_sform()
    if header["qform_code"] > 0:
        forms["qform"] = scale @ _qform(header)
    if not forms:
        raise MissingGeometry(f"{name} has neither sform nor qform: its orientation is unknown")
    affine = next(iter(forms.values()))
    if not _spans_space(affine):
        raise MissingGeometry(f"{name} has an affine that maps the volume onto a plane or to nowhere")
    if len(forms) == 2:
        _check_forms(**forms, shape=shape, name=name)
    elif "sform" in forms:
        _check_pixdim(header.get_sform(), header["pixdim"][1:4], name)
    return affine


def _millimetres(header: Any, name: str) -> Floats:
    """The scaling (4, 4) from the header's unit of length to mm; the unit of time shares its byte."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in MM_PER_UNIT:
        raise UnreadableFile(f"{name} has an unknown unit of length: {unit}")
    return np.diag([*[MM_PER_UNIT[unit]] * 3, 1.0])


def _qform(header: Any) -> Floats:
    """The qform's affine. The standard takes a pixdim[0] of 0, which should not occur, as 1."""
    if header["pixdim"][0] == 0:
        header = header.copy()
        header["pixdim"][0] = 1
    return np.asarray(header.get_qform())


def _spans_space(affine: Floats) -> bool:
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    return bool(np.isfinite(affine).all() and lengths.all() and abs(np.linalg.det(axes / lengths)) > 1e-3)


def _check_forms(sform: Floats, qform: Floats, shape: tuple[int, int, int], name: str) -> None:
    """Raise where the two place a corner voxel more than 1 mm apart."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    apart = apply_affine(_without_shear(sform), corners) - apply_affine(qform, corners)
    farthest = float(np.linalg.norm(apart, axis=1).max())
    if not farthest <= FORM_TOLERANCE_MM:
        raise InconsistentGeometry(
            f"sform and qform of {name} place the image up to {farthest:.1f} mm apart; which of the two is "
            "right is not known"
        )


def _without_shear(affine: Floats) -> Floats:
    """What a qform can hold of an affine: the nearest rotation (or reflection), and the columns' lengths."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / lengths)
    rigid = affine.copy()
    rigid[:3, :3] = left @ right * lengths
    return rigid


def _check_pixdim(sform: Floats, pixdim: Floats, name: str) -> None:
    """Raise where pixdim, in the header's unit, has not the lengths of the sform's columns."""
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not (np.abs(np.abs(pixdim) - lengths) <= PIXDIM_TOLERANCE * lengths).all():
        raise InconsistentGeometry(
            f"in {name} voxels measure {_sizes(lengths)} by the sform and {_sizes(pixdim)} by pixdim; which "
            "of the two is right is not known"
        )


def _sizes(lengths: Floats) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)


# --- pixels --------------------------------------------------------------------------------------


def _hounsfield(stream: BinaryIO, layout: _Layout, name: str) -> NDArray[np.int16]:
    """The volume (k, j, i), filled slice by slice, so that no second one is held."""
    hu = np.empty(layout.shape[::-1], np.int16)
    stream.seek(layout.offset)
    for target in hu:
        content = stream.read(layout.slice_bytes)
        if len(content) < layout.slice_bytes:
            raise UnreadableFile(f"{name} ends within its pixels")
        target[:] = _scaled(np.frombuffer(content, layout.dtype).reshape(target.shape), layout)
    # gzip compares the checksum where its stream ends; what goes on for long is no rest, but a wrong shape
    rest = stream.read(LONGEST_REST + 1)
    if len(rest) > LONGEST_REST or rest.strip(b"\0"):
        raise UnreadableFile(f"{name} goes on behind the pixels that its header promises")
    return hu


def _scaled(stored: NDArray[Any], layout: _Layout) -> NDArray[np.int16]:
    slope, intercept = np.float32(layout.slope), np.float32(layout.intercept)
    if stored.dtype.kind != "f":
        return rescaled(stored, slope, intercept)
    scaled = stored * slope + intercept
    return to_hu(np.nan_to_num(scaled, copy=False, nan=LOWEST_HU, posinf=LOWEST_HU, neginf=LOWEST_HU))
