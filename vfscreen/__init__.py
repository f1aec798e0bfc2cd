"""vfscreen: vertebral fractures in lung-screening CT, from an archive to tables.

Three lines for one study:

    import vfscreen
    result = vfscreen.screen("study/")
    print(result.min_genant_ratio, [v.heights_mm for v in result.vertebrae])
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Settings": "vfscreen.settings",
    "StudyResult": "vfscreen.study",
    "VfscreenError": "vfscreen.errors",
    "Volume": "vfscreen.volume",
    "genant_ratio": "vfscreen.measure",
    "grade": "vfscreen.measure",
    "load_models": "vfscreen.networks.weights",
    "read_volume": "vfscreen.readers",
    "run": "vfscreen.pipeline",
    "screen": "vfscreen.screening",
}

# loaded on first use, so that readers and `--help` start without torch
__all__ = [
    "Settings",
    "StudyResult",
    "VfscreenError",
    "Volume",
    "genant_ratio",
    "grade",
    "load_models",
    "read_volume",
    "run",
    "screen",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vfscreen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
