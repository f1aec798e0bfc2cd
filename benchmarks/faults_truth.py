"""What the headers of a mutated study truly say, by plain pydicom, nibabel and numpy, without vfscreen."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from faults_mutants import COLUMNS, NIFTI_HEADER, PIXEL_MM, ROWS, slices_of
from pydicom import dcmread

ALIKE = 0.01
"""Share by which two spacings may differ and still be the same."""
DIRECTION = 0.01
EVEN_MM = 0.25
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}

Row = Mapping[str, Any]
Vectors = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Grid:
    """What `studies.parquet` tells of a geometry."""

    slices: int
    slice_mm: float
    pixel_mm: float

    def agrees(self, other: Grid) -> bool:
        return (
            self.slices == other.slices
            and _alike(self.slice_mm, other.slice_mm)
            and _alike(self.pixel_mm, other.pixel_mm)
        )


def verdict(folder: Path, form: str, mutated: Collection[str], row: Row) -> str:
    """How the geometry of a study that was read agrees with its headers.

    `sound`: it is that of the study before the mutation. `as stored`: the headers agree with each other on
    another geometry, and that is the one. `uneven`: all slices, whose steps differ, from the first to the
    last. `left out`: a mutated file is not in the volume, the other slices are where they say. `odd length`:
    as `sound`, but the file is longer or shorter than its header says. `wrong`: none of these.
    """
    if any(row[name] is None for name in ("n_slices", "slice_spacing_mm", "pixel_spacing_mm")):
        return "wrong"
    said = Grid(row["n_slices"], row["slice_spacing_mm"], row["pixel_spacing_mm"])
    sound = Grid(*slices_of(form), PIXEL_MM)
    volumes = [path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz"))]
    if volumes:
        return _nifti_verdict(volumes[0], said, sound)
    if said.agrees(sound):
        return "sound"
    return _dicom_verdict(folder, mutated, said, row["series_uid"] or "")


def _alike(a: float, b: float) -> bool:
    return bool(abs(a - b) <= ALIKE * max(abs(a), abs(b)))


# --- DICOM ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a header says that its slice lies."""

    series: str
    position: Vectors
    axes: Vectors  # (2, 3)
    spacing: Vectors
    shape: tuple[int, int]


def _dicom_verdict(folder: Path, mutated: Collection[str], said: Grid, series: str) -> str:
    places = {path.name: _place(path) for path in sorted(folder.iterdir())}
    of_series = {name: p for name, p in places.items() if p is not None and p.series == series}
    sound = [p for name, p in of_series.items() if name not in mutated]
    loose = [p for name, p in of_series.items() if name in mutated]
    for count in range(len(loose), -1, -1):
        for some in combinations(loose, count):
            agreement = _agreement([*sound, *some], said)
            if agreement:
                return agreement if len(sound) + count == len(places) else "left out"
    return "wrong"


def _place(path: Path) -> _Place | None:
    """None where plain pydicom cannot tell."""
    try:
        header = dcmread(path, stop_before_pixels=True, force=True)
        return _Place(
            str(header.get("SeriesInstanceUID") or ""),
            np.array(header.ImagePositionPatient, float).reshape(3),
            np.array(header.ImageOrientationPatient, float).reshape(2, 3),
            np.array(header.PixelSpacing, float).reshape(2),
            (int(header.Rows), int(header.Columns)),
        )
    except Exception:  # whatever damage does
        return None


def _agreement(places: Sequence[_Place], said: Grid) -> str:
    """`as stored`, `uneven`, or "" where the places contradict each other or say another geometry."""
    if len(places) < 2 or not _one_grid(places):
        return ""
    normal = np.cross(*places[0].axes)
    positions = np.array(sorted((p.position for p in places), key=lambda p: float(p @ normal)))
    line = positions[-1] - positions[0]
    extent = float(np.linalg.norm(line))
    if not np.isfinite(positions).all() or not extent:
        return ""
    along = positions @ normal
    share = (along - along[0]) / (along[-1] - along[0])
    if np.linalg.norm(positions - positions[0] - share[:, None] * line, axis=1).max() > EVEN_MM:
        return ""
    even = np.abs(share - np.linspace(0, 1, len(share))).max() * extent <= EVEN_MM
    pixel_mm = float(places[0].spacing.max())
    if even and Grid(len(places), extent / (len(places) - 1), pixel_mm).agrees(said):
        return "as stored"
    usual = Grid(len(places), float(np.median(np.diff(along))), pixel_mm)
    return "uneven" if not even and usual.agrees(said) else ""


def _one_grid(places: Sequence[_Place]) -> bool:
    first = places[0]
    return all(
        p.shape == first.shape
        and np.allclose(p.axes, first.axes, rtol=0, atol=DIRECTION)
        and np.allclose(p.spacing, first.spacing, rtol=ALIKE, atol=0)
        for p in places
    )


# --- NIfTI ---------------------------------------------------------------------------------------


def _nifti_verdict(path: Path, said: Grid, sound: Grid) -> str:
    if said.agrees(sound):
        return _pixels_verdict(path, sound)
    stored = _nifti_grid(path)
    return "as stored" if stored is not None and stored.agrees(said) else "wrong"


def _pixels_verdict(path: Path, sound: Grid) -> str:
    """Of a geometry that is right by its spacings: whether the pixels stand where they stood."""
    try:
        content = _unpacked(path)
        header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(content[:NIFTI_HEADER]), check=False)
        shape = tuple(int(n) for n in header["dim"][1:4])
        promised = math.prod(shape) * header.get_data_dtype().itemsize + int(header["vox_offset"])
    except Exception:  # whatever damage does
        return "wrong"
    if shape != (COLUMNS, ROWS, sound.slices):
        return "wrong"
    return "sound" if promised == len(content) else "odd length"


def _nifti_grid(path: Path) -> Grid | None:
    """None where the header contradicts itself or the length of the file, or tells no geometry."""
    try:
        content = _unpacked(path)
        header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(content[:NIFTI_HEADER]), check=False)
        return _grid_of(header, len(content))
    except Exception:  # whatever damage does
        return None


def _grid_of(header: Any, length: int) -> Grid | None:
    shape = header.get_data_shape()
    bytes_promised = int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
    if bytes_promised != length - int(header["vox_offset"]) or int(header["bitpix"]) % 8:
        return None
    affines = _affines(header)
    if not affines or any(not np.allclose(a, affines[0], rtol=ALIKE, atol=EVEN_MM) for a in affines):
        return None
    axes = affines[0][:, :3] * UNIT_MM[int(header["xyzt_units"]) & 7]
    sizes = np.linalg.norm(axes, axis=0)
    stated = np.array(header["pixdim"][1:4], float) * UNIT_MM[int(header["xyzt_units"]) & 7]
    if not np.allclose(sizes, stated, rtol=ALIKE, atol=0):
        return None
    body = int(np.abs(axes[2] / sizes).argmax())
    return Grid(int(shape[body]), float(sizes[body]), float(np.delete(sizes, body).max()))


def _affines(header: Any) -> list[Vectors]:
    """Those of sform and qform whose code says that they count, (3, 4) each."""
    found = []
    if header["sform_code"] > 0:
        found.append(np.array([header[f"srow_{axis}"] for axis in "xyz"], float))
    if header["qform_code"] > 0:
        found.append(np.asarray(header.get_qform(), float)[:3])
    return found


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if path.name.endswith(".gz") else content
    except (OSError, EOFError, zlib.error):
        return b""
