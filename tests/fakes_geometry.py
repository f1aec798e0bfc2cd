"""A spine of boxes with known heights, and networks that find it by geometry alone.

What stands between the phantom and its heights is then the chain of stages and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, label

from vfscreen.detect import normalise
from vfscreen.localize import window
from vfscreen.networks import anchors
from vfscreen.networks.weights import Models
from vfscreen.volume import Volume, VolumeGeometry

AIR, TISSUE, COLUMN, BOX = -1000.0, 0.0, 400.0, 1000.0  # HU
BLUR_MM = 1.0  # width over which every edge is softened
DEPTH, WIDTH = 28.0, 34.0  # of the boxes, mm
COLUMN_MARGIN = 5.0
CENTER = np.array([-14.0, 62.0, -310.0])  # the phantom's middle in LPS mm
HALF_LENGTH = 105.0


def spine_point(z):
    """A kyphotic curve that also bends sideways; z in mm from the middle, (...) to (..., 3)."""
    z = np.asarray(z, float)
    return np.stack([5 * np.sin(z / 70), 22 * np.cos(z / 75) - 12, z], -1) + CENTER


def spine_axes(z):
    """To posterior (in the sagittal plane), to caudal, to the left at height z: rows of (3, 3)."""
    caudal = spine_point(z - 0.01) - spine_point(z + 0.01)
    caudal /= np.linalg.norm(caudal)
    posterior = np.array([0.0, -caudal[2], caudal[1]])
    posterior /= np.linalg.norm(posterior)
    return np.stack([posterior, caudal, np.cross(caudal, posterior)])


@dataclass(frozen=True)
class Box:
    """A vertebra: heights in front, in the middle and behind, mm, at height z on the spine."""

    heights: tuple[float, float, float]
    z: float

    @property
    def center(self):
        return spine_point(self.z)

    def keypoints(self):
        """The truth, (6, 3) LPS mm in the order of `study.KEYPOINTS`."""
        u = np.repeat([-DEPTH / 2, 0, DEPTH / 2], 2)
        v = np.repeat(self.heights, 2) / 2 * np.tile([-1, 1], 3)
        return np.column_stack([u, v, np.zeros(6)]) @ spine_axes(self.z) + self.center

    def share(self, points):
        """How much of the box there is at points (..., 3): 1 inside, 0 outside, soft over the edges."""
        u, v, w = np.moveaxis((points - self.center) @ spine_axes(self.z).T, -1, 0)
        half = np.interp(u, [-DEPTH / 2, 0, DEPTH / 2], np.array(self.heights) / 2)
        return np.prod([_soft(DEPTH / 2 - abs(u)), _soft(half - abs(v)), _soft(WIDTH / 2 - abs(w))], axis=0)


BOXES = (  # cranial first
    Box((17.0, 17.0, 17.0), 68.0),
    Box((12.5, 15.0, 17.5), 43.0),  # a wedge
    Box((19.0, 19.0, 19.0), 17.0),
    Box((19.5, 14.5, 19.5), -10.0),  # biconcave
    Box((20.0, 20.0, 20.0), -38.0),
    Box((22.0, 21.0, 20.0), -67.0),
)
HEIGHTS = np.array([box.heights for box in BOXES])
CENTERS = np.array([box.keypoints().mean(0) for box in BOXES])


def phantom_on(affine, shape) -> Volume:
    """The phantom as a scanner with this grid sees it: each voxel is averaged along the slices' axis."""
    affine = np.asarray(affine, float)
    hu = np.zeros(shape, np.float32)
    offsets = (np.arange(3) - 1) / 3
    for offset in offsets:
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 0] * offset
        hu += _scene(VolumeGeometry(shape, moved)) / len(offsets)
    return Volume(np.rint(hu).astype(np.int16), VolumeGeometry(tuple(shape), affine))


def phantom(axes_mm, extent_mm=(80.0, 96.0, 220.0)) -> Volume:
    """The phantom on a grid with these steps along k, j, i (columns of (3, 3)) that covers x, y, z."""
    axes_mm = np.asarray(axes_mm, float)
    corners = np.stack(np.meshgrid(*[(-e / 2, e / 2) for e in extent_mm]), -1).reshape(-1, 3)
    reach = np.abs(corners @ np.linalg.inv(axes_mm).T).max(0)
    shape = tuple(int(n) for n in np.ceil(2 * reach))
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = CENTER - axes_mm @ ((np.array(shape) - 1) / 2)
    return phantom_on(affine, shape)


def _scene(geometry: VolumeGeometry):
    hu = np.full(geometry.shape, AIR, np.float32)
    points = geometry.to_patient(np.moveaxis(np.indices(geometry.shape), 0, -1)) - CENTER
    points = points.astype(np.float32)
    x, y, z = np.moveaxis(points, -1, 0)
    _cover(hu, _soft(20 - 20 * np.hypot(x / 39, y / 46)) * _soft(HALF_LENGTH + 2 - abs(z)), TISSUE)
    on_curve = spine_point(z) - CENTER
    slope = np.cos(np.arctan(22 / 75 * np.sin(z / 75)))
    front = DEPTH / 2 + COLUMN_MARGIN - abs(y - on_curve[..., 1]) * slope
    side = WIDTH / 2 + COLUMN_MARGIN - abs(x - on_curve[..., 0])
    _cover(hu, _soft(front) * _soft(side) * _soft(HALF_LENGTH - 5 - abs(z)), COLUMN)
    for box in BOXES:
        block = _around(geometry, box.center, 30.0)
        _cover(hu[block], box.share(points[block] + CENTER), BOX)
    return hu


def _around(geometry: VolumeGeometry, center, radius):
    index = geometry.to_indices(center)
    reach = radius * np.linalg.norm(np.linalg.inv(geometry.affine)[:3, :3], axis=1)
    low = np.clip(np.floor(index - reach), 0, None).astype(int)
    return tuple(slice(a, int(b) + 1) for a, b in zip(low, np.ceil(index + reach), strict=True))


def _cover(hu, share, value):
    hu += share * (value - hu)


def _soft(depth_mm):
    return np.clip(depth_mm / BLUR_MM + 0.5, 0, 1)


def restored(volume: Volume, order=(0, 1, 2), flipped=()) -> Volume:
    """The same voxels stored otherwise: array axes in another order, some of them backwards."""
    hu, affine = volume.hu.transpose(order), volume.geometry.affine[:, [*order, 3]].copy()
    for axis in flipped:
        last = affine[:, axis] * (hu.shape[axis] - 1)
        affine[:, 3] += last
        affine[:, axis] = -affine[:, axis]
    hu = np.ascontiguousarray(np.flip(hu, flipped))
    return Volume(hu, VolumeGeometry(hu.shape, affine))


def geometric_models() -> Any:
    return Models(centre_of_column, edges_of_boxes, edges_of_the_middle_box, "cpu")


def centre_of_column(images):
    """A localizer: the mean position of what is brighter than soft tissue, where there is enough."""
    bright = window(np.float32((TISSUE + COLUMN) / 2))
    weight = np.clip(images.astype(float) - bright, 0, None)
    total = weight.sum((2, 3))
    rows, columns = np.arange(images.shape[2]), np.arange(images.shape[3])
    centers = np.stack([weight.sum(3) @ rows, weight.sum(2) @ columns], -1)
    return centers / np.maximum(total, 1e-6)[..., None], np.where(total > 0.6 * total.max(), 8.0, -8.0)


def edges_of_boxes(sheets):
    """A detector: the six keypoints of every box from where its edges lie, finer than a pixel."""
    n, rows, columns = sheets.shape
    found = [[_keypoints(share, where) for where in _boxes(share)] for share in map(_box_share, sheets)]
    return encode(found, (n, rows, columns))


def edges_of_the_middle_box(crops):
    """A refiner: the same on the middle sheet of each crop, for the box in its middle."""
    found = []
    for crop in crops:
        hu = 200 + 400 * np.arctanh(crop[2].astype(float))  # `refine.normalise` undone
        share = np.clip((hu - COLUMN) / (BOX - COLUMN), 0, 1)
        middle = (len(share) - 1) / 2
        where = min(_boxes(share), key=lambda box: abs((box[0].start + box[0].stop) / 2 - middle))
        found.append(_keypoints(share, where))
    return np.stack(found), np.log(np.full((len(crops), 4), 0.05))


def encode(keypoints, shape):
    """Keypoints in pixels of each sheet, as a network says it: logits and offsets of the anchors."""
    n, h, w = shape[0], shape[1] // anchors.STRIDE, shape[2] // anchors.STRIDE
    logits = np.full((n, len(anchors.SIZES), h, w), -8.0)
    offsets = np.zeros((n, len(anchors.SIZES), 12, h, w))
    for sheet, vertebrae in enumerate(keypoints):
        for points in vertebrae:
            size = np.ptp(points, axis=0)
            a = int(np.abs(np.log(anchors.SIZES / size)).sum(1).argmin())
            i, j = np.rint((points.mean(0) - 0.5) / anchors.STRIDE).astype(int)
            logits[sheet, a, i, j] = 8.0
            center = anchors.cell_centers(np.array([i, j]))
            offsets[sheet, a, :, i, j] = ((points - center) / anchors.SIZES[a]).ravel()
    return logits, offsets


def _box_share(sheet):
    low, high = normalise(np.array([COLUMN, BOX], np.float32))
    return np.clip((sheet.astype(float) - low) / (high - low), 0, 1)


def _boxes(share):
    labels, _ = label(share > 0.5)
    return [
        (slice(max(rows.start - 3, 0), rows.stop + 3), slice(columns.start - 3, columns.stop + 3))
        for rows, columns in find_objects(labels)
        if min(rows.stop - rows.start, columns.stop - columns.start) > 6
    ]


def _keypoints(share, where):
    """Straight lines through the edges, whose meetings are the corners, (6, 2) in pixels."""
    part = share[where]
    row, column = (n // 2 for n in part.shape)
    columns, rows = np.arange(part.shape[1]), np.arange(row - 3, row + 4)
    top, bottom = _ends(part.T, row)
    front, back = _ends(part[rows], column)
    sides = {
        "front": np.polyfit(rows, front, 1),
        "back": np.polyfit(rows, back, 1),
        "middle": np.polyfit(rows, (front + back) / 2, 1),
    }
    halves = {"front": slice(7, column - 2), "back": slice(column + 3, len(columns) - 7)}
    points = []
    for side in ("front", "middle", "back"):
        used = ("front", "back") if side == "middle" else (side,)
        for edge in (top, bottom):
            fits = [np.polyfit(columns[halves[h]], edge[halves[h]], 1) for h in used]
            points.append(np.mean([_meet(fit, sides[side]) for fit in fits], axis=0))
    return np.array(points) + np.array([s.start for s in where])


def _ends(profiles, middle):
    """Where each profile (n, length) begins and ends about the middle: by area, as partial volume does."""
    before, after = profiles[:, :middle].sum(1), profiles[:, middle + 1 :].sum(1)
    return middle - 0.5 - before, middle + 0.5 + after


def _meet(edge, side):
    """(row, column) with row = edge(column) and column = side(row)."""
    row = (edge[0] * side[1] + edge[1]) / (1 - edge[0] * side[0])
    return np.array([row, np.polyval(side, row)])
