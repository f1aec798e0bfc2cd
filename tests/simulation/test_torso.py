import numpy as np
import pytest

from vfscreen.simulation.frame import draw_frame
from vfscreen.simulation.painting import SampleGrid, paint
from vfscreen.simulation.ribs import draw_ribs
from vfscreen.simulation.spine import draw_spine
from vfscreen.simulation.torso import draw_torso

SEEDS = range(6)


def ribs_of(seed):
    rng = np.random.default_rng(seed)
    spine = draw_spine(rng)
    return spine, draw_ribs(rng, draw_frame(rng, spine))


def at(points):
    """Points (n, 3) as the three fields (n, 1, 1) that a depth asks for."""
    return [p.astype(np.float32)[:, None, None] for p in np.asarray(points).T]


def ball(radius):
    steps = np.arange(-radius, radius + 1, 2.0)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    return grid[np.linalg.norm(grid, axis=1) <= radius]


def upper_corner(body, side):
    """Where the posterior, the upper and one lateral wall of a body meet, LPS mm."""
    local = (0.7 * body.depth_mm / 2, -body.height_posterior_mm / 2, side * body.width_mm / 2)
    return body.to_patient(np.array(local))


def torso_hu(seed, grid):
    rng = np.random.default_rng(seed)
    under, over = draw_torso(rng, draw_spine(rng))
    return paint([*under, *over], grid)


def test_eleven_to_thirteen_vertebrae_bear_ribs_from_t1_downwards():
    counts = {len(ribs_of(seed)[1].levels) for seed in range(40)}
    assert counts == {11, 12, 13}
    assert all(ribs_of(seed)[1].levels[0] == "T1" for seed in SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_rib_starts_at_the_upper_corner_of_its_own_vertebra(seed):
    spine, ribs = ribs_of(seed)
    bodies = {body.level: body for body in spine.bodies}
    for level, heads in zip(ribs.levels, ribs.heads_mm, strict=True):
        for side, head in zip((-1, 1), heads, strict=True):
            corner = upper_corner(bodies[level], side)
            assert np.linalg.norm(head - corner) < 12
            assert ribs.depth(*at(corner + ball(12))).max() > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_no_rib_runs_through_the_middle_of_a_body(seed):
    spine, ribs = ribs_of(seed)
    centers = np.array([body.center_mm for body in spine.bodies])
    assert (ribs.depth(*at(centers)) < 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_beside_the_chest_one_rib_follows_the_other_with_room_between(seed):
    _, ribs = ribs_of(seed)
    cage, head = ribs.frame.cage, ribs.heads_mm[6, 1]
    z = np.arange(head[2] - 90, head[2] + 30, 0.5)
    x, y, a, _ = cage.at(z.astype(np.float32))
    bone = z[ribs.depth(*at(np.stack([x + a, y, z], 1))).ravel() > 0]
    gaps = np.flatnonzero(np.diff(bone) > 1)
    assert 2 <= len(gaps) + 1 <= 7
    assert np.diff(bone)[gaps].max() > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rim_of_a_rib_is_brighter_than_its_marrow(seed):
    _, ribs = ribs_of(seed)
    structure, head = ribs.structure(), ribs.heads_mm[5, 0]
    points = at(head + ball(14))
    depth, hu = structure.depth(*points), structure.hu(*points)
    assert hu[np.abs(depth) < 0.3].mean() > hu[depth > 1.5].mean() + 50


def test_beside_the_spine_lies_air_in_most_chests():
    air = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        spine = draw_spine(rng)
        x, y, z = (b := next(b for b in spine.bodies if b.level == "T6")).center_mm
        aside = x + b.width_mm / 2 + np.arange(22, 40, 3.0)
        box = SampleGrid(z + np.arange(-4, 4, 2.0), y - 8 + np.arange(-4, 4, 2.0), aside)
        rng = np.random.default_rng(seed)
        air += np.median(paint(draw_torso(rng, spine)[0], box)) < -500
    assert air >= 6


def test_behind_the_spine_lie_muscle_fat_and_skin_and_then_air():
    for seed in SEEDS:
        grid = SampleGrid(np.arange(-4, 4, 2.0), np.arange(30, 160, 2.0), np.arange(20, 28, 2.0))
        hu = np.median(torso_hu(seed, grid), axis=(0, 2))
        assert -160 < hu[0] < 700
        assert hu[-1] < -700


def test_the_same_seed_paints_the_same_torso_and_another_one_does_not():
    axis = np.arange(-120, 121, 12.0)
    grid = SampleGrid(axis, axis, axis)
    np.testing.assert_array_equal(torso_hu(3, grid), torso_hu(3, grid))
    assert np.abs(torso_hu(3, grid) - torso_hu(4, grid)).mean() > 20


def test_hu_and_depth_are_finite_wherever_they_are_asked_for():
    axis = np.arange(-300, 301, 30.0)
    assert np.isfinite(torso_hu(1, SampleGrid(axis * 2, axis, axis))).all()
