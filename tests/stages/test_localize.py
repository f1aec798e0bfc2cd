import numpy as np
import pytest
import torch
from fakes_geometry import restored

from vfscreen.curve import SpineCurve
from vfscreen.errors import SpineNotFound
from vfscreen.localize import LocalizerInput, localize, localizer_input, smooth_curve, window
from vfscreen.networks.localizer import Localizer, soft_argmax
from vfscreen.settings import LocalizeSettings
from vfscreen.volume import Volume, VolumeGeometry

SETTINGS = LocalizeSettings(beyond_mm=0)
VOXEL = SETTINGS.voxel_mm
ORIGIN = np.array([-30.0, 40.0, -600.0])


def study(depth=48, planes=48) -> LocalizerInput:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = VOXEL
    affine[:3, 3] = ORIGIN
    affine[3, 3] = 1
    shape = (planes, 32, 32)
    return LocalizerInput(np.zeros(shape, np.float32), VolumeGeometry(shape, affine), depth)


def says(presence, center=(15.0, 12.0)):
    """A network that sees the spine in these planes, everywhere at one place in-plane."""
    presence = np.asarray(presence)
    centers = np.broadcast_to(center, (len(presence), 2))
    return lambda images: (np.stack([centers] * len(images)), np.stack([presence] * len(images)))


def seen(*planes, n=48):
    return np.where(np.isin(np.arange(n), np.concatenate([np.arange(*p) for p in planes])), 6.0, -6.0)


def z_range(curve):
    return (curve.points_mm[:, 2].min() - ORIGIN[2]) / VOXEL, (
        curve.points_mm[:, 2].max() - ORIGIN[2]
    ) / VOXEL


def ct(hu, spacing=(1.0, 1.0, 1.0)) -> Volume:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing
    affine[:3, 3] = 10.0, -20.0, 30.0
    affine[3, 3] = 1
    return Volume(np.asarray(hu, np.int16), VolumeGeometry(hu.shape, affine))


def test_the_curve_runs_from_cranial_to_caudal():
    (curve,) = localize([study()], says(seen((0, 48))), SETTINGS)
    assert isinstance(curve, SpineCurve)
    assert (np.diff(curve.points_mm[:, 2]) < 0).all()
    assert curve.length_mm == pytest.approx(47 * VOXEL, abs=1.0)


def test_centres_are_rows_to_posterior_and_columns_to_left_in_voxels():
    (curve,) = localize([study()], says(seen((0, 48)), (20.5, 4.0)), SETTINGS)
    expected = ORIGIN[:2] + VOXEL * np.array([4.0, 20.5])
    np.testing.assert_allclose(curve.points_mm[:, :2] - expected, 0, atol=1e-6)


def test_planes_of_padding_are_never_spine():
    (curve,) = localize([study(depth=40, planes=48)], says(seen((0, 48))), SETTINGS)
    assert z_range(curve)[1] <= 39


def test_only_the_longest_run_of_planes_is_the_spine():
    (curve,) = localize([study()], says(seen((2, 8), (15, 44))), SETTINGS)
    assert z_range(curve) == pytest.approx((15, 43), abs=0.4)


@pytest.mark.parametrize("gap", [1, 2])
def test_short_gaps_are_closed(gap):
    (curve,) = localize([study()], says(seen((5, 20), (20 + gap, 42))), SETTINGS)
    assert z_range(curve) == pytest.approx((5, 41), abs=0.4)


def test_a_gap_of_three_planes_ends_the_spine():
    (curve,) = localize([study()], says(seen((3, 20), (23, 47))), SETTINGS)
    assert z_range(curve) == pytest.approx((23, 46), abs=0.4)


@pytest.mark.parametrize("planes", [(0, 0), (10, 26)])
def test_too_little_spine_is_not_found_and_the_reason_says_how_much(planes):
    (result,) = localize([study()], says(seen(planes)), SETTINGS)
    assert isinstance(result, SpineNotFound)
    assert f"over {(planes[1] - planes[0]) * VOXEL:.0f} mm only" in str(result)


def test_one_study_without_a_spine_leaves_the_others_of_its_batch_alone():
    def network(images):
        present = np.where(images.mean((1, 2, 3)) > 0, 6.0, -6.0)
        return np.full((len(images), 48, 2), 9.0), np.repeat(present[:, None], 48, 1)

    bright = LocalizerInput(study().image + 1, study().geometry, 48)
    results = localize([bright, study(), bright], network, SETTINGS)
    assert [type(r) for r in results] == [SpineCurve, SpineNotFound, SpineCurve]


def noisy_wave(period_mm, amplitude=10.0, scatter=0.0):
    z = np.arange(0, 360, VOXEL)
    wave = amplitude * np.sin(2 * np.pi * z / period_mm)
    rng = np.random.default_rng(1)
    points = np.stack([0.5 * wave, wave, z], -1)
    points[:, :2] += rng.normal(0, scatter, (len(z), 2))
    return points, lambda at: amplitude * np.sin(2 * np.pi * at / period_mm)


def test_smoothing_recovers_a_curve_from_scattered_centres():
    points, wave = noisy_wave(240.0, scatter=1.5)
    curve = smooth_curve(points, np.ones(len(points)), SETTINGS).points_mm
    inner = (curve[:, 2] > 20) & (curve[:, 2] < 340)
    error = curve[inner][:, :2] - np.outer(wave(curve[inner][:, 2]), [0.5, 1])
    assert np.sqrt((error**2).mean()) < 0.7
    assert np.abs(error).max() < 2.0


def test_waves_of_two_pi_smoothing_lengths_are_damped_to_half():
    points, _ = noisy_wave(2 * np.pi * SETTINGS.smoothing_mm)
    curve = smooth_curve(points, np.ones(len(points)), SETTINGS).points_mm
    inner = (curve[:, 2] > 100) & (curve[:, 2] < 260)
    assert np.abs(curve[inner, 1]).max() == pytest.approx(5.0, abs=0.5)


def test_a_doubtful_centre_pulls_less():
    points, _ = noisy_wave(240.0, amplitude=0.0)
    points[60, 1] = 30.0
    weights = np.ones(len(points))
    sure = smooth_curve(points, weights, SETTINGS).points_mm[:, 1].max()
    weights[60] = 0.1
    assert smooth_curve(points, weights, SETTINGS).points_mm[:, 1].max() < 0.2 * sure


@pytest.mark.parametrize("spacing", [(1.0, 0.8, 0.8), (2.5, 0.7, 0.7), (3.0, 3.0, 3.0), (5.0, 1.1, 0.9)])
def test_the_input_shows_a_ball_where_it_is_in_the_patient(spacing):
    shape = tuple(int(90 / s) for s in spacing)
    volume = ct(np.full(shape, -1000), spacing)
    middle = volume.geometry.to_patient((np.array(shape) - 1) / 2) + np.array([6.0, -9.0, 4.0])
    points = volume.geometry.to_patient(np.moveaxis(np.indices(shape), 0, -1))
    volume.hu[np.linalg.norm(points - middle, axis=-1) < 12] = 600
    seen = localizer_input(volume, SETTINGS)
    weight = seen.image - seen.image.min()
    at = np.array([(weight * index).sum() / weight.sum() for index in np.indices(weight.shape)])
    np.testing.assert_allclose(seen.geometry.to_patient(at), middle, atol=0.5)


def test_the_input_is_an_upright_grid_of_three_millimetres_padded_with_air():
    seen = localizer_input(ct(np.zeros((60, 100, 50))), SETTINGS)
    assert seen.image.shape == (24, 40, 24)
    assert seen.depth == 20
    np.testing.assert_allclose(seen.geometry.affine[:3, :3], 3 * np.eye(3)[::-1])
    assert seen.image[23, 20, 20] == window(np.float32(-1000))


def test_the_input_stands_in_the_middle_of_the_field_of_view():
    volume = ct(np.zeros((61, 100, 50)), (1.3, 0.7, 0.9))
    seen = localizer_input(volume, SETTINGS)
    corners = VolumeGeometry((seen.depth, 24, 15), seen.geometry.affine).corners_mm()  # without padding
    expected = volume.geometry.corners_mm()
    np.testing.assert_allclose(corners.mean(0), expected.mean(0), atol=1e-6)
    assert (np.ptp(corners, axis=0) >= np.ptp(expected, axis=0) - 0.01).all()


def test_a_study_stored_otherwise_gives_the_same_input():
    rng = np.random.default_rng(0)
    volume = ct(rng.integers(-1000, 1000, (40, 50, 60)), (1.5, 1.1, 0.9))
    one, other = (localizer_input(v, SETTINGS) for v in (volume, restored(volume, (2, 0, 1), (0, 2))))
    np.testing.assert_allclose(one.image, other.image, atol=1e-4)
    np.testing.assert_allclose(one.geometry.affine, other.geometry.affine, atol=1e-9)


def test_rounding_in_a_header_does_not_shift_the_grid():
    one, other = (ct(np.zeros((60, 90, 90)), (1.0, s, s)) for s in (1.2, np.float32(1.2)))
    a, b = localizer_input(one, SETTINGS), localizer_input(other, SETTINGS)
    assert a.image.shape == b.image.shape
    np.testing.assert_allclose(a.geometry.affine, b.geometry.affine, atol=1e-4)


def test_soft_argmax_of_a_delta_is_its_position():
    maps = torch.full((2, 3, 12, 10), -1e4)
    maps[0, :, 7, 3] = maps[1, :, 2, 9] = 0
    assert soft_argmax(maps)[:, 1].tolist() == [[7, 3], [2, 9]]


def test_soft_argmax_lies_between_two_equal_peaks():
    maps = torch.full((1, 1, 12, 10), -1e4)
    maps[0, 0, [4, 5], [3, 3]] = 0
    assert soft_argmax(maps)[0, 0].tolist() == [4.5, 3]


def test_the_network_gives_a_centre_and_a_presence_for_every_plane():
    centers, presence = Localizer()(torch.zeros(2, 1, 32, 48, 16))
    assert centers.shape == (2, 32, 2)
    assert presence.shape == (2, 32)
    assert (centers >= 0).all()
    assert (centers < torch.tensor([48, 16])).all()


def test_a_study_gives_the_same_centres_alone_and_in_a_batch(random_models):
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 32, 32)).astype(np.float32)
    together = random_models.localizer(images)
    alone = random_models.localizer(images[1:2])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[1], b[0], atol=1e-4)


def test_a_centre_that_leaps_aside_ends_the_spine():
    aside = np.where(np.arange(48)[:, None] < 30, (15.0, 12.0), (15.0, 25.0))
    (curve,) = localize([study()], says(seen((0, 48)), aside), SETTINGS)
    assert z_range(curve)[1] <= 29
    assert np.ptp(curve.points_mm[:, 0]) < 1e-6


def test_one_stray_centre_neither_ends_nor_bends_the_spine():
    stray = np.where(np.arange(48)[:, None] == 24, (15.0, 31.0), (15.0, 12.0))
    (curve,) = localize([study()], says(seen((0, 48)), stray), SETTINGS)
    assert curve.length_mm > 46 * VOXEL
    assert np.ptp(curve.points_mm[:, 0]) < 1.5


def test_the_curve_goes_on_straight_beyond_its_ends():
    (short,) = localize([study()], says(seen((0, 48))), SETTINGS)
    (long,) = localize([study()], says(seen((0, 48))), LocalizeSettings(beyond_mm=12))
    assert long.length_mm == pytest.approx(short.length_mm + 24, abs=1.0)
    np.testing.assert_allclose(long.points_mm[0] - short.points_mm[0], [0, 0, 12], atol=1e-6)
