"""The image of a plain DICOM file, in a fraction of the time that a parser of all of DICOM takes.

Plain are 16 bits a pixel in little endian, not compressed, and nothing behind them. What is anything
else (several frames, colours, a wrong length, a header that `header_scan` leaves to pydicom) is left to
pydicom here too: `read_plain` gives None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vfscreen.readers.header_scan import Element, Place, scan_opened

GREYSCALE = ("MONOCHROME1", "MONOCHROME2")
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
SAMPLES, COLOURS, FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
ALLOCATED, STORED, SIGNED, PADDING = 0x00280100, 0x00280101, 0x00280103, 0x00280120
PIXELS = 0x7FE00010
NUMBERS = frozenset({SAMPLES, ROWS, COLUMNS, ALLOCATED, STORED, SIGNED})
WANTED = NUMBERS | {COLOURS, FRAMES, PADDING}


class Stored(NamedTuple):
    """An image as it is stored, (rows, columns), and the value that stands for no image, if there is one."""

    values: NDArray[Any]
    padding: int | None


def read_plain(file: BinaryIO) -> Stored | None:
    """The image of a file that was opened just now; None where pydicom has to look. Raises OSError."""
    scanned = scan_opened(file, WANTED, PIXELS - 1)
    if scanned is None or scanned.syntax not in SYNTAXES or scanned.behind is None:
        return None
    numbers, place = _numbers(scanned.elements), scanned.behind
    size = os.fstat(file.fileno()).st_size
    if not (_is_plain(scanned.elements, numbers) and _is_last(place, numbers, size)):
        return None
    file.seek(place.start)
    kind = "<i2" if numbers[SIGNED] else "<u2"
    values = np.frombuffer(file.read(place.length), kind).reshape(numbers[ROWS], numbers[COLUMNS])
    unused = 16 - numbers[STORED]
    if unused:  # bits above those of the values may hold anything
        values = values << unused >> unused
    padding = np.array(numbers[PADDING], np.uint16).view(kind).item() if PADDING in numbers else None
    return Stored(values, padding)


def _numbers(elements: Mapping[int, Element]) -> dict[int, int]:
    """The elements that are one number of 16 bits; a sign is not heeded."""
    return {
        tag: int.from_bytes(value, "little")
        for tag, (vr, value) in elements.items()
        if len(value) == 2 and vr in (b"", b"US", b"SS")
    }


def _is_plain(elements: Mapping[int, Element], numbers: Mapping[int, int]) -> bool:
    if numbers.keys() - {PADDING} != NUMBERS or elements.keys() - numbers.keys() != {COLOURS}:
        return False
    return (
        elements[COLOURS][1].decode("ascii", "replace").strip(" \0") in GREYSCALE
        and (numbers[SAMPLES], numbers[ALLOCATED]) == (1, 16)
        and 1 <= numbers[STORED] <= 16
        and numbers[SIGNED] <= 1
    )


def _is_last(place: Place, numbers: Mapping[int, int], size: int) -> bool:
    """Whether an element is the image's pixels, all of them, and the last one of a file of this size."""
    return (
        place.tag == PIXELS
        and place.vr in (b"", b"OW")
        and place.length == 2 * numbers[ROWS] * numbers[COLUMNS] > 0
        and place.start + place.length == size
    )
