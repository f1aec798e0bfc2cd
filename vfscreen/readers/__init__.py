"""Studies on disk -> HU in the patient's millimetres. One module a format; see docs/add-a-reader.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vfscreen.errors import ImplausibleValues, InconsistentGeometry, InputError, TooShort, UnreadableFile
from vfscreen.readers import dicom, nifti
from vfscreen.readers.dicom_instances import source_images
from vfscreen.settings import ReadSettings
from vfscreen.storage import on_this_machine, path_of
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Volume, VolumeGeometry

VOLUME_READERS = (nifti,)
"""Formats in which one file is one study, known by its suffix."""
READERS = (*VOLUME_READERS, dicom)
"""Asked in this order; the first that can read the files does."""
BONE_HU = 700
MOST_BONE = 0.25  # share of voxels: of a body it is 3 %, of one whose offset of 1024 was lost nearly half


def read_study(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """Decode a study found by `discover`.

    Raises the error that the study already carries, or UnreadableFile, MissingGeometry,
    InconsistentGeometry, ImplausibleValues, TooLarge or TooShort.
    """
    image = _reader(study).read(study, settings)
    header = with_geometry(image.header, image.volume.geometry, settings)
    _check_values(image.volume.hu)
    return StudyImage(image.volume, header)


def read_study_with_images(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """As `read_study`, with the instances that a DICOM SR refers to; NIfTI has none."""
    image = read_study(study, settings)
    return replace(image, images=source_images(study.files) if _reader(study) is dicom else None)


def read_geometry(study: StudyFiles, settings: ReadSettings) -> tuple[VolumeGeometry, StudyHeader]:
    """What `read_study` would give, from the headers alone. Raises the same errors, but for pixels."""
    geometry, keys = _reader(study).read_geometry(study, settings)
    return geometry, with_geometry(keys, geometry, settings)


def read_volume(path: str | Path, settings: ReadSettings | None = None) -> Volume:
    """The CT of one study: a NIfTI file, or a folder with DICOM of one study.

    Raises InputError where `path` holds several studies, and the errors of `read_study`;
    `ReadSettings(min_extent_mm=0)` also reads what is too short to screen.
    """
    from vfscreen.discover import discover  # which itself asks the readers

    studies = discover(path_of(path))
    if len(studies) > 1:
        names = ", ".join(study.source for study in studies[:5])
        raise InputError(f"{path} holds {len(studies)} studies ({names} ...); name one of them")
    with on_this_machine(studies[0]) as study:
        return read_study(study, settings or ReadSettings()).volume


def _reader(study: StudyFiles) -> ModuleType:
    if study.error is not None:
        raise study.error
    try:
        return next(reader for reader in READERS if reader.can_read(study.files))
    except (StopIteration, OSError) as error:
        raise UnreadableFile(f"{study.files[0].name} is in no format that can be read") from error


def with_geometry(keys: StudyHeader, geometry: VolumeGeometry, settings: ReadSettings) -> StudyHeader:
    """The header with the slices counted along the array axis that runs closest to the body's.

    Raises TooShort, and InconsistentGeometry where the slices are too far apart.
    """
    sizes = geometry.voxel_sizes_mm
    body = int(np.abs(geometry.affine[2, :3] / sizes).argmax())
    header = replace(
        keys,
        n_slices=keys.n_slices or geometry.shape[body],
        slice_spacing_mm=keys.slice_spacing_mm or float(sizes[body]),
        pixel_spacing_mm=float(np.delete(sizes, body).max()),
    )
    _check_limits(header, float(sizes[body] * geometry.shape[body]), settings)
    return header


def _check_limits(header: StudyHeader, extent_mm: float, settings: ReadSettings) -> None:
    if extent_mm < settings.min_extent_mm:
        raise TooShort(
            f"the image covers {extent_mm:.0f} mm along the body; {settings.min_extent_mm:.0f} mm are needed"
        )
    spacing = header.slice_spacing_mm or 0.0
    if spacing > settings.max_slice_spacing_mm:
        raise InconsistentGeometry(
            f"slices are {spacing:.1f} mm apart; beyond {settings.max_slice_spacing_mm:.1f} mm "
            "the height of a vertebra cannot be measured"
        )


def _check_values(hu: NDArray[np.int16]) -> None:
    """Raise where the values cannot be those of a body, by some ten thousand of them."""
    step = [max(1, n // 40) for n in hu.shape]
    some = hu[:: step[0], :: step[1], :: step[2]]
    if some.min() == some.max():
        raise ImplausibleValues(f"all values are {some.min()} HU: the image is blank")
    bright = float((some > BONE_HU).mean())
    if bright > MOST_BONE:
        raise ImplausibleValues(
            f"{bright:.0%} of the image is brighter than {BONE_HU} HU: these are no Hounsfield units, an "
            "offset was lost"
        )
