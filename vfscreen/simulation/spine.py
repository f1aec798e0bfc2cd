"""A spine drawn as a whole person: sizes, tilts and gaps correlated along it, with its deformities.

Means and standard deviations by level come from `levels.csv`, statistics of the public expert
annotation of 100 spines (Pisov et al., MICCAI 2020; CC BY-NC).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from vfscreen.curve import SpineCurve
from vfscreen.volume import Floats

TRUNK_LEVEL = "T8"  # its body stands at the origin
MIN_GAP_MM = 0.8


@dataclass(frozen=True)
class Deformities:
    """How often a vertebra is deformed (mild, moderate, severe), and how the kinds share it.

    `forced` names vertebrae that are deformed in any case: (level, kind, G).
    """

    mild: float = 125 / 1268  # prevalence of the paper's data
    moderate: float = 80 / 1268
    severe: float = 17 / 1268
    kinds: tuple[float, float, float] = (0.5, 0.35, 0.15)  # wedge, biconcave, crush
    forced: tuple[tuple[str, str, float], ...] = ()

    def draw(self, rng: np.random.Generator, level: str) -> tuple[str, float] | None:
        """Kind and G of the deformity of one vertebra; None for a normal one."""
        for name, kind, g in self.forced:
            if name == level:
                return kind, g
        rates = [self.mild, self.moderate, self.severe]
        grade = rng.choice(["", *G_RANGES], p=[1 - sum(rates), *rates])
        if not grade:
            return None
        return str(rng.choice(["wedge", "biconcave", "crush"], p=self.kinds)), rng.uniform(*G_RANGES[grade])


FOR_TRAINING = Deformities(mild=0.14, moderate=0.14, severe=0.10)

G_RANGES = {"mild": (0.74, 0.8), "moderate": (0.6, 0.74), "severe": (0.35, 0.6)}


@dataclass(frozen=True)
class Body:
    """One vertebral body. Its own axes: u to posterior, v to caudal, w to the left; mm.

    `axes` (3, 3) holds u, v, w as rows in LPS; `center_mm` lies midway between the rims. Heights
    are those of the rims (anterior, posterior) and between the middles of the endplates.
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

    @property
    def concavity_mm(self) -> float:
        """Sum of both endplates' depths at the middle below the rims' line."""
        return 0.5 * (self.height_anterior_mm + self.height_posterior_mm) - self.height_middle_mm

    def to_patient(self, local_mm: Floats) -> Floats:
        """Own (u, v, w) of shape (..., 3) to LPS mm."""
        return np.asarray(local_mm) @ self.axes + self.center_mm

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

    def curve(self) -> SpineCurve:
        """Smooth curve through the midpoints of the middle heights (paper, section 3.1)."""
        middles = np.stack([b.keypoints_mm()[2:4].mean(0) for b in self.bodies])
        arc = np.concatenate([[0], np.linalg.norm(np.diff(middles, axis=0), axis=1).cumsum()])
        dense = np.linspace(0, arc[-1], max(int(arc[-1] * 4), 8))
        return SpineCurve.through(CubicSpline(arc, middles)(dense))


def draw_spine(rng: np.random.Generator, deformities: Deformities | None = None) -> Spine:
    """A person's spine from C4 to L5 with T8 near the origin, upright (paper's statistics of shape)."""
    table = pd.read_csv(str(files("vfscreen.simulation") / "levels.csv"))
    sizes = _draw_sizes(rng, table)
    tilt = _draw_tilts(rng, table)
    rows = zip(sizes.itertuples(), table.level, strict=True)
    shapes = [_draw_shape(rng, size, level, deformities or Deformities()) for size, level in rows]
    coronal, axial = _draw_scoliosis(rng, len(table))
    bodies: list[Body] = []
    for i, shape in enumerate(shapes):
        axes = _axes(tilt[i], coronal[i], axial[i])
        body = Body(level=str(table.level[i]), center_mm=np.zeros(3), axes=axes, **shape)
        bodies.append(_below(bodies[-1], body, float(sizes.gap[i - 1])) if bodies else body)
    sacrum = _draw_sacrum(rng, bodies[-1])
    middle = bodies[list(table.level).index(TRUNK_LEVEL)].center_mm
    return Spine(tuple(_moved(b, -middle) for b in bodies), tuple(_moved(b, -middle) for b in sacrum))


def _draw_sizes(rng: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
    """Heights, depth and gap of each level: one factor for the person, and slowly varying residues."""
    n, person = len(table), rng.normal()
    z = {name: 0.8 * person + 0.6 * _smooth(rng, n, 0.5) for name in ("h", "d")}
    z["d"] = 0.5 * z["h"] + 0.87 * z["d"]
    loss = np.clip(rng.normal(0, 1) + 0.6 * _smooth(rng, n, 0.6), -2.2, 2.2)  # of the discs
    posterior = table.h_post_mean + np.clip(z["h"], -2.5, 2.5) * table.h_post_sd
    ratio = table.h_ant_mean / table.h_post_mean * (1 + 0.05 * rng.normal() + 0.03 * rng.normal(size=n))
    concave = np.clip(rng.normal(0.9, 0.035) + rng.normal(0, 0.025, n), 0.8, 1.0)
    gap = (table.gap_ant_mean + table.gap_post_mean) / 2 + loss * (table.gap_ant_sd + table.gap_post_sd) / 2
    return pd.DataFrame(
        {
            "posterior": np.clip(posterior, 10, 34),
            "anterior_ratio": np.clip(np.maximum(ratio, 0.82), 0.82, 1.2),
            "middle_ratio": concave,
            "depth": np.clip(table.depth_ap_mean + np.clip(z["d"], -2.2, 2.2) * table.depth_ap_sd, 10, 42),
            "gap": np.clip(gap, MIN_GAP_MM, 16),
        }
    )


def _draw_tilts(rng: np.random.Generator, table: pd.DataFrame) -> Floats:
    """Tilt in the sagittal plane by level, radians; negative where the anterior edge is the lower."""
    n = len(table)
    posture = rng.normal() * np.linspace(1, -1, n) + 0.5 * rng.normal()  # more or less kyphosis
    z = np.clip(0.7 * posture + 0.5 * _smooth(rng, n, 0.7), -2.2, 2.2)
    smooth_mean = np.convolve(np.pad(table.tilt_mean, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return np.asarray(np.deg2rad(smooth_mean + z * table.tilt_sd.to_numpy() * 0.9))


def _draw_shape(
    rng: np.random.Generator, size: Any, level: str, deformities: Deformities
) -> dict[str, float]:
    """Heights and outline of one body, normal or with a deformity of a grade drawn by its prevalence."""
    hp, ha = size.posterior, size.posterior * size.anterior_ratio
    hm = 0.5 * (ha + hp) * size.middle_ratio
    upper, shift = float(np.clip(rng.normal(0.5, 0.12), 0.2, 0.8)), 0.0
    deformity = deformities.draw(rng, level)
    if deformity:
        kind, g = deformity
        before = ha
        ha, hm, hp = _deformed(rng, kind, g, ha, hp)
        upper = float(rng.choice([rng.uniform(0.3, 0.7), rng.uniform(0.8, 1.0), rng.uniform(0, 0.2)]))
        shift = rng.uniform(0.0, 0.5) * (before - ha) if kind == "wedge" else 0.0
    return {
        "height_anterior_mm": float(ha),
        "height_middle_mm": float(hm),
        "height_posterior_mm": float(hp),
        "depth_mm": float(size.depth),
        "width_mm": float(size.depth * np.clip(rng.normal(1.3, 0.08), 1.05, 1.55)),
        "upper_share": upper,
        "rim_shift_mm": float(shift),
    }


def _deformed(
    rng: np.random.Generator, kind: str, g: float, ha: float, hp: float
) -> tuple[float, float, float]:
    """Anterior, middle and posterior heights with Genant's ratio g (Genant 1993: wedge, biconcave, crush)."""
    if kind == "wedge":
        ha = g * hp
        return ha, max(0.5 * (ha + hp) * rng.uniform(0.86, 1.0), ha), hp
    if kind == "biconcave":
        ha = max(ha, 0.9 * hp) if rng.random() < 0.7 else hp * rng.uniform(max(g + 0.05, 0.6), 1.0)
        return ha, g * max(ha, hp), hp
    hp = hp * rng.uniform(0.55, 0.9)
    ha = hp * rng.uniform(g, 1.0)
    return ha, g * max(ha, hp), hp


def _draw_sacrum(rng: np.random.Generator, last: Body) -> list[Body]:
    """Three fused bodies under L5, each smaller and turned further back than the one above."""
    segments: list[Body] = []
    tilt, size = np.deg2rad(rng.uniform(-55, -35)), 1.0
    for i, (gap, turn) in enumerate([(rng.uniform(4, 12), 0.0), (rng.uniform(0.8, 3), -12), (0.8, -5)]):
        tilt, height = tilt + np.deg2rad(turn), 28.0 * size
        shape = {
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


def _draw_scoliosis(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Coronal tilt and axial rotation of each level (radians), one or two smooth bends."""
    amplitude = np.deg2rad(min(rng.exponential(4.0), 30.0))  # half of a Cobb angle
    bend = amplitude * np.sin(np.linspace(0, rng.uniform(2, 9), n) + rng.uniform(0, 2 * np.pi))
    coronal = bend + np.deg2rad(rng.normal(0, 2.0) + rng.normal(0, 0.8, n))
    axial = rng.uniform(-0.8, 0.3) * bend + np.deg2rad(rng.normal(0, 3.0) + rng.normal(0, 1.0, n))
    return coronal, axial


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
    rims = placed.keypoints_mm()
    closest = min((rims[0] - above[1]) @ caudal, (rims[4] - above[5]) @ caudal)
    return _moved(placed, caudal * max(0.0, MIN_GAP_MM - closest))


def _moved(body: Body, by: Floats) -> Body:
    return replace(body, center_mm=body.center_mm + by)


def _smooth(rng: np.random.Generator, n: int, correlation: float) -> Floats:
    """Standard normal series with this correlation between neighbours."""
    values = rng.normal(size=n)
    for i in range(1, n):
        values[i] = correlation * values[i - 1] + np.sqrt(1 - correlation**2) * values[i]
    return np.asarray(values)
