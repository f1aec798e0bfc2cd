"""The picture of a study: its straightened mid-sagittal sheet with every number that was measured on it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vfscreen.measure import grade, heights_mm, ratio_interval
from vfscreen.study import Detection, Doubt, Vertebra, cranial_first
from vfscreen.volume import Floats

PX_PER_MM = 3  # of the picture, whatever the pixels of the sheet
LEFT, TOP = 40, 24  # of the sheet in the picture, px: room for the ruler and the two directions
WINDOW_HU = (-150.0, 550.0)  # black and white

LABELS, _GAP = 190, 14  # px: column of labels, from the sheet to a label
CAPTION = (380, 130)  # px: width and height
_CAPTION_CHARACTERS = 60  # of a line
_MARGIN = 6  # px: from a keypoint to the rim of its mark, at most
_FINE = 4  # marks are drawn this much larger and reduced: smooth edges
_TEXT = (225, 225, 225)
_DIM = (150, 150, 150)
_HALO = (0, 0, 0, 150)
COLORS = {  # Okabe and Ito: told apart with every kind of colour vision
    "normal": (86, 180, 233),
    "mild": (240, 228, 66),
    "moderate": (230, 159, 0),
    "severe": (213, 94, 0),
}
_SMALL, _PLAIN = ImageFont.load_default(size=12), ImageFont.load_default(size=14)

Color = tuple[int, int, int]
Line = tuple[str, "ImageFont.FreeTypeFont | ImageFont.ImageFont", Color]


def thumbnail(
    sheet_hu: NDArray[np.float32],
    pixel_mm: float,
    detections: Sequence[Detection],
    vertebrae: Sequence[Vertebra],
    threshold: float,
    doubts: Sequence[Doubt] = (),
) -> bytes:
    """The picture as PNG, `PX_PER_MM` pixels a millimetre along both axes, with no identity in it.

    `sheet_hu` is (rows, columns): along the curve to caudal from s = 0 in row 0, to posterior with
    p = 0 in the middle column; square pixels of `pixel_mm`. `vertebrae` are those that `measure`
    makes of `detections`. Every vertebra shows its keypoints, number, G and doubts; one that is not
    normal or has G <= `threshold` also its three heights, in mm of the patient, and the interval of G.
    The caption names the `doubts`. Raises ValueError where detections and vertebrae differ in number.
    """
    sheet = _Sheet(sheet_hu, pixel_mm)
    found = list(zip(cranial_first(detections), vertebrae, strict=True))
    picture = sheet.picture()
    for detection, vertebra in found:
        _mark(picture, sheet.to_px(detection.keypoints), vertebra.grade, _is_marked(vertebra, threshold))
    draw = ImageDraw.Draw(picture)
    _directions(draw, sheet)
    _rulers(draw, sheet)
    _labels(draw, sheet, found, threshold)
    _caption(draw, sheet, [*_sentences(found, threshold), *doubt_lines(doubts)])
    return _png(picture)


class _Sheet:
    """The sheet in the picture: where its millimetres lie."""

    def __init__(self, hu: NDArray[np.float32], pixel_mm: float) -> None:
        self.hu, self.pixel_mm = hu, pixel_mm
        rows, columns = hu.shape
        self.height = round(float(rows * pixel_mm * PX_PER_MM))
        self.width = round(float(columns * pixel_mm * PX_PER_MM))

    @property
    def right(self) -> int:
        return LEFT + self.width

    @property
    def bottom(self) -> int:
        return TOP + self.height

    def picture(self) -> Image.Image:
        low, high = WINDOW_HU
        grey = np.clip((np.nan_to_num(self.hu, nan=low) - low) / (high - low), 0, 1) * 255
        image = Image.fromarray(grey.round().astype(np.uint8))
        size = (max(self.right + LABELS, LEFT + CAPTION[0]), self.bottom + CAPTION[1])
        picture = Image.new("RGBA", size, (0, 0, 0, 255))
        picture.paste(image.resize((self.width, self.height), Image.Resampling.BICUBIC), (LEFT, TOP))
        return picture

    def to_px(self, points: Floats) -> Floats:
        """Sheet mm (..., 2) as (s, p) to positions (x, y) in the picture, of pixel centres."""
        s, p = np.moveaxis(np.asarray(points, float), -1, 0)
        row = s / self.pixel_mm
        column = p / self.pixel_mm + (self.hu.shape[1] - 1) / 2
        x = LEFT + (column + 0.5) * self.width / self.hu.shape[1] - 0.5
        y = TOP + (row + 0.5) * self.height / self.hu.shape[0] - 0.5
        return np.stack([x, y], -1)


Found = list[tuple[Detection, Vertebra]]


def _is_marked(vertebra: Vertebra, threshold: float) -> bool:
    return vertebra.grade != "normal" or vertebra.genant_ratio <= threshold


def _mark(picture: Image.Image, points: Floats, grade: str, marked: bool) -> None:
    """Draw the keypoints (6, 2), positions in the picture, and where `marked` the heights between them."""
    corner = np.maximum(np.floor(points.min(0)) - _MARGIN, 0).astype(int)
    size = np.maximum(np.ceil(points.max(0)) + _MARGIN - corner, 1).astype(int)
    layer = Image.new("RGBA", tuple((size * _FINE).tolist()))
    draw = ImageDraw.Draw(layer)
    points = (points - corner + 0.5) * _FINE
    for fill, rim in ((_HALO, 1.0), ((*COLORS[grade], 255), 0.0)):  # a dark rim: seen on bright bone too
        if marked:
            for superior, inferior in points.reshape(3, 2, 2):
                draw.line([tuple(superior), tuple(inferior)], fill, round((1.4 + 2 * rim) * _FINE))
        radius = ((2.8 if marked else 2.0) + rim) * _FINE
        for x, y in points:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill)
    picture.alpha_composite(layer.resize(tuple(size.tolist()), Image.Resampling.BOX), tuple(corner.tolist()))


def _directions(draw: ImageDraw.ImageDraw, sheet: _Sheet) -> None:
    draw.text((LEFT, TOP - 5), "anterior", _TEXT, _PLAIN, anchor="ls")
    draw.text((sheet.right, TOP - 5), "posterior", _TEXT, _PLAIN, anchor="rs")


def _rulers(draw: ImageDraw.ImageDraw, sheet: _Sheet) -> None:
    """A tick each 10 mm along the sheet from s = 0, and a bar of 50 mm across."""
    x = LEFT - 4
    end = sheet.hu.shape[0] * sheet.pixel_mm
    for mm in range(0, int(end) + 1, 10):
        y = sheet.to_px(np.array([mm, 0.0]))[1]
        long = mm % 50 == 0
        draw.line([(x - (9 if long else 5), y), (x, y)], fill=_TEXT if long else _DIM)
        if long:
            draw.text((x - 11, y), str(mm), _TEXT, _SMALL, anchor="rm")
    y = sheet.bottom + 14
    for mm in range(0, 51, 10):
        tick = LEFT + mm * PX_PER_MM
        draw.line([(tick, y - 4), (tick, y)], fill=_TEXT)
    draw.line([(LEFT, y), (LEFT + 50 * PX_PER_MM, y)], fill=_TEXT)
    draw.text((LEFT + 50 * PX_PER_MM + 6, y), "50 mm", _TEXT, _SMALL, anchor="lm")


def _label(number: int, vertebra: Vertebra, threshold: float) -> list[Line]:
    color = COLORS[vertebra.grade]
    ratio = f"{number}   G {vertebra.genant_ratio:.3f}"
    if not _is_marked(vertebra, threshold):
        return [(f"{ratio}  {' '.join(vertebra.doubts)}".rstrip(), _SMALL, color)]
    anterior, middle, posterior = vertebra.heights_mm
    lines: list[Line] = [
        (f"{ratio}  {vertebra.grade}", _PLAIN, color),
        (f"a {anterior:.1f}  m {middle:.1f}  p {posterior:.1f}  mm", _SMALL, _TEXT),
    ]
    if vertebra.genant_ratio_sd is not None:
        low, high = ratio_interval(vertebra.genant_ratio, vertebra.genant_ratio_sd)
        lines.append((f"90 %: G {low:.2f} to {high:.2f}", _SMALL, _TEXT))
    if vertebra.doubts:
        lines.append((", ".join(vertebra.doubts), _SMALL, color))
    return lines


def _line_height(line: Line) -> int:
    return 18 if line[1] is _PLAIN else 15


def _labels(draw: ImageDraw.ImageDraw, sheet: _Sheet, found: Found, threshold: float) -> None:
    blocks = [_label(i, vertebra, threshold) for i, (_, vertebra) in enumerate(found, start=1)]
    heights = [sum(map(_line_height, block)) for block in blocks]
    posterior = [sheet.to_px(detection.keypoints[4:].mean(0)) for detection, _ in found]
    wanted = [y - h / 2 for (_, y), h in zip(posterior, heights, strict=True)]
    tops = spread(wanted, heights, TOP, sheet.bottom)
    for block, height, top, (x, y) in zip(blocks, heights, tops, posterior, strict=True):
        text_x = sheet.right + _GAP
        middle = top + height / 2
        draw.line([(x + 6, y), (sheet.right, y), (text_x - 3, middle)], fill=_DIM)
        for line in block:
            draw.text((text_x, top), line[0], line[2], line[1])
            top += _line_height(line)


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


def _caption(draw: ImageDraw.ImageDraw, sheet: _Sheet, lines: Sequence[str]) -> None:
    y = sheet.bottom + 28
    for text in lines:
        draw.text((LEFT, y), text, _TEXT, _SMALL)
        y += 15


def _sentences(found: Found, threshold: float) -> list[str]:
    note = "straightened mid-sagittal sheet"
    if not found:
        return ["no vertebra measured", note]
    ratios = [vertebra.genant_ratio for _, vertebra in found]
    lowest = min(ratios)
    return [
        f"lowest G {lowest:.3f}, {grade(lowest)}: vertebra {ratios.index(lowest) + 1} of {len(found)}",
        f"G at or below {threshold:g}: {sum(g <= threshold for g in ratios)} of {len(found)}",
        "a, m, p: anterior, middle, posterior height in the patient",
        f"{note}: heights on it differ by up to {_stretch(found):.0%}",
    ]


def doubt_lines(doubts: Sequence[Doubt]) -> list[str]:
    """Lines of the caption: whether the study is partial, and the names of the doubts."""
    if not doubts:
        return []
    head = "partial" if any(doubt.partial for doubt in doubts) else "doubts"
    text = f"{head}: {', '.join(doubt.name for doubt in doubts)}"
    return textwrap.wrap(text, _CAPTION_CHARACTERS)


def _stretch(found: Found) -> float:
    """Largest deviation of a height on the sheet from that in the patient: the spine was bent straight."""
    return max(float(np.abs(heights_mm(d.keypoints) / v.heights_mm - 1).max()) for d, v in found)


def _png(picture: Image.Image) -> bytes:
    """256 colours are enough for greys, marks and text, and make half the file."""
    stream = io.BytesIO()
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(stream, "PNG")
    return stream.getvalue()
