"""One vertebra as structures: disc, canal, arch, body with cortical shell, endplates and what may mar it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vfscreen.simulation.painting import Depth, Field, Structure, texture
from vfscreen.simulation.spine import Body
from vfscreen.volume import Floats


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
    osteophytes: float  # share of vertebrae with them


def draw_bone(rng: np.random.Generator) -> Bone:
    """Bone of one person, drawn wider than life: from osteoporotic to sclerotic."""
    cancellous = rng.uniform(30, 350)
    return Bone(
        cancellous_hu=cancellous,
        endplate_hu=rng.uniform(0, 700) * rng.uniform(0.3, 1.2),
        wall_hu=rng.uniform(0, 700) * rng.uniform(0.3, 1.2),
        shell_mm=rng.uniform(0.5, 1.4),
        arch_hu=rng.uniform(0, 300) + cancellous,
        disc_hu=rng.uniform(30, 150),
        canal_hu=rng.uniform(-20, 60),
        texture_share=rng.uniform(0, 0.25),
        waist=rng.uniform(0.0, 0.16),
        roundness=rng.uniform(2.0, 3.0),
        osteophytes=rng.choice([0.0, 0.1, 0.5], p=[0.4, 0.4, 0.2]),
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
    """What is painted before all bodies (discs, canal, arch), and the body itself.

    `gaps_mm` are the discs' heights above and below.
    """
    local = Local(body)
    around = [_disc(rng, local, bone, gaps_mm), *_arch(rng, local, bone, gaps_mm)]
    return around, [_body(rng, local, bone), *_lesions(rng, local, bone)]


def _half_height(body: Body) -> float:
    return max(body.height_anterior_mm, body.height_posterior_mm) / 2


def _disc(rng: np.random.Generator, local: Local, bone: Bone, gaps: tuple[float, float]) -> Structure:
    body = local.body
    b, hw, hh = body.depth_mm / 2, body.width_mm / 2, _half_height(body)
    bulge = rng.uniform(-1.0, 2.5)
    top, bottom = -hh - 0.75 * gaps[0], hh + 0.75 * gaps[1]
    vacuum = rng.uniform(-400, 0) if rng.random() < 0.03 else bone.disc_hu + rng.normal(0, 8)

    def depth(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z)
        wall = (1 - np.sqrt((u / (b + bulge)) ** 2 + (w / (hw + bulge)) ** 2)) * b
        return np.minimum(wall, np.minimum(v - top, bottom - v))

    reach = np.array([b + 5, bottom + 2, hw + 5])
    return Structure(depth, float(vacuum), local.box(np.array([-b - 5, top - 2, -hw - 5]), reach))


def _body(rng: np.random.Generator, local: Local, bone: Bone) -> Structure:
    body = local.body
    b, hw = np.float32(body.depth_mm / 2), np.float32(body.width_mm / 2)
    power, plate_power = np.float32(bone.roundness), np.float32(rng.uniform(1.6, 6.0))
    upper = np.float32(body.concavity_mm * body.upper_share)
    lower = np.float32(body.concavity_mm - upper)
    ha, hp, shift = (
        np.float32(v) for v in (body.height_anterior_mm / 2, body.height_posterior_mm / 2, body.rim_shift_mm)
    )
    middle, waist = (ha + hp) / 2, np.float32(bone.waist * rng.uniform(0.3, 1.5))
    spur = rng.uniform(1, 5, 2) * (rng.random(2) < bone.osteophytes)  # anterior rim, upper and lower
    cancellous = bone.cancellous_hu * float(np.clip(rng.normal(1, 0.12), 0.6, 1.6))
    grain = texture(rng, rng.uniform(6, 25), bone.texture_share * cancellous)
    shell, endplate_hu, wall_hu = np.float32(bone.shell_mm), bone.endplate_hu, bone.wall_hu
    one = np.float32(1)

    def depths(x: Field, y: Field, z: Field) -> tuple[Field, Field]:
        u, v, w = local(x, y, z)
        t = np.clip((u / b + one) / 2, 0, 1)
        round_ = (np.abs(u / b) ** power + (np.abs(w) / hw) ** power) ** (one / power)
        bump = np.clip(one - round_**plate_power, 0, 1)
        line = shift * (one - t)
        rim = ha * (one - t) + hp * t
        above, below = v - (line - rim + upper * bump), (line + rim - lower * bump) - v
        slim = waist * np.clip(one - ((v - line) / middle) ** 2, 0, 1)
        beyond = (spur[0] * np.exp(-((above / 3) ** 2)) + spur[1] * np.exp(-((below / 3) ** 2))) * (u < 0)
        wall = (one - slim - round_) * b + beyond
        return np.minimum(above, below), wall

    def depth(x: Field, y: Field, z: Field) -> Field:
        return np.minimum(*depths(x, y, z))

    def hu(x: Field, y: Field, z: Field) -> Field:
        plate, wall = depths(x, y, z)
        dense = endplate_hu * np.exp(-np.abs(plate) / shell) + wall_hu * np.exp(-np.abs(wall) / shell)
        return np.asarray(cancellous + grain(x, y, z) + dense, np.float32)

    reach = np.array([float(b) + 8, _half_height(body) + abs(float(shift)) + 3, float(hw) + 4])
    return Structure(depth, hu, local.box(-reach, reach))


def _lesions(rng: np.random.Generator, local: Local, bone: Bone) -> list[Structure]:
    """Basivertebral cleft, and sometimes a lytic or sclerotic spot inside the body."""
    body = local.body
    b = body.depth_mm / 2
    found = []
    if rng.random() < 0.35:
        reach, thin = rng.uniform(4, 11), rng.uniform(0.8, 1.8)
        hu = bone.cancellous_hu * rng.uniform(0.2, 0.9)
        found.append(_blob(local, (b - reach / 2, 0, 0), (reach / 2 + 1, thin, rng.uniform(3, 8)), hu))
    if rng.random() < 0.08:
        size = rng.uniform(3, 9)
        hu = bone.cancellous_hu + rng.uniform(-250, 500)
        middle = (rng.uniform(-0.5, 0.5) * b, rng.uniform(-3, 3), rng.uniform(-0.4, 0.4) * b)
        limit = max(body.height_middle_mm / 2 - 2, 2)
        found.append(_blob(local, middle, (size, min(size, limit), size), hu))
    return found


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
