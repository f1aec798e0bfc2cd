"""The walls of one torso round its spine, and the small shapes from which its parts are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vfscreen.simulation.painting import Depth, Field, Structure, tube
from vfscreen.simulation.spine import Body, Spine
from vfscreen.volume import Floats

Rng = np.random.Generator
Limits = tuple[float, float]
SIDES = (-1, 1)  # right, left
WHOLE: Limits = (-np.inf, np.inf)


@dataclass(frozen=True)
class Outline:
    """A closed wall round the body: at each height a superellipse, mm, along ascending `z_mm`."""

    z_mm: Floats
    center_x: Floats
    center_y: Floats
    half_width: Floats
    half_depth: Floats
    power: float

    def at(self, z: Field) -> tuple[Field, Field, Field, Field]:
        """Centre x and y, half width and half depth at heights z."""
        parts = (self.center_x, self.center_y, self.half_width, self.half_depth)
        x, y, a, b = (np.interp(z, self.z_mm, part).astype(np.float32) for part in parts)
        return x, y, a, b

    def depth(self, x: Field, y: Field, z: Field, inset: float = 0.0) -> Field:
        """Depth below the wall moved inwards by `inset`, exact to first order at front and back."""
        cx, cy, a, b = self.at(z)
        a, b, p = np.maximum(a - np.float32(inset), 5), np.maximum(b - np.float32(inset), 5), self.power
        scale = b / np.float32(p)
        across = scale - scale * np.abs((x - cx) / a) ** np.float32(p)
        return across - scale * np.abs((y - cy) / b) ** np.float32(p)  # two thin fields, one full sum

    def front(self, z: float, aside: float = 0.0) -> float:
        """y of the wall in front, so far sidewards from its middle."""
        _, y, a, b = (float(v[0]) for v in self.at(np.array([z], np.float32)))
        return y - b * max(1 - abs(aside / a) ** self.power, 0.0) ** (1 / self.power)

    def drawn_in(self, point: Floats, margin: float) -> Floats:
        """The point, moved towards the middle of its plane until it lies so deep."""
        x, y, _, _ = (float(v[0]) for v in self.at(np.array([point[2]], np.float32)))
        middle = np.array([x, y, point[2]])
        for share in np.linspace(1, 0.3, 15):
            moved = middle + share * (point - middle)
            if self.depth(*moved.astype(np.float32)[:, None]) > margin:
                break
        return moved

    def box(self, low: float, high: float) -> Floats:
        """Bounds (3, 2) between two heights, with 3 mm to spare."""
        z = np.array([low, *self.z_mm[(self.z_mm > low) & (self.z_mm < high)], high], np.float32)
        x, y, a, b = self.at(z)
        return np.array([span(x - a, x + a), span(y - b, y + b), (low, high)])


@dataclass(frozen=True)
class Frame:
    """What the parts of one torso share, mm.

    `axis_mm` (n, 5) holds z (ascending) and x, y, half width and half depth of the spine's bodies.
    """

    bodies: tuple[Body, ...]
    axis_mm: Floats
    skin: Outline
    cage: Outline  # the middle of the ribs; below them the inner side of the abdominal wall
    fat: float
    muscle: float  # thickness of what lies on the ribs
    arms_up: bool
    apex: float  # z of the lungs' tops
    dome: float  # z of the diaphragm
    blood: tuple[float, float, float]  # HU of aorta, pulmonary artery, great veins

    def spine(self, z: Field) -> tuple[Field, Field]:
        """x and y of the spine's axis at heights z."""
        x, y = (np.interp(z, self.axis_mm[:, 0], self.axis_mm[:, i]).astype(np.float32) for i in (1, 2))
        return x, y

    def half_body(self, z: Field) -> tuple[Field, Field]:
        """Half the width and half the depth of the vertebral bodies at heights z."""
        w, d = (np.interp(z, self.axis_mm[:, 0], self.axis_mm[:, i]).astype(np.float32) for i in (3, 4))
        return w, d

    def level(self, name: str) -> float:
        """z of the middle of a vertebra; of the nearest end where the spine has none of this name."""
        at = {body.level: float(body.center_mm[2]) for body in self.bodies}
        return at.get(name, float(self.axis_mm[0 if name.startswith("L") else -1, 0]))

    def beside(self, z: float, dx: float, dy: float) -> Floats:
        """The point so far from the spine's axis at a height."""
        x, y = self.spine(np.array([z], np.float32))
        return np.array([x[0] + dx, y[0] + dy, z], float)


def draw_frame(rng: Rng, spine: Spine) -> Frame:
    """The walls of one torso round its spine, from slender to obese, arms up or down."""
    curve = spine.curve().points_mm[::-1]
    bodies = spine.bodies[::-1]
    heights = [b.center_mm[2] for b in bodies]
    half_width = np.interp(curve[:, 2], heights, [b.width_mm / 2 for b in bodies])
    half_depth = np.interp(curve[:, 2], heights, [b.depth_mm / 2 for b in bodies])
    axis = np.column_stack([curve[:, [2, 0, 1]], half_width, half_depth])
    top = next(float(b.center_mm[2]) for b in spine.bodies if b.level == "T1")
    fat, muscle, arms_up = rng.uniform(3, 45), rng.uniform(2, 13), bool(rng.random() < 0.7)
    cage = _draw_cage(rng, axis, top)
    return Frame(
        bodies=spine.bodies,
        axis_mm=axis,
        skin=_draw_skin(rng, axis, top, cage, (fat, muscle), arms_up),
        cage=cage,
        fat=fat,
        muscle=muscle,
        arms_up=arms_up,
        apex=top + rng.uniform(-18, 12),
        dome=rng.uniform(-105, -10),
        blood=_draw_blood(rng),
    )


def _draw_blood(rng: Rng) -> tuple[float, float, float]:
    """Without contrast in one half; with it late, or early and dense in veins and lung arteries."""
    plain = rng.uniform(20, 65)
    if rng.random() < 0.5:
        return plain, plain, plain
    aorta = rng.uniform(90, 500)
    vein = rng.uniform(200, 1500) if rng.random() < 0.3 else aorta * rng.uniform(0.3, 1.1)
    return aorta, aorta * rng.uniform(0.4, 1.5), vein


def _draw_cage(rng: Rng, axis: Floats, top: float) -> Outline:
    """Narrow at the first rib, whole from the seventh; its back stays behind the spine's bodies."""
    below = np.array([-420, -260, -160, -105, -62, -28, 2, 30])
    wide = np.array([0.96, 1.0, 1.0, 0.97, 0.87, 0.68, 0.45, 0.36]) * rng.uniform(112, 165)
    deep = np.array([0.9, 0.96, 1.0, 0.92, 0.74, 0.54, 0.38, 0.34]) * rng.uniform(80, 120)
    behind = np.interp(below, [-62, 0], [rng.uniform(30, 42), rng.uniform(20, 28)])
    z = below + top
    x0, y0 = (np.interp(z, axis[:, 0], axis[:, i]) for i in (1, 2))
    half = np.interp(z, axis[:, 0], axis[:, 4])
    back = np.maximum(y0 + behind, y0 + half + 16)
    return Outline(z, 0.6 * x0, back - deep, wide, deep, rng.uniform(2.0, 2.6))


def _draw_skin(
    rng: Rng, axis: Floats, top: float, cage: Outline, on_ribs: tuple[float, float], arms_up: bool
) -> Outline:
    """Round the cage by muscle and fat, broad at the shoulders, a neck above."""
    layer, (fat, muscle) = sum(on_ribs), on_ribs
    below = np.array([-420, -260, -160, -105, -62, -28, -5, 30, 55, 200])
    z = below + top
    x0, y0 = (np.interp(z, axis[:, 0], axis[:, i]) for i in (1, 2))
    cx, cy, a, b = cage.at(z.astype(np.float32))
    shoulder = float(a.max() + layer) + (rng.uniform(0, 25) if arms_up else rng.uniform(25, 60))
    neck = rng.uniform(55, 80)
    broad = np.interp(below, [-105, -50, -10, 30, 55], [0, shoulder, 0.85 * shoulder, neck + 25, neck])
    spinous = rng.uniform(57, 72) + 0.6 * fat + 0.3 * muscle
    back = np.maximum(cy + b + layer, y0 + spinous)
    back = np.maximum(back, back.max() - rng.uniform(0, 25) - np.interp(below, [-30, 30], [0, 45]))
    front = cy - b - layer - np.interp(below, [-300, -200], [rng.uniform(-10, 40), 0])
    front = np.where(below > 0, y0 - rng.uniform(55, 80), front)
    middle, half_depth = (front + back) / 2, (back - front) / 2
    width = np.maximum(a + layer, broad)
    return Outline(z, np.where(below > 0, x0, cx), middle, width, half_depth, rng.uniform(2.0, 2.7))


def span(low: ArrayLike, high: ArrayLike) -> Limits:
    """From the lowest to the highest of these, with 3 mm to spare."""
    return float(np.min(low)) - 3, float(np.max(high)) + 3


def bounds(x: Limits = WHOLE, y: Limits = WHOLE, z: Limits = WHOLE) -> Floats:
    """The box (3, 2) of these limits, mm; without end where none is given."""
    return np.array([x, y, z], float)


def within(box: Floats, y: Limits = WHOLE, z: Limits = WHOLE) -> Floats:
    """The part of a box between these depths and heights."""
    limit = bounds(y=y, z=z)
    return np.stack([np.maximum(box[:, 0], limit[:, 0]), np.minimum(box[:, 1], limit[:, 1])], 1)


def tubes(points: Floats, radii: Sequence[float], hu: float) -> list[Structure]:
    """Tubes from point to point, (n, 3) LPS mm, each as wide as its further end."""
    return [tube(points[i : i + 2], radii[i + 1], hu) for i in range(len(points) - 1)]


def long_bone(points: Floats, radius: float, hu: tuple[float, float]) -> list[Structure]:
    """A long bone along a line: HU of cortex and marrow."""
    n = len(points)
    return [*tubes(points, [radius] * n, hu[0]), *tubes(points, [0.6 * radius] * n, hu[1])]


def bent_wave(rng: Rng, length_mm: float, way: ArrayLike) -> Depth:
    """A bent wave of amplitude 1 that runs this way, made from thin fields: cheaper than `texture`."""
    k = (np.asarray(way) * 2 * np.pi / length_mm).astype(np.float32)
    bends, shift = rng.uniform(25, 90, 4).astype(np.float32), np.float32(rng.uniform(0, 6))

    def value(x: Field, y: Field, z: Field) -> Field:
        bent = np.sin(x / bends[0] + z / bends[1]) + np.sin(z / bends[2] - shift)
        flat = k[0] * x + k[2] * z + 2 * bent
        deep = k[1] * y + 2 * np.sin(y / bends[3] + shift)
        return np.cos(flat) * np.cos(deep) - np.sin(flat) * np.sin(deep)

    return value
