"""Small CT volumes written as DICOM series and NIfTI files, with a name that no result may show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from vfscreen.study import StudyImage
from vfscreen.volume import Volume, VolumeGeometry, lps_from_ras

X, Y, Z = 2.0 * np.eye(3)[0], 2.0 * np.eye(3)[1], 3.0 * np.eye(3)[2]
"""Steps along columns, rows and slices of an axial image, LPS mm."""

PRIVATE = ("DOE", "JANE", "19500101", "1950-01-01")
"""What stands in the headers that `write_series` writes and must stand in no result."""


def axial() -> np.ndarray:
    """The steps along k, j, i of an axial image, head first and supine."""
    return np.column_stack([Z, Y, X])


def ramp_volume(
    axes_mm: np.ndarray, shape: tuple[int, int, int] = (24, 10, 12), center=(10, -20, -300)
) -> Volume:
    """A volume whose HU are `ramp_hu` of the patient's mm; `axes_mm` (3, 3) are the steps along k, j, i."""
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    geometry = VolumeGeometry(shape, affine)
    points = geometry.to_patient(np.moveaxis(np.indices(shape), 0, -1))
    return Volume(np.rint(ramp_hu(points)).astype(np.int16), geometry)


def ramp_hu(points_mm: np.ndarray) -> np.ndarray:
    """Linear in LPS mm, another slope along each axis: linear interpolation gives it back exactly."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return 7 * x - 11 * y + 3 * z + 800


def assert_same_hu_in_the_patient(image: StudyImage) -> None:
    """The image is that of a `ramp_volume`, whatever way its axes run."""
    points = np.array([10, -20, -300]) + np.random.default_rng(0).uniform(-7, 7, (50, 3))
    assert image.volume.hu.dtype == np.int16
    np.testing.assert_allclose(image.volume.sample(points), ramp_hu(points), atol=1.0)


def write_series(
    folder: Path,
    volume: Volume,
    *,
    slope: float = 1.0,
    intercept: float = -1024.0,
    names: list[str] | None = None,
    **tags: object,
) -> list[Path]:
    """One file a slice along k; `tags` replace header values, None leaves a tag out."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{k:04d}.dcm" for k in range(len(volume.hu))]
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    for k, name in enumerate(names):
        dataset = _slice(volume, k, slope, intercept, {**uids, **tags})
        dataset.save_as(folder / name, enforce_file_format=True)
    return [folder / name for name in names]


def _slice(volume: Volume, k: int, slope: float, intercept: float, tags: dict[str, object]) -> Dataset:
    affine = volume.geometry.affine
    rows, columns = affine[:3, 1], affine[:3, 2]
    row_mm, column_mm = np.linalg.norm(rows), np.linalg.norm(columns)
    stored = np.rint((volume.hu[k] - intercept) / slope).astype(np.int16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, object] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientName": "DOE^JANE",
        "PatientBirthDate": "19500101",
        "PatientID": "P-17",
        "StudyDate": "20200131",
        "InstanceNumber": str(k * 7 % len(volume.hu)),
        "ImagePositionPatient": [f"{v:.6f}" for v in affine[:3, :3] @ [k, 0, 0] + affine[:3, 3]],
        "ImageOrientationPatient": [f"{v:.8f}" for v in (*columns / column_mm, *rows / row_mm)],
        "PixelSpacing": [f"{row_mm:.6f}", f"{column_mm:.6f}"],
        "SliceThickness": "9",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": str(slope),
        "RescaleIntercept": str(intercept),
        **tags,
    }
    for tag, value in values.items():
        if value is not None:
            setattr(dataset, tag, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = stored.tobytes()
    return dataset


def nifti_image(volume: Volume, axcodes: str = "RAS") -> nibabel.Nifti1Image:
    """The volume as NIfTI with its stored axes running as `axcodes` say; sform and mm are set."""
    image = nibabel.Nifti1Image(volume.hu.T, lps_from_ras(volume.geometry.affine[:, [2, 1, 0, 3]]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axcodes)
    )
    image = image.as_reoriented(turn)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    return image


def write_nifti(path: Path, volume: Volume, axcodes: str = "RAS") -> Path:
    """`nifti_image` written to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nifti_image(volume, axcodes), path)
    return path


def damaged(content: bytes, count: int, last: int) -> Iterator[bytes]:
    """The content with one byte before `last` replaced, `count` times; always the same."""
    rng = np.random.default_rng(7)
    last = min(last, len(content))
    for place, value in zip(rng.integers(0, last, count), rng.integers(0, 256, count), strict=True):
        yield content[:place] + bytes([value]) + content[place + 1 :]


def write_enhanced(path: Path, volume: Volume, intercepts: Sequence[float], **tags: object) -> Path:
    """The volume as one enhanced CT file; each frame has its own rescaling, and they stand in no order."""
    slices = [_slice(volume, k, 1.0, intercept, {}) for k, intercept in enumerate(intercepts)]
    first = slices[0]
    groups = []
    order = np.random.default_rng(2).permutation(len(slices))
    for k in order:
        rescale = _item(RescaleIntercept=str(intercepts[k]), RescaleSlope="1", RescaleType="HU")
        groups.append(
            _item(
                PlanePositionSequence=[_item(ImagePositionPatient=slices[k].ImagePositionPatient)],
                PixelValueTransformationSequence=[rescale],
                FrameContentSequence=[_item(TemporalPositionIndex=1, StackID="1")],
            )
        )
    shared = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=first.PixelSpacing)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=first.ImageOrientationPatient)],
        CTImageFrameTypeSequence=[_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(first, name)
    for name in ("RescaleSlope", "RescaleIntercept", "ImageType"):
        delattr(first, name)
    values = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(slices),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
        "PixelData": b"".join(slices[k].PixelData for k in order),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        **tags,
    }
    for name, value in values.items():
        setattr(first, name, value)
    first.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save_as(path, enforce_file_format=True)
    return path


def _item(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
