"""The rest of the patient round the spine: skin, chest wall, ribs, lungs, vessels, organs, arms, table.

Ribs belong to their vertebrae, and all positions follow the spine. Every size and HU is drawn
wider than life, so that the networks learn the spine and not the torso (in the way of SynthSeg,
Billot et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vfscreen.simulation.painting import Depth, Field, Structure, ellipsoid, texture, tube
from vfscreen.simulation.spine import Body, Spine
from vfscreen.volume import Floats

Rng = np.random.Generator
DepthAndHu = Callable[[Field, Field, Field], tuple[Field, Field]]
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
        return np.array([_span(x - a, x + a), _span(y - b, y + b), (low, high)])


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


def draw_torso(rng: Rng, spine: Spine) -> tuple[list[Structure], list[Structure]]:
    """What lies under the spine in painting order, and what lies over it (great vessels, ribs)."""
    frame = draw_frame(rng, spine)
    cage = draw_ribs(rng, frame)
    sockets = _draw_sockets(rng, frame)
    arms, arm_bones = _arms(rng, frame, sockets)
    under = [*arms, *_wall(rng, frame), *_back(rng, frame), *_abdomen(rng, frame), *_lungs(rng, frame)]
    under += [*_mediastinum(rng, frame), *_heart(rng, frame), *_shoulders(rng, frame, sockets), *arm_bones]
    under += [*_sternum(rng, frame), *_ilium(rng, frame), *_outside(rng, frame)]
    over = [*_vessels(rng, frame), *_airway(rng, frame), cage.structure(), *_devices(rng, frame)]
    return under, over


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


def _wall(rng: Rng, f: Frame) -> list[Structure]:
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


def _back(rng: Rng, f: Frame) -> list[Structure]:
    """Erector spinae beside the spinous processes, streaked with fat, and trapezius over them."""
    apart, across, deep = rng.uniform(17, 27), rng.uniform(15, 26), rng.uniform(12, 22)
    behind, fatty = rng.uniform(9, 18) + deep, rng.uniform(0, 1) ** 2
    muscle_hu, between = rng.uniform(30, 75), rng.uniform(-110, 50)
    streaks, under_skin = _wave(rng, rng.uniform(5, 14), rng.normal(0, 0.7, 3)), 2 + 0.6 * f.fat
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
    box[0] = _span(f.axis_mm[:, 1] - 65, f.axis_mm[:, 1] + 65)
    box[1, 0] = f.axis_mm[:, 2].min()
    parts = [Structure(bed, between, box), Structure(erector, hu, box)]
    low = f.level("T12") if rng.random() < 0.8 else np.inf
    return [*parts, Structure(trapezius, muscle_hu - 40 * fatty, _within(box, z=(low, np.inf)))]


def _abdomen(rng: Rng, f: Frame) -> list[Structure]:
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
        parts += _line(psoas, [0.5 * thick, 0.9 * thick, thick], hu)
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


def _lungs(rng: Rng, f: Frame) -> list[Structure]:
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
    waves = [_wave(rng, length, way) for way in turn[:2]]

    def value(x: Field, y: Field, z: Field) -> Field:
        x0, _ = f.spine(z)
        scarce = np.asarray(hu / thin * np.clip(np.abs(x - x0) / 60, 0.4, 2), np.float32)
        first, second = (wave(x, y, z) for wave in waves)
        return np.maximum(hu - scarce * (first * first + second * second), 0)

    return value


def _wave(rng: Rng, length_mm: float, way: ArrayLike) -> Depth:
    """A bent wave of amplitude 1 that runs this way, made from thin fields: cheaper than `texture`."""
    k = (np.asarray(way) * 2 * np.pi / length_mm).astype(np.float32)
    bends, shift = rng.uniform(25, 90, 4).astype(np.float32), np.float32(rng.uniform(0, 6))

    def value(x: Field, y: Field, z: Field) -> Field:
        bent = np.sin(x / bends[0] + z / bends[1]) + np.sin(z / bends[2] - shift)
        flat = k[0] * x + k[2] * z + 2 * bent
        deep = k[1] * y + 2 * np.sin(y / bends[3] + shift)
        return np.cos(flat) * np.cos(deep) - np.sin(flat) * np.sin(deep)

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

    return Structure(depth, hu, _within(box, y=(back - rim - fade * 150 - 2 * climb, np.inf)))


def _mediastinum(rng: Rng, f: Frame) -> list[Structure]:
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
    box[0] = _span(f.axis_mm[:, 1] - 60, f.axis_mm[:, 1] + 60)
    near = _box(
        _span(f.axis_mm[:, 1] - 60, f.axis_mm[:, 1] + 60), _span(f.axis_mm[:, 2] - 40, f.axis_mm[:, 2] + 40)
    )
    parts = [Structure(middle, hu, box), Structure(beside_spine, rng.uniform(-110, 60), near)]
    for _ in range(rng.integers(0, 9)):
        at = f.beside(rng.uniform(f.dome, f.apex), rng.uniform(-25, 25), -rng.uniform(25, 70))
        parts.append(ellipsoid(at, rng.uniform(3, 11, 3), rng.uniform(10, 110)))
    return parts


def _heart(rng: Rng, f: Frame) -> list[Structure]:
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
        return _box(_span(self.x - r, self.x + r), _span(self.y - r, self.y + r), _span(self.z_mm, self.z_mm))


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


def _vessels(rng: Rng, f: Frame) -> list[Structure]:
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
    parts = [*_line(bow, [min(up_r, 14.0)] * 6, blood), up.structure(blood)]
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
    box = _within(vessel.box(), z=(low, low + rng.uniform(60, 200)))

    def depth(x: Field, y: Field, z: Field) -> Field:
        d, r = vessel.distance(x, y, z)
        cx, cy = (np.interp(z, vessel.z_mm, v).astype(np.float32) for v in (vessel.x, vessel.y))
        tooth = np.abs((np.arctan2(y - cy, x - cx) * (teeth / np.pi)) % 2 - 1)
        row = np.abs((z + np.float32(0.6 * pitch) * tooth) % np.float32(pitch) - np.float32(pitch / 2))
        return np.asarray(wire - np.maximum(np.abs(d - r + 1), 0.6 * row), np.float32)

    return Structure(depth, rng.uniform(700, 3000), box)


def _airway(rng: Rng, f: Frame) -> list[Structure]:
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


def _draw_sockets(rng: Rng, f: Frame) -> Floats:
    """Where the upper arms meet the shoulder blades, right and left, (2, 3) LPS mm."""
    z = f.level("T3") + rng.uniform(-12, 20) + (25 if f.arms_up else 0)
    wide, y = float(np.interp(z, f.skin.z_mm, f.skin.half_width)), f.beside(z, 0, rng.uniform(-15, 30))[1]
    return np.array([[side * (0.8 * wide + rng.uniform(-10, 5)), y, z] for side in SIDES])


def _arms(rng: Rng, f: Frame, sockets: Floats) -> tuple[list[Structure], list[Structure]]:
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
        bones += _bone(arm, rng.uniform(9, 12), (cortex, marrow))
        bones += [ellipsoid(head, (23, 23, 23), cortex), ellipsoid(head, (21, 21, 21), marrow + 60)]
    return flesh, bones


def _shoulders(rng: Rng, f: Frame, sockets: Floats) -> list[Structure]:
    """Shoulder blades and collar bones."""
    parts, hu, radius = [], (rng.uniform(300, 1100), rng.uniform(50, 300)), rng.uniform(4.5, 7)
    for side, socket in zip(SIDES, sockets, strict=True):
        parts += _blade(rng, f, side, socket)
        notch = np.array([side * 14, f.cage.front(f.apex - 25) + 4, f.apex - rng.uniform(10, 30)])
        bow = (notch + socket) / 2 + np.array([0, -10, 8])
        parts += _bone(np.stack([notch, bow, socket + np.array([0, -5, 18])]), radius, hu)
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
    return [*parts, *_line(ridge, [2.5, 4.5, 5], cortex), ellipsoid(socket, (9, 15, 18), cortex * 0.7)]


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


def _sternum(rng: Rng, f: Frame) -> list[Structure]:
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
    box[0] = _span(f.cage.center_x - wide, f.cage.center_x + wide)
    parts = [Structure(depth, hu, box)]
    for z in np.linspace(low + 10, high - 5, 6) if rng.random() < 0.08 else ():
        y = f.cage.front(z) - 7
        parts.append(tube(np.array([[-8, y, z], [8, y, z + 2]]), 1.0, rng.uniform(1500, 3000)))
    return parts


def _ilium(rng: Rng, f: Frame) -> list[Structure]:
    """The pelvis beside L5 and the sacrum."""
    parts, hu = [], rng.uniform(100, 400)
    for side in SIDES:
        z = float(f.axis_mm[0, 0]) - rng.uniform(10, 40)
        at = f.beside(z, side * rng.uniform(60, 85), rng.uniform(0, 30))
        radii = rng.uniform((8, 35, 45), (18, 60, 70))
        parts += [ellipsoid(at, radii, hu + rng.uniform(50, 400)), ellipsoid(at, radii - 2, hu)]
    return parts


def _outside(rng: Rng, f: Frame) -> list[Structure]:
    """Table, forearms beside the trunk, wires on the skin, zip and buttons."""
    parts = [*_table(rng, f), *(_forearms(rng, f) if not f.arms_up else [])]
    for _ in range(rng.integers(2, 7) if rng.random() < 0.4 else 0):
        path = np.zeros((4, 3))
        path[:, 0] = rng.uniform(-100, 100) + rng.normal(0, 15, 4)
        path[:, 2] = rng.uniform(-120, 120) + np.linspace(0, rng.uniform(30, 150), 4)
        path[:, 1] = [f.skin.front(z, x - float(f.skin.center_x[3])) - 3 for x, _, z in path]
        parts += _line(path, [rng.uniform(0.7, 1.5)] * 4, rng.uniform(300, 3000))
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
        parts += _bone(arm, 8.0, (rng.uniform(500, 1100), 60.0))
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

        return Structure(depth, hu, _box((-272, 272), (top + first - 1.9 * bend - 2, top + last + 2)))

    parts = [layer(0, thick, shell), layer(rim, thick - rim, core)]
    return [layer(-pad, 0, foam), *parts] if pad > 5 else parts


def _devices(rng: Rng, f: Frame) -> list[Structure]:
    """Port or pacemaker with its line into the great vein, drains and other wires."""
    parts: list[Structure] = []
    kind = rng.choice(["", "port", "pacemaker"], p=[0.84, 0.1, 0.06])
    if kind:
        side, z = int(rng.choice(SIDES)), f.level("T4") + rng.uniform(-15, 10)
        pocket = np.array([side * rng.uniform(55, 90), f.cage.front(z) - 0.5 * (f.fat + f.muscle), z])
        neck, heart = f.beside(f.apex, side * 20, -45), f.beside(f.dome + rng.uniform(30, 90), -22, -60)
        radii, hu = ((13, 6, 13), rng.uniform(400, 3000)) if kind == "port" else ((26, 5, 22), 3000.0)
        line = np.stack([pocket, neck, f.beside(f.apex - 40, -24, -58), heart])
        parts += _line(line, [rng.uniform(0.8, 1.6)] * 4, rng.uniform(300, 2500))
        parts.append(ellipsoid(pocket, radii, hu))
        parts.append(ellipsoid(pocket, np.array(radii) * 0.5, hu * rng.uniform(0.1, 1)))
    for _ in range(rng.integers(0, 3)):
        start = rng.uniform((-120, f.cage.front(0), -100), (120, f.cage.front(0) + 120, 150))
        ends = np.stack([start, start + rng.normal(0, 80, 3)])
        parts.append(tube(ends, rng.uniform(0.8, 2), rng.uniform(300, 3000)))
    return parts


def _bone(points: Floats, radius: float, hu: tuple[float, float]) -> list[Structure]:
    """A long bone along a line: HU of cortex and marrow."""
    n = len(points)
    return [*_line(points, [radius] * n, hu[0]), *_line(points, [0.6 * radius] * n, hu[1])]


def _line(points: Floats, radii: Sequence[float], hu: float) -> list[Structure]:
    """Tubes from point to point, (n, 3) LPS mm, each as wide as its further end."""
    return [tube(points[i : i + 2], radii[i + 1], hu) for i in range(len(points) - 1)]


def _remembered(function: DepthAndHu) -> DepthAndHu:
    """The function, worked out once where depth and HU ask for the same points in turn."""
    last: list[tuple[tuple[Field, ...], tuple[Field, Field]]] = []

    def value(x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        if last and all(a is b for a, b in zip(last[0][0], (x, y, z), strict=True)):
            return last.pop()[1]
        last[:] = [((x, y, z), function(x, y, z))]
        return last[0][1]

    return value


def _span(low: ArrayLike, high: ArrayLike) -> Limits:
    return float(np.min(low)) - 3, float(np.max(high)) + 3


def _box(x: Limits = WHOLE, y: Limits = WHOLE, z: Limits = WHOLE) -> Floats:
    return np.array([x, y, z], float)


def _within(box: Floats, y: Limits = WHOLE, z: Limits = WHOLE) -> Floats:
    """The part of a box between these depths and heights."""
    limit = _box(y=y, z=z)
    return np.stack([np.maximum(box[:, 0], limit[:, 0]), np.minimum(box[:, 1], limit[:, 1])], 1)
