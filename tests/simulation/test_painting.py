from dataclasses import replace

import numpy as np
import pytest

from vfscreen.simulation.findings import NOTHING
from vfscreen.simulation.painting import SampleGrid, Structure, ellipsoid, paint, texture, tube
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.spine import Deformities, draw_spine
from vfscreen.simulation.vertebra import draw_bone, vertebra_structures
from vfscreen.volume import sample_grid

AXIS = np.arange(-15.0, 15.1, 1.0)
GRID = SampleGrid(AXIS, AXIS, AXIS)


def half_space(hu, edge=0.0):
    return Structure(lambda x, y, z: z + 0 * x + 0 * y - np.float32(edge), hu)


def body_of(seed, level="T9"):
    spine = draw_spine(np.random.default_rng(seed), Deformities(0, 0, 0), NOTHING)
    return next(b for b in spine.bodies if b.level == level)


def painted_body(seed, bone):
    """HU at points (u, v, w) inside a body of its own, painted alone."""
    body = body_of(seed)
    structures = vertebra_structures(np.random.default_rng(seed), body, bone, (5.0, 5.0))[1][:1]
    at = [np.arange(c - 30, c + 30, 0.8) for c in body.center_mm[::-1]]
    return body, paint(structures, SampleGrid(*at)), SampleGrid(*at)


def test_around_all_structures_is_air():
    assert (paint([], GRID) == -1000).all()


def test_later_structures_cover_earlier_ones():
    hu = paint([half_space(40.0, edge=-10), half_space(300.0, edge=5)], GRID)
    assert hu[AXIS == 0].max() == 40
    assert hu[AXIS == 10].min() == 300
    assert hu[AXIS == -14].max() == -1000


@pytest.mark.parametrize("edge", [-0.4, -0.2, 0.0, 0.3])
def test_an_edge_between_two_planes_is_shared_by_volume(edge):
    hu = paint([half_space(0.0, edge)], GRID)
    assert (hu[:, 0, 0] + 1000).sum() / 1000 == pytest.approx(15.5 - edge, abs=1e-4)


def test_a_ball_has_its_volume_and_centre():
    hu = paint([ellipsoid((2, -3, 4), (8, 8, 8), 1000.0)], GRID)
    share = (hu + 1000) / 2000
    assert share.sum() == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.02)
    z, y, x = ((share * a).sum() / share.sum() for a in np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"))
    np.testing.assert_allclose([x, y, z], [2, -3, 4], atol=0.02)


def test_a_tube_has_its_radius_between_its_ends():
    hu = paint([tube(np.array([[0, 0, -30.0], [0, 0, 30]]), 6.0, 1000.0)], GRID)
    assert ((hu[15] + 1000) / 2000).sum() == pytest.approx(np.pi * 36, rel=0.03)


def test_a_structure_is_painted_nowhere_outside_its_box():
    box = np.array([[-5, 5], [-3, 3], [-2, 2.0]])
    hu = paint([Structure(lambda x, y, z: 99 + 0 * (x + y + z), 0.0, box)], GRID)
    z, y, x = np.nonzero(hu == 0)
    for index, (low, high) in zip((x, y, z), box, strict=True):
        assert (AXIS[index.min()], AXIS[index.max()]) == (low, high)


def test_a_box_beside_the_grid_paints_nothing():
    far = Structure(lambda x, y, z: 99 + 0 * (x + y + z), 0.0, np.array([[50, 60], [0, 5], [0, 5.0]]))
    assert (paint([far], GRID) == -1000).all()


def test_a_shifted_plane_shows_what_lies_at_its_own_place():
    shift = 0.5 * AXIS
    straight = SampleGrid(AXIS, AXIS, AXIS, shift)
    hu = paint([ellipsoid((5, 0, 10), (3, 3, 3), 0.0)], straight)
    share = (hu + 1000) / 1000
    assert ((share * AXIS).sum() / share.sum()) == pytest.approx(0.0, abs=0.3)  # 5 mm left, moved by 5


def test_hu_may_depend_on_the_place():
    hu = paint([Structure(lambda x, y, z: 99 + 0 * (x + y + z), lambda x, y, z: 10 * x + 0 * (y + z))], GRID)
    np.testing.assert_allclose(hu[3, 4], 10 * AXIS, atol=1e-3)


def test_texture_has_the_amplitude_asked_for():
    wide = np.arange(0, 300.0, 5.0)
    value = texture(np.random.default_rng(0), 20.0, 50.0)
    hu = value(*SampleGrid(wide, wide, wide).points((slice(None), slice(None), slice(None))))
    assert hu.std() == pytest.approx(50, rel=0.15)
    assert abs(hu.mean()) < 3


@pytest.mark.parametrize("seed", range(5))
def test_the_inside_of_a_body_is_cancellous_bone(seed):
    bone = replace(draw_bone(np.random.default_rng(seed)), texture_share=0.0)
    body, hu, grid = painted_body(seed, bone)
    z, y, x = np.meshgrid(grid.z_mm, grid.y_mm, grid.x_mm, indexing="ij")
    local = (np.stack([x, y, z], -1) - body.center_mm) @ body.axes.T
    core = hu[(np.abs(local) < [body.depth_mm / 4, 3.0, body.width_mm / 4]).all(-1)]
    assert 0.55 < np.median(core) / bone.cancellous_hu < 1.65


def test_the_endplates_of_a_painted_body_stand_at_its_keypoints():
    bone = replace(draw_bone(np.random.default_rng(1)), cancellous_hu=600.0, texture_share=0.0)
    bone = replace(bone, endplate_hu=0.0, wall_hu=0.0)
    body, hu, grid = painted_body(1, bone)
    share = (hu - hu.min()) / (np.quantile(hu, 0.999) - hu.min())
    upper, lower = body.keypoints_mm()[2:4]
    direction = (lower - upper) / np.linalg.norm(lower - upper)
    along = upper + direction * np.arange(-8, np.linalg.norm(lower - upper) + 8, 0.1)[:, None]
    first = np.array([axis[0] for axis in (grid.z_mm, grid.y_mm, grid.x_mm)])
    index = (along[:, ::-1] - first).T / 0.8
    inside = np.clip(sample_grid(share, index), 0, 1).sum() * 0.1
    assert inside == pytest.approx(body.height_middle_mm, abs=0.4)


@pytest.fixture(scope="module")
def person():
    return draw_person(np.random.default_rng(5))


@pytest.mark.parametrize("side", [-1, 1])
def test_beside_the_patient_is_air(person, side):
    z, y = np.arange(-200.0, 200, 4), np.arange(-100.0, 40, 4)
    beside = SampleGrid(z, y, side * 420 + np.arange(0, 12, 4.0))
    assert (paint(person.structures, beside) == -1000).all()


def test_bodies_are_painted_over_everything_else(person):
    bodies = [b for b in person.spine.bodies if b.level in ("T5", "T8", "T11")]
    for body in bodies:
        x, y, z = (body.center_mm[a] + np.linspace(-4, 4, 5) for a in range(3))
        assert 10 < np.median(paint(person.structures, SampleGrid(z, y, x))) < 700


def test_the_same_seed_draws_the_same_person(person):
    again = draw_person(np.random.default_rng(5))
    coarse = SampleGrid(np.arange(-60, 60, 6.0), np.arange(-100, 60, 6.0), np.arange(-60, 60, 6.0))
    np.testing.assert_array_equal(paint(person.structures, coarse), paint(again.structures, coarse))
