"""The lungs and what they hold: vessels, emphysema, consolidation, nodules, fluid."""

from __future__ import annotations

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, bent_wave, within
from vfscreen.simulation.painting import Depth, Field, Structure, ellipsoid, texture, tube
from vfscreen.volume import Floats


def draw_lungs(rng: Rng, f: Frame) -> list[Structure]:
    """Both lungs with what they hold: vessels, emphysema, consolidation, nodules, fluid behind."""
    hu, slope = rng.uniform(-930, -700), rng.uniform(0, 1.6)
    lung, box, net = _both_lungs(rng, f), f.cage.box(f.dome - 140, f.apex), _small_vessels(rng, f)

    def air(x: Field, y: Field, z: Field) -> Field:
        _, middle_y, _, _ = f.cage.at(z)
        dependent = hu + slope * np.clip(y - middle_y, -90, 90)
        return np.asarray(net(x, y, z) + dependent, np.float32)

    parts = [Structure(lung, air, box)]
    for side in SIDES:
        half = box.copy()
        half[0] = (box[0, 0], f.axis_mm[:, 1].max()) if side < 0 else (f.axis_mm[:, 1].min(), box[0, 1])
        parts += _in_lung(rng, f, side, lung, half)
    return parts


def _both_lungs(rng: Rng, f: Frame) -> Depth:
    """Inside the ribs, over the diaphragm, beside the spine and as far behind it as the rib necks."""
    pleura, gutter, tilt = rng.uniform(4, 9), np.float32(rng.uniform(0.65, 1.1)), rng.uniform(0.2, 0.9)
    beside = [rng.uniform(0, 9) if rng.random() < 0.75 else rng.uniform(9, 25) for _ in SIDES]
    domes, arches = f.dome + rng.uniform(-12, 12, 2), rng.uniform(10, 45, 2)

    def depth(x: Field, y: Field, z: Field) -> Field:
        (x0, y0), (wide, half), (cx, cy, a, b) = f.spine(z), f.half_body(z), f.cage.at(z)
        right = x < x0
        before = np.clip((y0 - half - 2 - y) / 12, 0, 1)  # there a lung may reach the midline
        aside = np.abs(x - x0) - np.where(right, beside[0], beside[1]).astype(np.float32) - wide
        free = (wide + np.float32(12 + max(beside))) * before
        lateral = aside + (free - gutter * np.clip(y - y0 - 3, 0, 60))
        bow = np.where(right, arches[0], arches[1]) * ((np.abs(x - cx) / (0.45 * a)) - 1) ** 2
        over = np.asarray(z - np.where(right, domes[0], domes[1]) + bow, np.float32)
        floor = over + (np.float32(tilt) * np.clip(y - cy, -40, 90) + 15 * ((y - cy) / b) ** 2)
        inside = np.minimum(f.cage.depth(x, y, z, pleura), np.minimum(floor, lateral))
        return np.minimum(inside, f.apex - z)

    return depth


def _small_vessels(rng: Rng, f: Frame) -> Depth:
    """HU of the vessels too many to draw: bright where two waves vanish, denser towards the hila."""
    hu, length = np.float32(rng.uniform(200, 900)), rng.uniform(14, 34)
    thin, turn = rng.uniform(0.02, 0.12), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    waves = [bent_wave(rng, length, way) for way in turn[:2]]

    def value(x: Field, y: Field, z: Field) -> Field:
        x0, _ = f.spine(z)
        scarce = np.asarray(hu / thin * np.clip(np.abs(x - x0) / 60, 0.4, 2), np.float32)
        first, second = (wave(x, y, z) for wave in waves)
        return np.maximum(hu - scarce * (first * first + second * second), 0)

    return value


def _in_lung(rng: Rng, f: Frame, side: int, lung: Depth, box: Floats) -> list[Structure]:
    parts = _lung_vessels(rng, f, side)
    for _ in range(rng.integers(4, 20) if rng.random() < 0.3 else 0):  # emphysema, bullae
        radii = rng.uniform(4, 16) * rng.uniform(0.6, 1.4, 3)
        spot = f.cage.drawn_in(_spot(rng, f, side), float(radii.max()) + 5)
        parts.append(ellipsoid(spot, radii, rng.uniform(-1000, -940)))
    for _ in range(rng.integers(0, 3)):  # nodules and tumours
        parts.append(ellipsoid(_spot(rng, f, side), rng.uniform(2, 14, 3), rng.uniform(-50, 120)))
    if rng.random() < 0.2:  # consolidation, ground glass
        parts.append(_share_of_lung(rng, lung, box, _spot(rng, f, side), rng.uniform(-700, 80)))
    if rng.random() < 0.2:
        parts.append(_effusion(rng, f, lung, box))
    return parts


def _spot(rng: Rng, f: Frame, side: int) -> Floats:
    """A place in one lung; in three of ten beside the spine."""
    z = rng.uniform(f.dome + 20, f.apex - 15)
    _, y, a, b = (float(v[0]) for v in f.cage.at(np.array([z], np.float32)))
    aside = rng.uniform(25, 50) if rng.random() < 0.3 else rng.uniform(0.35, 0.85) * a
    return np.array([side * aside, y + rng.uniform(-0.5, 0.8) * b, z])


def _lung_vessels(rng: Rng, f: Frame, side: int) -> list[Structure]:
    """Arteries and veins that branch from the hilum."""
    z = f.level("T6") + rng.uniform(-10, 10)
    hilum, parts, hu = f.beside(z, side * rng.uniform(28, 42), -rng.uniform(30, 50)), [], f.blood[1]
    for _ in range(rng.integers(4, 10)):
        end = _spot(rng, f, side)
        knee = hilum + (end - hilum) * rng.uniform(0.3, 0.5) + rng.normal(0, 5, 3)
        parts.append(tube(np.stack([hilum, knee]), rng.uniform(2, 4.5), hu))
        for tip in (end, end + rng.normal(0, 22, 3)):
            parts.append(tube(np.stack([knee, tip]), rng.uniform(0.8, 2), hu - 30))
    return parts


def _share_of_lung(rng: Rng, lung: Depth, box: Floats, middle: Floats, hu: float) -> Structure:
    """What fills a part of a lung to its pleura, uneven."""
    radii = rng.uniform(12, 45, 3)
    patch, grain = ellipsoid(middle, radii, hu), texture(rng, rng.uniform(8, 25), rng.uniform(20, 130))
    low, high = np.maximum(box[:, 0], patch.box_mm[:, 0]), np.minimum(box[:, 1], patch.box_mm[:, 1])

    def depth(x: Field, y: Field, z: Field) -> Field:
        return np.minimum(lung(x, y, z), patch.depth(x, y, z))

    def value(x: Field, y: Field, z: Field) -> Field:
        return np.clip(hu + grain(x, y, z), -950, 120)

    return Structure(depth, value, np.stack([low, high], 1))


def _effusion(rng: Rng, f: Frame, lung: Depth, box: Floats) -> Structure:
    """Fluid behind a lying patient's lung, and the lung that it presses together."""
    back = f.beside(f.dome + 20, 0, rng.uniform(-20, 35))[1]
    fade, climb, rim = rng.uniform(0.1, 0.4), rng.uniform(5, 45), rng.uniform(0, 20)
    pressed, fluid = rng.uniform(-400, 110), rng.uniform(-10, 55)

    def below(x: Field, y: Field, z: Field) -> Field:
        rise = fade * (z - f.dome) - climb * ((x - f.spine(z)[0]) / 100) ** 2
        return np.asarray(y - back - rise, np.float32)

    def depth(x: Field, y: Field, z: Field) -> Field:
        return np.minimum(lung(x, y, z), below(x, y, z) + np.float32(rim))

    def hu(x: Field, y: Field, z: Field) -> Field:
        return np.where(below(x, y, z) > 0, np.float32(fluid), np.float32(pressed))

    return Structure(depth, hu, within(box, y=(back - rim - fade * 150 - 2 * climb, np.inf)))
