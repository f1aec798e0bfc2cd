import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vfscreen.curve import SpineCurve
from vfscreen.measure import (
    genant_ratio,
    grade,
    heights_mm,
    measure,
    measure_refined,
    probability_at_most,
    ratio_interval,
    shape,
)
from vfscreen.study import Detection, Refined

STRAIGHT = SpineCurve.through(np.linspace([4.0, 20.0, 300.0], [4.0, 20.0, 0.0], 301))


def keypoints(anterior, middle, posterior, s=100.0, depth=30.0):
    """Sheet keypoints (6, 2) of an upright vertebra with these heights, centred at arc length s."""
    p = np.repeat([-depth / 2, 0.0, depth / 2], 2)
    half = np.repeat([anterior, middle, posterior], 2) / 2
    return np.column_stack([s + half * np.tile([-1, 1], 3), p])


def in_patient(points):
    return np.column_stack([np.zeros(6), points[:, 1], -points[:, 0]])


def test_heights_are_distances_between_endplates_from_anterior_to_posterior():
    assert heights_mm(in_patient(keypoints(18, 19, 21))) == pytest.approx([18, 19, 21])


def test_a_height_across_the_slices_and_planes_is_the_distance_in_space():
    points = np.zeros((6, 3))
    points[1] = [2, 3, 6]
    assert heights_mm(points) == pytest.approx([7, 0, 0])


def test_heights_and_ratios_keep_leading_axes():
    points = np.random.default_rng(0).normal(size=(4, 2, 6, 3))
    assert heights_mm(points).shape == (4, 2, 3)
    assert genant_ratio(heights_mm(points)).shape == (4, 2)


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"),
    [(9.3, 15.5, "severe"), (18.5, 25.0, "moderate"), (15.2, 19.0, "mild"), (9.4, 15.5, "moderate")],
)
def test_a_ratio_that_is_a_threshold_in_decimals_has_its_grade(smallest, largest, expected):
    assert grade(float(genant_ratio([largest, smallest, largest]))) == expected


HEIGHTS = st.tuples(*[st.floats(5, 40)] * 3)


@given(HEIGHTS, st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-500, 500)] * 3))
def test_rigid_motion_leaves_heights_and_ratio_alone(heights, rotation, shift):
    points = in_patient(keypoints(*heights))
    moved = Rotation.from_rotvec(rotation).apply(points) + shift
    assert heights_mm(moved) == pytest.approx(heights, abs=1e-9)
    assert genant_ratio(heights_mm(moved)) == pytest.approx(min(heights) / max(heights), abs=1e-9)


@given(HEIGHTS, st.floats(0.1, 10))
def test_uniform_scale_leaves_the_ratio_alone(heights, scale):
    points = in_patient(keypoints(*heights))
    assert genant_ratio(heights_mm(scale * points)) == pytest.approx(genant_ratio(heights_mm(points)))


@given(HEIGHTS)
def test_the_ratio_does_not_know_which_height_is_which(heights):
    assert genant_ratio(np.array(heights)) == genant_ratio(np.array(heights[::-1]))


def test_the_ratio_is_nan_where_a_height_is_missing_or_all_are_zero():
    ratios = genant_ratio(np.array([[10, np.nan, 20], [0, 0, 0], [0, 10, 20], [20, 20, 20]]))
    assert np.isnan(ratios[:2]).all()
    assert ratios[2:].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1.0, "normal"),
        (np.nextafter(0.8, 1), "normal"),
        (0.8, "mild"),
        (np.nextafter(0.74, 1), "mild"),
        (0.74, "moderate"),
        (np.nextafter(0.6, 1), "moderate"),
        (0.6, "severe"),
        (0.0, "severe"),
    ],
)
def test_each_grade_includes_its_upper_bound(ratio, expected):
    assert grade(ratio) == expected


def test_what_was_not_measured_has_no_grade():
    with pytest.raises(ValueError, match="no grade"):
        grade(float("nan"))


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ((17, 19, 20), "normal"),
        ((12, 16, 20), "wedge"),
        ((18, 12, 20), "biconcave"),
        ((20, 18, 12), "crush"),
        ((12, 12, 20), "wedge"),
        ((10, 10, 10), "normal"),
    ],
)
def test_the_smallest_height_names_the_shape(heights, expected):
    assert shape(np.array(heights, float)) == expected


def test_a_vertebra_is_measured_in_the_patient():
    (vertebra,) = measure([Detection(keypoints(12, 16, 20, s=100), 0.9)], STRAIGHT)
    assert vertebra.heights_mm == pytest.approx([12, 16, 20])
    assert vertebra.genant_ratio == pytest.approx(0.6)
    assert (vertebra.grade, vertebra.shape, vertebra.score) == ("severe", "wedge", 0.9)
    assert vertebra.center_mm == pytest.approx([4, 20, 200])
    assert vertebra.keypoints_mm[0] == pytest.approx([4, 5, 206])  # anterior: smaller y; superior: larger z


def test_heights_lose_the_stretch_of_the_sheet_on_a_bent_spine():
    radius = 150.0
    angle = np.linspace(0, 2, 2001)
    points = np.column_stack([0 * angle, radius * np.cos(angle), -radius * np.sin(angle)])  # kyphosis
    bent = SpineCurve.through(points)
    (vertebra,) = measure([Detection(keypoints(20, 20, 20, s=150), 1.0)], bent)
    chord = 2 * np.sin(10 / radius)
    assert vertebra.heights_mm == pytest.approx(chord * (radius + np.array([-15, 0, 15])), abs=0.02)


def test_vertebrae_come_cranial_first():
    found = [Detection(keypoints(20, 20, 20, s=s), s / 1000) for s in (150, 50, 100)]
    assert [v.score for v in measure(found, STRAIGHT)] == [0.05, 0.1, 0.15]


def test_nothing_detected_is_nothing_measured():
    assert measure([], STRAIGHT) == ()


def test_keypoints_that_are_not_finite_are_refused():
    points = keypoints(20, 20, 20)
    points[2, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        measure([Detection(points, 1.0)], STRAIGHT)


def refined(points, sd=0.03):
    return Refined(in_patient(points), np.array([0.4, 0.5, 0.6]), sd)


def test_the_second_look_is_measured_in_the_patient_and_keeps_its_spread():
    (vertebra,) = measure_refined([refined(keypoints(12, 16, 20))], [0.7], 0.08)
    assert vertebra.heights_mm == pytest.approx([12, 16, 20])
    assert vertebra.genant_ratio == pytest.approx(0.6)
    assert (vertebra.genant_ratio_sd, vertebra.score, vertebra.doubts) == (0.03, 0.7, ())


def test_a_second_look_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        measure_refined([refined(keypoints(np.nan, 16, 20))], [0.7], 0.08)


@given(st.floats(0.3, 1), st.floats(0.001, 0.2))
def test_intervals_hold_the_ratio_and_stay_between_nothing_and_one(ratio, sd):
    low, high = ratio_interval(ratio, sd)
    assert 0 <= low <= ratio <= high <= 1
    wider = ratio_interval(ratio, sd, coverage=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


@given(st.floats(0.3, 1), st.floats(0.001, 0.2))
def test_a_probability_is_a_half_at_the_threshold_and_falls_with_the_ratio(ratio, sd):
    assert probability_at_most(ratio, ratio, sd) == pytest.approx(0.5)
    assert probability_at_most(0.74, ratio, sd) >= probability_at_most(0.74, ratio + 0.05, sd)


def test_the_ends_of_the_interval_leave_a_twentieth_each():
    low, high = ratio_interval(0.7, 0.03)
    assert probability_at_most(low, 0.7, 0.03) == pytest.approx(0.05)
    assert probability_at_most(high, 0.7, 0.03) == pytest.approx(0.95)
