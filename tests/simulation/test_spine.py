from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from vfscreen.measure import genant_ratio, heights_mm, shape
from vfscreen.simulation.findings import NOTHING, FindingRates
from vfscreen.simulation.spine import FOR_TRAINING, G_RANGES, Deformities, draw_spine

SEEDS = range(50)
NORMAL = Deformities(0, 0, 0)


@cache
def spines(deformities=NORMAL):
    return [draw_spine(np.random.default_rng(seed), deformities) for seed in SEEDS]


def bodies(deformities=NORMAL):
    return [body for spine in spines(deformities) for body in spine.bodies]


def ratio(body):
    return float(genant_ratio(heights_mm(body.keypoints_mm())))


def outline(body, v):
    """Points of the rim at one end of a body, (n, 3) LPS mm: an ellipse between its own u and w."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    u, w = body.depth_mm / 2 * np.cos(angle), body.width_mm / 2 * np.sin(angle)
    front = (1 - u / (body.depth_mm / 2)) / 2
    half = (body.height_anterior_mm * front + body.height_posterior_mm * (1 - front)) / 2
    return body.to_patient(np.stack([u, v * half + body.rim_shift_mm * front, w], -1))


def test_keypoints_stand_at_the_heights_of_the_body():
    for body in bodies(FOR_TRAINING):
        expected = (body.height_anterior_mm, body.height_middle_mm, body.height_posterior_mm)
        assert heights_mm(body.keypoints_mm()) == pytest.approx(expected, abs=1e-9)


def test_keypoints_are_anterior_middle_posterior_and_superior_before_inferior():
    for body in bodies():
        local = (body.keypoints_mm() - body.center_mm) @ body.axes.T
        np.testing.assert_allclose(local[:, 0], np.repeat([-1, 0, 1], 2) * body.depth_mm / 2, atol=1e-9)
        np.testing.assert_allclose(local[:, 2], 0, atol=1e-9)
        assert (local[1::2, 1] > local[::2, 1]).all()


def test_a_body_s_axes_run_to_posterior_caudal_and_left():
    for body in bodies():
        np.testing.assert_allclose(body.axes @ body.axes.T, np.eye(3), atol=1e-9)
        assert body.axes[0, 1] > 0.4
        assert body.axes[1, 2] < -0.4
        assert body.axes[2, 0] > 0.4


@pytest.mark.parametrize("kind", ["wedge", "biconcave", "crush"])
@pytest.mark.parametrize("g", [0.4, 0.66, 0.78])
def test_a_forced_deformity_has_its_genant_ratio(kind, g):
    forced = Deformities(0, 0, 0, forced=(("T8", kind, g),))
    for seed in range(10):
        spine = draw_spine(np.random.default_rng(seed), forced)
        (body,) = (b for b in spine.bodies if b.level == "T8")
        assert ratio(body) == pytest.approx(g, abs=1e-9)


@pytest.mark.parametrize("kind", ["wedge", "biconcave", "crush"])
def test_a_forced_deformity_has_its_shape(kind):
    forced = Deformities(0, 0, 0, forced=(("L1", kind, 0.6),))
    for seed in range(10):
        spine = draw_spine(np.random.default_rng(seed), forced)
        (body,) = (b for b in spine.bodies if b.level == "L1")
        assert shape(heights_mm(body.keypoints_mm())) == kind


def test_deformities_are_drawn_at_their_rates_and_in_their_ranges():
    rng = np.random.default_rng(0)
    drawn = [Deformities(0.2, 0.1, 0.05).draw(rng, "T5") for _ in range(4000)]
    ratios = np.array([d[1] for d in drawn if d])
    for name, rate in (("mild", 0.2), ("moderate", 0.1), ("severe", 0.05)):
        low, high = G_RANGES[name]
        assert ((ratios >= low) & (ratios < high)).sum() / 4000 == pytest.approx(rate, abs=0.02)


def test_a_spine_runs_from_c4_to_l5_with_t8_at_the_origin():
    for spine in spines():
        assert [b.level for b in spine.bodies[:1] + spine.bodies[-1:]] == ["C4", "L5"]
        assert len(spine.bodies) == 21
        (t8,) = (b for b in spine.bodies if b.level == "T8")
        np.testing.assert_allclose(t8.center_mm, 0, atol=1e-9)


@pytest.mark.parametrize("deformities", [NORMAL, FOR_TRAINING])
def test_sizes_are_those_of_vertebrae(deformities):
    heights = np.array([heights_mm(b.keypoints_mm()) for b in bodies(deformities)])
    depths = np.array([b.depth_mm for b in bodies(deformities)])
    assert heights.min() > 3
    assert heights.max() < 40
    assert depths.min() >= 10
    assert depths.max() <= 42


def test_normal_heights_are_at_least_eight_millimetres():
    assert min(heights_mm(b.keypoints_mm()).min() for b in bodies()) > 8


def test_normal_vertebrae_have_the_genant_ratio_of_the_annotation():
    ratios = np.array([ratio(b) for b in bodies()])
    assert 0.78 < ratios.mean() < 0.9
    assert ratios.min() > 0.6


@pytest.mark.parametrize("deformities", [NORMAL, FOR_TRAINING])
def test_neighbouring_rims_stay_apart(deformities):
    for spine in spines(deformities):
        for upper, lower in pairwise(spine.bodies):
            above, below = upper.keypoints_mm(), lower.keypoints_mm()
            caudal = upper.axes[1] + lower.axes[1]
            gaps = (below[[0, 4]] - above[[1, 5]]) @ caudal / np.linalg.norm(caudal)
            assert gaps.min() >= 0.5


@pytest.mark.parametrize("deformities", [NORMAL, FOR_TRAINING])
def test_neighbouring_bodies_do_not_overlap(deformities):
    overlaps = []
    for spine in spines(deformities):
        for upper, lower in pairwise(spine.bodies):
            caudal = upper.axes[1] + lower.axes[1]
            caudal /= np.linalg.norm(caudal)
            overlaps.append(((outline(upper, 1) - outline(lower, -1)) @ caudal).max())
    assert max(overlaps) < 0


def test_neighbours_are_alike_within_a_person():
    posterior = np.array([[b.height_posterior_mm for b in s.bodies] for s in spines()])
    z = (posterior - posterior.mean(0)) / posterior.std(0)
    assert (z[:, 1:] * z[:, :-1]).mean() > 0.6


def test_the_curve_passes_through_the_middles_of_the_middle_heights():
    for spine in spines()[:10]:
        curve = spine.curve().points_mm
        middles = np.array([b.keypoints_mm()[2:4].mean(0) for b in spine.bodies])
        distance = np.linalg.norm(middles[:, None] - curve[None], axis=-1).min(1)
        assert distance.max() < 1.0  # one point a millimetre
        assert curve[0, 2] > curve[-1, 2]


def test_the_same_seed_draws_the_same_spine():
    a, b = (draw_spine(np.random.default_rng(7), FOR_TRAINING) for _ in range(2))
    for one, other in zip(a.bodies, b.bodies, strict=True):
        np.testing.assert_array_equal(one.keypoints_mm(), other.keypoints_mm())


def test_half_the_vertebrae_of_a_cohort_have_the_genant_ratio_of_half_the_annotated_ones():
    of_cohort = np.array([ratio(b) for s in spines(Deformities()) for b in s.bodies[4:17]])
    assert np.median(of_cohort) == pytest.approx(0.845, abs=0.015)
    assert (of_cohort <= 0.74).mean() == pytest.approx(97 / 1268, abs=0.025)
    assert (of_cohort <= 0.8).mean() == pytest.approx(222 / 1268, abs=0.035)


def test_vertebrae_that_are_not_deformed_are_normal():
    assert min(ratio(b) for b in bodies() if not b.kind) > 0.8


@pytest.mark.parametrize("cobb", [0.0, 30.0, 60.0])
def test_a_scoliosis_has_about_the_angle_asked_for(cobb):
    angles = [draw_spine(np.random.default_rng(seed), cobb_deg=cobb).cobb_deg for seed in range(12)]
    assert np.median(angles) == pytest.approx(cobb, abs=6)


def test_findings_change_no_height():
    rates = FindingRates(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    for seed in range(5):
        many = draw_spine(np.random.default_rng(seed), NORMAL, rates)
        assert {"schmorl", "cupid", "bridging"} <= set().union(*(b.findings for b in many.bodies))
        for body in many.bodies:
            expected = (body.height_anterior_mm, body.height_middle_mm, body.height_posterior_mm)
            assert heights_mm(body.keypoints_mm()) == pytest.approx(expected, abs=1e-9)


def test_no_rates_give_no_findings():
    assert not any(b.findings for b in draw_spine(np.random.default_rng(3), NORMAL, NOTHING).bodies)
