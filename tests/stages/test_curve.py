import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vfscreen.curve import SpineCurve

LENGTH = 300.0


def curve(bends=(20.0, 0.0, 15.0, 10.0), place=(0.0, 0.0, 0.0)):
    """To caudal over 300 mm: kyphosis, lordosis, scoliosis (mm) and a slope, all smooth."""
    t = np.linspace(0, 1, 1201)
    kyphosis, lordosis, scoliosis, slope = bends
    y = kyphosis * np.sin(np.pi * t) + lordosis * np.sin(2 * np.pi * t) + slope * t
    x = scoliosis * np.sin(1.5 * np.pi * t + 0.3)
    return SpineCurve.through(np.stack([x, y, -LENGTH * t], -1) + place)


CURVES = st.builds(
    curve,
    st.tuples(st.floats(-40, 40), st.floats(-12, 12), st.floats(-20, 20), st.floats(-90, 90)),
    st.tuples(*[st.floats(-1000, 1000)] * 3),
)


def near(curve, within_mm, n=60):
    """Patient points within so many mm of the curve."""
    rng = np.random.default_rng(2)
    away = rng.normal(size=(n, 3))
    away *= within_mm * rng.uniform(0, 1, (n, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    return curve.points_mm[rng.integers(0, len(curve.points_mm), n)] + away


@settings(max_examples=40, deadline=None)
@given(CURVES)
def test_patient_to_straightened_and_back_returns(curve):
    points = near(curve, 30.0)
    np.testing.assert_allclose(curve.to_patient(curve.to_straightened(points)), points, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(CURVES)
def test_straightened_to_patient_and_back_returns(curve):
    rng = np.random.default_rng(4)
    straight = np.column_stack([rng.uniform(0, curve.length_mm, 60), rng.uniform(-20, 20, (60, 2))])
    np.testing.assert_allclose(curve.to_straightened(curve.to_patient(straight)), straight, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(CURVES, st.floats(-40, 40), st.tuples(*[st.floats(-500, 500)] * 3))
def test_a_rigid_motion_of_the_curve_moves_its_points_alike(curve, angle, shift):
    turn = Rotation.from_euler("x", angle, degrees=True)
    moved = SpineCurve(turn.apply(curve.points_mm) + shift)
    straight = np.random.default_rng(3).uniform((0, -30, -30), (curve.length_mm, 30, 30), (50, 3))
    expected = turn.apply(curve.to_patient(straight)) + shift
    np.testing.assert_allclose(moved.to_patient(straight), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(CURVES)
def test_the_three_axes_are_orthonormal_and_the_second_stays_in_the_sagittal_plane(curve):
    axes = np.stack([curve.tangents, curve.posterior, curve.left], 1)
    identity = np.broadcast_to(np.eye(3), axes.shape)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), identity, atol=1e-9)
    assert np.allclose(curve.posterior[:, 0], 0)
    assert (curve.posterior[:, 1] > 0).all()
    assert (curve.left[:, 0] > 0).all()


def test_a_straight_curve_maps_caudal_posterior_left():
    straight = curve((0, 0, 0, 0), (5.0, 6.0, 7.0))
    np.testing.assert_allclose(straight.to_patient(np.array([40.0, 3.0, 2.0])), [7.0, 9.0, -33.0], atol=1e-9)


def test_points_of_the_curve_stand_a_millimetre_apart():
    bent = curve((40.0, 10.0, 20.0, 60.0))
    steps = np.linalg.norm(np.diff(bent.points_mm, axis=0), axis=1)
    np.testing.assert_allclose(steps, 1.0, atol=1e-3)
    assert bent.length_mm > LENGTH


def test_beyond_its_ends_the_curve_goes_on_straight():
    bent = curve()
    s = np.array([[-30.0, 0, 0], [-10.0, 0, 0], [bent.length_mm + 20, 0, 0]])
    points = bent.to_patient(s)
    np.testing.assert_allclose(points[1] - points[0], 20 * bent.tangents[0], atol=1e-9)
    np.testing.assert_allclose(bent.to_straightened(points), s, atol=1e-3)


def test_leading_axes_are_kept():
    points = near(curve(), 10.0, 24).reshape(2, 3, 4, 3)
    assert curve().to_straightened(points).shape == points.shape
