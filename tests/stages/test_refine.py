from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vfscreen.curve import SpineCurve
from vfscreen.measure import heights_mm
from vfscreen.refine import Upright, crop, crop_points, from_pixels, normalise, on_sheet, refine, to_pixels
from vfscreen.settings import RefineSettings
from vfscreen.study import Detection, Refined
from vfscreen.volume import Volume, VolumeGeometry

SETTINGS = RefineSettings()
STRAIGHT = SpineCurve.through(np.column_stack([np.full(200, 5.0), np.full(200, -3.0), -np.arange(200.0)]))
OWN = np.array([(-14, -10, 0), (-14, 10, 0), (0, -8, 0), (0, 8, 0), (14, -10, 0), (14, 10, 0)], float)


def turned(degrees):
    """A vertebra's keypoints (6, 3) in LPS mm, turned by Euler angles."""
    upright = np.array([[0, 1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])  # u, v, w
    return OWN @ upright @ Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() + [4, 7, -90]


def volume(hu_of=lambda points: points[..., 2], shape=(120, 90, 80)):
    affine = np.array([[0, 0, 1.0, -35], [0, 1.0, 0, -45], [1.0, 0, 0, -150], [0, 0, 0, 1]])
    geometry = VolumeGeometry(shape, affine)
    points = geometry.to_patient(np.moveaxis(np.indices(shape), 0, -1).astype(float))
    return Volume(np.rint(hu_of(points)).astype(np.int16), geometry)


def says(own_mm, spreads=(0.5, 0.6, 0.7, 0.02)):
    """A network that sees a vertebra of these (u, v) in every crop."""

    def network(crops):
        n = len(crops)
        return np.repeat(to_pixels(own_mm, SETTINGS)[None], n, 0), np.log(np.tile(spreads, (n, 1)))

    return network


@pytest.mark.parametrize("degrees", [(0, 0, 0), (25, 0, 0), (0, 20, 0), (10, -15, 30)])
def test_the_frame_stands_upright_in_the_middle_of_the_keypoints(degrees):
    points = turned(degrees)
    frame = Upright.of(points)
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(frame.to_own(points), OWN, atol=1e-9)
    assert frame.axes[2, 0] > 0.5  # w to the left


def test_crops_are_millimetres_of_the_patient_whatever_the_turn():
    frame = Upright.of(turned((20, 10, -15)))
    points = crop_points(frame, SETTINGS)
    assert points.shape == (5, 96, 96, 3)
    steps = [np.linalg.norm(np.diff(points, axis=axis), axis=-1) for axis in range(3)]
    np.testing.assert_allclose(steps[0], 3.0, atol=1e-9)
    np.testing.assert_allclose(steps[1], 0.6, atol=1e-9)
    np.testing.assert_allclose(steps[2], 0.6, atol=1e-9)
    np.testing.assert_allclose(points.mean((0, 1, 2)), frame.center_mm, atol=1e-9)


def test_pixels_and_millimetres_of_a_crop_are_inverse():
    own = np.random.default_rng(0).uniform(-25, 25, (7, 3)) * [1, 1, 0]
    np.testing.assert_allclose(from_pixels(to_pixels(own, SETTINGS), SETTINGS), own, atol=1e-9)


def test_a_pixel_of_the_crop_shows_the_hu_at_its_place():
    frame = Upright.of(turned((15, 0, 0)))
    own = np.array([6.0, -9.0, 3.0])
    row, column = np.rint(to_pixels(own, SETTINGS)).astype(int)
    place = crop_points(frame, SETTINGS)[3, row, column]
    assert np.linalg.norm(place - frame.to_patient(own)) < 0.5
    assert volume().sample(place[None]) == pytest.approx(place[2], abs=0.5)


def test_rows_run_to_caudal_and_columns_to_posterior():
    points = crop_points(Upright.of(turned((0, 0, 0))), SETTINGS)
    assert points[0, -1, 0, 2] < points[0, 0, 0, 2]
    assert points[0, 0, -1, 1] > points[0, 0, 0, 1]
    assert points[-1, 0, 0, 0] > points[0, 0, 0, 0]


def detection(s=90.0, heights=(20, 16, 20)):
    half = np.repeat(np.array(heights) / 2, 2) * np.tile([-1, 1], 3)
    return Detection(np.column_stack([s + half, np.repeat([-14.0, 0, 14], 2)]), 0.9)


def test_a_network_that_sees_the_vertebra_gives_its_heights_in_the_patient():
    (found,) = refine(volume(), STRAIGHT, [detection(heights=(20, 20, 20))], says(OWN), SETTINGS)
    np.testing.assert_allclose(heights_mm(found.keypoints_mm), [20, 16, 20], atol=1e-9)
    np.testing.assert_allclose(found.height_sd_mm, np.sqrt(5 / 3) * np.array([0.5, 0.6, 0.7]))
    assert found.genant_ratio_sd == pytest.approx(np.sqrt(5 / 3) * 0.02)


def test_later_looks_stand_where_the_first_saw_the_vertebra():
    crops_seen = []

    def network(crops):
        crops_seen.append(crops)
        return says(OWN + np.array([2.0, 3.0, 0.0]))(crops)

    refine(
        volume(lambda p: 10 * p[..., 2]),
        STRAIGHT,
        [detection()],
        network,
        replace(SETTINGS, looks_mm=((0, 0, 0),)),
    )
    first, second = (400 * np.arctanh(np.clip(c[0, 2].mean(), -0.999, 0.999)) for c in crops_seen)
    assert len(crops_seen) == 2
    assert second < first  # the vertebra was seen 3 mm further down


def test_no_detections_need_no_network():
    assert refine(volume(), STRAIGHT, [], says(OWN), SETTINGS) == ()


def test_metal_in_the_middle_of_a_crop_is_told_and_metal_far_away_is_not():
    def with_metal_at(place):
        return volume(lambda p: np.where(np.linalg.norm(p - place, axis=-1) < 3, 3000, 100))

    (near,) = refine(with_metal_at([5, -3, -90]), STRAIGHT, [detection()], says(OWN), SETTINGS)
    (far,) = refine(with_metal_at([5, 22, -90]), STRAIGHT, [detection()], says(OWN), SETTINGS)
    assert near.has_metal
    assert not far.has_metal


def test_refined_keypoints_are_shown_where_they_lie_on_the_sheet():
    points = STRAIGHT.to_patient(np.column_stack([detection().keypoints, np.zeros(6)]))
    shown = on_sheet(Refined(points, np.zeros(3), 0.0), STRAIGHT)
    np.testing.assert_allclose(shown, detection().keypoints, atol=1e-6)


def test_hu_are_normalised_to_minus_one_to_one_and_keep_their_order():
    hu = np.linspace(-1000, 3000, 50, dtype=np.float32)
    seen = normalise(hu)
    assert np.abs(seen).max() <= 1
    assert (np.diff(seen) >= 0).all()
    assert seen[np.abs(hu - 200).argmin()] == pytest.approx(0, abs=0.1)


def test_a_crop_shows_its_points():
    frame = Upright.of(turned((15, -20, 10)))
    np.testing.assert_allclose(
        crop(volume(), frame, SETTINGS), volume().sample(crop_points(frame, SETTINGS)), atol=1e-3
    )
