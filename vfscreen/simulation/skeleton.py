"""Bones beside spine and ribs: upper arms with their flesh, shoulders, sternum, pelvis."""

from __future__ import annotations

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, long_bone, span, tubes
from vfscreen.simulation.painting import Field, Structure, ellipsoid, tube
from vfscreen.volume import Floats


def draw_sockets(rng: Rng, f: Frame) -> Floats:
    """Where the upper arms meet the shoulder blades, right and left, (2, 3) LPS mm."""
    z = f.level("T3") + rng.uniform(-12, 20) + (25 if f.arms_up else 0)
    wide, y = float(np.interp(z, f.skin.z_mm, f.skin.half_width)), f.beside(z, 0, rng.uniform(-15, 30))[1]
    return np.array([[side * (0.8 * wide + rng.uniform(-10, 5)), y, z] for side in SIDES])


def draw_arms(rng: Rng, f: Frame, sockets: Floats) -> tuple[list[Structure], list[Structure]]:
    """Upper arms that hang down or lie beside the head: flesh, which the trunk covers, and bones."""
    flesh, bones = [], []
    fat_hu, muscle_hu = rng.uniform(-120, -60), rng.uniform(15, 75)
    marrow, cortex, thick = rng.uniform(-60, 250), rng.uniform(350, 1300), rng.uniform(26, 36)
    for side, socket in zip(SIDES, sockets, strict=True):
        way = np.array([side * 40, 0, -260.0])
        if f.arms_up:
            way = np.array([side * rng.uniform(-40, 45), rng.uniform(-50, 30), 260.0])
        head = socket + np.array([side * 16, -4, 0])
        arm = np.stack([head, head + way])
        flesh += [tube(arm, thick + 0.4 * f.fat, fat_hu), tube(arm, thick, muscle_hu)]
        bones += long_bone(arm, rng.uniform(9, 12), (cortex, marrow))
        bones += [ellipsoid(head, (23, 23, 23), cortex), ellipsoid(head, (21, 21, 21), marrow + 60)]
    return flesh, bones


def draw_shoulders(rng: Rng, f: Frame, sockets: Floats) -> list[Structure]:
    """Shoulder blades and collar bones."""
    parts, hu, radius = [], (rng.uniform(300, 1100), rng.uniform(50, 300)), rng.uniform(4.5, 7)
    for side, socket in zip(SIDES, sockets, strict=True):
        parts += _blade(rng, f, side, socket)
        notch = np.array([side * 14, f.cage.front(f.apex - 25) + 4, f.apex - rng.uniform(10, 30)])
        bow = (notch + socket) / 2 + np.array([0, -10, 8])
        parts += long_bone(np.stack([notch, bow, socket + np.array([0, -5, 18])]), radius, hu)
    return parts


def _blade(rng: Rng, f: Frame, side: int, socket: Floats) -> list[Structure]:
    """A shoulder blade: a thin plate on the chest wall behind, its thick border, its spine."""
    low = socket[2] - rng.uniform(95, 135)
    _, cy, a, b = (float(v[0]) for v in f.cage.at(np.array([low], np.float32)))
    lift, swing = f.muscle + rng.uniform(5, 14), rng.uniform(0.45, 0.65)
    tip = np.array([side * (a + lift) * swing, cy + (b + lift) * np.sqrt(1 - swing**2), low])
    inner = np.array([side * rng.uniform(55, 80), cy + b + lift, socket[2] - 5])
    tip, inner = (f.skin.drawn_in(at, 0.3 * f.fat + 4) for at in (tip, inner))
    cortex, thick = rng.uniform(200, 700), rng.uniform(1, 2.2)
    parts = [_plate(np.stack([socket, tip, inner]), thick, cortex)]
    parts.append(tube(np.stack([socket, tip]), rng.uniform(3, 6), cortex * 0.8))
    ridge = np.stack([inner, socket + np.array([0, 22, 12]), socket + np.array([side * 8, 0, 26])])
    return [*parts, *tubes(ridge, [2.5, 4.5, 5], cortex), ellipsoid(socket, (9, 15, 18), cortex * 0.7)]


def _plate(corners: Floats, half: float, hu: float) -> Structure:
    """A flat triangle of bone, (3, 3) LPS mm."""
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal /= np.linalg.norm(normal)
    edges = [np.cross(normal, corners[(i + 1) % 3] - corners[i]) for i in range(3)]
    planes = [(e / np.linalg.norm(e), corners[i]) for i, e in enumerate(edges)]

    def along(axis: Floats, start: Floats, at: tuple[Field, Field, Field]) -> Field:
        return np.asarray(
            sum(np.float32(a) * (p - np.float32(s)) for a, s, p in zip(axis, start, at, strict=True))
        )

    def depth(x: Field, y: Field, z: Field) -> Field:
        inside = half - np.abs(along(normal, corners[0], (x, y, z)))
        for axis, start in planes:
            inside = np.minimum(inside, along(axis, start, (x, y, z)))
        return np.asarray(inside, np.float32)

    return Structure(depth, hu, np.stack([corners.min(0) - half - 2, corners.max(0) + half + 2], 1))


def draw_sternum(rng: Rng, f: Frame) -> list[Structure]:
    """A flat bone before the cage, its rim brighter than its marrow, wired after surgery at times."""
    high, low = f.level("T3") + rng.uniform(-20, 5), f.level("T9") + rng.uniform(-20, 25)
    wide, thick = rng.uniform(13, 22), rng.uniform(4, 7)

    def depth(x: Field, y: Field, z: Field) -> Field:
        cx, cy, _, b = f.cage.at(z)
        flat = np.minimum(wide - np.abs(x - cx), thick - np.abs(y - cy + b))
        return np.asarray(np.minimum(flat, np.minimum(z - low, high - z)), np.float32)

    marrow, cortex = rng.uniform(30, 250), rng.uniform(100, 700)

    def hu(x: Field, y: Field, z: Field) -> Field:
        return np.asarray(marrow + cortex * np.exp(-np.abs(depth(x, y, z))), np.float32)

    box = f.cage.box(low - 2, high + 2)
    box[1] = box[1, 0] - 10, max(f.cage.front(low), f.cage.front(high)) + 10
    box[0] = span(f.cage.center_x - wide, f.cage.center_x + wide)
    parts = [Structure(depth, hu, box)]
    for z in np.linspace(low + 10, high - 5, 6) if rng.random() < 0.08 else ():
        y = f.cage.front(z) - 7
        parts.append(tube(np.array([[-8, y, z], [8, y, z + 2]]), 1.0, rng.uniform(1500, 3000)))
    return parts


def draw_ilium(rng: Rng, f: Frame) -> list[Structure]:
    """The pelvis beside L5 and the sacrum."""
    parts, hu = [], rng.uniform(100, 400)
    for side in SIDES:
        z = float(f.axis_mm[0, 0]) - rng.uniform(10, 40)
        at = f.beside(z, side * rng.uniform(60, 85), rng.uniform(0, 30))
        radii = rng.uniform((8, 35, 45), (18, 60, 70))
        parts += [ellipsoid(at, radii, hu + rng.uniform(50, 400)), ellipsoid(at, radii - 2, hu)]
    return parts
