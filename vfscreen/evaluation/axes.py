"""Whether the positions of a reference are LPS, as those of the results are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vfscreen.errors import InputError
from vfscreen.evaluation.matching import match
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy
from vfscreen.volume import Floats

TURNED = {"x and y": (-1, -1, 1), "x": (-1, 1, 1), "y": (1, -1, 1), "z": (1, 1, -1)}
"""Axes that other conventions count the other way."""
FAR_MM = 20.0
"""A turn that moves the vertebrae less may by chance bring a bad detection near one."""
FEWEST = 3
"""Fewer vertebrae may fit by chance."""


def check_axes(reference: Reference, centers_mm: Sequence[Floats], n_known: Sequence[int]) -> None:
    """Raises InputError for a study that fits with an axis turned: that is RAS, or another's, not LPS.

    `centers_mm` (k, 3) are the detections of each study of the reference, `n_known` how many of them are on
    a vertebra as they are. It fits where the turn finds more than half of those that count, and twice as
    many.
    """
    for study, centers, n in zip(reference.studies, centers_mm, n_known, strict=True):
        for axes, signs in TURNED.items():
            found = _found_turned(study, centers, np.array(signs))
            if found > len(study.centers_mm) / 2 and found >= max(2 * n, FEWEST):
                raise InputError(
                    f"{reference.path}: the vertebrae of study {study.name} lie where those of the results "
                    f"would with {axes} turned; positions are LPS, x to the patient's left, y to posterior "
                    "and z to cranial, so turn the sign there"
                )


def _found_turned(study: ReferenceStudy, centers_mm: Floats, signs: Floats) -> int:
    moved = np.abs(study.centers_mm * (signs - 1)).sum(1)
    if not len(moved) or np.median(moved) < FAR_MM:
        return 0
    pairs, _ = match(centers_mm * signs, study.centers_mm, np.ones(len(moved), bool))
    return len(pairs)
