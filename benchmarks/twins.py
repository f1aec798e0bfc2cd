"""How much do heights change with the way in which the same patient is stored? With trained weights.

Simulated patients are scanned once and stored as they are (`straight`), flipped and transposed, and
resampled (linearly) on an oblique and on a coarser grid. Heights of the same vertebra are compared.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from vfscreen.networks.weights import load_models
from vfscreen.screening import screen
from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.study import StudyResult
from vfscreen.volume import Volume, VolumeGeometry

SAME_MM = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--weights", default=None)
    arguments = parser.parse_args()
    models = load_models(arguments.weights, "cpu")
    differences: dict[str, list[np.ndarray]] = {}
    for i in range(arguments.studies):
        volume = _scan(np.random.default_rng([arguments.seed, i]))
        straight = screen(volume, models)
        for name, twin in _twins(volume).items():
            differences.setdefault(name, []).append(_differences(straight, screen(twin, models)))
    Console().print(_table(differences))


def _scan(rng: np.random.Generator) -> Volume:
    scanner = Scanner(1.0, 1.0, 1.0, 0.5, 0.0, 8.0, 0.7, 0.0)
    return simulate_study(rng, draw_person(rng), scanner, Field("T4", "T12", 180.0, 180.0, 1.0)).volume


def _twins(volume: Volume) -> dict[str, Volume]:
    tilted = Rotation.from_euler("xyz", [14, 4, 9], degrees=True).as_matrix()
    return {
        "flipped, transposed": _restored(volume),
        "oblique, 1 mm": _resampled(volume, tilted, (1.0, 1.0, 1.0)),
        "straight, 1.3 x 0.8 x 0.8 mm": _resampled(volume, np.eye(3), (1.3, 0.8, 0.8)),
        "oblique, 2 x 1 x 1 mm": _resampled(volume, tilted, (2.0, 1.0, 1.0)),
    }


def _restored(volume: Volume) -> Volume:
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (len(volume.hu) - 1)
    affine[:3, 0] *= -1
    hu = volume.hu[::-1].transpose(2, 0, 1)
    return Volume(hu, VolumeGeometry(hu.shape, affine[:, [2, 0, 1, 3]]))


def _resampled(volume: Volume, turned: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    """The volume on a grid turned about its middle, large enough to hold it."""
    axes = turned @ np.eye(3)[:, ::-1] * np.array(spacing_mm)
    middle = volume.geometry.to_patient((np.array(volume.hu.shape) - 1) / 2)
    extent = np.abs(np.linalg.inv(axes) @ (volume.geometry.corners_mm() - middle).T).max(1)
    shape = tuple(int(n) for n in 2 * np.ceil(extent))
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = middle - axes @ ((np.array(shape) - 1) / 2)
    geometry = VolumeGeometry(shape, affine)
    points = geometry.to_patient(np.moveaxis(np.indices(shape, np.float32), 0, -1))
    return Volume(np.rint(volume.sample(points)).astype(np.int16), geometry)


def _differences(a: StudyResult, b: StudyResult) -> np.ndarray:
    """Absolute differences of heights (n, 3), mm, of the vertebrae found in both."""
    pairs = [
        np.abs(v.heights_mm - w.heights_mm)
        for v in a.vertebrae
        for w in b.vertebrae
        if np.linalg.norm(v.center_mm - w.center_mm) < SAME_MM
    ]
    return np.array(pairs).reshape(-1, 3)


def _table(differences: dict[str, list[np.ndarray]]) -> Table:
    table = Table("stored", "vertebrae", "median, mm", "95 %, mm", "largest, mm", "within 0.3 mm")
    for name, parts in differences.items():
        d = np.concatenate(parts)
        figures = (np.median(d), np.quantile(d, 0.95), d.max())
        table.add_row(name, str(len(d)), *(f"{v:.3f}" for v in figures), f"{(d < 0.3).mean():.1%}")
    return table


if __name__ == "__main__":
    main()
