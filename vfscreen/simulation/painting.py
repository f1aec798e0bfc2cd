"""Structures given by implicit surfaces in patient millimetres, painted one over the other on any grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vfscreen.volume import AIR_HU, Floats

Field = NDArray[np.float32]
Block = tuple[slice, slice, slice]
Depth = Callable[[Field, Field, Field], Field]
"""Depth below the surface in mm at LPS (x, y, z), broadcastable to (z, y, x): positive inside."""


@dataclass(frozen=True)
class Structure:
    """One tissue: where it is, and its HU, a number or a function of LPS (x, y, z) mm.

    `box_mm` (3, 2) bounds it in x, y, z.
    """

    depth: Depth
    hu: float | Callable[[Field, Field, Field], Field]
    box_mm: Floats = field(default_factory=lambda: np.array([[-np.inf, np.inf]] * 3))


@dataclass(frozen=True)
class SampleGrid:
    """Planes of constant z (mm, ascending), rows of constant y, columns of x.

    `shift_x_mm` moves each plane along x, so that a thin slab can follow a scoliotic spine.
    """

    z_mm: Floats
    y_mm: Floats
    x_mm: Floats
    shift_x_mm: Floats | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows, columns."""
        return len(self.z_mm), len(self.y_mm), len(self.x_mm)

    @property
    def shift(self) -> Floats:
        """Shift of each plane along x, (nz,), mm."""
        return np.zeros(len(self.z_mm)) if self.shift_x_mm is None else self.shift_x_mm

    @property
    def edge_mm(self) -> float:
        """Width over which an edge is softened: the distance of the rows, at least half a millimetre."""
        return max(float(np.diff(self.y_mm[:2])[0]), 0.5)

    def block(self, box_mm: Floats) -> Block | None:
        """The part of the grid inside a box of x, y, z ranges; None where they do not meet."""
        z = _range(self.z_mm, *box_mm[2])
        shift = self.shift[z]
        if not len(shift):
            return None
        low, high = box_mm[0]
        block = z, _range(self.y_mm, *box_mm[1]), _range(self.x_mm, low - shift.max(), high - shift.min())
        return block if all(s.stop > s.start for s in block) else None

    def points(self, block: Block) -> tuple[Field, Field, Field]:
        """LPS x (z, 1, x), y (1, y, 1) and z (z, 1, 1) of a block, mm."""
        z, y, x = block
        xs = self.x_mm[x][None, None, :] + self.shift[z][:, None, None]
        ys, zs = self.y_mm[y][None, :, None], self.z_mm[z][:, None, None]
        return xs.astype(np.float32), ys.astype(np.float32), zs.astype(np.float32)


def paint(structures: Sequence[Structure], grid: SampleGrid) -> Field:
    """HU of the structures on a grid, float32 (z, y, x): later ones cover earlier ones; around is air."""
    hu = np.full(grid.shape, AIR_HU, np.float32)
    soft = np.float32(grid.edge_mm)
    for structure in structures:
        block = grid.block(structure.box_mm)
        if block is None:
            continue
        points = grid.points(block)
        share = np.clip(structure.depth(*points) / soft + np.float32(0.5), 0, 1)
        value = structure.hu(*points) if callable(structure.hu) else np.float32(structure.hu)
        hu[block] += share * (value - hu[block])
    return hu


def ellipsoid(center: ArrayLike, radii: ArrayLike, hu: float) -> Structure:
    """An ellipsoid along the patient's axes, mm."""
    c, r = np.asarray(center, np.float32), np.asarray(radii, np.float32)

    def depth(x: Field, y: Field, z: Field) -> Field:
        q = ((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((z - c[2]) / r[2]) ** 2
        return (1 - np.sqrt(q)) * r.min()

    return Structure(depth, hu, np.stack([c - r - 3, c + r + 3], 1))


def tube(ends: Floats, radius: float, hu: float) -> Structure:
    """A straight tube between two points, (2, 3) LPS mm, with round ends."""
    start, way = ends[0].astype(np.float32), (ends[1] - ends[0]).astype(np.float32)
    length2 = np.float32(max(way @ way, 1e-6))

    def depth(x: Field, y: Field, z: Field) -> Field:
        t = (x - start[0]) * way[0] + (y - start[1]) * way[1] + (z - start[2]) * way[2]
        t = np.clip(t / length2, 0, 1)
        q = sum((p - s - t * w) ** 2 for p, s, w in zip((x, y, z), start, way, strict=True))
        return radius - np.sqrt(q)

    low, high = ends.min(0) - radius - 3, ends.max(0) + radius + 3
    return Structure(depth, hu, np.stack([low, high], 1))


def texture(rng: np.random.Generator, wavelength_mm: float, amplitude: float) -> Depth:
    """A smooth random function of position: five plane waves about this long, of this amplitude."""
    k = rng.normal(size=(5, 3)).astype(np.float32) * np.float32(2 * np.pi / wavelength_mm / 1.7)
    phase = rng.uniform(0, 2 * np.pi, 5).astype(np.float32)
    scale = np.float32(amplitude * 0.63)

    def value(x: Field, y: Field, z: Field) -> Field:
        waves = (np.cos(k[i, 0] * x + k[i, 1] * y + k[i, 2] * z + phase[i]) for i in range(5))
        return np.asarray(sum(waves), np.float32) * scale

    return value


def _range(axis: Floats, low: float, high: float) -> slice:
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, side="right")))
