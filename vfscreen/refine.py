"""Refine: a second look at each detected vertebra, upright and close, for its heights and how sure they are.

An addition to the paper: its detector finds vertebrae well and their heights coarsely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vfscreen.curve import SpineCurve
from vfscreen.measure import SPREAD_TO_SD
from vfscreen.settings import RefineSettings
from vfscreen.study import Detection, Refined
from vfscreen.volume import Floats, Volume


class RefinerNetwork(Protocol):
    """Normalised crops (n, 5, rows, columns) to keypoints and log spreads (see `networks.refiner`)."""

    def __call__(self, images: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Keypoints (n, 6, 2) in pixels and log spreads (n, 4) of a batch."""
        ...


@dataclass(frozen=True)
class Upright:
    """Where one vertebra stands: its middle (3,) and rows of `axes` (3, 3): u to posterior, v to caudal,
    w to the left; LPS mm."""

    center_mm: Floats
    axes: Floats

    @classmethod
    def of(cls, keypoints_mm: Floats) -> Upright:
        """The frame of six keypoints (6, 3): u along the endplates, v towards the lower one."""
        u = keypoints_mm[4:].mean(0) - keypoints_mm[:2].mean(0)
        u = u / np.linalg.norm(u)
        v = keypoints_mm[1::2].mean(0) - keypoints_mm[0::2].mean(0)
        v = v - (v @ u) * u
        v = v / np.linalg.norm(v)
        return cls(keypoints_mm.mean(0), np.stack([u, v, np.cross(v, u)]))

    def moved(self, by_mm: ArrayLike) -> Upright:
        """The frame moved by (u, v, w) mm along its own axes."""
        return replace(self, center_mm=self.center_mm + np.asarray(by_mm) @ self.axes)

    def to_patient(self, own_mm: Floats) -> Floats:
        """Own (u, v, w) of shape (..., 3) to LPS mm."""
        return np.asarray(own_mm) @ self.axes + self.center_mm

    def to_own(self, points_mm: Floats) -> Floats:
        """LPS mm (..., 3) to (u, v, w)."""
        return (np.asarray(points_mm) - self.center_mm) @ self.axes.T


def is_upright(keypoints_mm: Floats) -> bool:
    """Whether keypoints (6, 3) are far enough apart, front from back and top from bottom, for a frame."""
    depth = np.linalg.norm(keypoints_mm[4:].mean(0) - keypoints_mm[:2].mean(0))
    height = np.linalg.norm(keypoints_mm[1::2].mean(0) - keypoints_mm[0::2].mean(0))
    return bool(np.isfinite(keypoints_mm).all() and min(depth, height) > 1)


def crop_points(frame: Upright, settings: RefineSettings) -> Floats:
    """LPS mm of the crop's pixels, (sheets, rows, columns, 3): rows to caudal, columns to posterior."""
    at = (np.arange(settings.size) - (settings.size - 1) / 2) * settings.pixel_mm
    w, v, u = np.meshgrid(settings.sheet_offsets_mm, at, at, indexing="ij")
    return frame.to_patient(np.stack([u, v, w], -1))


def crop(volume: Volume, frame: Upright, settings: RefineSettings) -> NDArray[np.float32]:
    """HU at `crop_points`, (sheets, rows, columns)."""
    first = -(settings.size - 1) / 2 * settings.pixel_mm
    steps_mm = settings.pixel_mm * frame.axes[[1, 0]]
    shape = (settings.size, settings.size)
    return np.stack(
        [
            volume.sample_plane(frame.to_patient(np.array([first, first, w])), steps_mm, shape)
            for w in settings.sheet_offsets_mm
        ]
    )


def to_pixels(own_mm: Floats, settings: RefineSettings) -> Floats:
    """(u, v, ...) in mm to (row, column) of the crop."""
    return np.asarray(own_mm)[..., [1, 0]] / settings.pixel_mm + (settings.size - 1) / 2


def from_pixels(pixels: Floats, settings: RefineSettings) -> Floats:
    """(row, column) of the crop to (u, v, 0) in mm."""
    own = (np.asarray(pixels)[..., [1, 0]] - (settings.size - 1) / 2) * settings.pixel_mm
    return np.concatenate([own, np.zeros_like(own[..., :1])], -1)


def normalise(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU to (-1, 1), steep over bone; the same for every study."""
    return np.tanh((hu - np.float32(200)) / np.float32(400))


def refine(
    column: Volume,
    curve: SpineCurve,
    detections: Sequence[Detection],
    network: RefinerNetwork,
    settings: RefineSettings,
) -> tuple[Refined, ...]:
    """The second look at each detection of one study, in their order.

    `column` is the CT round the spine. The first look stands upright by the detector's keypoints, the
    others by those of the first, moved by some tenths of a millimetre; their mean is taken.
    """
    if not detections:
        return ()
    frames = [Upright.of(curve.sheet_to_patient(d.keypoints)) for d in detections]
    found, _, _ = _look(column, frames, network, settings)
    upright = [
        Upright.of(points) if is_upright(points) else frame
        for points, frame in zip(found, frames, strict=True)
    ]
    looks = [_look(column, [f.moved(by) for f in upright], network, settings) for by in settings.looks_mm]
    keypoints, spreads = (np.mean([look[i] for look in looks], axis=0) for i in (0, 1))
    with_metal = np.any([look[2] for look in looks], axis=0)
    return tuple(
        Refined(points, SPREAD_TO_SD * spread[:3], float(SPREAD_TO_SD * spread[3]), bool(metal))
        for points, spread, metal in zip(keypoints, spreads, with_metal, strict=True)
    )


def _look(
    column: Volume, frames: Sequence[Upright], network: RefinerNetwork, settings: RefineSettings
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Keypoints (n, 6, 3) in LPS mm, spreads (n, 4), and whether the crop holds metal (n,)."""
    crops = np.stack([crop(column, frame, settings) for frame in frames])
    pixels, log_spreads = network(normalise(crops))
    own = [from_pixels(each, settings) for each in pixels]
    keypoints = np.stack([frame.to_patient(points) for frame, points in zip(frames, own, strict=True)])
    quarter = settings.size // 4
    middle = crops[:, :, quarter:-quarter, quarter:-quarter]
    with_metal = np.asarray((middle > settings.metal_hu).any((1, 2, 3)))
    return keypoints, np.exp(log_spreads), with_metal


def on_sheet(refined: Refined, curve: SpineCurve) -> Floats:
    """The refined keypoints (6, 2) as the straightened sheet shows them, (s, p) in mm.

    Raises ValueError where they lie so far from the curve that the sheet does not show them.
    """
    return curve.to_straightened(refined.keypoints_mm)[:, :2]
