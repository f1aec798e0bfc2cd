"""DICOM series of single-frame CT slices -> HU and geometry.

The order of the slices and the distance between them come from ImagePositionPatient alone. With a
tilted gantry the step from slice to slice is not along their normal: the shear stays in the affine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, JPEGLSNearLossless

from vfscreen.errors import InconsistentGeometry, MissingGeometry, StudyError, TooShort, UnreadableFile
from vfscreen.readers.common import DAMAGE_ERRORS, cause, to_hu
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Floats, Volume, VolumeGeometry

POSITION_TOLERANCE_MM = 0.2  # of a slice from its place in an even stack: above the rounding of headers
NEAREST_SLICES_MM = 0.05  # what lies closer is the same slice twice
ORIENTATION_TOLERANCE = 1e-3  # of a direction cosine
SPACING_TOLERANCE = 1e-3  # of a pixel spacing, mm
GREYSCALE = ("MONOCHROME1", "MONOCHROME2")
FASTEST_DECODER = {JPEGLSLossless: "pyjpegls", JPEGLSNearLossless: "pyjpegls"}
PREAMBLE_BYTES = 132  # with the letters DICM at its end
FIRST_TAGS = (b"\x02\0\0\0UL", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")
"""How a DICOM file without preamble can begin."""
KEY_TAGS = ["PatientID", "StudyDate", "SeriesInstanceUID"]
SLICE_TAGS = [
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
]
FOREIGN_ERRORS = (*DAMAGE_ERRORS, InvalidDicomError)
"""What pydicom and its decoders raise on damaged files."""


@dataclass(frozen=True)
class _Slice:
    """Where one file's image lies: LPS mm; `axes` are the directions of a row and of a column, (2, 3)."""

    path: Path
    position: Floats
    axes: Floats
    spacing: Floats  # between rows, between columns
    shape: tuple[int, int]
    rescale: Floats  # slope, intercept

    @property
    def normal(self) -> Floats:
        return np.cross(self.axes[0], self.axes[1])


def can_read(files: Sequence[Path]) -> bool:
    """Whether the files are DICOM, by the first of them."""
    return looks_like_dicom(files[0])


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with its preamble or, as old archives have it, without.

    Raises OSError where the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(PREAMBLE_BYTES)
    return start[128:] == b"DICM" or start.startswith(FIRST_TAGS)


def read_header(path: Path, tags: list[str]) -> Dataset:
    """The named tags of a file, nothing else. Raises UnreadableFile."""
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=list(tags), force=True)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{path.name} cannot be read as DICOM ({cause(error)})") from error


def read_geometry(study: StudyFiles) -> tuple[VolumeGeometry, StudyHeader]:
    """Grid and linking keys of a series, from headers alone.

    Raises UnreadableFile, MissingGeometry, InconsistentGeometry or TooShort (a single slice).
    """
    slices, header = _sorted_slices(study)
    return _stack(slices), header


def read(study: StudyFiles) -> StudyImage:
    """The volume, slices along k as their positions run. Raises as `read_geometry`."""
    slices, header = _sorted_slices(study)
    geometry = _stack(slices)
    hu = np.empty(geometry.shape, np.int16)
    for target, image in zip(hu, slices, strict=True):
        target[:] = _hounsfield(image)
    return StudyImage(Volume(hu, geometry), header)


def _sorted_slices(study: StudyFiles) -> tuple[list[_Slice], StudyHeader]:
    slices = [_slice(path) for path in study.files]
    normal = slices[0].normal
    return sorted(slices, key=lambda s: float(s.position @ normal)), _keys(study)


def _keys(study: StudyFiles) -> StudyHeader:
    path = study.files[0]
    header = read_header(path, KEY_TAGS)
    try:
        return StudyHeader(
            patient_id=study.patient_id or str(header.get("PatientID") or "") or None,
            study_date=_iso_date(str(header.get("StudyDate") or "")),
            series_uid=str(header.get("SeriesInstanceUID") or "") or None,
        )
    except FOREIGN_ERRORS as error:
        raise _damaged(path, error) from error


def _slice(path: Path) -> _Slice:
    header = read_header(path, SLICE_TAGS)
    try:
        return _placed(path, header)
    except FOREIGN_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    return UnreadableFile(f"the header of {path.name} is damaged ({cause(error)})")


def _placed(path: Path, header: Dataset) -> _Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise UnreadableFile(f"{path.name} is a multi-frame image; export the series as one file a slice")
    axes = _numbers(header, "ImageOrientationPatient", 6, path).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=0.01):
        raise InconsistentGeometry(
            f"in {path.name} ImageOrientationPatient is not two perpendicular directions"
        )
    spacing = _numbers(header, "PixelSpacing", 2, path)
    if (spacing <= 0).any():
        raise MissingGeometry(f"in {path.name} PixelSpacing is {spacing.min():g}; it must be positive")
    shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0))
    position = _numbers(header, "ImagePositionPatient", 3, path)
    rescale = [_numbers(header, f"Rescale{tag}", 1, path, UnreadableFile) for tag in ("Slope", "Intercept")]
    return _Slice(path, position, axes, spacing, shape, np.concatenate(rescale))


def _numbers(
    header: Dataset, tag: str, count: int, path: Path, error: type[StudyError] = MissingGeometry
) -> Floats:
    try:
        values = np.array(header.get(tag), float).reshape(count)
    except (TypeError, ValueError):
        values = np.full(count, np.nan)
    if not np.isfinite(values).all():
        raise error(f"{path.name} has no valid {tag}; it is never guessed")
    return values


def _iso_date(date: str) -> str | None:
    try:
        return datetime.strptime(date, "%Y%m%d").date().isoformat()
    except ValueError:
        return None


def _stack(slices: list[_Slice]) -> VolumeGeometry:
    """The grid that the sorted slices form together."""
    if len(slices) == 1:
        raise TooShort("the series has a single slice; a spine cannot be followed")
    first = slices[0]
    for image in slices[1:]:
        _check_alike(first, image)
    positions = np.array([s.position for s in slices])
    _check_even(positions, positions @ first.normal)
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(slices) - 1)
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2] = first.axes[0] * first.spacing[1]
    affine[:3, 3] = positions[0]
    return VolumeGeometry((len(slices), *first.shape), affine)


def _check_alike(first: _Slice, other: _Slice) -> None:
    names = f"{first.path.name} and {other.path.name}"
    if first.shape != other.shape:
        raise InconsistentGeometry(f"{names} have {first.shape} and {other.shape} pixels")
    if not np.allclose(first.spacing, other.spacing, rtol=0, atol=SPACING_TOLERANCE):
        raise InconsistentGeometry(f"{names} have pixels of different size")
    if not np.allclose(first.axes, other.axes, rtol=0, atol=ORIENTATION_TOLERANCE):
        raise InconsistentGeometry(f"{names} are not parallel, or turned against each other")


def _check_even(positions: Floats, depths: Floats) -> None:
    """Raise where slices, sorted by depth along their normal (mm), are doubled, missing or out of line."""
    steps = np.diff(depths)
    usual = float(np.median(steps))
    doubled = steps < NEAREST_SLICES_MM
    if doubled.any():
        z = positions[int(doubled.argmax()), 2]
        raise InconsistentGeometry(
            f"two slices lie at z = {z:.1f} mm ({doubled.sum()} of the series are doubled)"
        )
    even = positions[0] + np.linspace(0, 1, len(positions))[:, None] * (positions[-1] - positions[0])
    if np.linalg.norm(positions - even, axis=1).max() <= POSITION_TOLERANCE_MM:
        return
    widest = int(steps.argmax())
    between = f"between z = {positions[widest, 2]:.1f} and {positions[widest + 1, 2]:.1f} mm"
    if steps[widest] > 1.5 * usual:
        raise InconsistentGeometry(
            f"a gap of {steps[widest]:.2f} mm {between} where slices are {usual:.2f} mm apart: "
            "a gap is not interpolated, export the series again"
        )
    raise InconsistentGeometry(
        f"the slices do not form an even stack: steps of {steps.min():.2f} to {steps.max():.2f} mm, "
        f"the widest {between}"
    )


def _hounsfield(image: _Slice) -> NDArray[np.int16]:
    """One slice's HU, int16, clipped: what lies below air is padding."""
    stored = _decoded(image.path)
    if stored.shape != image.shape:
        raise UnreadableFile(
            f"{image.path.name} decodes to {stored.shape} values instead of {image.shape} pixels"
        )
    slope, intercept = image.rescale.astype(np.float32)
    return to_hu(stored * slope + intercept)


def _decoded(path: Path) -> NDArray[Any]:
    try:
        dataset = dcmread(path, force=True)
        _name_syntax(dataset)
        dataset.pixel_array_options(
            decoding_plugin=FASTEST_DECODER.get(dataset.file_meta.TransferSyntaxUID, "")
        )
        has_pixels, colours = "PixelData" in dataset, dataset.get("PhotometricInterpretation")
    except FOREIGN_ERRORS as error:
        raise _damaged(path, error) from error
    if not has_pixels:
        raise UnreadableFile(f"{path.name} has no pixels, or ends within them")
    if colours not in GREYSCALE:
        raise UnreadableFile(f"{path.name} is no greyscale image")
    try:
        return dataset.pixel_array
    except FOREIGN_ERRORS as error:  # its text tells of lengths, syntaxes and decoders, of no other header
        text = " ".join(str(error).split())
        raise UnreadableFile(f"the pixels of {path.name} cannot be decoded: {text}") from error


def _name_syntax(dataset: FileDataset) -> None:
    """A file without preamble does not say how it is encoded; pydicom found out while parsing."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
