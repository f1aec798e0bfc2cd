"""What the readers share: the range of HU, and how errors of other libraries are caught and named."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST_HU, HIGHEST_HU = -1024, 32767
"""What lies below air is padding; the upper end is that of int16."""

LONGEST_MM = 3000.0
"""Of an image along an axis: what is longer is no body, or in another unit than the header says."""
LARGEST_VOXELS = 2**32
"""Of a volume: four whole bodies in slices of 0.5 mm. What is more is a damaged header."""

DAMAGE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""What parsers and decoders raise on damaged files, beside errors of their own."""


def to_hu(values: NDArray[Any]) -> NDArray[np.int16]:
    """Numbers, none of them NaN, as HU: rounded, clipped to the range, int16, of the same shape."""
    return np.asarray(np.clip(np.rint(values), LOWEST_HU, HIGHEST_HU), np.int16)


def cause(error: BaseException) -> str:
    """An error in words that are safe to show: its text is left out, for it may repeat a header's."""
    return getattr(error, "strerror", None) or type(error).__name__
