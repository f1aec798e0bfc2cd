"""A simulated person: the anatomy in patient millimetres, independent of any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vfscreen.simulation.findings import FindingRates
from vfscreen.simulation.painting import Structure
from vfscreen.simulation.spine import Body, Deformities, Spine, draw_spine
from vfscreen.simulation.torso import draw_torso
from vfscreen.simulation.vertebra import draw_bone, vertebra_structures


@dataclass(frozen=True)
class Person:
    """The spine, which is the truth, and all structures in the order in which they are painted."""

    spine: Spine
    structures: tuple[Structure, ...]


def draw_person(
    rng: np.random.Generator,
    deformities: Deformities | None = None,
    rates: FindingRates | None = None,
    cobb_deg: float | None = None,
) -> Person:
    """A person standing upright with T8 near the LPS origin; arguments as those of `draw_spine`."""
    spine = draw_spine(rng, deformities, rates, cobb_deg)
    under, vessels = draw_torso(rng, spine)
    bone = draw_bone(rng)
    column = (*spine.bodies, *spine.sacrum)
    gaps = _gaps(column)
    around, bodies = [], []
    for i, body in enumerate(column):
        first, later = vertebra_structures(rng, body, bone, (gaps[i], gaps[i + 1]))
        around += first
        bodies += later
    return Person(spine, (*under, *vessels, *around, *bodies))


def _gaps(column: Sequence[Body]) -> list[float]:
    """Heights of the discs above each body and below the last, mm."""
    between = []
    for upper, lower in pairwise(column):
        above, below = upper.keypoints_mm(), lower.keypoints_mm()
        between.append(float(np.linalg.norm((below[0] + below[4]) / 2 - (above[1] + above[5]) / 2)))
    return [between[0], *between, between[-1]]
