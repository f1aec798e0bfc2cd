import numpy as np
import pytest

from vfscreen.curve import SpineCurve
from vfscreen.settings import StraightenSettings
from vfscreen.straighten import sheet_points, straighten
from vfscreen.volume import AIR_HU, Volume, VolumeGeometry

SETTINGS = StraightenSettings()
CENTER = np.array([20.0, -30.0, 100.0])


def volume(hu_at, shape=(70, 60, 40), spacing=2.0):
    """A volume about `CENTER` whose HU are a function of LPS points."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing
    affine[:3, 3] = CENTER - spacing * (np.array(shape)[::-1] - 1) / 2
    affine[3, 3] = 1
    geometry = VolumeGeometry(shape, affine)
    points = geometry.to_patient(np.moveaxis(np.indices(shape), 0, -1))
    return Volume(np.rint(hu_at(points)).astype(np.int16), geometry)


def bent(amplitude=12.0, length=120.0, at=(0.0, 0.0, 0.0)):
    t = np.linspace(0, 1, 600)
    y = amplitude * np.sin(np.pi * t)
    x = 0.4 * amplitude * np.sin(2 * np.pi * t)
    return SpineCurve.through(np.stack([x, y - amplitude / 2, length / 2 - length * t], -1) + CENTER + at)


def near_the_curve(curve):
    """HU that fall by 8 a mm from the curve, whichever way it bends."""

    def hu(points):
        middle = np.stack([np.interp(points[..., 2], curve.points_mm[::-1, 2], c[::-1]) for c in axes], -1)
        return 1000 - 8 * np.linalg.norm(points[..., :2] - middle, axis=-1)

    axes = curve.points_mm.T[:2]
    return hu


def test_a_bent_column_becomes_a_straight_vertical_line():
    curve = bent()
    sheet = straighten(volume(near_the_curve(curve)), curve, SETTINGS)
    brightest = sheet.to_millimetres(np.column_stack([0 * sheet.image.argmax(1), sheet.image.argmax(1)]))
    assert np.abs(brightest[:, 1]).max() <= 1.0


def test_rows_run_to_caudal_and_columns_to_posterior():
    sheet = straighten(volume(lambda p: p[..., 2] + 2 * p[..., 1]), bent(amplitude=0.0), SETTINGS)
    rows, columns = np.gradient(sheet.image[10:-10, 10:-10])
    assert np.allclose(rows, -1, atol=0.6)
    assert np.allclose(columns, 2, atol=0.6)


def test_each_pixel_shows_the_hu_at_its_place_in_the_patient():
    curve = bent()
    ct = volume(lambda p: 4 * p[..., 0] - 3 * p[..., 1] + 5 * p[..., 2])
    sheet = straighten(ct, curve, SETTINGS)
    pixels = np.array([[20, 30], [60, 40], [90, 55]])
    straight = np.column_stack([sheet.to_millimetres(pixels), np.zeros(3)])
    expected = curve.to_patient(straight) @ [4, -3, 5]
    np.testing.assert_allclose(sheet.image[tuple(pixels.T)], expected, atol=1.0)


def test_pixels_and_millimetres_of_the_sheet_return():
    sheet = straighten(volume(lambda p: 0 * p[..., 0]), bent(), StraightenSettings(pixel_mm=0.7))
    pixels = np.random.default_rng(0).uniform(0, 60, (20, 2))
    np.testing.assert_allclose(sheet.to_pixels(sheet.to_millimetres(pixels)), pixels)


def test_the_sheet_has_a_pixel_for_each_millimetre_of_curve_and_width():
    curve = bent()
    sheet = straighten(volume(lambda p: 0 * p[..., 0]), curve, SETTINGS)
    assert sheet.image.shape == (int(curve.length_mm) + 1, 80)
    assert sheet_points(curve, SETTINGS, 0.0).shape == (*sheet.image.shape, 3)


def test_outside_the_image_the_sheet_is_air_and_says_so():
    sheet = straighten(volume(lambda p: 0 * p[..., 0], (70, 30, 40)), bent(amplitude=0.0), SETTINGS)
    assert sheet.image[50, 0] == AIR_HU
    assert not sheet.inside[50, 0]
    assert sheet.inside[50, 40]


@pytest.mark.parametrize(("left_mm", "inside"), [(30.0, True), (34.0, False)])
def test_what_lies_beside_the_sheet_must_be_in_the_image_too(left_mm, inside):
    sheet = straighten(volume(lambda p: 0 * p[..., 0]), bent(0.0, at=(left_mm, 0, 0)), SETTINGS)  # edge at 40
    assert sheet.inside[60, 40] == inside


def test_noise_of_planes_beside_each_other_averages_out():
    rng = np.random.default_rng(0)
    ct = volume(lambda p: rng.normal(0, 100, p.shape[:-1]))
    one = straighten(ct, bent(), StraightenSettings(sheet_offsets_mm=(0.0,)))
    three = straighten(ct, bent(), StraightenSettings(sheet_offsets_mm=(-4.0, 0.0, 4.0)))
    middle = slice(20, -20), slice(20, -20)
    assert three.image[middle].std() == pytest.approx(one.image[middle].std() / np.sqrt(3), rel=0.2)
