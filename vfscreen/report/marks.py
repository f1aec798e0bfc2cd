"""Marks of the picture: grades by colour and by shape, keypoints, heights. Positions are (x, y) in px."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vfscreen.volume import Floats

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {  # Okabe and Ito: told apart with every kind of colour vision
    "normal": (86, 180, 233),
    "mild": (240, 228, 66),
    "moderate": (230, 159, 0),
    "severe": (213, 94, 0),
}
CURVE: Color = (204, 121, 167)  # theirs too

_RIM = (0, 0, 0, 170)  # dark round every mark: seen on bright bone too
_FINE = 4  # marks are drawn this much larger and reduced: smooth edges
_ROUND = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_ROUND), np.sin(_ROUND)])
_ARM = np.array([(0.35, -0.35), (0.35, -1.2), (-0.35, -1.2)])  # from its inner corner to its end
_CROSS = np.concatenate([_ARM @ np.linalg.matrix_power([[0, -1], [1, 0]], turn) for turn in range(4)])
_SHAPES: dict[str, Floats] = {  # outlines (n, 2) of marks of radius 1, as large to the eye as each other
    "dot": _CIRCLE,
    "normal": 0.85 * _CIRCLE,
    "mild": np.array([(0, -1.0), (1.0, 0.75), (-1.0, 0.75)]),
    "moderate": 1.15 * np.array([(0, -1.0), (1, 0), (0, 1), (-1, 0)]),
    "severe": _CROSS @ [[0.75, 0.75], [-0.75, 0.75]],
}


def draw_grade(picture: Image.Image, center: Floats, grade: str, radius: float) -> None:
    """The mark of a grade: circle, triangle, diamond or cross, its middle at `center` (2,)."""
    _stamp(picture, center, grade, grade, radius)


def draw_keypoints(picture: Image.Image, points: Floats, grade: str, heights: bool) -> None:
    """The six keypoints (6, 2) as dots, where `heights` larger and with the three heights between them."""
    if heights:
        _draw_heights(picture, points, grade)
    for point in points:
        _stamp(picture, point, "dot", grade, 2.8 if heights else 2.0)


def _draw_heights(picture: Image.Image, points: Floats, grade: str) -> None:
    corner = np.maximum(np.floor(points.min(0)) - 4, 0)
    size = np.maximum(np.ceil(points.max(0)) + 4 - corner, 1)
    layer = Image.new("RGBA", _whole(size * _FINE))
    draw = ImageDraw.Draw(layer)
    pairs = [tuple(point) for point in (points - corner + 0.5) * _FINE]
    for fill, width in ((_RIM, 3.4), ((*COLORS[grade], 255), 1.4)):
        for upper, lower in zip(pairs[::2], pairs[1::2], strict=True):
            draw.line([upper, lower], fill, round(width * _FINE))
    picture.alpha_composite(layer.reduce(_FINE), _whole(corner))


def _stamp(picture: Image.Image, center: Floats, shape: str, grade: str, radius: float) -> None:
    """Lay a mark over the picture, to a quarter of a pixel; what lies outside is left out."""
    fine = np.rint((np.asarray(center) + 0.5) * _FINE)
    whole = fine // _FINE
    stamp = _made_stamp(shape, COLORS[grade], radius, _whole(fine - whole * _FINE))
    corner = whole - stamp.width // 2
    if (corner >= 0).all() and (corner + stamp.width <= picture.size).all():
        picture.alpha_composite(stamp, _whole(corner))


@lru_cache(maxsize=1000)
def _made_stamp(shape: str, color: Color, radius: float, phase: tuple[int, int]) -> Image.Image:
    """A mark on transparent ground, its middle `phase` quarters of a pixel beyond that of the square."""
    half = int(radius * 1.3) + 3
    image = Image.new("RGBA", (2 * half * _FINE, 2 * half * _FINE))
    draw = ImageDraw.Draw(image)
    outline = half * _FINE + np.array(phase) + radius * _FINE * _SHAPES[shape] - 0.5
    points = [tuple(point) for point in outline]
    draw.polygon(points, _RIM)
    draw.line([*points, *points[:2]], _RIM, 2 * _FINE, joint="curve")
    draw.polygon(points, (*color, 255))
    return image.reduce(_FINE)


def _whole(values: Floats) -> tuple[int, int]:
    return int(values[0]), int(values[1])
