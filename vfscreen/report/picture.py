"""The picture of a study: straightened and true sagittal image, every vertebra's numbers, crops, words.

ruler | straightened | labels | ruler | sagittal | crops of the deformed
                                                  | what was found, doubts, legend
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vfscreen.report import words
from vfscreen.report.crops import CROP_GAP, CROP_PX, draw_crops, placed_crops
from vfscreen.report.marks import COLORS, CURVE, Color, draw_grade, draw_keypoints
from vfscreen.report.panel import DIM, PLAIN, SMALL, TEXT, Font, Panel, line_height
from vfscreen.report.scene import Scene, is_deformed
from vfscreen.settings import StraightenSettings
from vfscreen.study import Vertebra

PX_PER_MM = 3  # of both large images
LEFT, TOP = 40, 62  # of the straightened image in the picture, px
SHEET_WIDTH = round(StraightenSettings.width_mm * PX_PER_MM)  # px, unless the settings are others
LABELS = 196  # px: right of the straightened image

_GAP = 14  # px: from the straightened image to a label
_RULER = 44  # px
_BESIDE = 26  # px: from the sagittal image to the column at the right
_TEXT_WIDTHS = (440, 600)  # px: of the lines there, at least and at most
_CHARACTER = 6.2  # px: of a small letter, about
_PARAGRAPH = 8  # px: below each
_BOTTOM = 14  # px: below all

Line = tuple[str, Font, Color]


def draw_picture(scene: Scene) -> bytes:
    """The picture as PNG, with no identity in it.

    Both large images have `PX_PER_MM` pixels a millimetre along both axes, the crops
    `crops.PX_PER_MM`. Raises ValueError where detections and vertebrae of the scene differ in number.
    """
    sheet = Panel(scene.sheet.image, scene.sheet.pixel_mm, PX_PER_MM, LEFT, TOP)
    view = scene.sagittal
    sagittal = Panel(view.image, view.pixel_mm, PX_PER_MM, sheet.right + LABELS + _RULER, TOP)
    beside = sagittal.right + _BESIDE
    width = max(_TEXT_WIDTHS[0], len(scene.crops) * (CROP_PX + CROP_GAP))
    crops = placed_crops(scene, beside)
    below_crops = max((crop.bottom for crop in crops), default=0) + _PARAGRAPH
    paragraphs = _paragraphs(scene, min(width, _TEXT_WIDTHS[1]))
    end = below_crops + sum(paragraph.height for paragraph in paragraphs)
    height = max(sheet.bottom, sagittal.bottom, end) + _BOTTOM
    picture = Image.new("RGBA", (beside + width, height), (0, 0, 0, 255))
    _draw_sheet(picture, sheet, scene)
    _draw_sagittal(picture, sagittal, scene)
    draw_crops(picture, crops, scene.result.vertebrae)
    _draw_words(picture, paragraphs, beside, below_crops)
    return _png(picture)


def _draw_sheet(picture: Image.Image, panel: Panel, scene: Scene) -> None:
    panel.paste_on(picture)
    for detection, vertebra in zip(scene.detections, scene.result.vertebrae, strict=True):
        points = panel.to_px(scene.sheet.to_pixels(detection.keypoints))
        draw_keypoints(picture, points, vertebra.grade, is_deformed(vertebra, scene.threshold))
    draw = ImageDraw.Draw(picture)
    panel.draw_head(draw, "straightened along the spine")
    length = int(len(scene.sheet.image) * scene.sheet.pixel_mm)
    panel.draw_ruler(draw, range(0, length + 1, 10), lambda mm: mm / scene.sheet.pixel_mm)
    _draw_labels(picture, panel, scene)


def _draw_sagittal(picture: Image.Image, panel: Panel, scene: Scene) -> None:
    view, vertebrae = scene.sagittal, scene.result.vertebrae
    panel.paste_on(picture)
    curve = panel.to_px(view.to_pixels(scene.sheet.curve.points_mm))
    shown = curve[(curve[:, 1] > panel.top) & (curve[:, 1] < panel.bottom)]
    ImageDraw.Draw(picture, "RGBA").line(shown.ravel().tolist(), (*CURVE, 170))
    for vertebra in vertebrae:
        points = panel.to_px(view.to_pixels(vertebra.keypoints_mm))
        draw_keypoints(picture, points, vertebra.grade, is_deformed(vertebra, scene.threshold))
    draw = ImageDraw.Draw(picture)
    for number, vertebra in enumerate(vertebrae, start=1):
        x, y = panel.to_px(view.to_pixels(vertebra.center_mm))
        draw_grade(picture, np.array([x, y]), vertebra.grade, 5)
        draw.text((x + 9, y), str(number), TEXT, PLAIN, anchor="lm", stroke_width=2, stroke_fill=(0, 0, 0))
    panel.draw_head(draw, "true sagittal along the curve; ruler: z in mm")
    highest = view.first_mm[2]
    lowest = highest - len(view.image) * view.pixel_mm
    tens = range(int(np.ceil(lowest / 10)) * 10, int(highest) + 1, 10)
    panel.draw_ruler(draw, tens, lambda mm: (highest - mm) / view.pixel_mm)


def _label(number: int, vertebra: Vertebra, threshold: float) -> list[Line]:
    color = COLORS[vertebra.grade]
    title = f"{number}  G {vertebra.genant_ratio:.3f}"
    interval = words.interval(vertebra)
    named = ", ".join(vertebra.doubts)
    if is_deformed(vertebra, threshold):
        lines: list[Line] = [(f"{title}  {vertebra.grade}", PLAIN, color)]
        if interval:
            lines.append((f"G {interval} (90 %)", SMALL, TEXT))
        lines.append((words.heights(vertebra), SMALL, TEXT))
    else:
        lines = [(f"{title}  ({interval})" if interval else title, SMALL, color)]
        lines.append((words.heights(vertebra), SMALL, DIM))
    return [*lines, (named, SMALL, TEXT)] if named else lines


def _draw_labels(picture: Image.Image, panel: Panel, scene: Scene) -> None:
    vertebrae = scene.result.vertebrae
    draw = ImageDraw.Draw(picture)
    blocks = [_label(i, vertebra, scene.threshold) for i, vertebra in enumerate(vertebrae, start=1)]
    heights = [sum(line_height(font) for _, font, _ in block) for block in blocks]
    posterior = [panel.to_px(scene.sheet.to_pixels(d.keypoints[4:].mean(0))) for d in scene.detections]
    wanted = [y - h / 2 for (_, y), h in zip(posterior, heights, strict=True)]
    tops = spread(wanted, heights, panel.top, panel.bottom)
    x = panel.right + _GAP
    for block, height, top, (from_x, y), vertebra in zip(
        blocks, heights, tops, posterior, vertebrae, strict=True
    ):
        draw.line([(from_x + 6, y), (panel.right, y), (x - 3, top + height / 2)], fill=DIM)
        draw_grade(picture, np.array([x + 6, top + line_height(block[0][1]) / 2]), vertebra.grade, 5)
        for text, font, color in block:
            draw.text((x + 16, top), text, color, font)
            top += line_height(font)


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Tops of labels between `low` and `high`, close to the rising `wanted` ones and none over another."""
    tops: list[float] = []
    for top, height in zip(wanted, heights, strict=True):
        tops.append(max(top, low))
        low = tops[-1] + height
    for i in reversed(range(len(tops))):
        tops[i] = min(tops[i], high - heights[i])
        high = tops[i]
    return tops


@dataclass(frozen=True)
class _Paragraph:
    """Lines of one font and colour; each that is about a grade has its mark before it."""

    lines: Sequence[str]
    font: Font = SMALL
    color: Color = TEXT
    grades: Sequence[str] = ()

    @property
    def height(self) -> int:
        return len(self.lines) * line_height(self.font) + (_PARAGRAPH if self.lines else 0)


def _paragraphs(scene: Scene, width: int) -> list[_Paragraph]:
    """What was found, what is doubtful, the legend and how to read the picture."""

    def wrapped(texts: Iterable[str], font: Font = SMALL) -> list[str]:
        characters = int(width / (_CHARACTER * line_height(font) / line_height(SMALL)))
        return [line for text in texts for line in textwrap.wrap(text, characters, subsequent_indent="  ")]

    return [
        _Paragraph(wrapped(words.findings(scene), PLAIN), PLAIN),
        _Paragraph(wrapped(words.doubts(scene))),
        _Paragraph(list(words.GRADE_LIMITS.values()), grades=list(words.GRADE_LIMITS)),
        _Paragraph(wrapped(words.notes(scene)), color=DIM),
    ]


def _draw_words(picture: Image.Image, paragraphs: Sequence[_Paragraph], x: int, y: int) -> None:
    draw = ImageDraw.Draw(picture)
    for paragraph in paragraphs:
        top = y
        for i, line in enumerate(paragraph.lines):
            if paragraph.grades:
                draw_grade(picture, np.array([x + 6, top + 8]), paragraph.grades[i], 5)
            color = COLORS[paragraph.grades[i]] if paragraph.grades else paragraph.color
            draw.text((x + (20 if paragraph.grades else 0), top), line, color, paragraph.font)
            top += line_height(paragraph.font)
        y += paragraph.height


def _palette() -> Image.Image:
    """Greys, and each colour of a mark on its way to black and to white: a fixed one is fast."""
    greys = [(i, i, i) for i in np.linspace(0, 255, 128).round().astype(int)]
    shades = [
        tuple((np.array(color) * share + white * 200 * (1 - share)).astype(int))
        for color in (*COLORS.values(), CURVE)
        for white in (0, 1)
        for share in np.linspace(1 / 12, 1, 12)
    ]
    image = Image.new("P", (1, 1))
    image.putpalette([int(value) for color in (*greys, *shades) for value in color])
    return image


_PALETTE = _palette()


def _png(picture: Image.Image) -> bytes:
    """256 colours are enough for greys, marks and text, and make half the file."""
    stream = io.BytesIO()
    indexed = picture.convert("RGB").quantize(palette=_PALETTE, dither=Image.Dither.NONE)
    indexed.save(stream, "PNG", compress_level=4)
    return stream.getvalue()
