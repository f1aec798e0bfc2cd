"""The rest of the patient round the spine: skin, lungs, vessels, organs, ribs, arms, table.

Positions follow the spine; every size and HU is drawn far wider than life, so that the networks
learn the spine and not the torso (in the way of SynthSeg, Billot et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vfscreen.simulation.painting import Field, Structure, ellipsoid, tube
from vfscreen.simulation.spine import Spine
from vfscreen.volume import Floats


@dataclass(frozen=True)
class Frame:
    """Sizes that the parts of one torso share, mm; the trunk is an ellipse about (0, `middle_y`)."""

    half_width: float
    half_depth: float
    middle_y: float
    fat: float
    power: float
    lung_top: float
    diaphragm: float
    curve_mm: Floats  # (n, 3), ascending z

    def spine(self, z: Field) -> tuple[Field, Field]:
        """x and y of the spine's curve at heights z."""
        x = np.interp(z, self.curve_mm[:, 2], self.curve_mm[:, 0]).astype(np.float32)
        y = np.interp(z, self.curve_mm[:, 2], self.curve_mm[:, 1]).astype(np.float32)
        return x, y

    def size(self, z: Field) -> Field:
        """Share of the full width at heights z: narrow at the neck."""
        return np.asarray(0.42 + 0.58 * np.clip((self.lung_top + 35 - z) / 60, 0, 1), np.float32)

    def radius(self, x: Field, y: Field, z: Field, share: float = 1.0) -> Field:
        """1 on the outline scaled by `share`, below 1 inside."""
        size = self.size(z) * np.float32(share)
        x0, y0 = self.spine(z)
        center = np.float32(self.middle_y) + (y0 - np.float32(self.middle_y)) * (1 - self.size(z))
        wide = np.abs(x - 0.3 * x0) / (size * np.float32(self.half_width))
        deep = np.abs(y - center) / (size * np.float32(self.half_depth))
        p = np.float32(self.power)
        return np.asarray((wide**p + deep**p) ** (1 / p), np.float32)


def draw_torso(rng: np.random.Generator, spine: Spine) -> tuple[list[Structure], list[Structure]]:
    """What lies under the spine in painting order, and what lies over it (ribs, vessels)."""
    frame = _draw_frame(rng, spine)
    under = [*_wall(rng, frame), *_abdomen(rng, frame), *_back(rng, frame), *_lungs(rng, frame)]
    under += [*_mediastinum(rng, frame), *_bones(rng, frame), *_outside(rng, frame)]
    return under, _vessels(rng, frame)


def _draw_frame(rng: np.random.Generator, spine: Spine) -> Frame:
    curve = spine.curve().points_mm[::-1]
    depth = rng.uniform(92, 150)
    return Frame(
        half_width=rng.uniform(145, 220),
        half_depth=depth,
        middle_y=float(curve[:, 1].max() + rng.uniform(55, 95) - depth),
        fat=rng.uniform(4, 40),
        power=rng.uniform(2.0, 2.8),
        lung_top=rng.uniform(130, 190),
        diaphragm=rng.uniform(-110, -10),
        curve_mm=curve,
    )


def _wall(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Fat under the skin, then muscle."""

    def skin(x: Field, y: Field, z: Field) -> Field:
        return (1 - f.radius(x, y, z)) * np.float32(f.half_depth)

    def muscle(x: Field, y: Field, z: Field) -> Field:
        return skin(x, y, z) - np.float32(f.fat) * f.size(z)

    return [Structure(skin, rng.uniform(-125, -75)), Structure(muscle, rng.uniform(20, 75))]


def _abdomen(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Fat of the cavity, organs, gas."""
    top = f.diaphragm + 25

    def cavity(x: Field, y: Field, z: Field) -> Field:
        _, y0 = f.spine(z)
        inside = (0.86 - f.radius(x, y, z)) * np.float32(f.half_depth) - np.float32(f.fat * 0.5)
        return np.minimum(np.minimum(inside, top - z), y0 - 10 - y)

    parts = [Structure(cavity, rng.uniform(-120, 60), _box(z=(-np.inf, top + 4)))]
    liver = (-0.4 * f.half_width, f.middle_y - 10, f.diaphragm - 55)
    parts.append(ellipsoid(liver, rng.uniform((70, 60, 55), (110, 95, 95)), rng.uniform(20, 160)))
    spleen = (0.5 * f.half_width, f.middle_y + 30, f.diaphragm - 50)
    parts.append(ellipsoid(spleen, rng.uniform((25, 30, 35), (45, 50, 65)), rng.uniform(30, 170)))
    for side in (-1, 1):
        low = -rng.uniform(150, 210)
        x0, y0 = (float(v[0]) for v in f.spine(np.array([low], np.float32)))
        kidney = (x0 + side * rng.uniform(50, 70), y0 - rng.uniform(-10, 25), low)
        parts.append(ellipsoid(kidney, rng.uniform((20, 20, 42), (32, 32, 62)), rng.uniform(20, 260)))
        psoas = np.array([[x0 + side * 34, y0 + 4, -130], [x0 + side * 52, y0 - 12, -320]])
        parts.append(tube(psoas, rng.uniform(12, 24), rng.uniform(25, 75)))
    for _ in range(rng.integers(3, 14)):
        middle = rng.uniform(
            (-110, f.middle_y - 0.6 * f.half_depth, -330), (110, f.middle_y + 10, f.diaphragm)
        )
        hu = rng.choice([rng.uniform(-40, 80), -1000.0, rng.uniform(80, 400)], p=[0.65, 0.25, 0.1])
        parts.append(ellipsoid(middle, rng.uniform(10, 42, 3), float(hu)))
    return parts


def _back(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Muscles beside and behind the spinous processes."""
    apart, across, deep = rng.uniform(18, 30), rng.uniform(18, 30), rng.uniform(13, 24)
    behind = rng.uniform(32, 44)
    hu = rng.uniform(-60, 75)

    def muscles(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        q = ((np.abs(x - x0) - apart) / across) ** 2 + ((y - y0 - behind) / deep) ** 2
        under_skin = (1 - f.radius(x, y, z)) * np.float32(f.half_depth) - 4
        return np.minimum((1 - np.sqrt(q)) * deep, under_skin)

    return [Structure(muscles, hu)]


def _lungs(rng: np.random.Generator, f: Frame) -> list[Structure]:
    parts = []
    hu = rng.uniform(-930, -650)
    tilt = rng.uniform(0.2, 0.9)  # the recess behind reaches further down than the dome
    for side in (-1.0, 1.0):
        dome, arch = f.diaphragm + rng.uniform(-12, 12), rng.uniform(10, 45)
        middle = side * rng.uniform(0.42, 0.52) * f.half_width
        wide, share = rng.uniform(0.36, 0.46) * f.half_width, rng.uniform(0.72, 0.84)
        gutter = rng.uniform(4, 26)  # how far behind the front of the spine the lung reaches
        apex = rng.uniform(50, 110)

        def depth(
            x: Field,
            y: Field,
            z: Field,
            side: float = side,
            middle: float = middle,
            wide: float = wide,
            share: float = share,
            dome: float = dome,
            arch: float = arch,
            gutter: float = gutter,
            apex: float = apex,
        ) -> Field:
            x0, y0 = f.spine(z)
            taper = np.sqrt(np.clip((f.lung_top - z) / apex, 1e-3, 1))
            q = np.sqrt(
                ((x - middle) / (wide * taper)) ** 2 + ((y - f.middle_y) / (1.15 * f.half_depth * taper)) ** 2
            )
            inside = np.minimum((1 - q) * wide, (share - f.radius(x, y, z)) * np.float32(f.half_depth))
            floor = dome - arch * ((x - middle) / wide) ** 2 - tilt * np.clip(y - f.middle_y, -40, 90)
            lateral = side * (x - x0) - np.clip(y - y0 + 18, 0, 30) * 0.8
            return np.asarray(
                np.minimum(np.minimum(inside, z - floor), np.minimum(lateral, y0 + gutter + 12 - y)),
                np.float32,
            )

        parts.append(Structure(depth, hu + rng.uniform(-30, 30), _box(z=(-260, f.lung_top))))
    for _ in range(rng.integers(8, 30)):  # lung vessels and nodules
        start = rng.uniform((-100, f.middle_y - 50, f.diaphragm), (100, f.middle_y + 60, f.lung_top - 30))
        ends = np.stack([start, start + rng.normal(0, 25, 3)])
        parts.append(tube(ends, rng.uniform(1, 4), rng.uniform(0, 250)))
    return parts


def _mediastinum(rng: np.random.Generator, f: Frame) -> list[Structure]:
    thin = rng.uniform(-15, 4) if rng.random() < 0.4 else rng.uniform(4, 24)
    hu = rng.uniform(-110, 60)
    front = rng.uniform(0.1, 0.8) * f.half_depth
    aside = rng.uniform(-12, 16)
    coat = rng.uniform(1, 9)

    def middle(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        slab = thin + 0.25 * np.clip(y0 - 25 - y, 0, 60) - np.abs(x - x0 - aside)
        return np.asarray(np.minimum(np.minimum(slab, y0 + 15 - y), y - f.middle_y + front), np.float32)

    def beside_spine(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        grow = np.interp(z, [-150, 150], [21, 12]).astype(np.float32) + np.float32(coat)
        q = np.sqrt(((x - x0) / (1.2 * grow)) ** 2 + ((y - y0) / grow) ** 2)
        return (1 - q) * grow

    parts = [Structure(middle, hu, _box(z=(f.diaphragm - 40, np.inf)))]
    parts.append(Structure(beside_spine, rng.uniform(-60, 60)))
    if rng.random() < 0.95:
        heart = (rng.uniform(0, 45), f.middle_y - rng.uniform(5, 45), f.diaphragm + rng.uniform(25, 70))
        blood = rng.uniform(25, 65) if rng.random() < 0.6 else rng.uniform(80, 450)
        parts.append(ellipsoid(heart, rng.uniform((40, 35, 38), (68, 60, 68)), float(blood)))
    return parts


def _vessels(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Aorta (sometimes calcified or stented), oesophagus, azygos, trachea: in front of the spine."""
    contrast = rng.random() < 0.5
    parts = []

    def along(dx: float, dy: float, r: float, hu: float, z: tuple[float, float], wander: float) -> Structure:
        phase, period = rng.uniform(0, 6.3), rng.uniform(60, 200)

        def depth(x: Field, y: Field, z_: Field) -> Field:
            x0, y0 = f.spine(z_)
            way = wander * np.sin(z_ / period * 6.3 + phase)
            return np.asarray(r - np.sqrt((x - x0 - dx - way) ** 2 + (y - y0 + dy) ** 2), np.float32)

        return Structure(depth, hu, _box(z=z))

    r = rng.uniform(9, 18) if rng.random() < 0.85 else rng.uniform(18, 36)  # an aneurysm
    angle, apart = np.deg2rad(rng.uniform(-15, 80)), rng.uniform(12, 20) + r + rng.uniform(-2, 8)
    dx, dy = apart * np.sin(angle), apart * np.cos(angle)  # in front of the body or to its left
    blood = rng.uniform(100, 480) if contrast else rng.uniform(25, 65)
    wall = rng.uniform(400, 1100) if rng.random() < 0.25 else blood
    wander, arch = rng.uniform(0, 8), f.lung_top - rng.uniform(50, 90)
    state = rng.bit_generator.state
    parts.append(along(dx, dy, r, wall, (-290, arch), wander))
    rng.bit_generator.state = state  # the blood keeps to its wall
    parts.append(along(dx, dy, r - _wall_mm(wall, blood), blood, (-290, arch), wander))
    gas = -1000.0 if rng.random() < 0.25 else rng.uniform(0, 60)
    parts.append(
        along(rng.uniform(-8, 14), rng.uniform(24, 34), rng.uniform(4, 9), gas, (f.diaphragm, 300), 3)
    )
    vein = rng.uniform(20, 60) if rng.random() < 0.7 else blood
    parts.append(along(rng.uniform(-14, 2), rng.uniform(18, 24), rng.uniform(2, 6), vein, (-140, arch), 2))
    parts.append(
        along(rng.uniform(-30, -10), rng.uniform(24, 38), rng.uniform(8, 14), vein, (-300, f.diaphragm), 3)
    )
    windpipe = (f.lung_top - rng.uniform(60, 100), np.inf)
    parts.append(along(rng.uniform(-8, 8), rng.uniform(32, 50), rng.uniform(6, 10), -1000.0, windpipe, 2))
    return parts


def _wall_mm(wall_hu: float, blood_hu: float) -> float:
    """Thickness of a vessel's wall where it is visible at all, mm."""
    return 1.5 if wall_hu != blood_hu else 0.0


def _bones(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Ribs, sternum, shoulder blades, collar bones."""
    pitch, slope = rng.uniform(21, 29), rng.uniform(25, 70)
    height, share, thick = rng.uniform(4, 6.5), rng.uniform(0.80, 0.86), rng.uniform(3, 5)
    phase, low = rng.uniform(0, pitch), f.diaphragm - rng.uniform(30, 80)
    hu = rng.uniform(120, 520)

    def ribs(x: Field, y: Field, z: Field) -> Field:
        x0, _ = f.spine(z)
        angle = np.arctan2(np.abs(x - x0), y - np.float32(f.middle_y) + 1e-3)
        shell = thick - np.abs(f.radius(x, y, z) - share) * np.float32(f.half_depth)
        row = height - np.abs((z + angle * slope + phase) % pitch - pitch / 2)
        around = np.minimum(angle - 0.2, 2.6 - angle) * 40
        return np.asarray(np.minimum(np.minimum(shell, row), around), np.float32)

    parts = [Structure(ribs, hu, _box(z=(low, f.lung_top + 10)))]
    front = f.middle_y - f.half_depth * rng.uniform(0.78, 0.88)
    breast = np.array([[0, front, f.lung_top - 40], [0, front - 8, f.diaphragm + 60]])
    for side in rng.uniform(-6, 6) + np.array([-6, 0, 6]):
        parts.append(tube(breast + np.array([side, 0, 0]), rng.uniform(5, 7), rng.uniform(100, 350)))
    for side in (-1, 1):
        if rng.random() < 0.8:
            inner = np.array(
                [side * rng.uniform(60, 90), f.middle_y + f.half_depth * rng.uniform(0.5, 0.75), 0]
            )
            for step in np.linspace(0, 1, 6):
                start = inner + np.array([side * 55 * step, -25 * step, f.lung_top - 10])
                blade = np.stack([start, start - [side * 15 * step, 0, 110 * (1 - 0.5 * step)]])
                parts.append(tube(blade, rng.uniform(3, 5), rng.uniform(150, 600)))
        if rng.random() < 0.8:
            collar = np.array(
                [[side * 15, front + 10, f.lung_top - 10], [side * 150, front + 60, f.lung_top + 15]]
            )
            parts.append(tube(collar, rng.uniform(5, 8), rng.uniform(200, 600)))
        x, y, z = f.curve_mm[0]  # the ilium stands beside L5
        ilium = (x + side * rng.uniform(60, 85), y + rng.uniform(0, 30), z - rng.uniform(10, 40))
        parts.append(ellipsoid(ilium, rng.uniform((8, 35, 45), (18, 60, 70)), rng.uniform(100, 400)))
    return parts


def _outside(rng: np.random.Generator, f: Frame) -> list[Structure]:
    """Arms, table, wires."""
    parts: list[Structure] = []
    if rng.random() < 0.3:
        for side in (-1, 1):
            x, y = side * (f.half_width + rng.uniform(25, 55)), f.middle_y + rng.uniform(-40, 40)
            arm = np.array([[x, y, -400], [x, y, f.lung_top]])
            for radius, hu in (
                (rng.uniform(32, 46), rng.uniform(0, 60)),
                (11, rng.uniform(500, 1100)),
                (7, 80.0),
            ):
                parts.append(tube(arm, radius, hu))
    if rng.random() < 0.7:
        top = f.middle_y + f.half_depth + rng.uniform(2, 25)
        bend, thick, hu = rng.uniform(0, 35), rng.uniform(2, 6), rng.uniform(-500, 200)

        def table(x: Field, y: Field, z: Field) -> Field:
            return np.asarray(thick - np.abs(y - top + bend * (x / 200) ** 2), np.float32)

        parts.append(Structure(table, hu, _box(x=(-260, 260))))
    for _ in range(rng.integers(0, 4)):
        start = rng.uniform((-120, f.middle_y - 90, -100), (120, f.middle_y, 150))
        wire = np.stack([start, start + rng.normal(0, 80, 3)])
        parts.append(tube(wire, rng.uniform(0.8, 2), rng.uniform(500, 3000)))
    return parts


def _box(x: tuple[float, float] = (-np.inf, np.inf), z: tuple[float, float] = (-np.inf, np.inf)) -> Floats:
    return np.array([x, (-np.inf, np.inf), z], float)
