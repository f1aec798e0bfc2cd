from dataclasses import replace

import numpy as np
import pytest

from vfscreen.simulation.painting import SampleGrid, Structure
from vfscreen.simulation.person import Person
from vfscreen.simulation.scanner import (
    FINE_MM,
    Scanner,
    acquire,
    draw_scanner,
    fine_planes,
    finish,
    paint_slices,
)
from vfscreen.simulation.spine import Spine

QUIET = Scanner(3.0, 1.0, 0.8, 0.0, 0.0, 0.0, 0.8, 0.0)
PIXELS = np.arange(0, 32, 0.8)


def grid(z=None):
    return SampleGrid(fine_planes(-40, 40) if z is None else z, PIXELS, PIXELS)


def step_along(axis_mm, shape, axis):
    """0 HU below the middle, 1000 above, along one axis of the array."""
    step = np.where(axis_mm > axis_mm.mean(), 1000.0, 0.0).astype(np.float32)
    return np.broadcast_to(step.reshape([-1 if a == axis else 1 for a in range(3)]), shape).copy()


def width(profile, at):
    """Standard deviation of the spread that made this profile of a sharp edge, mm."""
    spread, middle = np.diff(profile), (at[1:] + at[:-1]) / 2
    mean = (spread * middle).sum() / spread.sum()
    return np.sqrt((spread * (middle - mean) ** 2).sum() / spread.sum())


@pytest.mark.parametrize("thickness", [2.0, 3.0, 5.0])
def test_a_slice_blurs_an_edge_over_its_thickness(thickness):
    place = grid()
    scanner = replace(QUIET, slice_thickness_mm=thickness, slice_spacing_mm=0.7)
    slices, z = acquire(np.random.default_rng(0), step_along(place.z_mm, place.shape, 0), place, scanner)
    between_planes = FINE_MM / np.sqrt(6)  # of the interpolation between painted planes
    expected = np.linalg.norm([thickness / np.sqrt(12), 0.25, between_planes])
    assert width(slices[:, 5, 5], z) == pytest.approx(expected, rel=0.08)


def test_painted_slices_average_a_step_over_their_thickness():
    above = Structure(lambda x, y, z: z + 0 * x + 0 * y, 1000.0)
    z = np.arange(-10, 10, 0.5)
    person = Person(Spine((), ()), (above,))
    slices = paint_slices(person, z, np.arange(3) * 0.5, np.arange(3) * 0.5, 5.0)
    assert width(slices[:, 1, 1], z) == pytest.approx(5 / np.sqrt(12), rel=0.05)
    assert np.interp(0, slices[:, 1, 1], z) == pytest.approx(0, abs=0.05)
    assert slices[[0, -1], 1, 1] == pytest.approx([-1000, 1000])


def test_slices_stand_at_their_spacing_and_show_the_hu_of_their_own_height():
    place = grid()
    ramp = np.broadcast_to(10 * place.z_mm[:, None, None], place.shape).astype(np.float32)
    slices, z = acquire(np.random.default_rng(0), ramp, place, replace(QUIET, slice_spacing_mm=2.5))
    assert np.diff(z) == pytest.approx(2.5)
    inner = np.abs(z) < 30
    np.testing.assert_allclose(slices[inner, 3, 3], 10 * z[inner], atol=0.1)


@pytest.mark.parametrize("blur", [0.8, 1.6])
@pytest.mark.parametrize("axis", [1, 2])
def test_in_plane_blur_is_the_one_asked_for(axis, blur):
    place = grid(np.arange(4.0))
    image = finish(
        np.random.default_rng(0), step_along(PIXELS, place.shape, axis), place, replace(QUIET, blur_mm=blur)
    )
    profile = np.moveaxis(image, axis, 0)[:, 2, 20]
    assert width(profile, PIXELS) == pytest.approx(blur, rel=0.05)


def test_no_blur_crosses_slices():
    place = grid(np.arange(6.0))
    image = step_along(place.z_mm, place.shape, 0)
    np.testing.assert_array_equal(
        finish(np.random.default_rng(0), image, place, replace(QUIET, blur_mm=2)), image
    )


@pytest.mark.parametrize("grain", [0.3, 1.2])
@pytest.mark.parametrize("noise", [10.0, 60.0])
def test_noise_has_the_deviation_asked_for_whatever_its_grain(noise, grain):
    scanner = replace(QUIET, noise_hu=noise, noise_grain_mm=grain)
    image = finish(
        np.random.default_rng(0), np.zeros((20, 40, 40), np.float32), grid(np.arange(20.0)), scanner
    )
    assert image.std() == pytest.approx(noise, rel=0.01)
    assert abs(image.mean()) < noise / 5


def test_coarse_noise_is_correlated_in_the_plane_and_not_across_slices():
    scanner = replace(QUIET, noise_hu=30.0, noise_grain_mm=1.2)
    image = finish(
        np.random.default_rng(0), np.zeros((20, 40, 40), np.float32), grid(np.arange(20.0)), scanner
    )

    def neighbours(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    assert neighbours(image[:, 1:], image[:, :-1]) > 0.6
    assert neighbours(image[:, :, 1:], image[:, :, :-1]) > 0.6
    assert abs(neighbours(image[1:], image[:-1])) < 0.05


def test_a_sharp_kernel_overshoots_an_edge():
    place = grid(np.arange(4.0))
    image = finish(
        np.random.default_rng(0), step_along(PIXELS, place.shape, 2), place, replace(QUIET, overshoot=1.0)
    )
    assert image.max() > 1050
    assert image.min() < -50


def test_streaks_run_along_rows():
    place = grid(np.arange(6.0))
    scanner = replace(QUIET, streaks_hu=40.0)
    image = finish(np.random.default_rng(0), np.zeros(place.shape, np.float32), place, scanner)
    assert np.ptp(image, axis=2).max() < 1e-3
    assert image.std() > 5


def test_hu_are_clipped_as_scanners_store_them():
    image = np.full((4, 40, 40), 9000, np.float32)
    image[:2] = -5000
    image = finish(np.random.default_rng(0), image, grid(np.arange(4.0)), QUIET)
    assert (image.min(), image.max()) == (-1024, 3071)


def test_protocols_drawn_are_those_of_real_scanners():
    drawn = [draw_scanner(np.random.default_rng(seed)) for seed in range(300)]
    thickness = np.array([s.slice_thickness_mm for s in drawn])
    assert thickness.min() >= 0.5
    assert thickness.max() <= 5.8
    assert all(0.5 <= s.slice_spacing_mm <= s.slice_thickness_mm + 0.11 for s in drawn)
    assert all(4 <= s.noise_hu <= 90 for s in drawn)


def artefact(**changes):
    """What one artefact adds to an empty, noiseless image, (z, y, x) HU, and its grid."""
    place = SampleGrid(np.arange(60, 160, 5.0), PIXELS, PIXELS)
    hu = np.zeros(place.shape, np.float32)
    return finish(np.random.default_rng(0), hu, place, replace(QUIET, **changes)), place


def test_streaks_between_the_shoulders_run_from_left_to_right_and_only_there():
    image, place = artefact(shoulders_hu=80.0)
    assert np.ptp(image, axis=2).max() == 0
    assert 20 < image[place.z_mm > 140].std() < 80
    assert image[place.z_mm < 75].std() < 8


def test_beam_hardening_drifts_slowly_over_the_slice_and_is_the_same_in_all():
    image, _ = artefact(cupping_hu=50.0)
    assert np.abs(image).max() <= 50
    assert np.ptp(image, axis=0).max() == 0
    assert np.abs(np.diff(image, axis=1)).max() < 5


def test_metal_throws_streaks_in_its_own_slices_only():
    place = SampleGrid(np.arange(0, 20, 2.0), PIXELS, PIXELS)
    hu = np.zeros(place.shape, np.float32)
    hu[4, 18:22, 18:22] = 4000
    image = finish(np.random.default_rng(0), hu, place, replace(QUIET, metal_share=0.2))
    far = np.hypot(*np.meshgrid(PIXELS - 16, PIXELS - 16)) > 6
    assert image[4][far].std() > 20
    assert not image[[0, 3, 5, 9]].any()


def test_motion_moves_slices_against_each_other_by_about_its_size():
    place = SampleGrid(np.arange(0, 200, 2.0), PIXELS, PIXELS)
    step = step_along(PIXELS, place.shape, 1)
    still, moved = (
        finish(np.random.default_rng(0), step, place, replace(QUIET, motion_mm=mm)) for mm in (0.0, 1.0)
    )
    shift = (still[:, :, 5] - moved[:, :, 5]).sum(1) * 0.8 / 1000
    assert shift.std() == pytest.approx(1.0, rel=0.2)
