"""A fault: a function that writes it into a folder, and the rows that it must give."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TOPICS = ("archive", "series", "geometry", "pixels", "nifti", "values")


class NotPossible(Exception):
    """This machine cannot have the fault: root reads everything, a file system refuses a name."""


@dataclass(frozen=True)
class Failed:
    """A row without a result: its error, of several allowed ones any, and a piece of its reason."""

    error: str | tuple[str, ...]
    reason: str = ""

    def __str__(self) -> str:
        codes = self.error if isinstance(self.error, tuple) else (self.error,)
        return " or ".join(codes) + (f" '{self.reason}'" if self.reason else "")


@dataclass(frozen=True)
class Measured:
    """A row with the result of the sound study: as many vertebrae, at the same places in the patient.

    `ratio` is how far the smallest G may be off, `place_mm` a vertebra, `height_mm` a height. `doubts` are
    all that `quality` may name; what makes a study `partial` is in its `status`. `choice` is a piece of
    `series_choice`, and `columns` are further cells of the row.
    """

    ratio: float = 0.002
    place_mm: float = 0.1
    height_mm: float = 0.1
    status: str = "ok"
    doubts: frozenset[str] = frozenset()
    choice: str = ""
    columns: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(
            ["as the sound study", *([f"but {', '.join(sorted(self.doubts))}"] if self.doubts else [])]
        )


Row = Failed | Measured


@dataclass(frozen=True)
class Fault:
    """A named fault, what writes it into an empty folder, and its rows."""

    name: str
    write: Callable[[Path], None]
    rows: tuple[Row, ...]

    @property
    def folder(self) -> str:
        """The name of its folder in the archive."""
        return re.sub(r"\W+", "_", self.name).strip("_")


_FAULTS: list[Fault] = []


def fault(name: str, *rows: Row) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register the function below as what writes the fault; no rows: it must leave no trace."""

    def register(write: Callable[[Path], None]) -> Callable[[Path], None]:
        _FAULTS.append(Fault(name, write, rows))
        return write

    return register


def faults() -> list[Fault]:
    """All faults of all topics."""
    for topic in TOPICS:
        importlib.import_module(f"{__package__}.{topic}")
    names = [one.folder for one in _FAULTS]
    assert len(set(names)) == len(names), "two faults share a folder"
    return list(_FAULTS)
