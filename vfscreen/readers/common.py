"""What the readers share: the range of HU, and how errors of other libraries are caught and named."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST_HU, HIGHEST_HU = -1024, 32767
"""What lies below air is padding; the upper end is that of int16."""

LARGEST_EXACT = 2**24
"""To here float32 holds every integer."""

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


def rescaled(stored: NDArray[Any], slope: np.float32, intercept: np.float32) -> NDArray[np.int16]:
    """`to_hu` of slope * stored + intercept; in integers, which is faster, where that gives the same."""
    is_short = stored.dtype.kind in "iu" and stored.itemsize <= 2
    if is_short and slope == 1 and intercept.is_integer() and abs(intercept) < LARGEST_EXACT:
        values = np.add(stored, int(intercept), dtype=np.int32)
        return np.clip(values, LOWEST_HU, HIGHEST_HU, out=values).astype(np.int16)
    return to_hu(stored * slope + intercept)


def cause(error: BaseException) -> str:
    """An error in words that are safe to show: its text is left out, for it may repeat a header's."""
    return getattr(error, "strerror", None) or type(error).__name__
