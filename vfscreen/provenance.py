"""With what a result was made: versions, machine, memory, settings. No torch is imported to tell."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vfscreen import __version__

_PACKAGES = ("torch", "numpy", "scipy", "pydicom", "nibabel", "pyarrow")


def versions(*others: str) -> dict[str, str]:
    """Versions of vfscreen, Python and the packages that results depend on, and of others."""
    return {
        "vfscreen": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in (*_PACKAGES, *others)},
    }


def machine() -> dict[str, str | int]:
    """The platform and the number of CPUs this process may use."""
    return {"platform": platform.platform(), "cpus": usable_cpus()}


def usable_cpus() -> int:
    """CPUs that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mib() -> float:
    """The memory of the machine, or of the container; 16 GiB where the system does not tell."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (AttributeError, ValueError):
        return 16384.0
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()) / 2**20)
    except (OSError, ValueError):  # no container, or "max"
        return machine


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested mappings of JSON, one sentence a value."""
    before, after = _flat(earlier), _flat(now)
    names = dict.fromkeys([*after, *before])
    return [
        f"{name} was {before.get(name, 'not set')} and is now {after.get(name, 'not set')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value, ensure_ascii=False)
    return flat


def peak_memory_mib() -> dict[str, float]:
    """Most memory held so far by this process and by the largest of its ended children; empty on Windows."""
    try:
        import resource
    except ImportError:
        return {}
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    who = {"main": resource.RUSAGE_SELF, "largest_reader": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(kind).ru_maxrss / unit for name, kind in who.items()}
