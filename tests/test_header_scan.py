"""The fast way through a header finds what pydicom finds, or leaves the file to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import damaged, ramp_volume, write_series
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from vfscreen.readers import dicom_fields
from vfscreen.readers.dicom_fields import read_header
from vfscreen.readers.header_scan import scan

SHARED = Path(__file__).parents[2] / "shared"
AXES = np.column_stack([[0, 0, 3.0], [0, 2, 0], [2, 0, 0]])


def scanned(path: Path) -> dicom_fields.Fields | None:
    elements = scan(path, dicom_fields._KEYWORDS, dicom_fields._LAST_PLAIN)
    return None if elements is None else dicom_fields._scanned(elements)


def written(folder: Path, syntax: str = ExplicitVRLittleEndian, **changes: object) -> Path:
    (path,) = write_series(folder, ramp_volume(AXES, (1, 4, 5)), PatientID="P 1 ", KVP="120")
    dataset = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return path


def nested(*, undefined: bool) -> Sequence:
    inner, outer = pydicom.Dataset(), pydicom.Dataset()
    inner.PatientID = inner.SeriesInstanceUID = "not this one"
    outer.ReferencedSOPSequence = Sequence([inner])
    outer.PatientID = "nor this one"
    found = Sequence([outer, inner])
    if undefined:
        found.is_undefined_length = outer.is_undefined_length_sequence_item = True
        outer["ReferencedSOPSequence"].is_undefined_length = inner.is_undefined_length_sequence_item = True
    return found


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_sequences_are_stepped_over(tmp_path, syntax, undefined):
    sequence = nested(undefined=undefined)
    path = written(tmp_path, syntax, ReferencedImageSequence=sequence, RequestAttributesSequence=sequence)
    found = scanned(path)
    assert found is not None
    assert found["PatientID"] == ["P 1"]
    assert found == dicom_fields._parsed(path).top


def test_what_is_deflated_is_left_to_pydicom(tmp_path):
    path = written(tmp_path, DeflatedExplicitVRLittleEndian)
    assert scanned(path) is None
    assert read_header(path).top["PatientID"] == ["P 1"]


def test_a_name_of_another_character_set_is_left_to_pydicom(tmp_path):
    path = written(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientID="пациент")
    assert scanned(path) is None
    assert read_header(path).top["PatientID"] == ["пациент"]


def test_a_header_longer_than_the_first_bytes_is_read_to_its_end(tmp_path):
    path = written(tmp_path, ImageComments="x" * 10_000, AcquisitionProtocolDescription="y" * 30_000)
    assert scanned(path) == dicom_fields._parsed(path).top


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_in_damaged_headers_it_finds_the_same_or_nothing(tmp_path, syntax):
    path = written(tmp_path, syntax, ReferencedImageSequence=nested(undefined=True))
    agreed = 0
    for content in damaged(path.read_bytes(), 400, 1200):
        path.write_bytes(content)
        found = scanned(path)
        if found is None:
            continue
        try:
            expected = dicom_fields._parsed(path).top
        except dicom_fields.FOREIGN_ERRORS:
            continue
        assert found == expected
        agreed += 1
    assert agreed > 200


def test_in_real_headers_it_finds_the_same():
    folder = SHARED / "dicom"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    compared = 0
    for path in sorted(folder.rglob("*"))[::5]:
        found = scanned(path) if path.is_file() else None
        if found is not None:
            assert found == dicom_fields._parsed(path).top
            compared += 1
    assert compared > 30
