"""A spine drawn as a whole person: sizes, tilts and gaps correlated along it, with its deformities.

Means and standard deviations by level come from `levels.csv`, statistics of the public expert
annotation of 100 spines (Pisov et al., MICCAI 2020; CC BY-NC). How a person's levels resemble each
other was measured on the same annotation (1,339 vertebrae): correlation of the posterior height with
that of the next level 0.78, of the fifth 0.55; of the depth 0.97 and 0.84; of the tilt 0.91, 0.74 at the
second, 0.14 at the fifth; of anterior by posterior height 0.41, 0.24, 0.04. Normal vertebrae have
0.94 (SD 0.06) for that ratio and 0.89 (SD 0.04) for the middle height by the mean of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from vfscreen.curve import SpineCurve
from vfscreen.measure import MILD, genant_ratio
from vfscreen.simulation.findings import FindingRates, draw_findings
from vfscreen.volume import Floats

TRUNK_LEVEL = "T8"  # its body stands at the origin
MIN_GAP_MM = 0.8
MAX_COBB_DEG = 60.0
G_RANGES = {"mild": (0.74, 0.8), "moderate": (0.6, 0.74), "severe": (0.32, 0.6)}
G_CONCENTRATION = {"mild": 1.2, "moderate": 1.6, "severe": 2.5}  # milder ones are more frequent in each


@dataclass(frozen=True)
class Deformities:
    """How often a vertebra is deformed (mild, moderate, severe), and how the kinds share it.

    `forced` names vertebrae that are deformed in any case: (level, kind, G).
    """

    mild: float = 125 / 1268  # prevalence of the paper's data
    moderate: float = 80 / 1268
    severe: float = 17 / 1268
    kinds: tuple[float, float, float] = (0.45, 0.4, 0.15)  # wedge, biconcave, crush
    forced: tuple[tuple[str, str, float], ...] = ()

    def draw(self, rng: np.random.Generator, level: str) -> tuple[str, float] | None:
        """Kind and G of the deformity of one vertebra; None for a normal one."""
        for name, kind, g in self.forced:
            if name == level:
                return kind, g
        rates = [self.mild, self.moderate, self.severe]
        grade = str(rng.choice(["", *G_RANGES], p=[1 - sum(rates), *rates]))
        if not grade:
            return None
        low, high = G_RANGES[grade]
        g = high - (high - low) * rng.beta(1, G_CONCENTRATION[grade])
        return str(rng.choice(["wedge", "biconcave", "crush"], p=self.kinds)), float(g)


FOR_TRAINING = Deformities(mild=0.16, moderate=0.16, severe=0.10)


@dataclass(frozen=True)
class Hollow:
    """A local pit in an endplate, mm in the body's own (u, w); it does not count in the heights."""

    u_mm: float
    w_mm: float
    radius_mm: float
    depth_mm: float
    steepness: float  # 2 is a soft bell, 8 a punched hole


@dataclass(frozen=True)
class Endplate:
    """Form of an endplate between its keypoints; nothing here counts in the heights.

    The bump that sinks it begins inside a flat rim: `rim` is where, as a share of the radius, and
    `power` how flat its bottom is. `waves_mm` are s-shaped along the depth and vanish at the
    keypoints; `slant_mm` lowers one side, at the side.
    """

    rim: float = 1.0
    power: float = 2.5
    waves_mm: tuple[float, float] = (0.0, 0.0)
    slant_mm: float = 0.0
    hollows: tuple[Hollow, ...] = ()


@dataclass(frozen=True)
class Body:
    """One vertebral body. Its own axes: u to posterior, v to caudal, w to the left; mm.

    `axes` (3, 3) holds u, v, w as rows in LPS; `center_mm` lies midway between the rims. Heights
    are those of the rims (anterior, posterior) and between the middles of the endplates.
    `findings` names what else it has, see `simulation.findings`; `kind` its deformity, or "".
    """

    level: str
    center_mm: Floats
    axes: Floats
    height_anterior_mm: float
    height_middle_mm: float
    height_posterior_mm: float
    depth_mm: float
    width_mm: float
    upper_share: float  # of the concavity that belongs to the upper endplate
    rim_shift_mm: float  # of the anterior rims to caudal: a wedge sinks from above
    upper: Endplate = field(default_factory=Endplate)
    lower: Endplate = field(default_factory=Endplate)
    findings: frozenset[str] = frozenset()
    kind: str = ""

    @property
    def concavity_mm(self) -> float:
        """Sum of both endplates' depths at the middle below the rims' line."""
        return 0.5 * (self.height_anterior_mm + self.height_posterior_mm) - self.height_middle_mm

    def to_patient(self, local_mm: Floats) -> Floats:
        """Own (u, v, w) of shape (..., 3) to LPS mm."""
        return np.asarray(local_mm) @ self.axes + self.center_mm

    def rim_mm(self, end: int) -> Floats:
        """The rim of the upper (-1) or lower (1) endplate, (16, 3) LPS mm."""
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        u, w = self.depth_mm / 2 * np.cos(angle), self.width_mm / 2 * np.sin(angle)
        front = (1 - np.cos(angle)) / 2
        half = (self.height_anterior_mm * front + self.height_posterior_mm * (1 - front)) / 2
        return self.to_patient(np.stack([u, end * half + self.rim_shift_mm * front, w], -1))

    def keypoints_mm(self) -> Floats:
        """The six keypoints, (6, 3) LPS mm, ordered as `study.KEYPOINTS`."""
        a, p, d = self.height_anterior_mm / 2, self.height_posterior_mm / 2, self.depth_mm / 2
        shift, middle = self.rim_shift_mm, (a + p) / 2
        upper = self.concavity_mm * self.upper_share
        lower = self.concavity_mm - upper
        local = [
            (-d, shift - a, 0),
            (-d, shift + a, 0),
            (0, shift / 2 - middle + upper, 0),
            (0, shift / 2 + middle - lower, 0),
            (d, -p, 0),
            (d, p, 0),
        ]
        return self.to_patient(np.array(local, float))


@dataclass(frozen=True)
class Spine:
    """The vertebral bodies of one person, cranial first, LPS mm; the sacrum is seen but never measured."""

    bodies: tuple[Body, ...]
    sacrum: tuple[Body, ...]

    @property
    def cobb_deg(self) -> float:
        """Cobb's angle: the largest difference of coronal tilt between two vertebrae, degrees."""
        tilts = [np.rad2deg(np.arctan2(b.axes[1, 0], -b.axes[1, 2])) for b in self.bodies]
        return float(max(tilts) - min(tilts))

    def curve(self) -> SpineCurve:
        """Smooth curve through the midpoints of the middle heights (paper, section 3.1)."""
        return SpineCurve.through_vertebrae(np.stack([b.keypoints_mm() for b in self.bodies]))


def draw_spine(
    rng: np.random.Generator,
    deformities: Deformities | None = None,
    rates: FindingRates | None = None,
    cobb_deg: float | None = None,
) -> Spine:
    """A person's spine from C4 to L5 with T8 near the origin, upright (paper's statistics of shape).

    `cobb_deg` asks for a scoliosis of about this angle; otherwise it is drawn, up to `MAX_COBB_DEG`.
    """
    table = pd.read_csv(str(files("vfscreen.simulation") / "levels.csv"))
    levels = [str(level) for level in table.level]
    findings = draw_findings(rng, len(levels), rates or FindingRates())
    sizes = _draw_sizes(rng, table)
    tilt = _draw_tilts(rng, table)
    coronal, axial = _draw_scoliosis(rng, len(levels), cobb_deg)
    bodies: list[Body] = []
    for i, size in enumerate(sizes.itertuples()):
        shape = _draw_shape(rng, size, levels[i], deformities or Deformities(), findings[i])
        axes = _axes(tilt[i], coronal[i], axial[i])
        body = Body(level=levels[i], center_mm=np.zeros(3), axes=axes, findings=findings[i], **shape)
        narrow = 0.6 if "scheuermann" in findings[i] else 1.0
        bodies.append(_below(bodies[-1], body, float(sizes.gap[i - 1]) * narrow) if bodies else body)
    sacrum = _draw_sacrum(rng, bodies[-1])
    middle = bodies[levels.index(TRUNK_LEVEL)].center_mm
    return Spine(tuple(_moved(b, -middle) for b in bodies), tuple(_moved(b, -middle) for b in sacrum))


def _draw_sizes(rng: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
    """Heights, depth and gap of each level: one factor for the person, and slowly varying residues."""
    n, person, wide = len(table), rng.normal(), rng.normal()
    height = _bounded(np.sqrt(0.55) * person + np.sqrt(0.45) * _smooth(rng, n, 0.5))
    depth = _bounded(np.sqrt(0.74) * (0.8 * person + 0.6 * wide) + np.sqrt(0.26) * _smooth(rng, n, 0.9))
    front = _bounded(np.sqrt(0.05) * rng.normal() + np.sqrt(0.95) * _smooth(rng, n, 0.4))
    concave = _bounded(np.sqrt(0.4) * rng.normal() + np.sqrt(0.6) * _smooth(rng, n, 0.2))
    loss = np.clip(rng.normal(0, 1) + 0.6 * _smooth(rng, n, 0.6), -2.2, 2.2)  # of the discs
    gap = (table.gap_ant_mean + table.gap_post_mean) / 2 + loss * (table.gap_ant_sd + table.gap_post_sd) / 2
    return pd.DataFrame(
        {
            "posterior": np.clip(table.h_post_mean + height * table.h_post_sd, 10, 34),
            "anterior_ratio": np.clip(table.h_ant_mean / table.h_post_mean + 0.02 + 0.055 * front, 0.81, 1.2),
            "middle_ratio": np.clip(0.893 + 0.036 * concave, 0.8, 1.02),
            "depth": np.clip(table.depth_ap_mean + depth * table.depth_ap_sd, 10, 42),
            "gap": np.clip(gap, MIN_GAP_MM, 16),
        }
    )


def _draw_tilts(rng: np.random.Generator, table: pd.DataFrame) -> Floats:
    """Tilt in the sagittal plane by level, radians; negative where the anterior edge is the lower."""
    n = len(table)
    kyphosis = 0.6 * rng.normal() * np.linspace(1, -1, n)
    waves = gaussian_filter1d(rng.normal(size=n + 12), 1.82)[6:-6] * np.sqrt(2 * np.sqrt(np.pi) * 1.82)
    z = np.clip(kyphosis + 0.8 * waves, -2.4, 2.4)
    smooth_mean = np.convolve(np.pad(table.tilt_mean, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return np.asarray(np.deg2rad(smooth_mean + z * table.tilt_sd.to_numpy()))


def _draw_shape(
    rng: np.random.Generator, size: Any, level: str, deformities: Deformities, findings: frozenset[str]
) -> dict[str, Any]:
    """Heights and outline of one body, normal or with a deformity of a grade drawn by its prevalence."""
    heights = _normal_heights(size.posterior, size.anterior_ratio, size.middle_ratio)
    upper, shift, kind = float(np.clip(rng.normal(0.45, 0.12), 0.15, 0.75)), 0.0, ""
    deformity = deformities.draw(rng, level)
    if deformity:
        kind, g = deformity
        before = heights[0]
        heights = _deformed(rng, kind, g, *heights)
        upper = float(rng.choice([rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.0), rng.uniform(0, 0.25)]))
        shift = rng.uniform(-0.2, 0.5) * (before - heights[0])
    deeper = rng.uniform(1.0, 1.12) if kind or "scheuermann" in findings else 1.0
    depth = min(float(size.depth) * deeper, 42.0)
    width = depth * float(np.clip(rng.normal(1.3, 0.08), 1.05, 1.55))
    return {
        "height_anterior_mm": float(heights[0]),
        "height_middle_mm": float(heights[1]),
        "height_posterior_mm": float(heights[2]),
        "depth_mm": depth,
        "width_mm": width,
        "upper_share": upper,
        "rim_shift_mm": float(shift),
        "upper": _draw_endplate(rng, depth, width, findings, bool(kind), is_lower=False),
        "lower": _draw_endplate(rng, depth, width, findings, bool(kind), is_lower=True),
        "kind": kind,
    }


def _normal_heights(hp: float, anterior_ratio: float, middle_ratio: float) -> tuple[float, float, float]:
    """Anterior, middle and posterior height of a vertebra that is not deformed: G stays above 0.8."""
    ha = hp * anterior_ratio
    hm = 0.5 * (ha + hp) * middle_ratio
    if genant_ratio(np.array([ha, hm, hp])) <= MILD + 0.005:
        lowest = (MILD + 0.006) * max(ha, hp)
        ha, hm, hp = (max(h, lowest) for h in (ha, hm, hp))
    return ha, hm, hp


def _deformed(
    rng: np.random.Generator, kind: str, g: float, ha: float, hm: float, hp: float
) -> tuple[float, float, float]:
    """Anterior, middle and posterior heights with Genant's ratio g (Genant 1993: wedge, biconcave, crush).

    Of 90 annotated vertebrae with G <= 0.74 most are both wedged and sunken in the middle. A crush has
    lost height everywhere, and most at the back.
    """
    if kind == "wedge":
        ha = g * hp
        return ha, float(np.clip(0.5 * (ha + hp) * rng.uniform(0.78, 1.02), ha, hp)), hp
    if kind == "biconcave":
        ha = hp * rng.uniform(min(g + 0.02, 0.99), 1.02) if rng.random() < 0.6 else max(ha, 0.9 * hp)
        return ha, g * max(ha, hp), hp
    highest = max(ha, hp) * rng.uniform(min(max(0.6, 4 / (g * hp)), 0.9), 0.95)
    return highest, highest * rng.uniform(min(g + 0.02, 0.99), 1.0), g * highest


def _draw_endplate(
    rng: np.random.Generator,
    depth: float,
    width: float,
    findings: frozenset[str],
    deformed: bool,
    *,
    is_lower: bool,
) -> Endplate:
    rough = 2.0 if deformed or "scheuermann" in findings else 1.0
    waves = np.clip(rng.normal(0, (0.35, 0.2)) * rough, -1.5, 1.5)
    hollows: list[Hollow] = []
    if "cupid" in findings and is_lower:
        aside, sink = rng.uniform(0.2, 0.26) * width, rng.uniform(1, 3.5)
        hollows += [Hollow(0.18 * depth, side * aside, 0.11 * width, sink, 2.0) for side in (-1, 1)]
    if "schmorl" in findings:
        hollows += [_draw_node(rng, depth, width) for _ in range(rng.integers(0, 3))]
    return Endplate(
        rim=rng.uniform(0.72, 1.0),
        power=rng.uniform(1.0 if deformed else 1.6, 6.0),  # a fractured one may be a cone
        waves_mm=(float(waves[0]), float(waves[1])),
        slant_mm=float(np.clip(rng.normal(0, 0.6 * rough), -3, 3)),
        hollows=tuple(hollows),
    )


def _draw_node(rng: np.random.Generator, depth: float, width: float) -> Hollow:
    """Schmorl's node: a pit of some millimetres, anywhere but at the rims."""
    radius = rng.uniform(1.5, 4.5)
    reach = np.array([0.45 * depth - radius, 0.45 * width - radius])
    u, w = rng.uniform(-reach, reach)
    return Hollow(float(u), float(w), radius, rng.uniform(1.0, 5.0), rng.uniform(2, 8))


def _draw_sacrum(rng: np.random.Generator, last: Body) -> list[Body]:
    """Three fused bodies under L5, each smaller and turned further back than the one above."""
    segments: list[Body] = []
    tilt, size = np.deg2rad(rng.uniform(-55, -35)), 1.0
    for i, (gap, turn) in enumerate([(rng.uniform(4, 12), 0.0), (rng.uniform(0.8, 3), -12), (0.8, -5)]):
        tilt, height = tilt + np.deg2rad(turn), 28.0 * size
        shape: dict[str, Any] = {
            "height_anterior_mm": height,
            "height_middle_mm": 0.92 * height,
            "height_posterior_mm": 0.88 * height,
        }
        body = Body(
            level=f"S{i + 1}",
            center_mm=np.zeros(3),
            axes=_axes(tilt, 0.0, 0.0),
            depth_mm=last.depth_mm * size,
            width_mm=last.width_mm * size * 1.2,
            upper_share=0.5,
            rim_shift_mm=0.0,
            **shape,
        )
        segments.append(_below(segments[-1] if segments else last, body, gap))
        size *= 0.8
    return segments


def _draw_scoliosis(rng: np.random.Generator, n: int, cobb_deg: float | None = None) -> tuple[Floats, Floats]:
    """Coronal tilt and axial rotation of each level (radians), one or two smooth bends.

    The bodies turn towards the convexity, most at the apex, where the tilt changes sign.
    """
    if cobb_deg is None:
        cobb_deg = rng.uniform(10, MAX_COBB_DEG) if rng.random() < 0.15 else rng.exponential(8.0)
    amplitude = np.deg2rad(min(cobb_deg, MAX_COBB_DEG)) / 2
    phase = np.linspace(0, rng.uniform(3.6, 9), n) + rng.uniform(0, 2 * np.pi)
    coronal = amplitude * np.sin(phase) + np.deg2rad(rng.normal(0, 2.0) + rng.normal(0, 0.6, n))
    axial = rng.uniform(-0.1, 0.7) * amplitude * np.cos(phase)
    return coronal, axial + np.deg2rad(rng.normal(0, 3.0) + rng.normal(0, 1.0, n))


def _axes(tilt: float, coronal: float, axial: float) -> Floats:
    upright = np.array(
        [[0, np.cos(tilt), -np.sin(tilt)], [0, -np.sin(tilt), -np.cos(tilt)], [1.0, 0, 0]],
    )
    return np.asarray(Rotation.from_euler("zy", [axial, coronal]).apply(upright))


def _below(upper: Body, body: Body, gap_mm: float) -> Body:
    """The body placed under its neighbour so that the discs' rims stay at least `MIN_GAP_MM` apart."""
    caudal = upper.axes[1] + body.axes[1]
    caudal /= np.linalg.norm(caudal)
    above, below = upper.keypoints_mm(), body.keypoints_mm()
    start = (above[1] + above[5]) / 2
    placed = _moved(body, start + caudal * gap_mm - (below[0] + below[4]) / 2)
    closest = ((placed.rim_mm(-1) - upper.rim_mm(1)) @ caudal).min()
    return _moved(placed, caudal * max(0.0, MIN_GAP_MM - closest))


def _moved(body: Body, by: Floats) -> Body:
    return replace(body, center_mm=body.center_mm + by)


def _smooth(rng: np.random.Generator, n: int, correlation: float) -> Floats:
    """Standard normal series with this correlation between neighbours."""
    values = rng.normal(size=n)
    for i in range(1, n):
        values[i] = correlation * values[i - 1] + np.sqrt(1 - correlation**2) * values[i]
    return np.asarray(values)


def _bounded(z: Floats) -> Floats:
    return np.clip(z, -2.4, 2.4)
