"""Every stage of one study in one picture: to see why a result is what it is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vfscreen.localize import LocalizerInput, Track
from vfscreen.measure import grade
from vfscreen.refine import Upright, crop, to_pixels
from vfscreen.report import words
from vfscreen.report.marks import COLORS, CURVE
from vfscreen.report.panel import WINDOW_HU
from vfscreen.report.picture import spread
from vfscreen.screening import Measured
from vfscreen.settings import Settings
from vfscreen.stages import Stages
from vfscreen.straighten import Sheet, Straightened
from vfscreen.study import Detection, Vertebra
from vfscreen.volume import Floats

_DPI = 100
_INCHES = (19.0, 9.5)  # of the upper row
_CROP_INCHES = 2.4
_CROPS_IN_ROW = 7
_LABEL_MM = 9.0  # of the sheet: height of a line of labels
_BESIDE_MM = 85.0  # of the spine that the projections show, to both sides
_CHARACTERS = 72  # of a line of the text
_SHAPES = {"normal": "o", "mild": "^", "moderate": "D", "severe": "X"}
_GREY = "#8a8a8a"
_CURVE = tuple(value / 255 for value in CURVE)
_COLORS = {name: tuple(value / 255 for value in color) for name, color in COLORS.items()}


def draw_stages(stages: Stages, settings: Settings, out: Path) -> None:
    """Write the picture as PNG, as far as the study came. It shows no name and no place."""
    vertebrae = stages.measured.result.vertebrae if stages.measured else ()
    if stages.reduced is None:
        _write_error(stages, out)
        return
    crop_rows = ceil(len(vertebrae) / _CROPS_IN_ROW)
    width, upper = _INCHES
    figure = Figure((width, upper + _CROP_INCHES * 1.2 * crop_rows), dpi=_DPI, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper, max(_CROP_INCHES * 1.2 * crop_rows, 0.01)])
    above, below = parts
    coronal, sagittal, sheet, text = above.subplots(1, 4, width_ratios=[1, 1, 1.15, 1.25])
    for axes in (coronal, sagittal, sheet, text):
        axes.set_axis_off()
    if stages.track:
        _draw_projection(coronal, stages.reduced, stages.track, stages.along, patient_axis=0)
        dots = _draw_projection(sagittal, stages.reduced, stages.track, stages.along, patient_axis=1)
        bar = above.colorbar(dots, ax=[coronal, sagittal], location="bottom", shrink=0.5, pad=0.02)
        bar.set_label("localizer: presence of the spine in the slice")
    if stages.along:
        _draw_sheet(sheet, stages.along.sheet, labelled(stages, settings))
    text.text(0, 1, "\n".join(said(stages, settings)), va="top", family="monospace", fontsize=8.5)
    if stages.along and vertebrae:
        _draw_crops(below, stages.along, vertebrae, settings)
    figure.savefig(out, format="png", metadata={"Software": None})


def _write_error(stages: Stages, out: Path) -> None:
    """Where the study cannot even be read there is nothing to draw."""
    lines = said(stages, Settings())
    figure = Figure((7.0, 0.4 + 0.17 * len(lines)), dpi=_DPI)
    figure.text(0.03, 0.5, "\n".join(lines), va="center", family="monospace", fontsize=8.5)
    figure.savefig(out, format="png", metadata={"Software": None})


def _draw_projection(
    axes: Any, reduced: LocalizerInput, track: Track, along: Straightened | None, patient_axis: int
) -> Any:
    """The localizer's input as it is seen along y or x, its centre of every slice, and the curve."""
    image = reduced.image[: reduced.depth].mean(1 + patient_axis)
    spacing = reduced.geometry.voxel_sizes_mm[0]
    first = reduced.geometry.affine[[patient_axis, 2], 3] - spacing / 2
    last = first + spacing * np.array(image.shape[::-1])
    axes.imshow(image, cmap="gray", origin="lower", extent=(first[0], last[0], first[1], last[1]))
    across, z = track.centers_mm[:, patient_axis], track.centers_mm[:, 2]
    dots = axes.scatter(across, z, c=track.presence, s=16, cmap="cividis", vmin=0, vmax=1)
    if along:
        curve = along.sheet.curve.points_mm
        axes.plot(curve[:, patient_axis], curve[:, 2], color=_CURVE, lw=1.2)
    middle = float(np.median(across[track.presence >= np.median(track.presence)]))
    axes.set_xlim(max(first[0], middle - _BESIDE_MM), min(last[0], middle + _BESIDE_MM))
    axes.set_axis_on()
    axes.set_title(("1  coronal, mean along y", "1  sagittal, mean along x")[patient_axis])
    axes.set_xlabel(("x to the left, mm", "y to posterior, mm")[patient_axis])
    axes.set_ylabel("z, mm")
    return dots


Labelled = tuple[Detection, str, str | None]
"""A detection, what to say of it, and its grade if it counts."""


def labelled(stages: Stages, settings: Settings) -> list[Labelled]:
    """Every detection from cranial on: those that count, and why the others do not."""
    low = f"score not over {settings.detect.min_score:g}"
    shown: list[Labelled] = [(each, f"{each.score:.2f}  {low}", None) for each in stages.faint]
    if stages.measured:
        found = zip(stages.measured.detections, stages.measured.result.vertebrae, strict=True)
        for number, (each, vertebra) in enumerate(found, start=1):
            shown.append((each, f"{number}  score {each.score:.3f}", vertebra.grade))
        for removed in stages.measured.removed:
            shown.append((removed.detection, f"{removed.detection.score:.2f}  {removed.reason}", None))
    return sorted(shown, key=lambda each: float(each[0].keypoints[:, 0].mean()))


def _draw_sheet(axes: Any, sheet: Sheet, shown: Sequence[Labelled]) -> None:
    """The straightened sheet; boxes of what counts in the colour of its grade, others grey and dashed."""
    rows, columns = sheet.image.shape
    half, length = columns * sheet.pixel_mm / 2, rows * sheet.pixel_mm
    low, high = WINDOW_HU
    edge = -sheet.pixel_mm / 2
    axes.imshow(sheet.image, cmap="gray", vmin=low, vmax=high, extent=(-half, half, length + edge, edge))
    lines = [textwrap.wrap(says, 34) for _, says, _ in shown]
    heights = [_LABEL_MM * len(each) for each in lines]
    middles = [float(detection.keypoints[:, 0].mean()) for detection, _, _ in shown]
    tops = spread([m - h / 2 for m, h in zip(middles, heights, strict=True)], heights, 0.0, length)
    for (detection, _, its_grade), says, top, height in zip(shown, lines, tops, heights, strict=True):
        color = _COLORS[its_grade] if its_grade else _GREY
        outline = detection.keypoints[[0, 2, 4, 5, 3, 1, 0]]
        axes.plot(outline[:, 1], outline[:, 0], "-" if its_grade else "--", color=color, lw=1.2)
        middle, back = detection.keypoints[:, 0].mean(), detection.keypoints[4:, 1].mean()
        axes.plot(
            [min(back + 2, half), half + 3], [middle, top + height / 2], color=_GREY, lw=0.6, clip_on=False
        )
        axes.text(half + 5, top + height / 2, "\n".join(says), va="center", fontsize=7.5, clip_on=False)
    axes.set(xlim=(-half, half + 85), ylim=(length, 0))
    axes.set_title("2  straightened, 3  detected", loc="left")
    axes.set_axis_on()
    axes.set_xticks([-40, -20, 0, 20, 40])
    axes.set(xlabel="p to posterior, mm", ylabel="s along the curve, mm")
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_crops(figure: Any, along: Straightened, vertebrae: Sequence[Vertebra], settings: Settings) -> None:
    """What the second look saw of each vertebra: the middle sheet of its crop, keypoints and heights."""
    by = "second look" if settings.refine.enabled else "detector's keypoints"
    figure.suptitle(
        f"4  {by}: crops of {settings.refine.size * settings.refine.pixel_mm:.0f} mm", fontsize=11
    )
    rows = ceil(len(vertebrae) / _CROPS_IN_ROW)
    grid = figure.subplots(rows, _CROPS_IN_ROW, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (number, vertebra) in zip(grid.flat, enumerate(vertebrae, start=1), strict=False):
        _draw_crop(axes, along, vertebra, settings)
        ratio = f"G {vertebra.genant_ratio:.3f}"
        if vertebra.genant_ratio_sd is not None:
            ratio += f" ± {vertebra.genant_ratio_sd:.3f}"
        axes.set_title(f"{number}  {ratio}  {vertebra.grade}", fontsize=8.5)


def _draw_crop(axes: Any, along: Straightened, vertebra: Vertebra, settings: Settings) -> None:
    frame = Upright.of(vertebra.keypoints_mm)
    sheets = crop(along.column, frame, settings.refine)
    low, high = WINDOW_HU
    axes.imshow(sheets[len(sheets) // 2], cmap="gray", vmin=low, vmax=high)
    points = to_pixels(frame.to_own(vertebra.keypoints_mm), settings.refine)
    for pair in points.reshape(3, 2, 2):
        axes.plot(pair[:, 1], pair[:, 0], "-", color=_COLORS[vertebra.grade], lw=1)
    marks = {"marker": _SHAPES[vertebra.grade], "ms": 5, "mec": "black", "mew": 0.4}
    axes.plot(points[:, 1], points[:, 0], ls="", color=_COLORS[vertebra.grade], **marks)
    _write_heights(axes, points, vertebra)


def _write_heights(axes: Any, points: Floats, vertebra: Vertebra) -> None:
    """Under each of the three height lines its mm."""
    for (row, column), mm in zip(points[1::2], vertebra.heights_mm, strict=True):
        box = {"facecolor": "black", "edgecolor": "none", "pad": 1, "alpha": 0.6}
        axes.text(column, row + 4, f"{mm:.1f}", color="white", fontsize=7, ha="center", va="top", bbox=box)


def said(stages: Stages, settings: Settings) -> list[str]:
    """The result in words and numbers, or why there is none."""
    if stages.error:
        return textwrap.wrap(f"{stages.error.status}, {stages.error.code}: {stages.error}", _CHARACTERS)
    return _result(stages.measured, settings.measure.threshold) if stages.measured else []


def _result(measured: Measured, threshold: float) -> list[str]:
    result = measured.result
    lowest = result.min_genant_ratio
    lines = ["5  measured", ""]
    if lowest is None:
        lines.append("no vertebra measured")
    else:
        flag = "flagged" if lowest <= threshold else "not flagged"
        lines.append(f"lowest G {lowest:.3f}, {grade(lowest)}: {flag} at G <= {threshold:g}")
    lines += [f"status {result.status}", ""]
    if result.vertebrae:
        lines.append(" n  a         m         p         G            90 %          grade")
    for number, vertebra in enumerate(result.vertebrae, start=1):
        lines.append(f"{number:2}  {_numbers(vertebra)}  {words.interval(vertebra):12}  {vertebra.grade}")
        lines += [f"    {doubt}" for doubt in words.doubts_of(vertebra)]
    if result.vertebrae:
        lines += ["", "a, m, p: anterior, middle, posterior height, mm; ±: SD; 90 %: interval of G"]
    lines += ["", "doubts" if result.doubts else "no doubts"]
    for doubt in result.doubts:
        lines += textwrap.wrap(f"{doubt.name}: {doubt.reason}", _CHARACTERS, subsequent_indent="  ")
    return lines


def _numbers(vertebra: Vertebra) -> str:
    """Heights and G, each with its standard deviation where there was a second look."""
    sds, ratio_sd = vertebra.height_sd_mm, vertebra.genant_ratio_sd
    if sds is None or ratio_sd is None:
        heights = "".join(f"{mm:<10.1f}" for mm in vertebra.heights_mm)
        return f"{heights}{vertebra.genant_ratio:<11.3f}"
    heights = "".join(f"{mm:4.1f}±{sd:<5.1f}" for mm, sd in zip(vertebra.heights_mm, sds, strict=True))
    return f"{heights}{vertebra.genant_ratio:.3f}±{ratio_sd:.3f}"
