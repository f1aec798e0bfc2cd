"""The sound study: a piece of `sample_data/normal` round four vertebrae, and the same on other grids."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from vfscreen.readers import read_volume
from vfscreen.volume import Floats, Volume, VolumeGeometry

SAMPLE = Path(__file__).parents[2] / "sample_data" / "normal"
PIECE = (slice(77, 129), slice(50, 118), slice(41, 101))  # along z, y, x
CENTER = (102.5, 83.5, 70.5)  # of it


@cache
def whole() -> Volume:
    """The sample study."""
    return read_volume(SAMPLE)


@cache
def sound() -> Volume:
    """52 slices of 68 x 60 pixels, 2 mm apart, straight and supine."""
    return piece(*PIECE)


@cache
def short() -> Volume:
    """Half of it: enough for what never reaches the networks."""
    return piece(slice(86, 121), *PIECE[1:])


def piece(*ranges: slice) -> Volume:
    """Part of the sample study."""
    grid = whole().geometry
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_patient(np.array([one.start for one in ranges], float))
    hu = whole().hu[ranges].copy()
    return Volume(hu, VolumeGeometry(hu.shape, affine))


def stepped(step_mm: float) -> Volume:
    """The piece in slices of another distance, interpolated."""
    affine = sound().geometry.affine.copy()
    affine[:3, 0] *= step_mm / 2.0
    return on_grid(affine, (round(2.0 * (len(sound().hu) - 1) / step_mm) + 1, *sound().hu.shape[1:]))


def on_axes(axes_mm: Floats, shape: tuple[int, int, int]) -> Volume:
    """The sample study on axes of one's own, round the piece; its steps along k, j, i are columns."""
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = whole().geometry.to_patient(np.array(CENTER)) - axes_mm @ ((np.array(shape) - 1) / 2)
    return on_grid(affine, shape)


def on_grid(affine: Floats, shape: tuple[int, ...]) -> Volume:
    """The sample study, linearly interpolated onto a grid in the patient."""
    geometry = VolumeGeometry((shape[0], shape[1], shape[2]), affine)
    points = geometry.to_patient(np.moveaxis(np.indices(shape).astype(float), 0, -1))
    index = np.moveaxis(whole().geometry.to_indices(points), -1, 0)
    hu = map_coordinates(whole().hu, index, order=1, mode="nearest", output=np.float32)
    return Volume(np.rint(hu).astype(np.int16), geometry)


def turned(volume: Volume, order: str) -> Volume:
    """The same voxels stored otherwise: `order` has each axis of "kji" once, a capital one runs backwards."""
    axes = ["kji".index(letter.lower()) for letter in order]
    hu = volume.hu.transpose(axes)
    affine = volume.geometry.affine[:, [*axes, 3]].copy()
    for axis, letter in enumerate(order):
        if letter.isupper():
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
            hu = np.flip(hu, axis)
    return Volume(np.ascontiguousarray(hu), VolumeGeometry(hu.shape, affine))


def moved(volume: Volume, hu: np.ndarray) -> Volume:
    """Other values at the same places."""
    return Volume(np.clip(hu, -1024, 3071).astype(np.int16), volume.geometry)


def shifted(volume: Volume, pixels: int) -> Volume:
    """The anatomy a few pixels beside its place, so that its result tells it from the sound one."""
    return moved(volume, np.roll(volume.hu, pixels, axis=2))
