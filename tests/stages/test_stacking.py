"""Slices with their places to one grid: known geometry in, known millimetres out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from dicom_writing import ramp_hu
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vfscreen.errors import InconsistentGeometry
from vfscreen.readers.stacking import POSITION_TOLERANCE_MM, SliceGrid, Stacking, resampled, stack
from vfscreen.settings import ReadSettings
from vfscreen.volume import Volume

SETTINGS = ReadSettings()


def grid(turn: Rotation | None = None) -> SliceGrid:
    axes = np.eye(3)[:2]
    return SliceGrid((4, 5), (2.0, 1.5), axes if turn is None else turn.apply(axes))


def volume_of(slices: SliceGrid, positions: np.ndarray) -> tuple[Stacking, Volume]:
    """Slices that show the ramp of `dicom_writing` where they stand, stacked."""
    stacking = stack(slices, positions, SETTINGS)
    rows, columns = np.mgrid[: slices.shape[0], : slices.shape[1]]
    places = (
        positions[:, None, None]
        + rows[..., None] * slices.axes[1] * slices.spacing[0]
        + columns[..., None] * slices.axes[0] * slices.spacing[1]
    )
    hu = np.rint(ramp_hu(places)).astype(np.int16)[stacking.order]
    return stacking, Volume(resampled(hu, stacking.at), stacking.geometry)


steps = st.lists(st.floats(0.5, 4.9), min_size=3, max_size=20)
angles = st.tuples(*[st.floats(-40, 40)] * 3)
drift = st.tuples(*[st.floats(-0.5, 0.5)] * 2)


@given(steps, angles, drift, st.randoms())
@example([1.75, 1.25, 1.75], (0.0, 0.0, 0.0), (0.0, -0.5), random.Random(0))
def test_a_ramp_in_the_patient_stays_one_whatever_the_steps_tilt_and_order(steps, angles, drift, rng):
    turn = Rotation.from_euler("xyz", angles, degrees=True)
    slices = grid(turn)
    along = np.concatenate([[0], np.cumsum(steps)])
    line = slices.normal + np.array(drift) @ slices.axes  # the table does not move along the normal
    positions = np.array([10, -20, 30]) + along[:, None] * line
    order = list(range(len(positions)))
    rng.shuffle(order)
    _, volume = volume_of(slices, positions[order])
    index = np.stack(np.meshgrid(*map(np.arange, volume.geometry.shape), indexing="ij"), -1)
    rounding, slope = 1.0, abs(float(ramp_hu(line) - ramp_hu(np.zeros(3))))
    misplaced = POSITION_TOLERANCE_MM * slope  # of slices that are even but for this, which stay as they are
    np.testing.assert_allclose(
        volume.hu, ramp_hu(volume.geometry.to_patient(index)), atol=rounding + misplaced + 0.01
    )


@given(steps)
def test_the_grid_is_as_fine_as_the_slices_and_ends_with_them(steps):
    along = np.concatenate([[0], np.cumsum(steps)])
    positions = along[:, None] * np.array([0, 0, 1.0])
    stacking = stack(grid(), positions, SETTINGS)
    step = stacking.geometry.voxel_sizes_mm[0]
    assert step <= np.median(steps) + 0.3
    assert step >= 0.4 * np.median(steps)
    assert step * (stacking.geometry.shape[0] - 1) == pytest.approx(along[-1])


def test_even_slices_are_not_touched():
    positions = np.arange(10)[:, None] * np.array([0, 0.6, 2.0])
    stacking = stack(grid(), positions, SETTINGS)
    assert stacking.is_even
    np.testing.assert_allclose(stacking.geometry.affine[:3, 0], [0, 0.6, 2.0])


def test_a_missing_slice_is_told_by_the_widest_step():
    along = np.delete(np.arange(20) * 2.0, 7)
    stacking = stack(grid(), along[:, None] * np.array([0, 0, 1.0]), SETTINGS)
    assert (stacking.usual_mm, stacking.widest_mm, stacking.is_even) == (2.0, 4.0, False)
    assert stacking.geometry.shape[0] == 20


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: np.delete(p, [5, 6], 0), "a gap of 6.00 mm between z = 8.0 and 14.0 mm"),
        (lambda p: np.insert(p, 5, p[5], 0), "two slices lie at z = 10.0 mm"),
        (
            lambda p: p + (np.arange(20) == 5)[:, None] * [1.0, 0, 0],
            "straight line: the one at z = 10.0 mm lies 1.0",
        ),
    ],
)
def test_what_cannot_be_one_volume_is_refused_with_its_place(spoil, reason):
    positions = np.arange(20)[:, None] * np.array([0, 0, 2.0])
    with pytest.raises(InconsistentGeometry, match=reason):
        stack(grid(), spoil(positions), SETTINGS)
