"""The abdomen: fat, solid organs, the muscles beside the lumbar spine, stomach and bowel."""

from __future__ import annotations

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, tubes
from vfscreen.simulation.painting import Field, Structure, ellipsoid, tube


def draw_abdomen(rng: Rng, f: Frame) -> list[Structure]:
    """Fat of the cavity and behind it, organs, bowel."""
    top, gap = f.dome + 25, rng.uniform(2, 10)
    hu = rng.uniform(-125, -60) if rng.random() < 0.8 else rng.uniform(-60, 50)

    def cavity(x: Field, y: Field, z: Field) -> Field:
        return np.minimum(f.cage.depth(x, y, z, gap), top - z)

    parts = [Structure(cavity, hu, f.cage.box(-np.inf, top + 3))]
    parts += [*_solid_organs(rng, f), *_retroperitoneum(rng, f), *_stomach(rng, f)]
    front = f.cage.front(-150)
    for _ in range(rng.integers(12, 36)):
        spot = rng.uniform((-110, front + 15, -330), (110, front + 105, f.dome - 30))
        radii = rng.uniform(8, 34) * rng.uniform(0.6, 1.6, 3)
        middle = f.cage.drawn_in(spot, gap + 0.8 * radii.min())
        inside = rng.choice([rng.uniform(-60, 70), -1000.0, rng.uniform(80, 450)], p=[0.6, 0.3, 0.1])
        parts.append(ellipsoid(middle, radii, rng.uniform(0, 90)))
        parts.append(ellipsoid(middle, np.maximum(radii - 3, 3), float(inside)))
    return parts


def _solid_organs(rng: Rng, f: Frame) -> list[Structure]:
    """Liver, spleen and kidneys, before contrast and after it."""
    late = rng.uniform(0, 120) if f.blood[0] > 80 else rng.uniform(-10, 10)
    _, _, a, b = (float(v[0]) for v in f.cage.at(np.array([f.dome - 40], np.float32)))
    middle_y = f.cage.front(f.dome) + b
    reach = np.array([a, b, 100.0])
    liver = np.array([-0.42 * a, middle_y - 0.08 * b, f.dome - rng.uniform(40, 65)])
    left_lobe = np.array([0.1 * a, middle_y - 0.45 * b, f.dome - rng.uniform(35, 60)])
    hu = rng.uniform(15, 75) + 0.7 * late
    parts = [ellipsoid(liver, reach * rng.uniform((0.48, 0.8, 0.7), (0.6, 1.0, 1.0)), hu)]
    parts.append(ellipsoid(left_lobe, reach * rng.uniform((0.3, 0.25, 0.3), (0.5, 0.4, 0.5)), hu))
    spleen = np.array([0.66 * a, middle_y + 0.35 * b, f.dome - rng.uniform(30, 60)])
    parts.append(ellipsoid(spleen, rng.uniform((22, 28, 32), (38, 45, 60)), rng.uniform(30, 60) + late))
    for side in SIDES:
        z = f.level("L1") + rng.uniform(-35, 15)
        at = f.beside(z, side * rng.uniform(55, 72), rng.uniform(-15, 14))
        size, pelvis = rng.uniform((20, 20, 42), (32, 30, 62)), at - np.array([side * 8, 2, 0])
        parts.append(ellipsoid(at, size, rng.uniform(15, 45) + 1.6 * late))
        parts.append(ellipsoid(pelvis, 0.45 * size, rng.uniform(-100, 30) + late))
    return parts


def _retroperitoneum(rng: Rng, f: Frame) -> list[Structure]:
    """Psoas and quadratus lumborum beside the lumbar spine, the crura in front of it."""
    hu, thick, end = rng.uniform(20, 75), rng.uniform(12, 24), float(f.axis_mm[0, 0])
    parts = []
    for side in SIDES:
        start, low = f.level("T12") - 10, f.beside(end - 10, side * 52, -16)
        psoas = np.stack([f.beside(start, side * 27, 2), f.beside((start + end) / 2, side * 38, -2), low])
        parts += tubes(psoas, [0.5 * thick, 0.9 * thick, thick], hu)
        quadratus = np.stack([f.beside(start, side * 48, 26), f.beside(end, side * 72, 18)])
        parts.append(tube(quadratus, rng.uniform(7, 15), hu))
        crus = np.stack([f.beside(f.level("T11"), side * 16, -20), f.beside(f.level("L2"), side * 13, -22)])
        parts.append(tube(crus, rng.uniform(3, 7), hu))
    return parts


def _stomach(rng: Rng, f: Frame) -> list[Structure]:
    """Gas over fluid or contrast, sometimes slipped through the diaphragm before the spine."""
    if rng.random() < 0.2:
        return []
    hernia = rng.random() < 0.15
    front = f.cage.front(f.dome - 40)
    middle = np.array([rng.uniform(25, 80), front + rng.uniform(40, 95), f.dome - rng.uniform(25, 70)])
    if hernia:
        middle = f.beside(f.dome + rng.uniform(0, 35), rng.uniform(-5, 25), -rng.uniform(45, 60))
    radii = rng.uniform((25, 25, 30), (55, 50, 60)) * (0.55 if hernia else 1)
    level = middle[1] + rng.uniform(-0.9, 0.9) * radii[1]
    fluid = rng.uniform(-10, 70) if rng.random() < 0.5 else rng.uniform(100, 500)

    def hu(x: Field, y: Field, z: Field) -> Field:
        return np.where(y < level, np.float32(-1000), np.float32(fluid))

    lumen = ellipsoid(middle, radii - rng.uniform(2, 6), 0.0)
    return [ellipsoid(middle, radii, rng.uniform(20, 110)), Structure(lumen.depth, hu, lumen.box_mm)]
