"""Parameters of screening: one frozen dataclass a stage. Lengths in millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Thumbnails = Literal["flagged", "all", "none"]


@dataclass(frozen=True)
class ReadSettings:
    """Limits of the readers."""

    min_extent_mm: float = 60.0  # along the body: two vertebrae and their discs
    max_slice_spacing_mm: float = 6.0
    max_gap_mm: float = 5.0  # between two slices of an uneven stack: it would hide a crushed endplate


@dataclass(frozen=True)
class LocalizeSettings:
    """Localizer (paper, section 3.1)."""

    voxel_mm: float = 3.0
    min_presence: float = 0.5  # a slice below it holds no spine
    smoothing_mm: float = 12.0  # length over which the curve is smoothed: half a vertebra
    max_leap_mm: float = 9.0  # of the centre between neighbouring slices: a spine has no such step
    min_length_mm: float = 50.0
    beyond_mm: float = 18.0  # that the curve goes on straight at its ends, for the tilted vertebrae there


@dataclass(frozen=True)
class StraightenSettings:
    """Straightened mid-sagittal sheet (paper, section 3.2)."""

    pixel_mm: float = 1.0
    width_mm: float = 80.0
    sheet_offsets_mm: tuple[float, ...] = (-1.5, 0.0, 1.5)  # averaged: noise falls, the plane stays
    margin_mm: float = 7.0  # to both sides of the sheet that the image must show, or a body is cut


@dataclass(frozen=True)
class DetectSettings:
    """Detector (paper, section 3.3)."""

    min_score: float = 0.5
    looks: tuple[tuple[int, int], ...] = ((0, 0), (5, 3))  # shifts in (rows, columns)
    max_overlap: float = 0.2  # of two boxes (intersection over the smaller area) after suppression


@dataclass(frozen=True)
class RefineSettings:
    """Second look at each vertebra, an addition to the paper."""

    enabled: bool = True  # without it heights are those of the paper's keypoints
    pixel_mm: float = 0.6
    size: int = 96  # rows and columns of a crop: 58 mm
    sheet_offsets_mm: tuple[float, ...] = (-6.0, -3.0, 0.0, 3.0, 6.0)  # to the left
    looks_mm: tuple[tuple[float, float, float], ...] = ((-0.45, 0.45, 1), (0.45, -0.45, -1))
    metal_hu: float = 2000.0  # in the middle of a crop: a screw or dense cement


@dataclass(frozen=True)
class QualitySettings:
    """When a vertebra is not counted, and a study's result is doubted."""

    off_curve_mm: float = 3.0  # that a vertebral body may lie beside the curve
    edge_mm: float = 1.0  # round the keypoints of a vertebra that the image must show too
    coarse_edge_mm: float = 0.0  # the same before a second look, which knows the keypoints better
    min_vertebrae: int = 3  # fewer are too little to call a patient unfractured
    min_column_inside: float = 0.5  # share of the vertebral bodies' column that the image must show
    max_step: float = 1.7  # between neighbouring vertebrae, in medians of their distances
    max_end_mm: float = 76.0  # of the spine above or below the measured vertebrae
    max_slice_spacing_mm: float = 3.5  # beyond it heights are coarse
    max_move_mm: float = 8.0  # of a vertebra's middle by the second look: it saw another one
    min_apart_mm: float = 6.0  # of the middles of two vertebrae after the second look
    max_ratio_sd: float = 0.08  # of G: beyond it a grade cannot be told


@dataclass(frozen=True)
class MeasureSettings:
    """Grades of Genant's ratio G (paper, section 2)."""

    threshold: float = 0.74  # a study with a vertebra at or below it is flagged


@dataclass(frozen=True)
class Settings:
    """Everything that changes a result, and nothing that does not."""

    read: ReadSettings = field(default_factory=ReadSettings)
    localize: LocalizeSettings = field(default_factory=LocalizeSettings)
    straighten: StraightenSettings = field(default_factory=StraightenSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    refine: RefineSettings = field(default_factory=RefineSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
