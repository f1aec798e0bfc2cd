"""What is mistaken for a fracture, drawn for a whole person: which vertebra has what.

Rates are far above life, since the networks must not stumble over the rare. Truth keeps the names, so
that errors can be counted by finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Range = tuple[int, int]


@dataclass(frozen=True)
class FindingRates:
    """Share of persons with a condition of several vertebrae, and of vertebrae with one of their own."""

    scheuermann: float = 0.06  # persons: irregular endplates and narrow discs over several levels
    bridging: float = 0.08  # persons: DISH, flowing bone in front of several bodies
    degenerative: float = 0.3  # persons: osteophytes, vacuum and calcified discs here and there
    metastases: float = 0.04  # persons: lytic or sclerotic spots in many vertebrae
    screws: float = 0.03  # persons: pedicle screws and rods over some levels
    schmorl: float = 0.05  # from here on vertebrae
    cupid: float = 0.08
    sclerotic: float = 0.02
    lytic: float = 0.02
    haemangioma: float = 0.03
    cement: float = 0.01


NOTHING = FindingRates(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
"""A spine without any of it."""

SINGLE = ("schmorl", "cupid", "sclerotic", "lytic", "haemangioma", "cement")


def draw_findings(rng: np.random.Generator, n: int, rates: FindingRates) -> list[frozenset[str]]:
    """Names of the findings of each of n vertebrae, cranial first."""
    found: list[set[str]] = [set() for _ in range(n)]
    for name, share in (
        ("scheuermann", rates.scheuermann),
        ("bridging", rates.bridging),
        ("screws", rates.screws),
    ):
        if rng.random() < share:
            _over(found, _range(rng, n), name)
    if rng.random() < rates.degenerative:
        for name in ("osteophytes", "vacuum", "calcified_disc"):
            _scatter(rng, found, name, rng.uniform(0.05, 0.6))
    if rng.random() < rates.metastases:
        _scatter(rng, found, str(rng.choice(["lytic", "sclerotic"])), rng.uniform(0.2, 0.8))
    for name in SINGLE:
        _scatter(rng, found, name, getattr(rates, name))
    for names in found:
        if "scheuermann" in names and rng.random() < 0.7:
            names.add("schmorl")
        if "screws" in names:
            names.discard("cement")
    return [frozenset(names) for names in found]


def _range(rng: np.random.Generator, n: int) -> Range:
    """Neighbouring levels, mostly in the thorax."""
    first = int(rng.integers(4, n - 4))
    return first, min(first + int(rng.integers(3, 8)), n)


def _over(found: list[set[str]], levels: Range, name: str) -> None:
    for names in found[slice(*levels)]:
        names.add(name)


def _scatter(rng: np.random.Generator, found: list[set[str]], name: str, share: float) -> None:
    for names, drawn in zip(found, rng.random(len(found)), strict=True):
        if drawn < share:
            names.add(name)
