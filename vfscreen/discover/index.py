"""The headers of an archive: read in parallel, and kept, so that a second start reads only what is new.

The index is one SQLite file; a row is a folder. A file whose size and time are as they were is not
read again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from vfscreen.child_process import end_with_parent
from vfscreen.discover.walk import (
    COMPRESSED_SUFFIXES,
    PACKED_SUFFIXES,
    UNSUPPORTED_SUFFIXES,
    Folder,
)
from vfscreen.errors import StudyError, VfscreenError
from vfscreen.readers import VOLUME_READERS
from vfscreen.readers.common import cause
from vfscreen.readers.dicom_headers import PREAMBLE_BYTES, Image, Kind, looks_like_dicom, read_images
from vfscreen.storage import is_remote, map_requests, one_look

log = logging.getLogger(__name__)

INDEX_NAME = "index.sqlite"
FORMAT = 3  # of the rows and of what is said in them: another one is read anew
PARALLEL_FROM_FILES = 4_000  # below it, starting processes takes longer than reading
CHUNK_FILES = 256
MOST_PROCESSES = 8
MOST_BROKEN_POOLS = 3  # one after the other, without having read anything
COMMIT_EVERY_S = 5.0
DICOM_SUFFIXES = (".dcm", ".ima")
VOLUME_SUFFIXES = tuple(suffix for reader in VOLUME_READERS for suffix in reader.SUFFIXES)
UNREAD_SUFFIXES = (*VOLUME_SUFFIXES, *PACKED_SUFFIXES, *COMPRESSED_SUFFIXES, *UNSUPPORTED_SUFFIXES)
OTHER_SUFFIX = re.compile(
    r"\.(?:avi|bmp|cfg|csv|db|docx?|done|exe|gif|gz|h5|html?|img|in[fi]|iso|jpe?g|js|json|lock|log|md|mh[ad]|npy"
    r"|npz|nrrd|parquet|pdf|png|py|raw|rst|sh|sqlite|tar|tiff?|tmp|toml|tsv|txt|xlsx?|xml|ya?ml|zip)",
    re.IGNORECASE,
)
"""Of files that are no slice, even if they are empty."""


class Found(NamedTuple):
    """What a file turned out to be: images, why it may be one that cannot be read, or neither.

    `blank` is said of a file of nothing, or of zeros where DICOM begins.
    """

    images: Sequence[tuple[Kind, Image]] = ()
    unreadable: str = ""
    blank: str = ""
    is_passing: bool = False  # the disk's fault, not the file's: the next look reads it again


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file, its digest of size and time, and what it is."""

    path: Path
    stamp: tuple[int, int]
    found: Found


@dataclass(frozen=True)
class IndexedFolder:
    """What the files of one folder, without its subfolders, turned out to be."""

    folder: Folder
    files: tuple[IndexedFile, ...]
    volumes: tuple[IndexedFile, ...]

    @property
    def unreadable(self) -> list[str]:
        """Sentences on what may be a slice but cannot be read."""
        faults = [
            *self.folder.faults,
            *(file.found.unreadable for file in self.files if file.found.unreadable),
        ]
        has_images = any(file.found.images for file in self.files)
        if has_images or faults or not self.volumes:  # among NIfTI files alone a blank file is no slice
            faults += [file.found.blank for file in self.files if file.found.blank]
        if has_images:
            names = [name for name in self.folder.dangling if not OTHER_SUFFIX.fullmatch(Path(name).suffix)]
            faults += [f"{name} is a link to nothing" for name in names]
            faults += self._named_like_slices()
        return faults

    def _named_like_slices(self) -> list[str]:
        """Sentences on files that bear the name of a slice but do not begin as one."""
        others = [file.path.name for file in self.files if file.found == Found()]
        if not others:
            return []
        patterns = {_pattern(file.path.name) for file in self.files if file.found.images}
        return [
            f"{name} is named like the slices but is not DICOM"
            for name in others
            if _pattern(name) in patterns
        ]


def index(folders: Sequence[Folder], path: Path | None = None) -> list[IndexedFolder]:
    """The files of folders, from the index at `path` where they are as they were.

    Without a path, or where it cannot be used, everything is read and nothing kept.
    """
    with closing(_Store(path)) as store:
        known = deque(store.files(folder) for folder in folders)
        unknown = [
            [file.name for file in folder.files if _is_read(file.name) and file.name not in of_folder]
            for folder, of_folder in zip(folders, known, strict=True)
        ]
        paths = [folder.path / name for folder, names in zip(folders, unknown, strict=True) for name in names]
        fresh = _read_all(paths)
        indexed = []
        for folder, names in zip(folders, unknown, strict=True):
            of_folder = known.popleft()  # let go of it, of millions of files it is a GB
            new = {
                name: store.shared(one) for name, one in zip(names, islice(fresh, len(names)), strict=True)
            }
            if new:
                lasting = {name: one for name, one in new.items() if not one.is_passing}
                store.keep(folder, of_folder | lasting)
            indexed.append(_indexed(folder, of_folder | new))
        return indexed


def volume_reader(path: Path) -> Any:
    """The reader for which this file is a study of its own, or None."""
    return next((reader for reader in VOLUME_READERS if reader.can_read((path,))), None)


def _is_read(name: str) -> bool:
    return not (name.lower().endswith(UNREAD_SUFFIXES) or name.upper() == "DICOMDIR")


def _is_volume(name: str) -> bool:
    return name.lower().endswith(VOLUME_SUFFIXES)


def _indexed(folder: Folder, known: dict[str, Found]) -> IndexedFolder:
    files, volumes = [], []
    for name, size, mtime_ns in folder.files:
        path = folder.path / name
        if name in known:
            files.append(IndexedFile(path, (size, mtime_ns), known[name]))
        elif _is_volume(name):
            volumes.append(IndexedFile(path, (size, mtime_ns), Found()))
    return IndexedFolder(folder, tuple(files), tuple(volumes))


# --- reading -------------------------------------------------------------------------------------


def _read_all(paths: Sequence[Path]) -> Iterator[Found]:
    if len(paths) < PARALLEL_FROM_FILES:
        yield from _read_chunk(paths)
        return
    chunks = [paths[start : start + CHUNK_FILES] for start in range(0, len(paths), CHUNK_FILES)]
    done, broken = 0, 0
    while broken < MOST_BROKEN_POOLS:
        before = done
        try:
            with ProcessPoolExecutor(_processes(), get_context("spawn"), end_with_parent) as pool:
                for found in pool.map(_read_chunk, chunks[done:]):
                    yield from found
                    done += 1
            return
        except BrokenProcessPool:  # one was killed; what it was to read is read by another
            broken = 0 if done > before else broken + 1
            log.warning("A process that lists the archive was killed; another one takes its place.")
    raise VfscreenError(
        "The processes that list the archive do not stay alive. In a script, the call of vfscreen must stand "
        'under `if __name__ == "__main__":`.'
    )


def _processes() -> int:
    return min(MOST_PROCESSES, os.cpu_count() or 1)


def _read_chunk(paths: Sequence[Path]) -> list[Found]:
    return map_requests(_read, paths) if any(map(is_remote, paths)) else [_read(path) for path in paths]


def _read(path: Path) -> Found:
    path = one_look(path)
    try:
        if looks_like_dicom(path):
            return Found(read_images(path))
        return _other(path)
    except StudyError as error:
        return Found(unreadable=str(error), is_passing=isinstance(error.__cause__, OSError))
    except Exception as error:  # the border of a file: whatever is in it, the others are still listed
        reason = f"{path.name} cannot be read ({cause(error)})"
        return Found(unreadable=reason, is_passing=isinstance(error, (OSError, MemoryError)))


def _other(path: Path) -> Found:
    """What a file is that does not begin as DICOM does: it may be a slice all the same."""
    suffix = path.suffix.lower()
    size = path.stat().st_size
    if suffix in DICOM_SUFFIXES:
        return Found(unreadable=f"{path.name} is named like DICOM but is not ({size} bytes)")
    with path.open("rb") as file:
        start = file.read(PREAMBLE_BYTES)
    if OTHER_SUFFIX.fullmatch(suffix) or start.strip(b"\0"):
        return Found()
    return Found(blank=f"{path.name} is {'blank' if start else 'empty'} ({size} bytes)")


# --- keeping -------------------------------------------------------------------------------------


class _Store:
    """The index on disk. Where the disk refuses, nothing is known and nothing kept."""

    def __init__(self, path: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        self._one_of: dict[Hashable, Any] = {}
        self._committed = time.monotonic()
        self._path = path
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(path)
        except (OSError, sqlite3.Error) as error:
            self._mend_or_give_up(error)

    def _open(self, path: Path) -> None:
        database = sqlite3.connect(path, timeout=1)
        if database.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            database.executescript(
                "DROP TABLE IF EXISTS folders; CREATE TABLE folders (path BLOB PRIMARY KEY, content BLOB); "
                f"PRAGMA user_version = {FORMAT};"
            )
        self._database = database

    def files(self, folder: Folder) -> dict[str, Found]:
        """What is known of the files of a folder that have not changed."""
        if self._database is None:
            return {}
        try:
            row = self._database.execute(
                "SELECT content FROM folders WHERE path = ?", _key(folder)
            ).fetchone()
        except sqlite3.Error as error:
            self._mend_or_give_up(error)
            return {}
        try:
            return self._decoded(row[0], folder) if row else {}
        except (zlib.error, ValueError, LookupError, TypeError):
            return {}  # a damaged row: the folder is read, and its row written anew

    def keep(self, folder: Folder, found: dict[str, Found]) -> None:
        """Remember what the files of a folder are."""
        if self._database is None:
            return
        try:
            row = (*_key(folder), _encoded(folder, found))
            self._database.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", row)
            if time.monotonic() - self._committed > COMMIT_EVERY_S:
                self._database.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            self._mend_or_give_up(error)

    def shared(self, found: Found) -> Found:
        """The same with one object for all that is equal in the images of a series: there may be millions."""
        return found._replace(images=tuple(map(self._shared, found.images)))

    def _shared(self, described: tuple[Kind, Image]) -> tuple[Kind, Image]:
        kind, image = described
        phase, rescale, date = map(self._one, (image.phase, image.rescale, image.study_date))
        return self._one(kind), image._replace(phase=phase, rescale=rescale, study_date=date)

    def _one(self, value: Hashable) -> Any:
        return self._one_of.setdefault(value, value)

    def close(self) -> None:
        """Write what was kept since the last time."""
        if self._database is None:
            return
        try:
            self._database.commit()
        except sqlite3.Error as error:
            log.warning("The index of headers cannot be written (%s).", cause(error))
        self._database.close()

    def _mend_or_give_up(self, error: Exception) -> None:
        """A damaged file is made anew; one that a disk refuses, or another program holds, is left alone."""
        if self._database is not None:
            self._database.close()
        self._database = None
        path, self._path = self._path, None  # mended once
        if (
            path
            and isinstance(error, sqlite3.DatabaseError)
            and not isinstance(error, sqlite3.OperationalError)
        ):
            with suppress(OSError, sqlite3.Error):
                path.unlink()
                self._open(path)
        if self._database is None:
            log.warning("The index of headers cannot be used (%s); all files are read.", cause(error))
        else:
            log.warning("The index of headers was damaged and is made anew.")

    def _decoded(self, content: bytes, folder: Folder) -> dict[str, Found]:
        kept = json.loads(zlib.decompress(content))
        kinds = [_kind(values) for values in kept["kinds"]]
        stamps = {file.name: [file.size, file.mtime_ns] for file in folder.files}
        return {
            name: self.shared(Found([(kinds[n], _image(of)) for n, of in images], unreadable, blank))
            for name, (stamp, images, unreadable, blank) in kept["files"].items()
            if stamps.get(name) == stamp
        }


def _key(folder: Folder) -> tuple[bytes]:
    return (os.fsencode(str(folder.path.absolute())),)


def _encoded(folder: Folder, found: dict[str, Found]) -> bytes:
    numbers: dict[Kind, int] = {}
    stamps = {file.name: (file.size, file.mtime_ns) for file in folder.files}
    files = {
        name: (
            stamps[name],
            [(numbers.setdefault(kind, len(numbers)), image) for kind, image in one.images],
            one.unreadable,
            one.blank,
        )
        for name, one in found.items()
    }
    return zlib.compress(json.dumps({"kinds": list(numbers), "files": files}).encode(), 1)


def _kind(values: Iterable[Any]) -> Kind:
    return Kind(*map(_tuple, values))


def _image(values: Iterable[Any]) -> Image:
    return Image(*map(_tuple, values))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
