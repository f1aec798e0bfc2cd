"""Studies on disk -> HU in the patient's millimetres. One module a format; see docs/add-a-reader.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from vfscreen.errors import InconsistentGeometry, InputError, TooShort, UnreadableFile
from vfscreen.readers import dicom, nifti
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Volume, VolumeGeometry

VOLUME_READERS = (nifti,)
"""Formats in which one file is one study, known by its suffix."""
READERS = (*VOLUME_READERS, dicom)
"""Asked in this order; the first that can read the files does."""


def read_study(study: StudyFiles, settings: ReadSettings) -> StudyImage:
    """Decode a study found by `discover`.

    Raises the error that the study already carries, or UnreadableFile, MissingGeometry,
    InconsistentGeometry or TooShort.
    """
    image = _reader(study).read(study)
    header = _with_geometry(image.header, image.volume.geometry)
    _check_limits(header, settings)
    return StudyImage(image.volume, header)


def read_geometry(study: StudyFiles, settings: ReadSettings) -> tuple[VolumeGeometry, StudyHeader]:
    """What `read_study` would give, from the headers alone. Raises the same errors, but for pixels."""
    geometry, keys = _reader(study).read_geometry(study)
    header = _with_geometry(keys, geometry)
    _check_limits(header, settings)
    return geometry, header


def read_volume(path: str | Path, settings: ReadSettings | None = None) -> Volume:
    """The CT of one study: a NIfTI file, or a folder with DICOM of one study.

    Raises InputError where `path` holds several studies, and the errors of `read_study`;
    `ReadSettings(min_extent_mm=0)` also reads what is too short to screen.
    """
    from vfscreen.discover import discover  # which itself asks the readers

    studies = discover(Path(path))
    if len(studies) > 1:
        names = ", ".join(study.source for study in studies[:5])
        raise InputError(f"{path} holds {len(studies)} studies ({names} ...); name one of them")
    return read_study(studies[0], settings or ReadSettings()).volume


def _reader(study: StudyFiles) -> ModuleType:
    if study.error is not None:
        raise study.error
    try:
        return next(reader for reader in READERS if reader.can_read(study.files))
    except (StopIteration, OSError) as error:
        raise UnreadableFile(f"{study.files[0].name} is in no format that can be read") from error


def _with_geometry(keys: StudyHeader, geometry: VolumeGeometry) -> StudyHeader:
    """The slices counted along the array axis that runs closest to the body's, whatever was stored."""
    sizes = geometry.voxel_sizes_mm
    body = int(np.abs(geometry.affine[2, :3] / sizes).argmax())
    return replace(
        keys,
        n_slices=geometry.shape[body],
        slice_spacing_mm=float(sizes[body]),
        pixel_spacing_mm=float(np.delete(sizes, body).max()),
    )


def _check_limits(header: StudyHeader, settings: ReadSettings) -> None:
    spacing = header.slice_spacing_mm or 0.0
    extent = spacing * (header.n_slices or 0)
    if extent < settings.min_extent_mm:
        raise TooShort(
            f"the image covers {extent:.0f} mm along the body; {settings.min_extent_mm:.0f} mm are needed"
        )
    if spacing > settings.max_slice_spacing_mm:
        raise InconsistentGeometry(
            f"slices are {spacing:.1f} mm apart; beyond {settings.max_slice_spacing_mm:.1f} mm "
            "the height of a vertebra cannot be measured"
        )
