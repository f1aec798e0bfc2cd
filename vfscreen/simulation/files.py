"""Simulated studies on disk: DICOM series, NIfTI files, and their truth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from vfscreen.volume import Volume, lps_from_ras

DESCRIPTION = "SIMULATED chest CT (vfscreen), not a patient"


def write_dicom(folder: Path, volume: Volume, patient_id: str, study_date: str, *, compress: bool) -> None:
    """One file a slice along the first axis. `compress` stores JPEG-LS lossless.

    The UIDs are made of the patient's ID and the date, so that the same call writes the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(len(volume.hu)):
        dataset = _slice(volume, k, patient_id, study_date)
        if compress:
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(folder / f"IM{k:04d}", enforce_file_format=True)


def write_nifti(path: Path, volume: Volume) -> None:
    """A compressed NIfTI file in RAS millimetres, axes (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = lps_from_ras(volume.geometry.affine[:, [2, 1, 0, 3]])
    image = nibabel.Nifti1Image(volume.hu.transpose(2, 1, 0), affine)
    image.header["descrip"] = b"SIMULATED chest CT (vfscreen)"
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _slice(volume: Volume, k: int, patient_id: str, study_date: str) -> Dataset:
    def uid(*what: object) -> str:
        return generate_uid(entropy_srcs=[patient_id, study_date, *map(str, what)])

    affine = volume.geometry.affine
    row_mm, column_mm = volume.geometry.voxel_sizes_mm[1:]
    stored = (volume.hu[k].astype(np.int32) + 1024).astype(np.uint16)
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid("slice", k),
        "StudyInstanceUID": uid("study"),
        "SeriesInstanceUID": uid("series"),
        "FrameOfReferenceUID": uid("frame"),
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyDescription": DESCRIPTION,
        "SeriesDescription": DESCRIPTION,
        "PatientID": patient_id,
        "PatientName": "SIMULATED",
        "StudyDate": study_date,
        "InstanceNumber": str(k + 1),
        "ImagePositionPatient": [f"{v:.5f}" for v in affine[:3, 3] + k * affine[:3, 0]],
        "ImageOrientationPatient": [
            f"{v:.7f}" for v in (*affine[:3, 2] / column_mm, *affine[:3, 1] / row_mm)
        ],
        "PixelSpacing": [f"{row_mm:.6f}", f"{column_mm:.6f}"],
        "SliceThickness": f"{volume.geometry.voxel_sizes_mm[0]:.4f}",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "PixelData": stored.tobytes(),
    }
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    return dataset
