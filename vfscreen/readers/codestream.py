"""What a compressed image says of its own size: none shall be decoded that the header does not promise."""

from __future__ import annotations

import struct

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15, and JPEG-LS
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns as JPEG, JPEG-LS (ITU-T T.81, T.87) or JPEG 2000 (T.800) data tell; None otherwise."""
    try:
        if data.startswith(_JPEG):
            return _jpeg_size(data)
        start = data[:256].find(_JPEG_2000)  # behind the boxes of a JP2 file, which some writers leave
        return None if start < 0 else _jpeg_2000_size(data[start:])
    except (struct.error, IndexError):
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack_from(">HH", data, place + 5)
            return rows, columns
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _jpeg_2000_size(data: bytes) -> tuple[int, int]:
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    return bottom - top, right - left
