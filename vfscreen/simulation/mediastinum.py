"""What lies between the lungs: fat and nodes, heart, great vessels, airway, oesophagus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, bounds, span, tubes, within
from vfscreen.simulation.painting import Field, Structure, ellipsoid, texture, tube
from vfscreen.volume import Floats


def draw_mediastinum(rng: Rng, f: Frame) -> list[Structure]:
    """Fat and soft tissue between the lungs, a coat round the spine, lymph nodes."""
    thin = rng.uniform(-14, 4) if rng.random() < 0.45 else rng.uniform(4, 16)
    widen, deep, front = rng.uniform(0.15, 0.5), rng.uniform(25, 60), rng.uniform(-5, 9)
    aside, coat, top = rng.uniform(-4, 10), rng.uniform(0.5, 6), f.apex - rng.uniform(5, 40)
    wave, phase = rng.uniform(0, 12), rng.uniform(0, 6.3)

    def middle(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        ahead = y0 - 20 - y
        grow = np.float32(widen) * (np.clip(ahead, 0, deep) - np.clip(ahead - deep - 5, 0, 90))
        grow = np.maximum(grow, 0) + np.interp(ahead, [deep, deep + 20], [thin, front]).astype(np.float32)
        ends = 14 * np.clip((z - top) / 30, 0, 1) - 0.8 * np.clip(y - y0 + 12, 0, 40)
        bend = x0 + aside + np.float32(wave) * np.sin(z / 40 + y / 25 + np.float32(phase))
        slab = grow + ends - np.abs(x - bend)
        return np.asarray(np.minimum(np.minimum(slab, y0 + 8 - y), f.cage.depth(x, y, z, 2)), np.float32)

    def beside_spine(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        wide, deep_ = f.half_body(z)
        q = ((x - x0) / (wide + coat + 2)) ** 2 + ((y - y0) / (deep_ + coat + 2)) ** 2
        return np.asarray((1 - np.sqrt(q)) * deep_, np.float32)

    box = f.cage.box(f.dome - 30, f.apex + 20)
    hu = rng.uniform(-120, -60) if rng.random() < 0.6 else rng.uniform(-60, 60)
    box[0] = span(f.axis_mm[:, 1] - 60, f.axis_mm[:, 1] + 60)
    near = bounds(
        span(f.axis_mm[:, 1] - 60, f.axis_mm[:, 1] + 60), span(f.axis_mm[:, 2] - 40, f.axis_mm[:, 2] + 40)
    )
    parts = [Structure(middle, hu, box), Structure(beside_spine, rng.uniform(-110, 60), near)]
    for _ in range(rng.integers(0, 9)):
        at = f.beside(rng.uniform(f.dome, f.apex), rng.uniform(-25, 25), -rng.uniform(25, 70))
        parts.append(ellipsoid(at, rng.uniform(3, 11, 3), rng.uniform(10, 110)))
    return parts


def draw_heart(rng: Rng, f: Frame) -> list[Structure]:
    """Fat of the pericardium, muscle, the chambers with their blood, sometimes coronary calcium."""
    if rng.random() < 0.04:
        return []
    z = f.dome + rng.uniform(25, 60)
    size = rng.uniform((42, 34, 38), (68, 52, 62))
    at = f.beside(z, rng.uniform(5, 40), -(rng.uniform(26, 40) + size[1]))
    muscle, (left, right, _) = rng.uniform(30, 60) + 0.25 * max(f.blood[0] - 60, 0), f.blood
    parts = [ellipsoid(at, size + rng.uniform(1, 8), rng.uniform(-120, 0)), ellipsoid(at, size, muscle)]
    chambers = (
        ((0.35, -0.1, -0.15), (0.45, 0.5, 0.6), left),
        ((-0.35, -0.35, -0.1), (0.5, 0.45, 0.65), right),
    )
    atria = (((0.0, 0.55, 0.4), (0.55, 0.36, 0.38), left), ((-0.6, 0.2, 0.15), (0.35, 0.42, 0.5), right))
    for where, share, hu in (*chambers, *atria):
        spot = at + np.array(where) * size
        parts.append(ellipsoid(spot, np.array(share) * size * rng.uniform(0.85, 1.1), hu))
    for _ in range(rng.integers(1, 6) if rng.random() < 0.3 else 0):
        start = at + size * rng.uniform((-0.5, -0.8, 0.2), (0.6, -0.3, 0.7))
        ends = np.stack([start, start + rng.normal(0, 9, 3)])
        parts.append(tube(ends, rng.uniform(0.8, 2), rng.uniform(300, 1400)))
    return parts


@dataclass(frozen=True)
class Channel:
    """A round vessel that runs up and down: centre x, y and radius at ascending heights, mm."""

    z_mm: Floats
    x: Floats
    y: Floats
    radius: Floats

    def distance(self, x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        """Distance from the middle line within the plane, and the radius there."""
        cx, cy, r = (np.interp(z, self.z_mm, v).astype(np.float32) for v in (self.x, self.y, self.radius))
        return np.asarray(np.sqrt((x - cx) ** 2 + (y - cy) ** 2), np.float32), r

    def structure(self, hu: float, thinner: float = 0.0) -> Structure:
        """What fills it, up to a wall of this thickness."""

        def depth(x: Field, y: Field, z: Field) -> Field:
            d, r = self.distance(x, y, z)
            to_end = 2 + np.minimum(z - self.z_mm[0], self.z_mm[-1] - z)
            return np.minimum(r - np.float32(thinner) - d, to_end)

        return Structure(depth, hu, self.box())

    def box(self) -> Floats:
        """Bounds (3, 2), mm."""
        r = self.radius
        return bounds(span(self.x - r, self.x + r), span(self.y - r, self.y + r), span(self.z_mm, self.z_mm))


def _channel(
    rng: Rng, f: Frame, offset: Floats, radius: float, z: tuple[float, float], wander: float
) -> Channel:
    """A vessel at offset (x, y) from the spine's axis between two heights, which winds by `wander`."""
    heights = np.linspace(*z, 24)
    x0, y0 = f.spine(heights.astype(np.float32))
    phase, period = rng.uniform(0, 6.3, 2), rng.uniform(60, 200) if wander < 8 else rng.uniform(150, 300)
    waves = [wander * np.sin(heights / period * 6.3 + p) for p in phase]
    bulge = 1 + rng.uniform(-0.12, 0.12) * np.sin(heights / rng.uniform(20, 60) + phase[0])
    return Channel(heights, x0 + offset[0] + waves[0], y0 + offset[1] + 0.5 * waves[1], radius * bulge)


def draw_vessels(rng: Rng, f: Frame) -> list[Structure]:
    """Aorta, pulmonary arteries, great veins, azygos: what has blood before the spine."""
    aorta_hu, lung_hu, vein_hu = f.blood
    arch = f.level("T4") + rng.uniform(-15, 15)
    parts = _aorta(rng, f, arch)
    hilum = f.level("T6") + rng.uniform(-8, 8)
    trunk = np.stack([f.beside(hilum, s * rng.uniform(32, 48), -rng.uniform(38, 55)) for s in SIDES])
    parts.append(tube(trunk, rng.uniform(7, 13), lung_hu))
    caval = np.array([-rng.uniform(20, 34), -rng.uniform(50, 72)])
    parts.append(_channel(rng, f, caval, rng.uniform(6, 11), (f.dome + 50, f.apex), 2).structure(vein_hu))
    for side in SIDES:  # to neck and arms
        out = f.beside(f.apex + 35, side * 35, -rng.uniform(25, 45))
        ends = np.stack([f.beside(f.apex - 15, side * 12, -60), out])
        parts.append(tube(ends, rng.uniform(3, 7), rng.choice([aorta_hu, vein_hu])))
    below = vein_hu if rng.random() < 0.3 else rng.uniform(25, 140)
    lower = np.array([-rng.uniform(12, 30), -rng.uniform(26, 38)])
    parts.append(_channel(rng, f, lower, rng.uniform(8, 14), (-320, f.dome + 15), 3).structure(below))
    half = float(np.interp(0, f.axis_mm[:, 0], f.axis_mm[:, 4]))
    for dx, chance in ((-rng.uniform(3, 14), 1.0), (rng.uniform(10, 18), 0.6)):  # azygos, hemiazygos
        if rng.random() < chance:
            at = np.array([dx, -half - rng.uniform(1, 6)])
            parts.append(_channel(rng, f, at, rng.uniform(1.5, 5), (-130, arch), 2).structure(below))
    return parts


def _aorta(rng: Rng, f: Frame, arch: float) -> list[Structure]:
    """Ascending, arch, and descending beside the spine: tortuous, wide, calcified, stented at times."""
    blood, wide = f.blood[0], rng.random() < 0.15
    r = rng.uniform(17, 36) if wide else rng.uniform(9, 16)
    half = float(np.interp(0, f.axis_mm[:, 0], f.axis_mm[:, 4]))
    angle, apart = np.deg2rad(rng.uniform(-15, 85)), half + r + rng.uniform(0, 8)
    offset = np.array([1.15 * apart * np.sin(angle), -apart * np.cos(angle)])
    wander = rng.uniform(0, 8) if rng.random() < 0.7 else rng.uniform(8, 20)
    down = _channel(rng, f, offset, r, (f.level("L4"), arch), wander)
    up_r = rng.uniform(11, 20)
    up = _channel(rng, f, np.array([-rng.uniform(5, 20), -rng.uniform(62, 80)]), up_r, (f.dome + 60, arch), 2)
    first, last = (np.array([c.x[-1], c.y[-1], arch]) for c in (up, down))
    turn, rise = np.linspace(0, np.pi, 6)[:, None], np.array([0, 0, 0.45 * abs(last[1] - first[1])])
    bow = (first + last) / 2 + (first - last) / 2 * np.cos(turn) + rise * np.sin(turn)
    parts = [*tubes(bow, [min(up_r, 14.0)] * 6, blood), up.structure(blood)]
    wall = rng.uniform(20, 70)
    parts.append(down.structure(wall))
    parts.append(down.structure(blood, rng.uniform(0.1, 0.35) * r if wide else rng.uniform(0, 1.5)))
    if rng.random() < 0.4:
        parts.append(_plaques(rng, down))
    return [*parts, _stent(rng, down)] if rng.random() < 0.1 else parts


def _plaques(rng: Rng, vessel: Channel) -> Structure:
    """Calcium in patches of a vessel's wall."""
    patches = texture(rng, rng.uniform(12, 40), 1.0)
    rare, thick = rng.uniform(-0.2, 1.2), rng.uniform(0.8, 2.5)

    def depth(x: Field, y: Field, z: Field) -> Field:
        d, r = vessel.distance(x, y, z)
        ring = np.minimum(r - d, d - r + np.float32(thick))
        return np.minimum(ring, 5 * (patches(x, y, z) - np.float32(rare)))

    return Structure(depth, rng.uniform(250, 1300), vessel.box())


def _stent(rng: Rng, vessel: Channel) -> Structure:
    """A mesh of bright wire in zigzag rings along a part of a vessel."""
    pitch, teeth, wire = rng.uniform(8, 18), rng.integers(4, 9), rng.uniform(0.5, 1.1)
    low = rng.uniform(vessel.z_mm[0], vessel.z_mm[-1] - 60)
    box = within(vessel.box(), z=(low, low + rng.uniform(60, 200)))

    def depth(x: Field, y: Field, z: Field) -> Field:
        d, r = vessel.distance(x, y, z)
        cx, cy = (np.interp(z, vessel.z_mm, v).astype(np.float32) for v in (vessel.x, vessel.y))
        tooth = np.abs((np.arctan2(y - cy, x - cx) * (teeth / np.pi)) % 2 - 1)
        row = np.abs((z + np.float32(0.6 * pitch) * tooth) % np.float32(pitch) - np.float32(pitch / 2))
        return np.asarray(wire - np.maximum(np.abs(d - r + 1), 0.6 * row), np.float32)

    return Structure(depth, rng.uniform(700, 3000), box)


def draw_airway(rng: Rng, f: Frame) -> list[Structure]:
    """Trachea with its wall, main bronchi, oesophagus with or without air or a feeding tube."""
    fork, r = f.level("T5") + rng.uniform(-10, 14), rng.uniform(6, 10)
    offset = np.array([rng.uniform(-8, 8), -rng.uniform(34, 50)])
    gullet = np.array([offset[0] + rng.uniform(0, 14), -rng.uniform(20, 28)])
    half = float(np.interp(f.apex, f.axis_mm[:, 0], f.axis_mm[:, 4]))
    offset[1], gullet[1] = min(offset[1], -half - r - 12), min(gullet[1], -half - 6)
    food = _channel(rng, f, gullet, rng.uniform(4, 9), (f.dome - 10, 330), 3)
    parts = [food.structure(rng.uniform(10, 80))]
    if rng.random() < 0.35:
        parts.append(food.structure(-1000.0, rng.uniform(2, 4)))
    if rng.random() < 0.08:
        feeding = Channel(food.z_mm, food.x, food.y, np.full(len(food.x), rng.uniform(1.2, 3)))
        parts += [feeding.structure(rng.uniform(200, 1500)), feeding.structure(-900.0, 1.0)]
    wind = _channel(rng, f, offset, r, (fork, 330), 2)
    parts += [wind.structure(rng.uniform(0, 150)), wind.structure(-1000.0, rng.uniform(1, 2.5))]
    start = np.array([wind.x[0], wind.y[0], fork])
    for side in SIDES:
        end = f.beside(fork - rng.uniform(15, 30), side * rng.uniform(28, 42), -rng.uniform(28, 45))
        parts += [
            tube(np.stack([start, end]), 0.75 * r, 30.0),
            tube(np.stack([start, end]), 0.75 * r - 1.2, -1000.0),
        ]
    return parts
