"""The soft walls of the torso: skin, breasts, fat, and the muscles round the ribs and on the back."""

from __future__ import annotations

import numpy as np

from vfscreen.simulation.frame import SIDES, Frame, Rng, bent_wave, span, within
from vfscreen.simulation.painting import Field, Structure, ellipsoid


def draw_wall(rng: Rng, f: Frame) -> list[Structure]:
    """Skin, breasts, fat, and muscle round the ribs and the neck."""
    skin_mm, girdle = rng.uniform(1, 2.5), rng.uniform(8, 30)
    apex = np.float32(f.apex)

    def skin(x: Field, y: Field, z: Field) -> Field:
        return f.skin.depth(x, y, z)

    def fat(x: Field, y: Field, z: Field) -> Field:
        return f.skin.depth(x, y, z, skin_mm)

    def muscle(x: Field, y: Field, z: Field) -> Field:
        thick = f.muscle + girdle * np.clip((z - apex + 90) / 60, 0, 1)
        on_ribs = f.cage.depth(x, y, z) + np.asarray(thick, np.float32)
        return np.minimum(on_ribs, f.skin.depth(x, y, z, skin_mm + 0.6 * f.fat))

    box, fat_hu, skin_hu = f.skin.box(-np.inf, np.inf), rng.uniform(-130, -75), rng.uniform(-60, 80)
    parts = [Structure(skin, skin_hu, box), *_breasts(rng, f, fat_hu, skin_hu)]
    return [*parts, Structure(fat, fat_hu, box), Structure(muscle, rng.uniform(15, 80), box)]


def _breasts(rng: Rng, f: Frame, fat_hu: float, skin_hu: float) -> list[Structure]:
    if rng.random() < 0.55:
        return []
    z, gland = f.level("T7") + rng.uniform(-25, 25), rng.uniform(-100, 60)
    radii, apart = rng.uniform((55, 18, 45), (85, 55, 75)), rng.uniform(65, 95)
    parts = []
    for side in SIDES:
        middle = np.array([side * apart, f.skin.front(z, apart) + rng.uniform(0, 10), z])
        parts += [ellipsoid(middle, radii, skin_hu), ellipsoid(middle, radii - 2.5, fat_hu)]
        inner = radii * rng.uniform(0.2, 0.7)
        parts.append(ellipsoid(middle - np.array([0, 0.25 * radii[1], 0]), inner, gland))
    return parts


def draw_back(rng: Rng, f: Frame) -> list[Structure]:
    """Erector spinae beside the spinous processes, streaked with fat, and trapezius over them."""
    apart, across, deep = rng.uniform(17, 27), rng.uniform(15, 26), rng.uniform(12, 22)
    behind, fatty = rng.uniform(9, 18) + deep, rng.uniform(0, 1) ** 2
    muscle_hu, between = rng.uniform(30, 75), rng.uniform(-110, 50)
    streaks, under_skin = bent_wave(rng, rng.uniform(5, 14), rng.normal(0, 0.7, 3)), 2 + 0.6 * f.fat
    sheet, reach = rng.uniform(2, 9), rng.uniform(60, 110)

    def erector(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        _, half = f.half_body(z)
        q = ((np.abs(x - x0) - apart) / across) ** 2 + ((y - y0 - half - behind) / deep) ** 2
        return np.asarray((1 - np.sqrt(q)) * deep, np.float32)

    def bed(x: Field, y: Field, z: Field) -> Field:
        x0, y0 = f.spine(z)
        _, half = f.half_body(z)
        q = ((x - x0) / (1.3 * (apart + across))) ** 2 + ((y - y0 - half - behind) / (1.3 * deep)) ** 2
        return np.asarray((1 - np.sqrt(q)) * deep, np.float32)

    def trapezius(x: Field, y: Field, z: Field) -> Field:
        under = f.skin.depth(x, y, z, under_skin)
        x0, _ = f.spine(z)
        thin = sheet * (1 - ((x - x0) / reach) ** 2)
        return np.asarray(np.minimum(under, thin - under), np.float32)

    def hu(x: Field, y: Field, z: Field) -> Field:
        return np.asarray(muscle_hu - fatty * (70 + 60 * streaks(x, y, z)), np.float32)

    box = f.skin.box(-np.inf, np.inf)
    box[0] = span(f.axis_mm[:, 1] - 65, f.axis_mm[:, 1] + 65)
    box[1, 0] = f.axis_mm[:, 2].min()
    parts = [Structure(bed, between, box), Structure(erector, hu, box)]
    low = f.level("T12") if rng.random() < 0.8 else np.inf
    return [*parts, Structure(trapezius, muscle_hu - 40 * fatty, within(box, z=(low, np.inf)))]
