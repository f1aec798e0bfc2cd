"""DICOM series -> HU and geometry: one file a slice, or enhanced CT with its frames.

The order of the slices and the distances between them come from ImagePositionPatient alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from vfscreen.errors import InconsistentGeometry, UnreadableFile
from vfscreen.readers.codestream import size
from vfscreen.readers.common import LOWEST_HU, cause, rescaled
from vfscreen.readers.dicom_fields import FOREIGN_ERRORS, check_inflation
from vfscreen.readers.dicom_headers import Image, Kind, fault_of, looks_like_dicom, read_images
from vfscreen.readers.plain_pixels import GREYSCALE, Stored, read_plain
from vfscreen.readers.stacking import SliceGrid, Stacking, resampled, stack
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Volume, VolumeGeometry

ORIENTATION_TOLERANCE = 1e-3  # of a direction cosine
SPACING_TOLERANCE = 1e-3  # of a pixel spacing, mm
FASTEST_DECODER = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
"""Where pydicom would ask another one first. All give the same values."""
BRIGHTEST_HU = 3071  # of twelve bits: a padding value above it would be taken for metal


@dataclass(frozen=True)
class _Slice:
    """One image of a series: the file, its header, and its place in the file."""

    path: Path
    kind: Kind
    image: Image


def can_read(files: Sequence[Path]) -> bool:
    """Whether the files are DICOM, by the first of them."""
    return looks_like_dicom(files[0])


def read_geometry(study: StudyFiles, settings: ReadSettings) -> tuple[VolumeGeometry, StudyHeader]:
    """Grid and linking keys of a series, from headers alone.

    Raises UnreadableFile, MissingGeometry, InconsistentGeometry, TooLarge or TooShort (a single slice).
    """
    slices = _slices(study)
    stacking = _stacked(slices, settings)
    return stacking.geometry, _header(study, slices[0], stacking)


def read(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """The volume, slices along k as their positions run. Raises as `read_geometry`."""
    slices = _slices(study)
    stacking = _stacked(slices, settings)
    hu = np.empty((len(slices), *stacking.geometry.shape[1:]), np.int16)
    place = np.argsort(stacking.order)
    for number, values in enumerate(_hounsfield(slices)):
        hu[place[number]] = values
    if not stacking.is_even:
        hu = resampled(hu, stacking.at)
    return StudyImage(Volume(hu, stacking.geometry), _header(study, slices[0], stacking))


def grid_of(kind: Kind) -> SliceGrid:
    """What the slices of a kind share; only where the kind is without a fault."""
    axes = np.array(kind.orientation, float).reshape(2, 3)
    row_mm, column_mm = kind.spacing or (0.0, 0.0)
    return SliceGrid((kind.rows, kind.columns), (row_mm, column_mm), axes)


def are_alike(one: Kind, other: Kind) -> bool:
    """Whether images of two kinds can stand in one stack: the same matrix, pixel size and directions.

    Where a kind has none that is valid, the image belongs to the others and will be refused with them.
    """
    return (
        (one.rows, one.columns) == (other.rows, other.columns)
        and _close(one.spacing, other.spacing, SPACING_TOLERANCE)
        and _close(one.orientation, other.orientation, ORIENTATION_TOLERANCE)
    )


def _close(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return True
    return bool(np.allclose(one, other, rtol=0, atol=tolerance))


def _slices(study: StudyFiles) -> list[_Slice]:
    """The images of the study's series, in the order of its files and frames."""
    found = []
    numbered = zip(study.files, study.frames or [None] * len(study.files), strict=True)
    for path, frames in groupby(numbered, key=lambda pair: pair[0]):
        images = {image.frame: (kind, image) for kind, image in read_images(path)}
        for _, frame in frames:
            if frame not in images:
                raise UnreadableFile(f"{path.name} is no longer what it was when the archive was listed")
            found.append(_Slice(path, *images[frame]))
    for one in found:
        error = fault_of(one.image)
        if error:
            raise error
        if not are_alike(found[0].kind, one.kind):
            names = f"{found[0].path.name} and {one.path.name}"
            raise InconsistentGeometry(f"{names} have other pixels, or are turned against each other")
    return found


def _stacked(slices: Sequence[_Slice], settings: ReadSettings) -> Stacking:
    positions = np.array([one.image.position for one in slices], float)
    return stack(grid_of(slices[0].kind), positions, settings)


def _header(study: StudyFiles, first: _Slice, stacking: Stacking) -> StudyHeader:
    keys = StudyHeader(
        patient_id=study.patient_id or first.kind.patient_id,
        study_date=_iso_date(first.image.study_date),
        series_uid=first.kind.series_uid or None,
    )
    return with_steps(keys, stacking)


def with_steps(keys: StudyHeader, stacking: Stacking) -> StudyHeader:
    """The header with what the volume's grid does not show of slices that are not evenly spaced."""
    if stacking.is_even:
        return keys
    return replace(
        keys,
        n_slices=len(stacking.order),
        slice_spacing_mm=stacking.usual_mm,
        widest_step_mm=stacking.widest_mm,
    )


def _iso_date(date: str) -> str | None:
    try:
        return datetime.strptime(date, "%Y%m%d").date().isoformat()
    except ValueError:
        return None


# --- pixels --------------------------------------------------------------------------------------


def _hounsfield(slices: Sequence[_Slice]) -> Iterator[NDArray[np.int16]]:
    """HU of each slice in turn, int16, clipped: what lies below air is padding."""
    for path, images in groupby(slices, key=lambda one: one.path):
        of_file = list(images)
        for one, (stored, padding) in zip(of_file, _stored(of_file), strict=True):
            shape = (one.kind.rows, one.kind.columns)
            if stored.shape != shape:
                raise UnreadableFile(
                    f"{path.name} decodes to {stored.shape} values instead of {shape} pixels"
                )
            slope, intercept = np.array(one.image.rescale, np.float32)
            hu = rescaled(stored, slope, intercept)
            if padding is not None and padding * slope + intercept > BRIGHTEST_HU:
                hu[stored == padding] = LOWEST_HU
            yield hu


def _stored(slices: Sequence[_Slice]) -> Iterator[Stored]:
    """The images wanted of one file."""
    path = slices[0].path
    plain = _plain(path) if slices[0].image.frame is None else None
    if plain:
        yield plain
        return
    dataset = _opened(path)
    padding = _padding(dataset)
    for values in _decoded(dataset, slices):
        yield Stored(values, padding)


def _plain(path: Path) -> Stored | None:
    """The only image of a file, where it is plain; why a file cannot be read pydicom will say."""
    with suppress(*FOREIGN_ERRORS), path.open("rb") as file:
        return read_plain(file)
    return None


def _opened(path: Path) -> FileDataset:
    """The file with its pixels, still encoded. Raises UnreadableFile where they cannot be an image."""
    try:
        with path.open("rb") as file:
            check_inflation(file.read(4096), path)
            file.seek(0)
            dataset = dcmread(file, force=True)
        _name_syntax(dataset)
        has_pixels, colours = "PixelData" in dataset, dataset.get("PhotometricInterpretation")
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"the header of {path.name} is damaged ({cause(error)})") from error
    if not has_pixels:
        raise UnreadableFile(f"{path.name} has no pixels, or ends within them")
    if colours not in GREYSCALE:
        raise UnreadableFile(f"{path.name} is no greyscale image")
    _check_decoder(dataset.file_meta.TransferSyntaxUID, path)
    return dataset


def _name_syntax(dataset: FileDataset) -> None:
    """A file without preamble does not say how it is encoded; pydicom found out while parsing."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax


def _check_decoder(syntax: UID, path: Path) -> None:
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        named = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise UnreadableFile(f"{path.name} cannot be decoded: there is no decoder for {named}")


def _decoded(dataset: FileDataset, slices: Sequence[_Slice]) -> Iterator[NDArray[Any]]:
    """The stored values of the frames wanted, one by one."""
    path = slices[0].path
    _check_size(dataset, slices[0])
    plugin = FASTEST_DECODER.get(dataset.file_meta.TransferSyntaxUID, "")
    try:
        if slices[0].image.frame is None:
            dataset.pixel_array_options(decoding_plugin=plugin)
            yield dataset.pixel_array
        else:
            indices = [one.image.frame for one in slices if one.image.frame is not None]
            yield from iter_pixels(dataset, indices=indices, decoding_plugin=plugin)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"the pixels of {path.name} cannot be decoded ({cause(error)})") from error
    except BaseException as error:  # a decoder in Rust panics with one that is no Exception
        if isinstance(error, (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        raise UnreadableFile(f"the pixels of {path.name} cannot be decoded (its decoder panicked)") from error


def _check_size(dataset: FileDataset, one: _Slice) -> None:
    """Raise where compressed pixels are of another size than the header: decoders allocate what they say."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        found = size(next(generate_frames(dataset.PixelData, number_of_frames=frames)))
    except (*FOREIGN_ERRORS, StopIteration) as error:
        raise UnreadableFile(f"the pixels of {one.path.name} cannot be decoded ({cause(error)})") from error
    if found is not None and found != (one.kind.rows, one.kind.columns):
        raise UnreadableFile(
            f"the pixels of {one.path.name} are {found[0]} x {found[1]}, its header says {one.kind.rows} x "
            f"{one.kind.columns}"
        )


def _padding(dataset: FileDataset) -> int | None:
    """The stored value of what lies outside the reconstruction, where the header names it.

    Its sign is often that of the other representation, so it is brought to that of the pixels.
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    bits = int(dataset.get("BitsAllocated") or 16)
    signed = dataset.get("PixelRepresentation") == 1
    value %= 2**bits
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value
