"""The result folder: one run at a time, run.json, and earlier results set aside."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from vfscreen.errors import InputError
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)


SET_ASIDE = "set_aside"


DICOM_SR = "dicom_sr"


FOLDERS = ("parts", "thumbnails", DICOM_SR)


TABLES = ("studies.parquet", "vertebrae.parquet", "patients.parquet", "flagged.csv")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs from writing into `out`, which is made, until the end or death of this one.

    A folder that was made and got no results is removed again. Raises InputError where another run
    holds it, or where `out` cannot be written.
    """
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"Results cannot be written to {out} ({error.strerror}); choose a folder in which you may write"
        ) from error
    try:
        with stream:
            _lock(stream, out)
            yield
    finally:
        if is_new and not (out / "parts").exists():
            _remove_if_empty(out)


def _remove_if_empty(out: Path) -> None:
    """An index that was begun stays: it is hours of reading headers."""
    if [path.name for path in out.iterdir()] == [".lock"]:
        with suppress(OSError):
            (out / ".lock").unlink()
            out.rmdir()


def _lock(stream: TextIO, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"Another run is writing into {out}; wait for its end or choose another folder"
        ) from error
    except OSError as error:
        log.warning("%s cannot be locked (%s): start no second run on it meanwhile.", out, error)


def set_aside(out: Path) -> Path | None:
    """Move earlier results of a folder into a subfolder of it; None where there are none.

    The parts go first: what is broken off in between is a folder without results, never half of them.
    """
    if not (out / "run.json").exists() and not (out / "parts").exists():
        return None
    aside = out / SET_ASIDE / datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    aside.mkdir(parents=True)
    for name in (*FOLDERS, *TABLES, *_for_readers(out), "run.json"):
        if (out / name).exists():
            (out / name).rename(aside / name)
    return aside


def _for_readers(out: Path) -> list[str]:
    """Workbooks, of which there are several where one has verdicts, and the page."""
    return [*sorted(path.name for path in out.glob("flagged*.xlsx")), "report.html"]


def write_run_json(out: Path, provenance: Mapping[str, Any]) -> None:
    """Write run.json: what is needed to repeat the run. `provenance` must be serialisable as JSON."""
    text = json.dumps(provenance, indent=2, ensure_ascii=False)
    write_whole(out / "run.json", f"{text}\n".encode())


def read_run_json(out: Path) -> dict[str, Any] | None:
    """What earlier calls wrote into run.json; None where they finished nothing.

    Raises InputError where there are parts, but no run.json that tells how they were made.
    """
    if not any((out / "parts").glob("*.studies.parquet")):
        return None
    try:
        earlier = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{out} holds parts of results but no run.json, so nobody knows how they were made; "
            "choose another folder"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / 'run.json'} cannot be read ({error}); choose another folder") from error
    if not isinstance(earlier, dict):
        raise InputError(f"{out / 'run.json'} does not tell how a run was made; choose another folder")
    return earlier
