"""Volumes as DICOM, with a name that no result may show; each fault breaks what comes from here."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from vfscreen.volume import Volume

NAMES = ("DOE^JANE", "DOE JANE", "19500101", "1950-01-01", "MAIDEN", "ELM STREET")
"""What the headers say of a person and no result may."""


def slices(volume: Volume, **tags: object) -> list[Dataset]:
    """A file a slice, 12 bits unsigned; `tags` replace header values, None leaves a tag out."""
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    common = _encoded({**_of_all(volume), **uids, **tags})
    return [_slice(volume, k, common, tags) for k in range(len(volume.hu))]


def _of_all(volume: Volume) -> dict[str, object]:
    return {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        **_person(),
        "ImageOrientationPatient": orientation(volume),
        "PixelSpacing": texts(volume.geometry.voxel_sizes_mm[1:]),
        **_pixels(volume.hu[0]),
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
    }


def _slice(volume: Volume, k: int, common: Dataset, tags: dict[str, object]) -> Dataset:
    affine = volume.geometry.affine
    values = {
        "SOPInstanceUID": generate_uid(),
        "InstanceNumber": str(k + 1),
        "ImagePositionPatient": texts(affine[:3, 3] + k * affine[:3, 0]),
        "PixelData": _unsigned(volume.hu[k]).tobytes(),
    }
    dataset = _dataset({name: value for name, value in values.items() if name not in tags})
    dataset.update(common)
    dataset.set_original_encoding(False, True, "iso8859")  # what is encoded is written as it stands
    return dataset


def _encoded(values: dict[str, object]) -> Dataset:
    """As bytes, which are written many times as fast as values."""
    file = BytesIO()
    _dataset(values).save_as(file, implicit_vr=False, little_endian=True)
    file.seek(0)
    return dcmread(file, force=True)


def _unsigned(hu: np.ndarray) -> np.ndarray:
    return (hu.astype(np.int32) + 1024).astype(np.uint16)


def _person() -> dict[str, object]:
    return {
        "PatientName": "DOE^JANE",
        "PatientBirthDate": "19500101",
        "PatientBirthName": "MAIDEN",
        "PatientAddress": "ELM STREET 3",
        "StudyDescription": "chest of DOE JANE, born 1950-01-01",
        "SeriesDescription": "chest of DOE JANE",
        "PatientID": "P-17",
        "StudyDate": "20200131",
    }


def _pixels(values: np.ndarray) -> dict[str, object]:
    return {
        "Rows": values.shape[-2],
        "Columns": values.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }


def _dataset(values: dict[str, object]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def texts(values: Any) -> list[str]:
    """Numbers as headers have them."""
    return [f"{value:.6f}" for value in values]


def orientation(volume: Volume) -> list[str]:
    """The directions of a row and of a column."""
    directions = volume.geometry.affine[:3, :3] / volume.geometry.voxel_sizes_mm
    return texts((*directions[:, 2], *directions[:, 1]))


def stored(dataset: Dataset) -> np.ndarray:
    """The values that `slices` stores, (rows, columns)."""
    return np.frombuffer(dataset.PixelData, np.uint16).reshape(dataset.Rows, dataset.Columns)


def store(dataset: Dataset, values: np.ndarray) -> None:
    """Other values, as they are, in the pixels' place."""
    dataset.PixelData = np.ascontiguousarray(values).tobytes()


def save(datasets: Sequence[Dataset], folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The files, under names of one's own or IM0000 on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (names or [f"IM{n:04d}" for n in range(len(datasets))])]
    for dataset, path in zip(datasets, paths, strict=True):
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
    return paths


def put(dataset: Dataset, keyword: str, text: str | bytes) -> None:
    """A text in an element as no library would write it."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    value = text if isinstance(text, bytes) else text.encode("utf-8")
    value += (b"\0" if keyword.endswith("UID") else b" ") * (len(value) % 2)
    dataset[tag] = RawDataElement(Tag(tag), dictionary_VR(tag)[:2], len(value), value, 0, False, True)


def put_all(datasets: Sequence[Dataset], keyword: str, text: str | bytes) -> list[Dataset]:
    """The same in all of them."""
    for dataset in datasets:
        put(dataset, keyword, text)
    return list(datasets)


def enhanced(volume: Volume, order: Sequence[int] | None = None) -> Dataset:
    """One file with a frame a slice, as scanners write enhanced CT; `order` stores the frames otherwise."""
    order = order if order is not None else range(len(volume.hu))
    values = _unsigned(volume.hu[list(order)])
    dataset = _dataset(
        {
            "SOPClassUID": EnhancedCTImageStorage,
            "SOPInstanceUID": generate_uid(),
            "StudyInstanceUID": generate_uid(),
            "SeriesInstanceUID": generate_uid(),
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            **_person(),
            **_pixels(values),
            "PixelData": values.tobytes(),
            "NumberOfFrames": len(values),
        }
    )
    dataset.SharedFunctionalGroupsSequence = [_shared(volume)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(volume, k) for k in order]
    return dataset


def _shared(volume: Volume) -> Dataset:
    group = Dataset()
    group.PixelMeasuresSequence = [_item(PixelSpacing=texts(volume.geometry.voxel_sizes_mm[1:]))]
    group.PlaneOrientationSequence = [_item(ImageOrientationPatient=orientation(volume))]
    group.PixelValueTransformationSequence = [
        _item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    ]
    group.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    return group


def _frame(volume: Volume, k: int) -> Dataset:
    affine = volume.geometry.affine
    group = Dataset()
    group.FrameContentSequence = [_item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=k + 1)]
    group.PlanePositionSequence = [_item(ImagePositionPatient=texts(affine[:3, 3] + k * affine[:3, 0]))]
    return group


def _item(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
