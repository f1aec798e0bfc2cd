"""The truth of a simulated cohort: the `truth.json` that `vfscreen simulate` writes beside its studies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vfscreen.errors import InputError
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy, of_keypoints
from vfscreen.study import KEYPOINTS, USUAL_LEVELS
from vfscreen.volume import Floats


def read_simulated(path: Path) -> Reference:
    """The truth of each study in a `truth.json`. Raises InputError where it is none."""
    try:
        content = json.loads(path.read_bytes())
        return Reference("simulated cohort", path, tuple(_study(*each) for each in content.items()))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not the truth of a simulated cohort ({type(error).__name__}: {error}); name the "
            "folder or the truth.json that `vfscreen simulate` wrote"
        ) from error


def _study(source: str, truth: Mapping[str, Any]) -> ReferenceStudy:
    vertebrae = truth["vertebrae"]
    points = [[each["keypoints_mm"][name] for name in KEYPOINTS] for each in vertebrae]
    keypoints = np.array(points, float).reshape(len(vertebrae), 6, 3)
    levels = [USUAL_LEVELS.index(each["level"]) for each in vertebrae]
    if len(set(levels)) < len(levels):
        raise ValueError(f"a level stands twice in {source}")
    cut = [USUAL_LEVELS.index(level) for level in truth["cut_levels"]]
    others = _between(np.array(cut), np.array(levels), keypoints.mean(1)) if len(levels) > 1 else np.empty(0)
    study = of_keypoints(keypoints, others, tuple(USUAL_LEVELS[level] for level in levels))
    dose, slice_mm = truth.get("dose"), truth.get("slice_mm")
    return replace(
        study,
        source=source,
        dose=None if dose is None else str(dose),
        slice_mm=None if slice_mm is None else float(slice_mm),
    )


def _between(cut: Floats, levels: Floats, centers_mm: Floats) -> Floats:
    """Centres of cut levels, which the truth names without a place: on the line of their two neighbours."""
    lower = np.clip(np.searchsorted(levels, cut), 1, len(levels) - 1)
    start, end = levels[lower - 1], levels[lower]
    share = ((cut - start) / (end - start))[:, None]
    return np.asarray((1 - share) * centers_mm[lower - 1] + share * centers_mm[lower])
