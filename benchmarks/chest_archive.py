"""An archive of chest-sized studies to time a night on: 512 x 512 x 300 voxels, slices of 1 mm.

    python benchmarks/chest_archive.py --studies 200 --out /tmp/chests

One simulated chest is written as uncompressed DICOM (160 MB), and `manifest.csv` lists its folder
as often as wanted, each time as another study of another patient. So an archive of any length fits
on any disk; after the first study the files come from memory, and the speed of the disk is not
measured.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.files import write_dicom
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.volume import Volume, VolumeGeometry

SHAPE = (300, 512, 512)
PIXEL_MM = 0.7
SEED = 41
SERIES = "chest"


def main(
    out: Annotated[Path, typer.Option(help="Folder of the archive.")],
    studies: Annotated[int, typer.Option(help="Rows of the manifest.")] = 200,
) -> None:
    write_dicom(out / SERIES, simulate_chest(), "SIM-chest", "20200101", compress=False)
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "study_id", "patient_id"])
        writer.writerows([SERIES, f"study_{i:05d}", f"patient_{i:05d}"] for i in range(studies))
    typer.echo(f"{manifest} lists {studies} studies")


def simulate_chest(slices: int = SHAPE[0], slice_mm: float = 1.0, last: str = "L1") -> Volume:
    """So many slices of a chest, of which the scan reaches to the last level."""
    rng = np.random.default_rng(SEED)
    scanner = Scanner(
        slice_thickness_mm=slice_mm,
        slice_spacing_mm=slice_mm,
        pixel_mm=PIXEL_MM,
        blur_mm=0.5,
        overshoot=0.0,
        noise_hu=25.0,
        noise_grain_mm=0.6,
        streaks_hu=0.0,
    )
    side_mm = SHAPE[1] * PIXEL_MM + 0.1  # cut below, so that the last pixel is not left to rounding
    chest = Field("C7", last, side_mm, side_mm, PIXEL_MM)
    volume = simulate_study(rng, draw_person(rng), scanner, chest).volume
    shape = (slices, *SHAPE[1:])
    hu = volume.hu[tuple(slice(n) for n in shape)]
    if hu.shape != shape:
        raise ValueError(f"the simulated chest has the shape {hu.shape}, not {shape}: take another SEED")
    return Volume(hu, VolumeGeometry(shape, volume.geometry.affine))


if __name__ == "__main__":
    typer.run(main)
