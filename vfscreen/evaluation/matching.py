"""Measured vertebrae against true ones: what was found, what is false, what counts neither way.

- A true vertebra is *whole* if the image shows its six keypoints, 1 mm round them, and 7 mm to both
  sides (`QualitySettings.edge_mm`, `StraightenSettings.margin_mm`): vfscreen measures no others.
- It is found if a detection's centre lies within 5 mm of its own and no other does so closer.
- A detection is not counted if the vertebra next to it, within 15 mm, is one cut by the image. Every
  other detection that finds none is false.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from vfscreen.settings import Settings
from vfscreen.volume import Floats, VolumeGeometry

MATCH_MM, CUT_MM = 5.0, 15.0


def match(centers: Floats, true: Floats, whole: NDArray[np.bool_]) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs (detection, whole vertebra), and the false detections, by the rules above.

    `centers` (n, 3) are detected, `true` (m, 3) and `whole` (m,) tell the truth; mm.
    """
    if not len(true):
        return [], list(range(len(centers)))
    distances = np.linalg.norm(centers.reshape(-1, 1, 3) - true[None], axis=-1)
    nearest = distances.argmin(1)
    pairs: list[tuple[int, int]] = []
    false: list[int] = []
    for i in distances.min(1).argsort():
        j, distance = nearest[i], distances[i, nearest[i]]
        if whole[j] and distance <= MATCH_MM and j not in [known for _, known in pairs]:
            pairs.append((int(i), int(j)))
        elif whole[j] or distance > CUT_MM:
            false.append(int(i))
    return pairs, false


def is_whole(geometry: VolumeGeometry, keypoints: Floats) -> NDArray[np.bool_]:
    """Which vertebrae (n, 6, 3) the image shows whole, (n,)."""
    settings = Settings()
    side, edge = settings.straighten.margin_mm, settings.quality.edge_mm
    round_mm = np.array(list(product((-side, side), (-edge, edge), (-edge, edge))))
    return np.asarray(geometry.contains(keypoints[:, :, None] + round_mm).all((1, 2)))
