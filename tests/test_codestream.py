"""A compressed image's own size is compared with the header before anything is decoded."""

from __future__ import annotations

import pydicom
import pytest
from dicom_writing import ramp_volume, write_series
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from vfscreen.discover import discover
from vfscreen.errors import UnreadableFile
from vfscreen.readers import read_study
from vfscreen.readers.codestream import size
from vfscreen.settings import ReadSettings

AXES = [[0, 0, 2.0], [0, 2.0, 0], [3.0, 0, 0]]


def compressed(folder, syntax) -> pydicom.Dataset:
    path = write_series(folder, ramp_volume(AXES, (24, 80, 96)))[5]
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    return dataset


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_the_size_is_that_of_the_image(tmp_path, syntax):
    (frame,) = generate_frames(compressed(tmp_path, syntax).PixelData, number_of_frames=1)
    assert size(frame) == (80, 96)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_an_image_that_says_it_is_huge_is_not_decoded(tmp_path, syntax):
    dataset = compressed(tmp_path, syntax)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    old = (80).to_bytes(2, "big") + (96).to_bytes(2, "big")
    new = b"\xea\x60\xea\x60"
    if syntax == JPEG2000Lossless:
        old = (96).to_bytes(4, "big") + (80).to_bytes(4, "big")
        new = b"\0\0\xea\x60" * 2
    dataset.PixelData = encapsulate([frame.replace(old, new, 1)])
    dataset.save_as(dataset.filename)
    with pytest.raises(UnreadableFile, match="are 60000 x 60000, its header says 80 x 96"):
        read_study(discover(tmp_path)[0], ReadSettings())


@given(st.binary(max_size=300))
def test_any_bytes_give_a_size_or_none(data):
    for start in (b"", b"\xff\xd8\xff", b"\xff\x4f\xff\x51"):
        found = size(start + data)
        assert found is None or len(found) == 2
