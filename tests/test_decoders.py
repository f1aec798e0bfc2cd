"""Which decoder is asked changes the time, never a value."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_writing import axial, ramp_volume, write_series
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEG2000, JPEGLSNearLossless

from vfscreen.readers.common import rescaled, to_hu
from vfscreen.readers.dicom import FASTEST_DECODER

LOSSY = {JPEG2000: {"j2k_cr": [4]}, JPEGLSNearLossless: {"jls_error": 3}}


def compressed(folder, syntax: str, *, signed: bool) -> pydicom.Dataset:
    (path,) = write_series(folder, ramp_volume(axial(), (1, 64, 80)))
    dataset = pydicom.dcmread(path)
    noisy = dataset.pixel_array // 2 + np.random.default_rng(2).integers(0, 300, (64, 80))
    if not signed:
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
    dataset.PixelData = (noisy - 2000 * signed).astype(np.int16).tobytes()
    dataset.compress(syntax, generate_instance_uid=False, **LOSSY.get(syntax, {}))
    return dataset


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", FASTEST_DECODER, ids=lambda syntax: syntax.name)
def test_the_fastest_decoder_gives_what_the_others_give(tmp_path, syntax, signed):
    dataset, decoder = compressed(tmp_path, syntax, signed=signed), get_decoder(syntax)
    assert FASTEST_DECODER[syntax] in decoder.available_plugins
    one, *others = (decoder.as_array(dataset, decoding_plugin=name)[0] for name in decoder.available_plugins)
    assert others
    assert one.max() > one.min()
    for other in others:
        np.testing.assert_array_equal(one, other)


@given(
    st.sampled_from(["<i2", "<u2", ">i2", "i1", "u1", "<i4"]).flatmap(lambda kind: arrays(kind, 20)),
    st.one_of(st.integers(-(2**26), 2**26), st.floats(-5000, 5000, width=32)),
    st.sampled_from([1.0, 0.5, 2.0]),
)
def test_rescaling_in_integers_gives_what_rescaling_in_floats_gives(stored, intercept, slope):
    line = np.float32(slope), np.float32(intercept)
    np.testing.assert_array_equal(rescaled(stored, *line), to_hu(stored * line[0] + line[1]))
