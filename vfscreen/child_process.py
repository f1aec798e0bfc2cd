"""What the processes of a run have in common: their end, and their memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def end_with_parent() -> None:
    """From now on end when the parent has gone: whoever kills a run must not leave its children behind."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def keep_freed_memory() -> None:
    """From now on keep what is freed for the next study, as far as the C library is GNU's.

    Fresh pages from the system cost a volume of 150 MB as much as reading it. RLIMIT_DATA counts them alike.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
