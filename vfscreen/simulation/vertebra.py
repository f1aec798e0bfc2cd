"""One vertebra as structures: disc, canal, arch, body with cortical shell, endplates and what may mar it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vfscreen.simulation.painting import Depth, Field, Structure, texture, tube
from vfscreen.simulation.spine import Body, Endplate
from vfscreen.volume import Floats

Sink = Callable[[Field, Field, Field], Field]


@dataclass(frozen=True)
class Bone:
    """What the bones of one person have in common; HU of cancellous bone, shell and discs, mm."""

    cancellous_hu: float
    endplate_hu: float
    wall_hu: float
    shell_mm: float
    arch_hu: float
    disc_hu: float
    canal_hu: float
    texture_share: float
    waist: float
    roundness: float
    corner_mm: float  # radius over which rims are rounded
    spur_mm: float  # of osteophytes


def draw_bone(rng: np.random.Generator) -> Bone:
    """Bone of one person, drawn wider than life: from osteoporotic to sclerotic."""
    cancellous = rng.uniform(20, 350)
    return Bone(
        cancellous_hu=cancellous,
        endplate_hu=rng.uniform(0, 800) * rng.uniform(0.3, 1.2),
        wall_hu=rng.uniform(0, 700) * rng.uniform(0.3, 1.2),
        shell_mm=rng.uniform(0.4, 1.4),
        arch_hu=rng.uniform(0, 300) + cancellous,
        disc_hu=rng.uniform(30, 150),
        canal_hu=rng.uniform(-20, 60),
        texture_share=rng.uniform(0, 0.25),
        waist=rng.uniform(0.0, 0.16),
        roundness=rng.uniform(2.0, 3.0),
        corner_mm=rng.uniform(0.0, 1.6),
        spur_mm=rng.uniform(1.5, 7.0),
    )


@dataclass(frozen=True)
class Local:
    """A vertebra's own coordinates: u to posterior, v to caudal, w to the left."""

    body: Body

    def __call__(self, x: Field, y: Field, z: Field) -> tuple[Field, Field, Field]:
        """LPS mm to the vertebra's (u, v, w) mm, each of shape (z, y, x)."""
        d = [p - np.float32(c) for p, c in zip((x, y, z), self.body.center_mm, strict=True)]
        a = self.body.axes.astype(np.float32)
        u, v, w = (a[i, 0] * d[0] + a[i, 1] * d[1] + a[i, 2] * d[2] for i in range(3))
        return u, v, w

    def box(self, low: Floats, high: Floats) -> Floats:
        """Bounds in LPS (3, 2) of a box (u, v, w) of its own."""
        ends = np.stack(np.meshgrid(*np.stack([low, high], 1), indexing="ij"), -1).reshape(-1, 3)
        corners = self.body.to_patient(ends)
        return np.stack([corners.min(0), corners.max(0)], 1)


def vertebra_structures(
    rng: np.random.Generator, body: Body, bone: Bone, gaps_mm: tuple[float, float]
) -> tuple[list[Structure], list[Structure]]:
    """What is painted before all bodies (discs, canal, arch), and the body itself with what is in it.

    `gaps_mm` are the discs' heights above and below.
    """
    local = Local(body)
    around = [*_disc(rng, local, bone, gaps_mm), *_arch(rng, local, bone, gaps_mm)]
    if "bridging" in body.findings:
        around.append(_bridge(rng, local, gaps_mm))
    return around, [_body(rng, local, bone), *_lesions(rng, local, bone), *_metal(rng, local, gaps_mm)]


def _half_height(body: Body) -> float:
    return max(body.height_anterior_mm, body.height_posterior_mm) / 2


def _disc(rng: np.random.Generator, local: Local, bone: Bone, gaps: tuple[float, float]) -> list[Structure]:
    """The discs above and below as one column, and what gas or lime they hold."""
    body = local.body
    b, hw, hh = body.depth_mm / 2, body.width_mm / 2, _half_height(body)
    bulge = rng.uniform(-1.0, 2.5)
    top, bottom = -hh - 0.75 * gaps[0], hh + 0.75 * gaps[1]

    def depth(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        wall = (1 - np.sqrt((u / (b + bulge)) ** 2 + (w / (hw + bulge)) ** 2)) * b
        return np.minimum(wall, np.minimum(v - top, bottom - v))

    reach = np.array([b + 5, bottom + 2, hw + 5])
    box = local.box(np.array([-b - 5, top - 2, -hw - 5]), reach)
    parts = [Structure(depth, float(bone.disc_hu + rng.normal(0, 8)), box)]
    middle = (rng.uniform(-0.4, 0.4) * b, hh + 0.5 * gaps[1], rng.uniform(-0.3, 0.3) * hw)
    size = (rng.uniform(0.3, 0.8) * b, max(0.35 * gaps[1], 0.8), rng.uniform(0.3, 0.8) * hw)
    if "vacuum" in body.findings:
        parts.append(_blob(local, middle, size, rng.uniform(-700, -50)))
    if "calcified_disc" in body.findings:
        parts.append(_blob(local, middle, size, rng.uniform(200, 700)))
    return parts


def _bridge(rng: np.random.Generator, local: Local, gaps: tuple[float, float]) -> Structure:
    """DISH: bone that flows in front of bodies and discs; no part of any height."""
    body = local.body
    b, hh = np.float32(body.depth_mm / 2), _half_height(body)
    thick, wide = rng.uniform(1.5, 7.0), rng.uniform(8, 16)
    aside = rng.uniform(-2, 8) * (-1)  # mostly on the right, away from the aorta
    swell = rng.uniform(0, 3)
    low, high = -hh - 0.7 * gaps[0], hh + 0.7 * gaps[1]

    def depth(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        at_disc = np.clip(np.abs(v) - np.float32(hh - 3), 0, 3) / 3
        front = u + b + np.float32(thick) + np.float32(swell) * at_disc
        side = np.float32(wide) - np.abs(w - np.float32(aside))
        return np.minimum(np.minimum(np.minimum(front, side), -0.5 * b - u), np.minimum(v - low, high - v))

    reach = np.array([0.0, high + 2, 26.0])
    return Structure(
        depth,
        rng.uniform(180, 800),
        local.box(np.array([-float(b) - thick - swell - 2, low - 2, -26.0]), reach),
    )


def _endplate(plate: Endplate, sink_mm: float, half_depth_mm: float, half_width_mm: float) -> Sink:
    """How far the endplate lies inside the line of its rims, mm, at (u, w) and radius 0 to 1."""
    power, rim = np.float32(plate.power), np.float32(plate.rim)
    first, second = (np.float32(a) for a in plate.waves_mm)
    b, hw = np.float32(half_depth_mm), np.float32(half_width_mm)
    sink_, slant, pi = np.float32(sink_mm), np.float32(plate.slant_mm), np.float32(np.pi)

    def sink(u: Field, w: Field, radius: Field) -> Field:
        bump = sink_ * np.clip(1 - (radius / rim) ** power, 0, 1)
        t = np.clip(u / b, -1, 1) * pi
        bump += (first * np.sin(t) + second * np.sin(2 * t)) * np.clip(1.4 - radius, 0, 1)
        bump += slant / hw * w
        for h in plate.hollows:
            away = ((u - np.float32(h.u_mm)) ** 2 + (w - np.float32(h.w_mm)) ** 2) / np.float32(
                h.radius_mm**2
            )
            bump += np.float32(h.depth_mm) * np.exp(-(away ** np.float32(h.steepness / 2)))
        return bump

    return sink


def _body(rng: np.random.Generator, local: Local, bone: Bone) -> Structure:
    body = local.body
    b, hw = np.float32(body.depth_mm / 2), np.float32(body.width_mm / 2)
    power = np.float32(bone.roundness)
    above_mm = body.concavity_mm * body.upper_share
    upper = _endplate(body.upper, above_mm, float(b), float(hw))
    lower = _endplate(body.lower, body.concavity_mm - above_mm, float(b), float(hw))
    ha, hp, shift = (
        np.float32(v) for v in (body.height_anterior_mm / 2, body.height_posterior_mm / 2, body.rim_shift_mm)
    )
    waist = np.float32(bone.waist * rng.uniform(0.3, 1.5))
    spurs = bone.spur_mm * rng.uniform(0.3, 1.0, 4) * (rng.random(4) < (0.7, 0.7, 0.3, 0.3))
    spur = (spurs if "osteophytes" in body.findings else 0 * spurs).astype(np.float32)
    corner = np.float32(max(bone.corner_mm, 1e-3))
    one = np.float32(1)

    def depths(x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        u, v, w = local(x, y, z)
        t = np.clip((u / b + one) / 2, 0, 1)
        round_ = (np.abs(u / b) ** power + (np.abs(w) / hw) ** power) ** (one / power)
        line = shift * (one - t)
        rim = ha * (one - t) + hp * t
        above, below = v - (line - rim + upper(u, w, round_)), (line + rim - lower(u, w, round_)) - v
        slim = waist * np.clip(one - ((v - line) / rim) ** 2, 0, 1)
        wall = (one - slim - round_) * b
        if spur.any():
            front, back = u < 0, u > 0
            wall += np.exp(-((above / 2.5) ** 2)) * (spur[0] * front + spur[2] * back)
            wall += np.exp(-((below / 2.5) ** 2)) * (spur[1] * front + spur[3] * back)
        return np.minimum(above, below), wall

    def depth(x: Field, y: Field, z: Field) -> Field:
        plate, wall = depths(x, y, z)
        meet = np.clip(corner - np.abs(plate - wall), 0, None)
        return np.minimum(plate, wall) - meet * meet / (4 * corner)  # a smooth minimum rounds the rims

    inside = _marrow(rng, local, bone)
    shell, endplate_hu, wall_hu = np.float32(bone.shell_mm), bone.endplate_hu, bone.wall_hu
    healing = rng.uniform(100, 400) if body.kind and rng.random() < 0.3 else 0.0  # a band under the plate
    band = rng.uniform(2, 4)

    def hu(x: Field, y: Field, z: Field) -> Field:
        plate, wall = depths(x, y, z)
        dense = endplate_hu * np.exp(-np.abs(plate) / shell) + wall_hu * np.exp(-np.abs(wall) / shell)
        if healing:
            dense += healing * np.exp(-np.abs(plate - band) / 2)
        return np.asarray(inside(x, y, z) + dense, np.float32)

    reach = np.array([float(b + spur.max()) + 4, _half_height(body) + abs(float(shift)) + 4, float(hw) + 8])
    return Structure(depth, hu, local.box(-reach, reach))


def _marrow(rng: np.random.Generator, local: Local, bone: Bone) -> Depth:
    """HU of the cancellous bone: grained, or striped from top to bottom in a haemangioma."""
    cancellous = bone.cancellous_hu * float(np.clip(rng.normal(1, 0.12), 0.6, 1.6))
    grain = texture(rng, rng.uniform(6, 25), bone.texture_share * cancellous)
    fine = texture(rng, rng.uniform(2.0, 4.0), rng.uniform(0, 0.8) * bone.texture_share * cancellous)
    pitch, stripes = rng.uniform(2.0, 4.0), rng.uniform(60, 250)
    striped = "haemangioma" in local.body.findings
    fat = rng.uniform(-80, 60)

    def hu(x: Field, y: Field, z: Field) -> Field:
        if not striped:
            return np.asarray(cancellous + grain(x, y, z) + fine(x, y, z), np.float32)
        u, _, w = local(x, y, z)
        k = np.float32(2 * np.pi / pitch)
        return np.asarray(fat + stripes * np.clip(np.sin(k * u) + np.sin(k * w), 0, 2), np.float32)

    return hu


def _lesions(rng: np.random.Generator, local: Local, bone: Bone) -> list[Structure]:
    """Basivertebral cleft, lytic and sclerotic spots, cement: all inside the body."""
    body = local.body
    b, hw = body.depth_mm / 2, body.width_mm / 2
    limit = max(body.height_middle_mm / 2 - 1, 1.5)
    found = []

    def spot(size: float, hu: float) -> Structure:
        middle = (rng.uniform(-0.5, 0.5) * b, rng.uniform(-0.3, 0.3) * limit, rng.uniform(-0.4, 0.4) * hw)
        room = limit - abs(middle[1])
        return _blob(local, middle, (min(size, 0.5 * b), min(size, room), size), hu)

    if rng.random() < 0.35:
        reach, thin = rng.uniform(4, 11), rng.uniform(0.8, 1.8)
        hu = bone.cancellous_hu * rng.uniform(0.2, 0.9)
        found.append(_blob(local, (b - reach / 2, 0, 0), (reach / 2 + 1, thin, rng.uniform(3, 8)), hu))
    if "lytic" in body.findings:
        found += [spot(rng.uniform(3, 10), rng.uniform(-30, 70)) for _ in range(rng.integers(1, 3))]
    if "sclerotic" in body.findings:
        dense = bone.cancellous_hu + rng.uniform(150, 700)
        found += [spot(rng.uniform(2, 10), dense) for _ in range(rng.integers(1, 4))]
    if "cement" in body.findings:
        found += [spot(rng.uniform(4, 10), rng.uniform(1200, 3000)) for _ in range(rng.integers(1, 4))]
    return found


def _metal(rng: np.random.Generator, local: Local, gaps: tuple[float, float]) -> list[Structure]:
    """Pedicle screws that meet in the body, and the rods behind them."""
    if "screws" not in local.body.findings:
        return []
    body = local.body
    b, hw, hh = body.depth_mm / 2, body.width_mm / 2, _half_height(body)
    hu, tilt = rng.uniform(3000, 8000), rng.uniform(-0.15, 0.15) * hh
    parts = []
    for side in (-1, 1):
        tip = (-rng.uniform(0.1, 0.6) * b, tilt + rng.uniform(-1, 1), side * rng.uniform(0.1, 0.4) * hw)
        head = (b + 30.0, tilt - 0.3 * hh, side * rng.uniform(0.8, 1.1) * hw)
        parts.append(tube(body.to_patient(np.array([tip, head])), rng.uniform(2.0, 3.2), hu))
        ends = np.array([head, head]) + np.array([[0, -hh - gaps[0], 0], [0, hh + gaps[1], 0]])
        parts.append(tube(body.to_patient(ends), 2.8, hu))
    return parts


def _arch(rng: np.random.Generator, local: Local, bone: Bone, gaps: tuple[float, float]) -> list[Structure]:
    """Canal, laminae, pedicles, spinous and transverse processes, joints."""
    body = local.body
    b, hw, hh = body.depth_mm / 2, body.width_mm / 2, _half_height(body)
    canal_u, canal_w = rng.uniform(7, 9.5), rng.uniform(9, 12.5)
    center = b + canal_u - 0.5
    low, high = -hh - 0.6 * gaps[0], hh + 0.6 * gaps[1]
    lamina = rng.uniform(3.5, 7)
    lamina_top, lamina_bottom = rng.uniform(-0.6, 0.0) * hh, rng.uniform(0.8, 1.5) * hh
    thoracic = body.level.startswith("T")
    slope = rng.uniform(0.5, 1.4) if thoracic else rng.uniform(0.0, 0.35)
    spinous = (rng.uniform(2, 4), rng.uniform(14, 30), rng.uniform(4, 8) if thoracic else rng.uniform(6, 11))
    hu = bone.arch_hu + rng.normal(0, 30)

    def canal(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        wall = (1 - np.sqrt(((u - center) / canal_u) ** 2 + (w / canal_w) ** 2)) * canal_u
        return np.minimum(wall, np.minimum(v - low, high - v))

    def ring(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        out = np.sqrt(((u - center) / (canal_u + lamina)) ** 2 + (w / (canal_w + lamina)) ** 2)
        wall = np.minimum((1 - out) * canal_u, u - b - 2)
        slant = v - 0.5 * np.abs(u - center) * np.float32(slope)
        return np.minimum(wall, np.minimum(slant - lamina_top, lamina_bottom - slant))

    def process(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        start = center + canal_u + lamina - 3
        along = np.minimum(u - start, start + spinous[1] - u)
        across = spinous[2] - np.abs(v - 0.5 * hh - (u - start) * np.float32(slope))
        return np.minimum(np.minimum(along, across), spinous[0] - np.abs(w))

    box = local.box(
        np.array([b - 4, low - 4, -canal_w - lamina - 2]),
        np.array([center + canal_u + lamina + 3, max(high, lamina_bottom + 12) + 4, canal_w + lamina + 2]),
    )
    reach = center + canal_u + lamina + spinous[1]
    behind = local.box(
        np.array([center, -hh, -spinous[0] - 2]),
        np.array([reach, hh + spinous[1] * slope + spinous[2] + 4, spinous[0] + 2]),
    )
    sides = []
    for side in (-1, 1):
        pedicle = (b + 4, -0.35 * hh + rng.normal(0, 1), side * (canal_w + 1.5))
        sides.append(_blob(local, pedicle, (9, rng.uniform(0.4, 0.6) * hh, rng.uniform(3, 5)), hu))
        out = (center + rng.uniform(0, 8), -0.1 * hh, side * (canal_w + rng.uniform(10, 14)))
        sides.append(_blob(local, out, (rng.uniform(4, 6), rng.uniform(4, 7), rng.uniform(12, 18)), hu))
        joint = (center + rng.uniform(2, 7), hh + gaps[1] / 2, side * (canal_w + rng.uniform(1, 5)))
        sides.append(_blob(local, joint, (rng.uniform(4, 7), rng.uniform(7, 12), rng.uniform(4, 6)), hu))
        if thoracic:
            rib = (b - 1 + rng.uniform(-2, 4), -hh + rng.uniform(0, 3), side * (hw + 4))
            sides.append(_blob(local, rib, (rng.uniform(5, 7), rng.uniform(4, 6), rng.uniform(5, 9)), hu))
    arch = [*sides, Structure(ring, hu, box), Structure(process, hu, behind)]
    return [*arch, Structure(canal, bone.canal_hu, box)]


def _blob(
    local: Local, middle: tuple[float, float, float], radii: tuple[float, float, float], hu: float
) -> Structure:
    """An ellipsoid along the vertebra's own axes."""
    m, r = np.asarray(middle, np.float32), np.asarray(radii, np.float32)

    def depth(x: Field, y: Field, z: Field) -> Field:
        q = sum(((p - c) / s) ** 2 for p, c, s in zip(local(x, y, z), m, r, strict=True))
        return np.asarray((1 - np.sqrt(q)) * r.min(), np.float32)

    shape: Depth = depth
    return Structure(shape, hu, local.box(m - r - 2.0, m + r + 2.0))
