"""The curve of the spine, and points mapped to and from its straightened frame (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline

from vfscreen.volume import Floats

LEFT = np.array([1.0, 0.0, 0.0])
STEP_MM = 1.0


@dataclass(frozen=True)
class SpineCurve:
    """A smooth line through the vertebral bodies, cranial to caudal.

    `points_mm` is (n, 3), LPS mm, one point each `STEP_MM` of arc length; n >= 4. Straightened
    coordinates are (s, p, l): mm along the curve to caudal, to posterior, to the patient's left.
    """

    points_mm: Floats

    @classmethod
    def through(cls, points_mm: Floats) -> SpineCurve:
        """The curve through dense points (m, 3), cranial to caudal, sampled anew by arc length."""
        steps = np.linalg.norm(np.diff(points_mm, axis=0), axis=1)
        arc = np.concatenate([[0.0], np.cumsum(steps)])
        s = np.arange(0.0, arc[-1] + 1e-9, STEP_MM)
        return cls(np.stack([np.interp(s, arc, points_mm[:, a]) for a in range(3)], -1))

    @classmethod
    def through_vertebrae(cls, keypoints_mm: Floats) -> SpineCurve:
        """The curve through the midpoints of the middle heights (paper, section 3.1).

        `keypoints_mm` (n, 6, 3) are LPS mm, ordered as `study.KEYPOINTS`, cranial first; n >= 2.
        """
        middles = keypoints_mm[:, 2:4].mean(1)
        arc = np.concatenate([[0], np.linalg.norm(np.diff(middles, axis=0), axis=1).cumsum()])
        dense = np.linspace(0, arc[-1], max(int(arc[-1] * 4), 8))
        return cls.through(CubicSpline(arc, middles)(dense))

    @property
    def length_mm(self) -> float:
        """Arc length, mm."""
        return (len(self.points_mm) - 1) * STEP_MM

    @cached_property
    def tangents(self) -> Floats:
        """Unit vectors to caudal, (n, 3)."""
        return _unit(np.gradient(self.points_mm, axis=0))

    @cached_property
    def posterior(self) -> Floats:
        """Second axis, (n, 3): normal to the curve and always in the sagittal plane, so it cannot twist."""
        return _unit(np.cross(LEFT, self.tangents))

    @cached_property
    def left(self) -> Floats:
        """Third axis, (n, 3): normal to the other two, to the patient's left."""
        return np.cross(self.tangents, self.posterior)

    def to_patient(self, straightened_mm: Floats) -> Floats:
        """Straightened (s, p, l) of shape (..., 3) to LPS mm. Beyond the ends the curve goes on straight."""
        s, p, left = np.moveaxis(np.asarray(straightened_mm, float), -1, 0)
        return (
            self._center(s)
            + p[..., None] * _unit(self._along(self.posterior, s))
            + left[..., None] * _unit(self._along(self.left, s))
        )

    def sheet_to_patient(self, sheet_mm: Floats) -> Floats:
        """Points (n, 2) of the mid-sagittal sheet, (s, p) in mm, to LPS mm (n, 3)."""
        return self.to_patient(np.column_stack([sheet_mm, np.zeros(len(sheet_mm))]))

    def to_straightened(self, points_mm: Floats) -> Floats:
        """LPS mm (..., 3) to straightened (s, p, l), the inverse of `to_patient`.

        Raises ValueError for a point so far from the curve that several of its normal planes
        pass through it.
        """
        points = np.asarray(points_mm, float)
        flat = points.reshape(-1, 3)
        s = self._foot(flat)
        offset = flat - self._center(s)
        p = (offset * _unit(self._along(self.posterior, s))).sum(-1)
        left = (offset * _unit(self._along(self.left, s))).sum(-1)
        return np.stack([s, p, left], -1).reshape(points.shape)

    def _center(self, s: Floats) -> Floats:
        inside = np.clip(s, 0.0, self.length_mm)
        return self._along(self.points_mm, s) + (s - inside)[..., None] * self._along(self.tangents, s)

    def _along(self, values: Floats, s: Floats) -> Floats:
        index = np.clip(np.asarray(s) / STEP_MM, 0, len(values) - 1)
        low = np.minimum(index.astype(int), len(values) - 2)
        weight = (index - low)[..., None]
        return np.asarray(values[low] * (1 - weight) + values[low + 1] * weight)

    def _foot(self, points: Floats) -> Floats:
        """Arc length at which the normal plane passes through each point: secants from the nearest sample."""
        nearest = np.linalg.norm(points[:, None] - self.points_mm[None], axis=-1).argmin(1) * STEP_MM
        before, height = nearest, self._height(points, nearest)
        s = before + 0.7 * height
        for _ in range(40):
            rest = self._height(points, s)
            slope = np.where(np.abs(height - rest) > 1e-12, (s - before) / (height - rest + 1e-300), 0.0)
            step = np.clip(rest * slope, -5.0, 5.0)
            if not step.any():
                break
            before, height, s = s, rest, s + step
        beyond = (s < 0) | (s > self.length_mm)
        missed = np.abs(self._height(points, s)) > 1e-6
        if (missed | (~beyond & (np.abs(s - nearest) > 40.0))).any():
            raise ValueError("a point is too far from the curve: several normal planes pass through it")
        return s

    def _height(self, points: Floats, s: Floats) -> Floats:
        """Distance of each point from the normal plane at s, mm, positive to caudal."""
        normal = np.cross(_unit(self._along(self.left, s)), _unit(self._along(self.posterior, s)))
        normal *= np.sign((normal * self._along(self.tangents, s)).sum(-1, keepdims=True))
        return np.asarray(((points - self._center(s)) * normal).sum(-1))


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
