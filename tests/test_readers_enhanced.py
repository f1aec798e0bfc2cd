"""Enhanced CT: many frames in a file, each with its own place and rescaling."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pydicom
import pytest
from dicom_writing import ramp_hu, ramp_volume, write_enhanced, write_series
from pydicom.uid import JPEGLSLossless

from vfscreen.discover import discover
from vfscreen.errors import MissingGeometry, UnreadableFile
from vfscreen.readers import read_study
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyImage

AXES = np.column_stack([[0, 0, 3.0], [0, 2, 0.4], [2, 0, 0]])


def read(folder) -> StudyImage:
    (study,) = discover(folder)
    return read_study(study, ReadSettings())


def intercepts(n: int = 24) -> list[float]:
    return [-1024.0 + 10 * (k % 3) for k in range(n)]


def assert_ramp(image: StudyImage) -> None:
    points = np.array([10, -20, -300]) + np.random.default_rng(0).uniform(-7, 7, (50, 3))
    np.testing.assert_allclose(image.volume.sample(points), ramp_hu(points), atol=1.0)


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless])
def test_frames_are_placed_and_rescaled_one_by_one(tmp_path, syntax):
    path = write_enhanced(tmp_path / "ct", ramp_volume(AXES), intercepts())
    if syntax:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    image = read(tmp_path)
    assert_ramp(image)
    assert image.header.n_slices == 24


def test_it_gives_what_its_single_frames_give(tmp_path):
    volume = ramp_volume(AXES)
    write_enhanced(tmp_path / "enhanced" / "ct", volume, intercepts())
    write_series(tmp_path / "single", volume)
    one, other = read(tmp_path / "enhanced"), read(tmp_path / "single")
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_allclose(one.volume.geometry.affine, other.volume.geometry.affine, atol=1e-6)


def test_a_series_may_be_several_such_files(tmp_path):
    volume = ramp_volume(AXES)
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    path = write_enhanced(tmp_path / "a", volume, intercepts(), **uids)
    whole = pydicom.dcmread(path)
    size = whole.Rows * whole.Columns * 2
    for name, first, last in (("a", 0, 10), ("b", 10, 24)):
        part = pydicom.dcmread(path) if name == "b" else whole
        part.SOPInstanceUID = f"1.4.{first}"
        part.NumberOfFrames = last - first
        part.PerFrameFunctionalGroupsSequence = part.PerFrameFunctionalGroupsSequence[first:last]
        part.PixelData = part.PixelData[first * size : last * size]
        part.save_as(tmp_path / f"part_{name}")
    path.unlink()
    assert_ramp(read(tmp_path))


def test_of_several_temporal_positions_one_is_read(tmp_path):
    volume = ramp_volume(AXES)
    path = write_enhanced(tmp_path / "a", volume, intercepts())
    dataset = pydicom.dcmread(path)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    later = deepcopy(frames)
    for frame in later:
        frame.FrameContentSequence[0].TemporalPositionIndex = 2
    dataset.PerFrameFunctionalGroupsSequence = [*later, *frames]
    dataset.NumberOfFrames = 2 * len(frames)
    dataset.PixelData = bytes(len(dataset.PixelData)) + dataset.PixelData
    dataset.save_as(path)
    assert_ramp(read(tmp_path))


def test_frames_without_places_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "ct", ramp_volume(AXES), intercepts())
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(MissingGeometry, match="ct has no valid ImagePositionPatient"):
        read(tmp_path)


def test_fewer_groups_than_frames_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "ct", ramp_volume(AXES), intercepts())
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:20]
    dataset.save_as(path)
    with pytest.raises(MissingGeometry, match="24 frames, and functional groups with positions for 20"):
        read(tmp_path)


def test_pixels_that_end_too_early_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "ct", ramp_volume(AXES), intercepts())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UnreadableFile, match="ct"):
        read(tmp_path)
