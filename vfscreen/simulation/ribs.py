"""The ribs, each at its own vertebra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfscreen.simulation.frame import SIDES, Frame, Rng
from vfscreen.simulation.painting import Field, Structure
from vfscreen.simulation.spine import Body
from vfscreen.volume import Floats

DepthAndHu = Callable[[Field, Field, Field], tuple[Field, Field]]


@dataclass(frozen=True)
class RibCage:
    """All ribs of one person.

    `heads_mm` (n, 2, 3) are the costovertebral joints, right and left, cranial first, LPS mm; the
    rib of the vertebra `levels[i]` is bone as far round the chest as `ends_rad[i]`.
    """

    frame: Frame
    levels: tuple[str, ...]
    heads_mm: Floats
    ends_rad: Floats
    half_height: float
    half_thickness: float
    neck: tuple[float, float]  # of the necks' ends, sidewards from the head and before the cage's back
    drop: tuple[float, float]  # from head to front: of the rib at z = 0, and its share of z
    hu: tuple[float, float, float]  # marrow, cortex on top of it, cartilage

    def structure(self) -> Structure:
        """The ribs as one structure, their rims brighter than their middle."""
        low, high = self.heads_mm[..., 2].min() - self._fall(-200.0), self.heads_mm[..., 2].max() + 12
        box = self.frame.cage.box(float(low), float(high)) + np.array([[-8, 8], [-8, 8], [0, 0]])
        seen = _remembered(self._depth_and_hu)
        return Structure(lambda x, y, z: seen(x, y, z)[0], lambda x, y, z: seen(x, y, z)[1], box)

    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """Depth below the surface of the nearest rib, mm; -8 where none is near."""
        return self._depth_and_hu(x, y, z)[0]

    def _fall(self, z: float) -> float:
        return self.drop[0] + self.drop[1] * z

    def _depth_and_hu(self, x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        """Only where the sheet in which the ribs lie is near, since the rest is most of the chest."""
        shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
        hu, depth = np.full(shape, self.hu[0], np.float32), np.full(shape, -8, np.float32)
        x0, _ = self.frame.spine(z)
        wide, _ = self.frame.half_body(z)
        beside = np.abs(x - x0) - wide
        if not (beside > -10).any():  # a slab about the midline
            return depth, hu
        behind = y - np.minimum(self._head(z, 0, 1), self._head(z, 1, 1))
        near = np.abs(self.frame.cage.depth(x, y, z)) < 8
        near |= ((beside > -10) & (beside < self.neck[0] + 12)) & ((behind > -8) & (behind < 70))
        points = [np.broadcast_to(p, shape)[near] for p in (x, y, z)]
        depth[near], hu[near] = self._on_sheet(*points)
        return depth, hu

    def _head(self, z: Field, side: int, axis: int) -> Field:
        """x (0) or y (1) of the line through the heads of one side at heights z."""
        heads = self.heads_mm[::-1, side]
        return np.interp(z, heads[:, 2], heads[:, axis]).astype(np.float32)

    def _on_sheet(self, x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        (x0, y0), (cx, cy, _, _) = self.frame.spine(z), self.frame.cage.at(z)
        middle = x0 + (cx - x0) * np.clip((y0 - y) / 40, 0, 1)
        theta, first = np.arctan2(np.abs(x - middle), y - cy), self._first_angle(z, x > middle)
        turn = np.clip((theta - first) / (2.4 - first), 0, 1) - 0.6 * np.clip(theta - 2.4, 0, 1)
        steep = 1 - self.drop[1] * turn
        head_z = (z + self.drop[0] * turn) / steep
        rib, row = self._nearest(head_z, x > middle)
        across = self.half_height - np.abs(row) * steep * np.float32(0.95)
        end = self.ends_rad[rib]
        stop = np.where(rib < 10, np.float32(2.95), end)
        depth = np.minimum(np.minimum(self._sheet(x, y, z), across), (stop - theta) * 100)
        rim = np.exp(-np.abs(depth) / np.float32(0.7))
        bone = self.hu[0] + self.hu[1] * rim
        return np.asarray(depth, np.float32), np.where(theta < end, bone, self.hu[2] * (1 + 0.5 * rim))

    def _first_angle(self, z: Field, left: NDArray[np.bool_]) -> Field:
        """The angle at which the ribs of one side start: large at the top, where the chest is small."""
        (wide, _), (_, cy, _, _) = self.frame.half_body(z), self.frame.cage.at(z)
        y = np.where(left, self._head(z, 1, 1), self._head(z, 0, 1))
        return np.minimum(np.arctan2(wide + 1, np.maximum(y - cy, 1)), np.float32(1.4))

    def _nearest(self, head_z: Field, left: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Field]:
        """Which rib starts nearest to a height, and how far from it, mm."""
        order = np.arange(len(self.levels), dtype=float)[::-1]
        rib, row = np.zeros(head_z.shape, np.intp), np.zeros(head_z.shape, np.float32)
        for side, chosen in enumerate((~left, left)):
            heads = self.heads_mm[:, side, 2]
            found = np.rint(np.interp(head_z[chosen], heads[::-1], order)).astype(np.intp)
            rib[chosen], row[chosen] = found, head_z[chosen] - heads[found]
        return rib, row

    def _sheet(self, x: Field, y: Field, z: Field) -> Field:
        """Depth within the sheet of all ribs: the necks from the spine outwards, then the chest wall."""
        f, p = self.frame, np.float32(self.frame.cage.power)
        (x0, _), (wide, _), (cx, cy, a, b) = f.spine(z), f.half_body(z), f.cage.at(z)
        left = x > x0
        start_x, start_y = (np.where(left, self._head(z, 1, i), self._head(z, 0, i)) for i in (0, 1))
        reach = wide + np.float32(1 + self.neck[0])
        way_x, way_y = (
            x0 + np.where(left, reach, -reach) - start_x,
            cy + b - np.float32(self.neck[1]) - start_y,
        )
        along = ((x - start_x) * way_x + (y - start_y) * way_y) / (way_x**2 + way_y**2)
        t = np.clip(along, 0, 1)
        neck = np.hypot(x - start_x - t * way_x, y - start_y - t * way_y)
        q = (np.abs((x - cx) / a) ** p + np.abs((y - cy) / b) ** p) ** (1 / p)
        wall = np.abs(1 - q) * np.hypot(x - cx, y - cy)
        wall = np.where((np.abs(x - x0) < reach - 1) & (y > cy), np.float32(99), wall)
        return np.asarray(self.half_thickness - np.minimum(neck, wall), np.float32)


def draw_ribs(rng: Rng, f: Frame) -> RibCage:
    """Ribs of T1 downwards: mostly twelve pairs; eleven, or a thirteenth at L1, in one of ten each."""
    first = next(i for i, body in enumerate(f.bodies) if body.level == "T1")
    bearing = f.bodies[first : first + int(rng.choice([11, 12, 13], p=[0.1, 0.8, 0.1]))]
    heads = [[_head(body, side, rng.uniform(0, 2)) for side in SIDES] for body in bearing]
    ends = np.array([2.2, 2.3, 2.35, 2.4, 2.45, 2.4, 2.35, 2.3, 2.25, 2.1, 1.6, 1.0, 0.55])
    marrow = rng.uniform(20, 300)
    cartilage = rng.uniform(70, 160) if rng.random() < 0.6 else rng.uniform(160, 450)
    return RibCage(
        frame=f,
        levels=tuple(body.level for body in bearing),
        heads_mm=np.array(heads),
        ends_rad=(ends[: len(bearing)] + rng.normal(0, 0.08)).astype(np.float32),
        half_height=rng.uniform(3.6, 6.2),
        half_thickness=rng.uniform(2.4, 4.2),
        neck=(rng.uniform(17, 25), rng.uniform(0, 5)),
        drop=(rng.uniform(75, 150), -rng.uniform(0.25, 0.5)),
        hu=(marrow, rng.uniform(150, 1100), cartilage),
    )


def _head(body: Body, side: int, lower: float) -> Floats:
    """The costovertebral joint: beside and behind, at the upper corner of the body, LPS mm."""
    local = (0.7 * body.depth_mm / 2, lower - body.height_posterior_mm / 2, side * (body.width_mm / 2 + 1))
    return body.to_patient(np.array(local))


def _remembered(function: DepthAndHu) -> DepthAndHu:
    """The function, worked out once where depth and HU ask for the same points in turn."""
    last: list[tuple[tuple[Field, ...], tuple[Field, Field]]] = []

    def value(x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        if last and all(a is b for a, b in zip(last[0][0], (x, y, z), strict=True)):
            return last.pop()[1]
        last[:] = [((x, y, z), function(x, y, z))]
        return last[0][1]

    return value
