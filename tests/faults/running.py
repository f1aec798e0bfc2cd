"""The archive of all faults, one run of the installed command over it, and what became of each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faults.registry import Failed, Fault, Measured, NotPossible, Row
from faults.sound import sound
from faults.writing import save, slices

SOUND = ("0 sound", "m sound", "zz sound")
"""Folders of studies without a fault, which lie before, among and behind the others."""
HEIGHTS = ["height_anterior_mm", "height_middle_mm", "height_posterior_mm"]
CENTER = ["center_x_mm", "center_y_mm", "center_z_mm"]
OPTIONS = ("--workers", "2", "--thumbnails", "none", "--threshold", "1", "--device", "cpu")


@dataclass
class Run:
    """An archive, its result folder, and the rows of each of its folders."""

    archive: Path
    out: Path
    done: subprocess.CompletedProcess[str]
    not_possible: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.studies = pd.read_parquet(self.out / "studies.parquet")
        self.vertebrae = pd.read_parquet(self.out / "vertebrae.parquet")
        folders = self.studies.source.str.split("/").str[0]
        self.rows = {str(folder): list(rows.index) for folder, rows in self.studies.groupby(folders)}

    def _row(self, index: int) -> pd.Series[Any]:
        found = self.studies.loc[index]
        assert isinstance(found, pd.Series)
        return found

    def vertebrae_of(self, index: int) -> pd.DataFrame:
        """From head to feet."""
        of_study = self.vertebrae[self.vertebrae.study_id == self.studies.study_id[index]]
        return pd.DataFrame(of_study.sort_values("center_z_mm", ascending=False, ignore_index=True))

    def found(self, folder: str) -> list[str]:
        """The rows of a folder in short."""
        return [_short(self._row(index)) for index in self.rows.get(folder, [])]

    def differences(self, fault: Fault) -> list[str]:
        """What is not as the fault's rows say; none if all is right."""
        left = list(self.rows.get(fault.folder, []))
        problems = []
        if len(left) != len(fault.rows):
            problems.append(f"{len(left)} rows instead of {len(fault.rows)}: {self.found(fault.folder)}")
        for row in fault.rows:
            against = {index: self._against(row, index) for index in left}
            if against:
                best = min(left, key=lambda index: len(against[index]))
                problems += against[best]
                left.remove(best)
        return problems

    def _against(self, row: Row, index: int) -> list[str]:
        found = self._row(index)
        problems = _failure(row, found) if isinstance(row, Failed) else self._result(row, index)
        return [f"{problem} ({_short(found)})" for problem in problems]

    def _result(self, row: Measured, index: int) -> list[str]:
        found = self._row(index)
        if found.status != row.status or set(found.quality) != set(row.doubts):
            wanted = f"{row.status} {sorted(row.doubts)}"
            return [f"wanted {wanted}, found {found.status} {sorted(found.quality)}"]
        problems = [
            f"{name} is {found[name]!r} instead of {value!r}"
            for name, value in row.columns.items()
            if not _same(found[name], value)
        ]
        if row.choice and row.choice not in str(found.series_choice):
            problems.append(f"'{row.choice}' is not in '{found.series_choice}'")
        return problems + self._beside_sound(row, index)

    def _beside_sound(self, row: Measured, index: int) -> list[str]:
        """How the vertebrae differ from those of the first sound study."""
        wanted, found = self.vertebrae_of(self.rows[SOUND[0]][0]), self.vertebrae_of(index)
        if len(found) != len(wanted):
            return [f"{len(found)} vertebrae instead of {len(wanted)}"]
        limits = (
            ("smallest G", row.ratio, found.genant_ratio.min() - wanted.genant_ratio.min()),
            ("place, mm", row.place_mm, np.linalg.norm(found[CENTER] - wanted[CENTER], axis=1)),
            ("height, mm", row.height_mm, found[HEIGHTS] - wanted[HEIGHTS]),
        )
        off = [(name, limit, float(np.abs(np.asarray(value)).max())) for name, limit, value in limits]
        return [f"{name} off by {value:.3f}, {limit} allowed" for name, limit, value in off if value > limit]


def _failure(row: Failed, found: pd.Series[Any]) -> list[str]:
    codes = row.error if isinstance(row.error, tuple) else (row.error,)
    if found.error not in codes or found.status not in ("failed", "skipped"):
        return [f"wanted {row}"]
    return [] if row.reason in found.reason else [f"'{row.reason}' is not in the reason"]


def _same(found: object, wanted: object) -> bool:
    if wanted is None:
        return bool(pd.isna(found))  # type: ignore[call-overload]
    return bool(np.isclose(found, wanted)) if isinstance(wanted, float) else found == wanted  # type: ignore[call-overload]


def _short(found: pd.Series[Any]) -> str:
    if found.status in ("failed", "skipped"):
        return f"{found.status} {found.error}: {found.reason}"
    doubts = ", ".join(found.quality)
    return f"{found.status} {doubts} {found.n_vertebrae:.0f} vertebrae, G {found.min_genant_ratio:.3f}"


def screened(faults: Sequence[Fault], folder: Path) -> Run:
    """The faults and the sound studies written below a folder and screened by one command."""
    archive = folder / "archive"
    for name in SOUND:
        save(slices(sound()), archive / name)
    not_possible = {}
    for fault in faults:
        (archive / fault.folder).mkdir(parents=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's, about what is wrong with the fault
                fault.write(archive / fault.folder)
        except NotPossible as why:
            not_possible[fault.name] = str(why)
            shutil.rmtree(archive / fault.folder)
    out = folder / "results"
    vfscreen = Path(sys.executable).with_name("vfscreen")
    command = [str(word) for word in (vfscreen, "run", archive, "--out", out, *OPTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return Run(archive, out, done, not_possible)
