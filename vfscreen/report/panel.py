"""One image of the CT within the picture, true to scale, with its rulers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vfscreen.report.marks import Color
from vfscreen.volume import Floats

WINDOW_HU = (-200.0, 700.0)  # black and white: marrow, endplates and discs told apart, the cortex not burnt

TEXT: Color = (225, 225, 225)
DIM: Color = (150, 150, 150)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SMALL, PLAIN = ImageFont.load_default(size=12), ImageFont.load_default(size=14)


def line_height(font: Font) -> int:
    """From one line of text to the next, px."""
    return 18 if font is PLAIN else 15


class Panel:
    """An image (rows, columns) of HU with square pixels of `pixel_mm` at (left, top) of the picture, in px.

    It has `px_per_mm` pixels of the picture to a millimetre, whatever its own.
    """

    def __init__(self, hu: NDArray[np.float32], pixel_mm: float, px_per_mm: int, left: int, top: int) -> None:
        self.hu, self.px_per_mm, self.left, self.top = hu, px_per_mm, left, top
        self.height, self.width = (round(float(n * pixel_mm * px_per_mm)) for n in hu.shape)

    @property
    def right(self) -> int:
        """One past the last column, px."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """One past the last row, px."""
        return self.top + self.height

    def to_px(self, pixels: Floats) -> Floats:
        """Fractional (row, column) of the image, (..., 2), to (x, y) of the picture; pixel centres."""
        row, column = np.moveaxis(np.asarray(pixels, float), -1, 0)
        x = self.left + (column + 0.5) * self.width / self.hu.shape[1] - 0.5
        y = self.top + (row + 0.5) * self.height / self.hu.shape[0] - 0.5
        return np.stack([x, y], -1)

    def paste_on(self, picture: Image.Image) -> None:
        """The image in the window for bone; what is no number is black."""
        low, high = WINDOW_HU
        grey = np.clip((np.nan_to_num(self.hu, nan=low) - low) / (high - low), 0, 1) * 255
        image = Image.fromarray(grey.round().astype(np.uint8))
        size = (self.width, self.height)
        picture.paste(image.resize(size, Image.Resampling.BICUBIC), (self.left, self.top))

    def draw_head(self, draw: ImageDraw.ImageDraw, title: str) -> None:
        """What the panel is, its two directions, and a bar of 50 mm."""
        draw.text((self.left, self.top - 44), title, TEXT, PLAIN, anchor="ls")
        draw.text((self.left, self.top - 24), "anterior", DIM, SMALL, anchor="ls")
        draw.text((self.right, self.top - 24), "posterior", DIM, SMALL, anchor="rs")
        self.draw_bar(draw, self.left, self.top - 8, 50)

    def draw_bar(self, draw: ImageDraw.ImageDraw, x: int, y: int, length_mm: int) -> None:
        """A bar with a tick each 10 mm, from (x, y) to the right."""
        end = x + length_mm * self.px_per_mm
        for tick in range(x, end + 1, 10 * self.px_per_mm):
            draw.line([(tick, y - 4), (tick, y)], fill=TEXT)
        draw.line([(x, y), (end, y)], fill=TEXT)
        draw.text((end + 6, y), f"{length_mm} mm", TEXT, SMALL, anchor="lm")

    def draw_ruler(self, draw: ImageDraw.ImageDraw, marks_mm: range, row: Callable[[float], float]) -> None:
        """A tick for each mark left of the panel, long and numbered each 50 mm; `row` is where a mark is."""
        x = self.left - 4
        for mm in marks_mm:
            y = self.to_px(np.array([row(mm), 0.0]))[1]
            long = mm % 50 == 0
            draw.line([(x - (9 if long else 5), y), (x, y)], fill=TEXT if long else DIM)
            if long:
                draw.text((x - 11, y), str(mm), TEXT, SMALL, anchor="rm")
