"""The deformed vertebrae close by, each upright between its neighbours, with its heights."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vfscreen.report import words
from vfscreen.report.marks import COLORS, draw_grade, draw_keypoints
from vfscreen.report.panel import PLAIN, SMALL, TEXT, Panel, line_height
from vfscreen.report.scene import CROP_WIDTH_MM, Crop, Scene
from vfscreen.study import Vertebra
from vfscreen.volume import Floats

PX_PER_MM = 4
CROP_PX = round(CROP_WIDTH_MM * PX_PER_MM)  # width of a crop
CROP_GAP = 20  # px: from one to the next

_TOP = 8  # px
_CHARACTERS = 38  # of a line above a crop
_BAR_MM = 20
_BELOW = 30  # px: below a crop, for the bar


@dataclass(frozen=True)
class PlacedCrop:
    """A crop at its place in the picture, with the lines above it: all stand at one height."""

    crop: Crop
    panel: Panel
    lines: Sequence[str]

    @property
    def bottom(self) -> int:
        """Where it ends with its bar, px."""
        return self.panel.bottom + _BELOW


def placed_crops(scene: Scene, left: int) -> list[PlacedCrop]:
    """The crops of a scene side by side from `left` on, px."""
    lines = [_lines(scene.result.vertebrae[crop.number - 1]) for crop in scene.crops]
    head = line_height(PLAIN) + line_height(SMALL) * max(map(len, lines), default=0)
    placed = []
    for crop, above in zip(scene.crops, lines, strict=True):
        panel = Panel(crop.view.image, crop.view.pixel_mm, PX_PER_MM, left, _TOP + head + 6)
        placed.append(PlacedCrop(crop, panel, above))
        left += CROP_PX + CROP_GAP
    return placed


def draw_crops(picture: Image.Image, crops: Sequence[PlacedCrop], vertebrae: Sequence[Vertebra]) -> None:
    """Draw them: number, G with interval and doubts above, the heights in mm, a bar below."""
    for placed in crops:
        _draw_image(picture, placed, vertebrae)
        _draw_head(picture, placed, vertebrae[placed.crop.number - 1])


def _lines(vertebra: Vertebra) -> list[str]:
    interval = words.interval(vertebra)
    texts = [f"90 % interval: {interval}" if interval else "", *words.doubts_of(vertebra)]
    return [line for text in texts for line in textwrap.wrap(text, _CHARACTERS)]


def _draw_head(picture: Image.Image, placed: PlacedCrop, vertebra: Vertebra) -> None:
    draw, x, y = ImageDraw.Draw(picture), placed.panel.left, _TOP
    title = f"{placed.crop.number}  G {vertebra.genant_ratio:.3f}  {vertebra.grade} {vertebra.shape}"
    draw_grade(picture, np.array([x + 6, y + 9]), vertebra.grade, 6)
    draw.text((x + 18, y), title, COLORS[vertebra.grade], PLAIN)
    y += line_height(PLAIN)
    for line in placed.lines:
        draw.text((x, y), line, TEXT, SMALL)
        y += line_height(SMALL)


def _draw_image(picture: Image.Image, placed: PlacedCrop, vertebrae: Sequence[Vertebra]) -> None:
    panel, own = placed.panel, placed.crop.number - 1
    panel.paste_on(picture)
    draw = ImageDraw.Draw(picture)
    for i in range(max(own - 1, 0), min(own + 2, len(vertebrae))):
        points = panel.to_px(placed.crop.view.to_pixels(vertebrae[i].keypoints_mm))
        draw_keypoints(picture, points, vertebrae[i].grade, heights=i == own)
        if i == own:
            _write_heights(draw, points, vertebrae[i])
        else:
            _write(draw, points.mean(0), str(i + 1), "mm")
    panel.draw_bar(draw, panel.left, panel.bottom + 12, _BAR_MM)


def _write_heights(draw: ImageDraw.ImageDraw, points: Floats, vertebra: Vertebra) -> None:
    """The mm of each height at its line: the anterior one in front of it, the others behind."""
    middles = points.reshape(3, 2, 2).mean(1)
    beside = (("rm", -7), ("lm", 6), ("lm", 7))
    for middle, mm, (anchor, aside) in zip(middles, vertebra.heights_mm, beside, strict=True):
        _write(draw, middle + np.array([aside, 0]), f"{mm:.1f}", anchor)


def _write(draw: ImageDraw.ImageDraw, at: Floats, text: str, anchor: str) -> None:
    draw.text((at[0], at[1]), text, TEXT, SMALL, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
