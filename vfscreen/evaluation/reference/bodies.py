"""The keypoints of a vertebral body, from the mask of its vertebra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label, map_coordinates

from vfscreen.volume import Floats, VolumeGeometry

STEP_MM = 0.5  # of the mid-sagittal picture
REACH_MM = 50.0  # of it, to every side of the middle
SLAB_MM = np.arange(-3.0, 3.1, 1.0)  # to both sides of the mid-sagittal plane
LEAST_MM = 6.0  # of a body in that plane, up and down and to the front
EDGE_MM = (1.5, 6.0)  # from a corner along an edge: what is between is drawn out to the corner
MIDDLE_MM = 1.5  # to both sides of the middle
BEHIND_MM = 3.0  # the body: what belongs to the arch
NEAR_MM = 15.0  # to both sides of the middle: laminae and spinous process, no ribs
LEAST_ARCH = 0.15  # of the vertebra: less says nothing of where posterior is
ROUNDS = 2  # until the axes stand in the body's middle
AXIS = np.arange(-REACH_MM, REACH_MM + STEP_MM, STEP_MM)  # of the picture, u and v alike

POSTERIOR = np.array([0.0, 1.0, 0.0])

Picture = Floats
"""A body in its mid-sagittal plane, (u, v) along `AXIS`: 1 inside, 0 outside, its edge at `EDGE`."""
EDGE = 0.5


@dataclass(frozen=True)
class _Frame:
    """Axes of a body as rows (u to posterior, v to caudal, w to the left) in LPS, and its middle, mm."""

    axes: Floats
    middle_mm: Floats

    def to_patient(self, own: Floats) -> Floats:
        """Own (u, v, w) mm of shape (..., 3) to LPS mm."""
        return np.asarray(own @ self.axes + self.middle_mm)

    def to_own(self, points_mm: Floats) -> Floats:
        """The reverse."""
        return np.asarray((points_mm - self.middle_mm) @ self.axes.T)


def body_keypoints(mask: NDArray[np.bool_], geometry: VolumeGeometry, caudal: Floats) -> Floats | None:
    """The six keypoints (6, 3) in LPS mm of one vertebra's body; None where the mask shows no body.

    `mask` (z, y, x) holds the vertebra, or only its body, within a margin of empty voxels; `caudal` (3,)
    is the direction of the spine there. In the mid-sagittal plane the canal parts the body from what lies
    behind it. A corner is where lines along an endplate and a wall meet; the middle height stands midway
    between the corners.
    """
    points = geometry.to_patient(np.argwhere(mask).astype(float))
    frame = _frame(POSTERIOR, caudal, points.mean(0))
    for _ in range(ROUNDS):
        body = _body(mask, geometry, frame)
        if body is None:
            return None
        frame = _turned(frame, body, points)
    body = _body(mask, geometry, frame)
    return None if body is None else frame.to_patient(_keypoints(body))


def _frame(posterior: Floats, caudal: Floats, middle_mm: Floats) -> _Frame:
    """Axes along `caudal`, and as near to `posterior` as is upright on it."""
    v = caudal / np.linalg.norm(caudal)
    u = posterior - (posterior @ v) * v
    u /= np.linalg.norm(u)
    return _Frame(np.stack([u, v, np.cross(v, u)]), middle_mm)


def _body(mask: NDArray[np.bool_], geometry: VolumeGeometry, frame: _Frame) -> Picture | None:
    """The foremost thing in the mid-sagittal plane that is large enough for a body."""
    own = np.stack(np.meshgrid(AXIS, AXIS, SLAB_MM, indexing="ij"), -1)
    index = np.moveaxis(geometry.to_indices(frame.to_patient(own)), -1, 0)
    share = map_coordinates(mask.astype(np.float32), index, order=1).mean(-1)
    share = gaussian_filter(share, geometry.voxel_sizes_mm.max() / 2 / STEP_MM)  # no steps of voxels
    parts, _ = label(share >= EDGE)
    boxes = dict(enumerate(find_objects(parts), start=1))
    large = [i for i, box in boxes.items() if min(s.stop - s.start for s in box) * STEP_MM >= LEAST_MM]
    foremost = min(large, key=lambda i: boxes[i][0].start, default=None)
    return None if foremost is None else np.where((parts == foremost) | (parts == 0), share, 0.0)


def _turned(frame: _Frame, body: Picture, points_mm: Floats) -> _Frame:
    """The frame in the body's middle, its u half way towards the arch where there is one.

    Half way, since an arch is seldom quite alike on both sides.
    """
    back = AXIS[np.flatnonzero((body >= EDGE).any(1))[-1]]
    u, _, w = frame.to_own(points_mm).T
    in_body, in_arch = points_mm[u < back], points_mm[(u > back + BEHIND_MM) & (np.abs(w) < NEAR_MM)]
    posterior = POSTERIOR
    if len(in_arch) >= LEAST_ARCH * len(points_mm):
        towards = in_arch.mean(0) - in_body.mean(0)
        posterior = towards / np.linalg.norm(towards) + POSTERIOR
    return _frame(posterior, frame.axes[1], in_body.mean(0))


def _keypoints(body: Picture) -> Floats:
    """The six keypoints as own (u, v, w), ordered as `study.KEYPOINTS`."""
    front = _corner(body), _corner(body[:, ::-1]) * (1, -1)
    back = _corner(body[::-1]) * (-1, 1), _corner(body[::-1, ::-1]) * (-1, -1)
    upper, lower = ((front[i] + back[i])[0] / 2 for i in (0, 1))
    middle = (upper, _edge(body, upper)), (lower, -_edge(body[:, ::-1], lower))
    return np.pad(np.array([*front, *middle, *back]), ((0, 0), (0, 1)))


def _edge(body: Picture, u: float) -> float:
    """v of the upper endplate at u."""
    return float(_first(body[np.abs(AXIS - u) <= MIDDLE_MM]).mean())


def _corner(body: Picture) -> Floats:
    """(u, v) where front wall and upper endplate meet: the endplate as a line, the wall upright."""
    points = AXIS[np.argwhere(body >= EDGE)]
    u, v = points[points.sum(1).argmin()]
    wall = _along(body.T, v)[1].mean()
    return np.array([wall, np.polyval(np.polyfit(*_along(body, u), 1), wall)])


def _along(body: Picture, start: float) -> tuple[Floats, Floats]:
    """An edge from a corner on: where it is along the first axis, and its place on the second."""
    there = AXIS[(body >= EDGE).any(1)]
    length = there[there >= start].max() - start
    low, high = np.minimum(EDGE_MM, (0.2 * length, 0.6 * length))
    rows = np.flatnonzero((start + low <= AXIS) & (start + high >= AXIS))
    return AXIS[rows], _first(body[rows])


def _first(lines: Floats) -> Floats:
    """Where lines (n, m) along `AXIS` enter the body, (n,)."""
    inside = (lines >= EDGE).argmax(1)
    n = np.arange(len(lines))
    here, before = lines[n, inside], lines[n, inside - 1]
    return np.asarray(AXIS[inside] - STEP_MM * (here - EDGE) / (here - before))
