"""Images read without pydicom are those that pydicom reads, or are left to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import axial, damaged, ramp_volume, write_series
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from vfscreen.readers import dicom
from vfscreen.readers.plain_pixels import Stored, read_plain

SHARED = Path(__file__).parents[2] / "shared"
SHAPE = (6, 7)


def written(folder: Path, change: Callable[[pydicom.Dataset], object] = lambda _: None) -> Path:
    (path,) = write_series(folder, ramp_volume(axial(), (1, *SHAPE)))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.random.default_rng(1).bytes(2 * SHAPE[0] * SHAPE[1])
    change(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return path


def plain(path: Path) -> Stored | None:
    with path.open("rb") as file:
        return read_plain(file)


def assert_as_pydicom_reads(found: Stored, path: Path) -> None:
    dataset = pydicom.dcmread(path, force=True)
    np.testing.assert_array_equal(found.values, dataset.pixel_array)
    assert found.values.dtype == dataset.pixel_array.dtype
    assert found.padding == dicom._padding(dataset)


@pytest.mark.parametrize("padding", [None, 0, 1, 63536])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_plain_image_is_what_pydicom_reads(tmp_path, syntax, signed, bits, padding):
    def change(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelRepresentation, dataset.BitsStored = signed, bits
        if padding is not None:
            dataset.add_new("PixelPaddingValue", "US", padding)

    path = written(tmp_path, change)
    found = plain(path)
    assert found is not None
    assert_as_pydicom_reads(found, path)


def test_a_header_longer_than_what_is_read_first_is_plain_too(tmp_path):
    path = written(
        tmp_path, lambda dataset: dataset.add_new("RedPaletteColorLookupTableData", "OW", bytes(40000))
    )
    found = plain(path)
    assert found is not None
    assert_as_pydicom_reads(found, path)


NOT_PLAIN: dict[str, Callable[[pydicom.Dataset], object]] = {
    "compressed": lambda dataset: dataset.compress(RLELossless),
    "deflated": lambda dataset: setattr(
        dataset.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian
    ),
    "of frames": lambda dataset: setattr(dataset, "NumberOfFrames", 1),
    "in colour": lambda dataset: setattr(dataset, "PhotometricInterpretation", "RGB"),
    "of three samples": lambda dataset: setattr(dataset, "SamplesPerPixel", 3),
    "of eight bits": lambda dataset: setattr(dataset, "BitsAllocated", 8),
    "of no bits": lambda dataset: setattr(dataset, "BitsStored", 0),
    "of an unknown sign": lambda dataset: delattr(dataset, "PixelRepresentation"),
    "in bytes": lambda dataset: setattr(dataset["PixelData"], "VR", "OB"),
    "of two paddings": lambda dataset: dataset.add_new("PixelPaddingValue", "US", [1, 2]),
    "with something behind": lambda dataset: dataset.add_new(0xFFFCFFFC, "OB", bytes(10)),
    "too short": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-2]),
    "too long": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(2)),
    "without pixels": lambda dataset: delattr(dataset, "PixelData"),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_an_image_is_left_to_pydicom_that_is(tmp_path, name):
    assert plain(written(tmp_path)) is not None
    assert plain(written(tmp_path, NOT_PLAIN[name])) is None


def test_a_file_that_was_cut_is_left_to_pydicom(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-2])
    assert plain(path) is None


@pytest.mark.filterwarnings("ignore")
def test_an_image_with_a_damaged_header_is_what_pydicom_reads_or_left_to_it(tmp_path):
    path, seen = written(tmp_path), 0
    for content in damaged(path.read_bytes(), 400, 2000):
        path.write_bytes(content)
        found = plain(path)
        if found is not None:
            assert_as_pydicom_reads(found, path)
            seen += 1
    assert seen > 100


@pytest.mark.filterwarnings("ignore")
def test_real_images_are_what_pydicom_reads_or_left_to_it():
    if not (SHARED / "dicom").exists():
        pytest.skip(f"{SHARED / 'dicom'} is not here")
    files = [path for path in (SHARED / "dicom").rglob("*") if path.is_file()]
    found = {path: image for path in files if (image := plain(path))}
    assert found
    for path, image in found.items():
        assert_as_pydicom_reads(image, path)
