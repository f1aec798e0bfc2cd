"""Draws pictures of simulated patients for the documentation, and beside real CT for whoever mends them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vfscreen.readers import read_volume
from vfscreen.refine import Upright, crop_points, to_pixels
from vfscreen.settings import ReadSettings, RefineSettings
from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.training.refiner import draw_crops
from vfscreen.volume import Floats, Volume

HERE = Path(__file__).parent
REAL = HERE.parent.parent / "shared" / "ct"  # never into the repository: it shows real patients
REAL_STUDIES = {
    "thoracic_angio": "thoracic_angio.nii.gz",
    "lung_crop_1": "lung_crop_1",
    "lung_whole_5mm": "lung_whole_5mm.nii.gz",
    "abdomen_pelvis": "abdomen_pelvis.nii.gz",
}
SOFT_HU, LUNG_HU = (-200.0, 500.0), (-1100.0, 200.0)
WIDE_MM, DEEP_MM, BEHIND_MM = 400.0, 280.0, 100.0  # of an axial cut; behind the spine's axis
GREYS = 48

Picture = NDArray[np.uint8]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the simulated pictures.")] = HERE / "pictures",
    patients: Annotated[int, typer.Option(help="Simulated patients.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the patients.")] = 7,
    pixel_mm: Annotated[float, typer.Option(help="Of the pictures.")] = 1.6,
    beside_real: Annotated[
        Path | None, typer.Option(help="Folder outside the repository, for pictures that show real CT too.")
    ] = None,
) -> None:
    """Write `simulation_axial.png`, `_sagittal`, `_coronal`, and `_crops`, seen by the second look."""
    Image.fromarray(_training_crops(seed)).save(out / "simulation_crops.png", optimize=True)
    simulated = [_simulated(seed, i) for i in range(patients)]
    _write(out, "simulation", simulated, pixel_mm)
    if beside_real:
        if beside_real.resolve().is_relative_to(HERE.parent.resolve()):
            raise typer.BadParameter("no image of a real patient goes into the repository")
        _write(beside_real, "simulated", simulated, pixel_mm)
        _write(beside_real, "real", [_real(name) for name in REAL_STUDIES], pixel_mm)
        Image.fromarray(_real_crops()).save(beside_real / "real_crops.png")


def _simulated(seed: int, index: int) -> tuple[Volume, Floats]:
    """A whole trunk, and its spine's axis (n, 3) in LPS mm."""
    rng = np.random.default_rng([seed, index])
    scanner = Scanner(2.5, 2.5, 1.2, 0.5, 0.0, float(rng.uniform(8, 25)), 0.7, 0.0)
    study = simulate_study(
        rng, draw_person(rng), scanner, Field("C7", "L3", WIDE_MM, DEEP_MM + 20, 1.2, (0.0, 32.0))
    )
    return study.volume, np.array(study.truth()["curve_mm"])


def _real(name: str) -> tuple[Volume, Floats]:
    """A real CT, and its spine's axis as `reference.json` tells it."""
    case = json.loads((REAL / "reference.json").read_text())["cases"][name]
    axis = case["curve"] if "curve" in case else [v["center"] for v in case["vertebrae"]]
    volume = read_volume(REAL / REAL_STUDIES[name], ReadSettings(min_extent_mm=0))
    return volume, np.array(axis, float)


def _write(out: Path, name: str, studies: Sequence[tuple[Volume, Floats]], pixel_mm: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    axial = np.vstack([_axial_row(volume, axis, pixel_mm) for volume, axis in studies])
    sagittal = np.hstack([_sagittal(volume, axis, pixel_mm) for volume, axis in studies])
    coronal = np.hstack([_coronal(volume, axis, pixel_mm) for volume, axis in studies])
    for kind, picture in (("axial", axial), ("sagittal", sagittal), ("coronal", coronal)):
        image = Image.fromarray(picture)
        ImageDraw.Draw(image).text((4, 4), f"{name}, {kind}", fill=255)
        image.save(out / f"{name}_{kind}.png", optimize=True)


def _axial_row(volume: Volume, axis: Floats, pixel_mm: float) -> Picture:
    """Three heights in the soft tissue window, and the middle one in that of the lung."""
    low, high = _reach(volume)
    at = [low + (high - low) * share for share in (0.9, 0.55, 0.15)]
    cuts = [_axial(volume, axis, z, pixel_mm) for z in at]
    return np.hstack([*(_grey(cut, SOFT_HU) for cut in cuts), _grey(cuts[1], LUNG_HU)])


def _axial(volume: Volume, axis: Floats, z: float, pixel_mm: float) -> NDArray[np.float32]:
    x0, y0 = (float(v) for v in _at(axis, z))
    y = np.arange(y0 + BEHIND_MM - DEEP_MM, y0 + BEHIND_MM, pixel_mm)
    x = np.arange(x0 - WIDE_MM / 2, x0 + WIDE_MM / 2, pixel_mm)
    return volume.sample(np.stack(np.broadcast_arrays(x[None], y[:, None], z), -1))


def _sagittal(volume: Volume, axis: Floats, pixel_mm: float) -> Picture:
    """The cut that follows the spine sideways."""
    low, high = _reach(volume)
    z = np.arange(low, high, pixel_mm)[::-1]
    x0, _ = _at(axis, z)
    y0 = float(axis[:, 1].mean())
    y = np.arange(y0 + BEHIND_MM - DEEP_MM, y0 + BEHIND_MM, pixel_mm)
    points = np.stack(np.broadcast_arrays(x0[:, None], y[None], z[:, None]), -1)
    return _padded(_grey(volume.sample(points), SOFT_HU), pixel_mm)


def _coronal(volume: Volume, axis: Floats, pixel_mm: float) -> Picture:
    """The cut through the bodies and the costovertebral joints."""
    low, high = _reach(volume)
    z = np.arange(low, high, pixel_mm)[::-1]
    x0, y0 = _at(axis, z)
    across = np.arange(-WIDE_MM / 2, WIDE_MM / 2, pixel_mm)
    points = np.stack(np.broadcast_arrays(x0[:, None] + across, y0[:, None] + 8, z[:, None]), -1)
    return _padded(_grey(volume.sample(points), SOFT_HU), pixel_mm)


def _training_crops(seed: int, persons: int = 6) -> Picture:
    """A row of middle sheets for each person, with the true keypoints."""
    drawn = [draw_crops(np.random.default_rng([seed, i]), 1) for i in range(persons)]
    return np.vstack([np.hstack([_crop(c.hu[2], c.keypoints) for c in crops]) for crops in drawn])


def _real_crops() -> Picture:
    """The vertebrae read by eye, upright as the second look sees them, with the readings."""
    rows = []
    for name in ("thoracic_angio", "lung_crop_1"):
        volume, _ = _real(name)
        for vertebra in json.loads((REAL / "reference.json").read_text())["cases"][name]["vertebrae"]:
            ends = np.stack([vertebra["superior"], vertebra["inferior"]], 1).reshape(6, 3).astype(float)
            frame = Upright.of(ends)
            crop = volume.sample(crop_points(frame, RefineSettings()))[2]
            rows.append(_crop(crop, to_pixels(frame.to_own(ends), RefineSettings())))
    return np.vstack([np.hstack(rows[i : i + 8]) for i in (0, 8)])


def _crop(hu: NDArray[np.float32], keypoints: Floats) -> Picture:
    image = Image.fromarray(_grey(hu, (-200.0, 700.0)))
    draw = ImageDraw.Draw(image)
    for row, column in keypoints:
        draw.point((round(column), round(row)), fill=255)
    return np.asarray(image)


def _padded(picture: Picture, pixel_mm: float, height_mm: float = 460.0) -> Picture:
    rows = int(height_mm / pixel_mm)
    return np.pad(picture[:rows], ((0, max(rows - len(picture), 0)), (0, 4)))


def _reach(volume: Volume) -> tuple[float, float]:
    z = volume.geometry.corners_mm()[:, 2]
    return float(z.min()), float(z.max())


def _at(axis: Floats, z: Floats | float) -> tuple[Floats, Floats]:
    """x and y of the spine's axis at heights z."""
    order = np.argsort(axis[:, 2])
    x, y = (np.interp(z, axis[order, 2], axis[order, a]) for a in (0, 1))
    return x, y


def _grey(hu: NDArray[np.float32], window: tuple[float, float]) -> Picture:
    """Few greys, so that the noise costs little in the file."""
    share = np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1)
    return np.asarray(np.rint(share * (GREYS - 1)) * (255 // (GREYS - 1)), np.uint8)


if __name__ == "__main__":
    typer.run(main)
