"""What is no part of the trunk: table, forearms, wires on the skin, devices and drains."""

from __future__ import annotations

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, bounds, long_bone, tubes
from vfscreen.simulation.painting import Field, Structure, ellipsoid, tube


def draw_outside(rng: Rng, f: Frame) -> list[Structure]:
    """Table, forearms beside the trunk, wires on the skin, zip and buttons."""
    parts = [*_table(rng, f), *(_forearms(rng, f) if not f.arms_up else [])]
    for _ in range(rng.integers(2, 7) if rng.random() < 0.4 else 0):
        path = np.zeros((4, 3))
        path[:, 0] = rng.uniform(-100, 100) + rng.normal(0, 15, 4)
        path[:, 2] = rng.uniform(-120, 120) + np.linspace(0, rng.uniform(30, 150), 4)
        path[:, 1] = [f.skin.front(z, x - float(f.skin.center_x[3])) - 3 for x, _, z in path]
        parts += tubes(path, [rng.uniform(0.7, 1.5)] * 4, rng.uniform(300, 3000))
        parts.append(ellipsoid(path[0], (7, 2.5, 7), rng.uniform(100, 3000)))
    for z in np.arange(-150, 150, rng.uniform(8, 60)) if rng.random() < 0.08 else ():
        at = (rng.uniform(-3, 3), f.skin.front(z) - 4, z)
        parts.append(ellipsoid(at, (3, 2, 3), rng.uniform(500, 3000)))
    return parts


def _forearms(rng: Rng, f: Frame) -> list[Structure]:
    a, parts = float(f.skin.half_width.max()), []
    for side in SIDES:
        hand = [side * (a + rng.uniform(10, 40)), rng.uniform(-60, 20), -420]
        arm = np.array([[side * (a + 22), 0, -120], hand])
        arm[:, 1] += f.cage.front(-100) + 90
        parts.append(tube(arm, rng.uniform(25, 42), rng.uniform(-60, 60)))
        parts += long_bone(arm, 8.0, (rng.uniform(500, 1100), 60.0))
    return parts


def _table(rng: Rng, f: Frame) -> list[Structure]:
    """None, flat or curved, a shell with foam in it, under a mattress or not."""
    if rng.random() < 0.3:
        return []
    back = float((f.skin.center_y + f.skin.half_depth).max())
    bend, thick, core = rng.uniform(0, 45), rng.uniform(6, 30), rng.uniform(-980, -800)
    pad, foam, shell = rng.uniform(0, 30), rng.uniform(-990, -780), rng.uniform(-700, 250)
    top, rim = back + pad + rng.uniform(-2, 12), rng.uniform(1, 3)

    def layer(first: float, last: float, hu: float) -> Structure:
        def depth(x: Field, y: Field, z: Field) -> Field:
            down = y - top + np.float32(bend) * (x / 200) ** 2
            return np.asarray(np.minimum(np.minimum(down - first, last - down), 270 - np.abs(x)), np.float32)

        return Structure(depth, hu, bounds((-272, 272), (top + first - 1.9 * bend - 2, top + last + 2)))

    parts = [layer(0, thick, shell), layer(rim, thick - rim, core)]
    return [layer(-pad, 0, foam), *parts] if pad > 5 else parts


def draw_devices(rng: Rng, f: Frame) -> list[Structure]:
    """Port or pacemaker with its line into the great vein, drains and other wires."""
    parts: list[Structure] = []
    kind = rng.choice(["", "port", "pacemaker"], p=[0.84, 0.1, 0.06])
    if kind:
        side, z = int(rng.choice(SIDES)), f.level("T4") + rng.uniform(-15, 10)
        pocket = np.array([side * rng.uniform(55, 90), f.cage.front(z) - 0.5 * (f.fat + f.muscle), z])
        neck, heart = f.beside(f.apex, side * 20, -45), f.beside(f.dome + rng.uniform(30, 90), -22, -60)
        radii, hu = ((13, 6, 13), rng.uniform(400, 3000)) if kind == "port" else ((26, 5, 22), 3000.0)
        line = np.stack([pocket, neck, f.beside(f.apex - 40, -24, -58), heart])
        parts += tubes(line, [rng.uniform(0.8, 1.6)] * 4, rng.uniform(300, 2500))
        parts.append(ellipsoid(pocket, radii, hu))
        parts.append(ellipsoid(pocket, np.array(radii) * 0.5, hu * rng.uniform(0.1, 1)))
    for _ in range(rng.integers(0, 3)):
        start = rng.uniform((-120, f.cage.front(0), -100), (120, f.cage.front(0) + 120, 150))
        ends = np.stack([start, start + rng.normal(0, 80, 3)])
        parts.append(tube(ends, rng.uniform(0.8, 2), rng.uniform(300, 3000)))
    return parts
