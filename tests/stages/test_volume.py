import numpy as np
import pytest
from fakes_geometry import restored
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vfscreen.volume import (
    AIR_HU,
    Volume,
    VolumeGeometry,
    lps_from_ras,
    sample_grid,
    sample_lattice,
)

SHAPE = (5, 6, 7)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 5)] * 3)
SHIFTS = st.tuples(*[st.floats(-2000, 2000)] * 3)


def geometry(angles=(0, 0, 0), spacing=(1, 1, 1), shift=(0, 0, 0), shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, ::-1] * spacing
    affine[:3, 3] = shift
    return VolumeGeometry(shape, affine)


def numbered(place, shape=SHAPE):
    """A volume in which every voxel has its own HU."""
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), place)


def ramp(points):
    return points @ [3.0, -5.0, 2.0] + 40


@given(ANGLES, SPACINGS, SHIFTS)
def test_patient_to_indices_and_back_returns(angles, spacing, shift):
    place = geometry(angles, spacing, shift)
    points = np.random.default_rng(0).uniform(-300, 300, (20, 3)) + shift
    np.testing.assert_allclose(place.to_patient(place.to_indices(points)), points, atol=1e-6)


@given(ANGLES, SPACINGS)
def test_voxel_sizes_are_the_distances_of_neighbouring_voxels(angles, spacing):
    assert geometry(angles, spacing).voxel_sizes_mm == pytest.approx(spacing)


@given(ANGLES, SPACINGS, SHIFTS)
def test_canonical_keeps_every_voxel_at_its_place_in_the_patient(angles, spacing, shift):
    volume = numbered(geometry(angles, spacing, shift))
    turned = volume.canonical()
    index = np.stack(np.unravel_index(turned.hu, SHAPE), -1)  # where each voxel stood before
    now = turned.geometry.to_patient(np.moveaxis(np.indices(turned.hu.shape), 0, -1))
    np.testing.assert_allclose(now, volume.geometry.to_patient(index), atol=1e-6)


@given(st.tuples(*[st.floats(-40, 40)] * 3), st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_canonical_axes_run_to_cranial_posterior_and_left(angles, order, flipped):
    upright = numbered(VolumeGeometry(SHAPE, np.eye(4)[[2, 1, 0, 3]]))
    assert np.allclose(upright.canonical().geometry.affine, upright.geometry.affine)
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", np.array(angles) / 2, degrees=True).as_matrix()
    tilted = Volume(upright.hu, VolumeGeometry(SHAPE, tilt @ upright.geometry.affine))
    turned = restored(tilted, tuple(order), tuple(flipped)).canonical()
    np.testing.assert_array_equal(turned.hu, tilted.hu)
    np.testing.assert_allclose(turned.geometry.affine, tilted.geometry.affine, atol=1e-9)


def test_canonical_copies_no_voxel():
    volume = restored(numbered(geometry()), (2, 0, 1), (0, 2))
    assert np.shares_memory(volume.canonical().hu, volume.hu)


@given(ANGLES, SPACINGS, st.tuples(*[st.integers(1, 3)] * 3))
def test_block_average_keeps_a_linear_ramp_where_it_is(angles, spacing, factors):
    place = geometry(angles, spacing, (30, -40, 50), (6, 12, 6))
    hu = 10 * ramp(place.to_patient(np.moveaxis(np.indices(place.shape), 0, -1)))
    coarse, grid = Volume(np.rint(hu).astype(np.int16), place).block_average(factors)
    whole = tuple(n // f for n, f in zip(place.shape, factors, strict=True))
    expected = 10 * ramp(grid.to_patient(np.moveaxis(np.indices(coarse.shape), 0, -1)))
    np.testing.assert_allclose(coarse.shape, grid.shape)
    inner = tuple(slice(n) for n in whole)
    np.testing.assert_allclose(coarse[inner], expected[inner], atol=0.6)


SIZES = st.tuples(*[st.integers(1, 9)] * 3)
FACTORS = st.tuples(*[st.integers(1, 5)] * 3)


@given(SIZES, FACTORS, st.permutations(range(3)), st.sets(st.integers(0, 2)), st.integers(0, 99))
def test_block_average_is_the_mean_of_each_block_however_the_voxels_lie(sizes, factors, order, flipped, seed):
    hu = np.random.default_rng(seed).integers(-1024, 32768, sizes).astype(np.int16)
    hu = np.flip(hu.transpose(order), tuple(flipped))
    coarse, _ = Volume(hu, geometry(shape=hu.shape)).block_average(factors)
    blocks = [range(0, n, factor) for n, factor in zip(hu.shape, factors, strict=True)]
    assert coarse.shape == tuple(map(len, blocks))
    for index in np.ndindex(coarse.shape):
        starts = [block[k] for block, k in zip(blocks, index, strict=True)]
        block = hu[tuple(slice(k, k + factor) for k, factor in zip(starts, factors, strict=True))]
        assert coarse[index] == pytest.approx(block.mean(), rel=1e-6, abs=1e-3)


def test_block_average_preserves_the_mean():
    volume = numbered(geometry(shape=(4, 6, 8)), (4, 6, 8))
    assert volume.block_average((2, 3, 4))[0].mean() == pytest.approx(volume.hu.mean())


def test_an_incomplete_block_is_the_mean_of_what_it_has():
    volume = numbered(geometry())
    coarse, grid = volume.block_average((2, 4, 7))
    assert grid.shape == coarse.shape == (3, 2, 1)
    assert coarse[2, 1, 0] == volume.hu[4:, 4:, :].mean()


@given(ANGLES, SPACINGS)
def test_a_linear_ramp_is_sampled_exactly(angles, spacing):
    place = geometry(angles, spacing)
    hu = 20 * ramp(place.to_patient(np.moveaxis(np.indices(SHAPE), 0, -1)))
    points = place.to_patient(np.random.default_rng(1).uniform(0, np.array(SHAPE) - 1, (30, 3)))
    sampled = Volume(np.rint(hu).astype(np.int16), place).sample(points)
    np.testing.assert_allclose(sampled, 20 * ramp(points), atol=0.6)


def test_outside_the_field_of_view_is_air_and_half_a_voxel_belongs_to_the_image():
    volume = Volume(np.full(SHAPE, 77, np.int16), geometry())
    edge = volume.geometry.to_patient(np.array([[-0.49, 0, 0], [-0.51, 0, 0], [4.49, 0, 0], [0, 0, 6.6]]))
    assert volume.sample(edge).tolist() == [77, AIR_HU, 77, AIR_HU]


def test_a_grid_is_sampled_between_its_planes():
    grid = np.zeros((2, 2, 2))
    grid[1] = 100
    assert sample_grid(grid, np.array([[0.25], [0.5], [1.0]])).tolist() == [25.0]


@given(ANGLES, SPACINGS)
def test_corners_enclose_the_voxels_and_half_a_voxel_more(angles, spacing):
    place = geometry(angles, spacing)
    index = place.to_indices(place.corners_mm())
    np.testing.assert_allclose(index.min(0), -0.5, atol=1e-9)
    np.testing.assert_allclose(index.max(0), np.array(SHAPE) - 0.5, atol=1e-9)


def test_contains_asks_for_a_margin_in_millimetres():
    place = geometry(spacing=(4, 1, 1), shape=(5, 20, 20))
    points = place.to_patient(np.array([[0.0, 10, 10], [1.0, 10, 10], [2.0, 4, 10], [2.0, 10, 10]]))
    assert place.contains(points).all()
    assert place.contains(points, margin_mm=5.0).tolist() == [False, True, False, True]


def test_ras_and_lps_differ_by_the_signs_of_x_and_y():
    ras = geometry((10, 20, 30), (1, 2, 3), (5, 6, 7)).affine
    point = np.array([1.0, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(lps_from_ras(ras) @ point, (ras @ point) * [-1, -1, 1, 1])
    np.testing.assert_allclose(lps_from_ras(lps_from_ras(ras)), ras)


@given(ANGLES, SPACINGS, SHIFTS)
def test_the_part_around_points_has_the_same_hu_at_the_same_places(angles, spacing, shift):
    volume = numbered(geometry(angles, spacing, shift, (9, 10, 11)), (9, 10, 11))
    middle = volume.geometry.to_patient(np.array([[4.0, 5.0, 5.0]]))
    part = volume.around(middle, np.array([0.9, 1.1, 1.0]))
    assert np.prod(part.hu.shape) <= volume.hu.size
    points = middle + np.random.default_rng(0).uniform(-0.8, 0.8, (20, 3))
    np.testing.assert_allclose(part.sample(points), volume.sample(points), rtol=1e-4, atol=0.02)


def test_the_part_around_points_outside_is_a_voxel_at_the_edge():
    part = numbered(geometry()).around(np.array([[500.0, 0, 0]]), np.ones(3))
    assert part.hu.size >= 1
    assert part.hu.shape[2] == 1


@given(ANGLES, SPACINGS, ANGLES, st.tuples(*[st.floats(-6, 6)] * 3))
def test_a_plane_is_what_its_points_show(angles, spacing, turn, first):
    volume = numbered(geometry(angles, spacing))
    steps = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()[:2] * 0.7
    rows, columns = np.mgrid[:8, :9]
    points = np.array(first) + rows[..., None] * steps[0] + columns[..., None] * steps[1]
    index = volume.geometry.to_indices(points)
    off = np.abs(np.stack([index + 0.5, index - np.array(SHAPE) + 0.5])).min((0, -1))
    clear = off > 1e-6  # at the image's very border rounding decides
    shown = volume.sample_plane(np.array(first), steps, (8, 9))
    np.testing.assert_allclose(shown[clear], volume.sample(points)[clear], atol=1e-3)


@given(ANGLES, SPACINGS, st.tuples(*[st.floats(-6, 6)] * 3))
def test_a_lattice_is_what_its_points_show(angles, spacing, first):
    grid = numbered(geometry()).hu
    to_indices = geometry(angles, spacing, first).affine
    index = np.moveaxis(np.moveaxis(np.indices((4, 5, 6)), 0, -1) @ to_indices[:3, :3].T + first, -1, 0)
    ends = np.reshape(SHAPE, (3, 1, 1, 1)) - 0.5
    clear = np.minimum(np.abs(index + 0.5), np.abs(index - ends)).min(0) > 1e-6
    shown = sample_lattice(grid, to_indices, (4, 5, 6))
    np.testing.assert_allclose(shown[clear], sample_grid(grid, index)[clear], atol=1e-3)


@given(SIZES, st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-4, 12)] * 3), st.booleans())
def test_a_lattice_along_the_axes_is_what_its_points_show(sizes, steps, first, rounded):
    grid = np.random.default_rng(0).integers(-1000, 3000, sizes).astype(np.float32)
    to_indices = np.eye(4)
    to_indices[:3, :3] = np.diag(steps) + 1e-10 * rounded
    to_indices[:3, 3] = first
    index = np.moveaxis(np.moveaxis(np.indices((4, 5, 6)), 0, -1) @ to_indices[:3, :3].T + first, -1, 0)
    ends = np.reshape(sizes, (3, 1, 1, 1)) - 0.5
    clear = np.minimum(np.abs(index + 0.5), np.abs(index - ends)).min(0) > 1e-6
    shown = sample_lattice(grid, to_indices, (4, 5, 6))
    np.testing.assert_allclose(shown[clear], sample_grid(grid, index)[clear], atol=2e-3)
