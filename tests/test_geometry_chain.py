"""The whole chain on a phantom of known boxes, stored in every way: heights to 0.3 mm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from dicom_writing import write_nifti, write_series
from fakes_geometry import BOXES, CENTERS, HEIGHTS, geometric_models, phantom, restored
from scipy.spatial.transform import Rotation

from vfscreen.screening import screen
from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner

TOLERANCE_MM = 0.3
STORED = {  # order of the array axes (of slices, rows, columns), and which of them run backwards
    "slices downwards": ((0, 1, 2), (0,)),
    "rows to anterior": ((0, 1, 2), (1,)),
    "columns to the right": ((0, 1, 2), (2,)),
    "feet first, supine": ((0, 1, 2), (0, 2)),
    "head first, prone": ((0, 1, 2), (1, 2)),
    "feet first, prone": ((0, 1, 2), (0, 1)),
    "sagittal": ((2, 0, 1), (1,)),
    "coronal": ((1, 0, 2), (0, 1)),
    "axes reversed": ((2, 1, 0), ()),
    "rows and columns exchanged": ((0, 2, 1), (2,)),
}
TILT = np.deg2rad(18)


def axes(slice_mm, row_mm, column_mm):
    """Steps along slices, rows, columns as the columns of a matrix."""
    return np.column_stack([[0, 0, slice_mm], [0, row_mm, 0], [column_mm, 0, 0]])


def tilted(slice_mm, pixel_mm):
    """A tilted gantry: slices are stacked along the table, not along their normal."""
    row = [0, pixel_mm * np.cos(TILT), -pixel_mm * np.sin(TILT)]
    return np.column_stack([[0, 0, slice_mm / np.cos(TILT)], row, [pixel_mm, 0, 0]])


RESAMPLED = {
    "1.2 mm in all directions": axes(1.2, 1.2, 1.2),
    "0.8 mm pixels, 2 mm slices": axes(2.0, 0.8, 0.8),
    "0.7 mm slices": axes(0.7, 1.1, 1.1),
    "pixels that are not square": axes(1.5, 0.9, 1.3),
    "oblique": Rotation.from_euler("xz", [23, 10], degrees=True).as_matrix() @ axes(1.5, 1.1, 1.1),
    "tilted gantry": tilted(1.4, 0.9),
}


@cache
def original():
    return phantom(axes(1.5, 0.9, 1.0))


@cache
def original_result():
    return screen(original(), geometric_models())


def heights(result):
    return np.array([v.heights_mm for v in result.vertebrae])


def centers(result):
    return np.array([v.center_mm for v in result.vertebrae])


def assert_true(result):
    assert len(result.vertebrae) == len(BOXES)
    np.testing.assert_allclose(heights(result), HEIGHTS, atol=TOLERANCE_MM)
    np.testing.assert_allclose(centers(result), CENTERS, atol=1.0)


def test_a_phantom_of_known_boxes_gives_its_heights():
    assert_true(original_result())
    assert original_result().status == "ok"


def test_keypoints_lie_on_the_corners_of_the_boxes():
    for vertebra, box in zip(original_result().vertebrae, BOXES, strict=True):
        np.testing.assert_allclose(vertebra.keypoints_mm, box.keypoints(), atol=1.0)


def test_wedge_and_biconcave_boxes_are_told_apart():
    assert [v.shape for v in original_result().vertebrae] == [
        "normal",
        "wedge",
        "normal",
        "biconcave",
        "normal",
        "normal",
    ]


@pytest.mark.parametrize("name", STORED)
def test_a_study_stored_otherwise_gives_the_same_heights_at_the_same_place(name):
    result = screen(restored(original(), *STORED[name]), geometric_models())
    np.testing.assert_allclose(heights(result), heights(original_result()), atol=1e-3)
    np.testing.assert_allclose(centers(result), centers(original_result()), atol=1e-3)


@pytest.mark.parametrize("name", RESAMPLED)
def test_a_study_resampled_or_oblique_gives_the_same_heights_at_the_same_place(name):
    result = screen(phantom(RESAMPLED[name]), geometric_models())
    assert_true(result)
    np.testing.assert_allclose(heights(result), heights(original_result()), atol=TOLERANCE_MM)
    np.testing.assert_allclose(centers(result), centers(original_result()), atol=1.0)


@cache
def coarse():
    return phantom(axes(2.0, 1.1, 1.3))


@cache
def coarse_result():
    return screen(coarse(), geometric_models())


def assert_like_coarse(result):
    assert_true(result)
    np.testing.assert_allclose(heights(result), heights(coarse_result()), atol=0.01)
    np.testing.assert_allclose(centers(result), centers(coarse_result()), atol=0.01)


@pytest.mark.parametrize("name", ["slices downwards", "feet first, supine", "head first, prone"])
def test_a_dicom_series_gives_the_heights_of_the_volume_it_was_written_from(tmp_path, name):
    write_series(tmp_path, restored(coarse(), *STORED[name]))
    assert_like_coarse(screen(tmp_path, geometric_models()))


def test_a_dicom_series_of_a_tilted_gantry_gives_true_heights(tmp_path):
    write_series(tmp_path, phantom(tilted(2.0, 1.2)))
    assert_true(screen(tmp_path, geometric_models()))


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "ASR"])
def test_a_nifti_file_gives_the_heights_of_the_volume_it_was_written_from(tmp_path, axcodes):
    path = write_nifti(tmp_path / "ct.nii", coarse(), axcodes)
    assert_like_coarse(screen(path, geometric_models()))


def test_moving_the_patient_moves_the_vertebrae_and_leaves_their_heights_alone():
    shift = np.array([37.0, -12.5, 640.0])
    volume = restored(coarse())
    volume.geometry.affine[:3, 3] += shift
    result = screen(volume, geometric_models())
    np.testing.assert_allclose(heights(result), heights(coarse_result()), atol=1e-3)
    np.testing.assert_allclose(centers(result), centers(coarse_result()) + shift, atol=1e-3)


SHIPPED = ("slices downwards", "feet first, supine", "head first, prone", "sagittal", "axes reversed")


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(3)
    scanner = Scanner(1.5, 1.5, 1.2, 0.6, 0.0, 8.0, 0.8, 0.0)
    return simulate_study(rng, draw_person(rng), scanner, Field("T5", "T11", 150.0, 150.0, 1.2)).volume


@pytest.fixture(scope="module")
def simulated_result(simulated, shipped_models):
    return screen(simulated, shipped_models)


def test_the_shipped_weights_measure_a_simulated_study(simulated_result):
    assert len(simulated_result.vertebrae) >= 5


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_weights_give_the_same_heights_to_a_study_stored_otherwise(
    name, simulated, simulated_result, shipped_models
):
    result = screen(restored(simulated, *STORED[name]), shipped_models)
    np.testing.assert_allclose(heights(result), heights(simulated_result), atol=TOLERANCE_MM)
    np.testing.assert_allclose(centers(result), centers(simulated_result), atol=TOLERANCE_MM)
