"""Files that appear whole or not at all, also on a share that goes away for a minute."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

PAUSES_S = (1, 5, 15, 60, 120)
PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENOTCONN", "ECONNRESET", "EREMOTEIO"),
    )
    if hasattr(errno, name)
}
"""Errors of a share that may be back soon; a full disk or a missing folder is none of them."""


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Put the content under this name, in place of what was there. Raises OSError as `write_stream` does."""

    def write(stream: IO[bytes]) -> None:
        stream.write(content)

    write_stream(path, write)


def write_stream(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Put what `write` writes under this name, once it is whole, in place of what was there.

    Raises OSError when the disk refuses; errors of a share that may pass are waited for, some minutes,
    and `write` is then called again with a new stream.
    """
    patiently(lambda: _replace(path, write), path, lambda error: error.errno in PASSING)


def patiently(attempt: Callable[[], None], place: Path, is_passing: Callable[[OSError], bool]) -> None:
    """Do what needs a place, again and again for some minutes while its errors are passing ones.

    Raises OSError as `attempt` does.
    """
    for pause_s in PAUSES_S:
        try:
            return attempt()
        except OSError as error:
            if not is_passing(error):
                raise
            reason = error.strerror or error
            log.warning("%s cannot be used (%s); the next attempt is in %d s", place, reason, pause_s)
            time.sleep(pause_s)
    attempt()


def _replace(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Let the new name reach the disk too; some systems and shares cannot."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
