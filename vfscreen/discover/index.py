"""The headers of an archive: read in parallel, and kept, so that a second start reads only what is new.

The index is one SQLite file; a row is a folder. A file whose size and time are as they were is not
read again. The headers of a large archive do not fit into memory: folders pass through one after the other.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from vfscreen.child_process import end_with_parent
from vfscreen.discover.walk import (
    COMPRESSED_SUFFIXES,
    PACKED_SUFFIXES,
    UNSUPPORTED_SUFFIXES,
    File,
    Folder,
    walk,
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
BATCH_FILES = 20_000  # whose headers are in memory at a time
MOST_PROCESSES = 8
MOST_BROKEN_POOLS = 3  # one after the other, without having read anything
COMMIT_EVERY_S = 5.0
DICOM_SUFFIXES = (".dcm", ".ima")
VOLUME_SUFFIXES = tuple(suffix for reader in VOLUME_READERS for suffix in reader.SUFFIXES)
UNREAD_SUFFIXES = (
    *VOLUME_SUFFIXES,
    *PACKED_SUFFIXES,
    *COMPRESSED_SUFFIXES,
    *UNSUPPORTED_SUFFIXES,
    f"{INDEX_NAME}-journal",  # comes and goes while archives are listed, and results may lie in one
)
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


class Entry(NamedTuple):
    """A file in the index: its size and time, its images with the number of their kind, and as in `Found`."""

    stamp: tuple[int, int]
    images: Sequence[tuple[int, Sequence[Any]]]
    unreadable: str = ""
    blank: str = ""
    is_passing: bool = False  # and not kept

    @property
    def is_other(self) -> bool:
        """Whether it is no slice, as far as can be told."""
        return not (self.images or self.unreadable or self.blank)


@dataclass(frozen=True)
class Headers:
    """What the files of one folder are, without those that are not opened."""

    kinds: Sequence[Kind] = ()
    files: Mapping[str, Entry] = field(default_factory=dict)

    def unchanged(self, folder: Folder) -> Headers:
        """Of the files that are as the folder lists them."""
        stamps = {file.name: file.stamp for file in folder.files}
        files = {name: entry for name, entry in self.files.items() if stamps.get(name) == entry.stamp}
        return self if len(files) == len(self.files) else Headers(self.kinds, files)

    def plus(self, folder: Folder, found: Iterable[tuple[str, Found]]) -> Headers:
        """With files of the folder that were read."""
        numbers = {kind: number for number, kind in enumerate(self.kinds)}
        stamps = {file.name: file.stamp for file in folder.files}
        files = dict(self.files)
        for name, one in found:
            images = [(numbers.setdefault(kind, len(numbers)), image) for kind, image in one.images]
            files[name] = Entry(stamps[name], images, one.unreadable, one.blank, one.is_passing)
        return Headers(tuple(numbers), files)

    def in_order(self) -> list[tuple[str, Entry]]:
        """The files by their names."""
        return sorted(self.files.items())


@dataclass(frozen=True)
class IndexedFolder:
    """A folder, without its subfolders, and what its files turned out to be."""

    folder: Folder
    headers: Headers

    @property
    def volumes(self) -> list[File]:
        """The files each of which is a study."""
        return [file for file in self.folder.files if file.name.lower().endswith(VOLUME_SUFFIXES)]

    @property
    def unreadable(self) -> list[str]:
        """Sentences on what may be a slice but cannot be read."""
        files = self.headers.in_order()
        faults = [*self.folder.faults, *(entry.unreadable for _, entry in files if entry.unreadable)]
        has_images = any(entry.images for _, entry in files)
        if has_images or faults or not self.volumes:  # among NIfTI files alone a blank file is no slice
            faults += [entry.blank for _, entry in files if entry.blank]
        if has_images:
            names = [name for name in self.folder.dangling if not OTHER_SUFFIX.fullmatch(Path(name).suffix)]
            faults += [f"{name} is a link to nothing" for name in names]
            faults += _named_like_slices(files)
        return faults


def _named_like_slices(files: Sequence[tuple[str, Entry]]) -> list[str]:
    """Sentences on files that bear the name of a slice but do not begin as one."""
    others = [name for name, entry in files if entry.is_other]
    if not others:
        return []
    patterns = {_pattern(name) for name, entry in files if entry.images}
    return [
        f"{name} is named like the slices but is not DICOM" for name in others if _pattern(name) in patterns
    ]


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def index(folders: Iterable[Folder], store: Store) -> Iterator[IndexedFolder]:
    """Folders with what their files are, from the store where they are as they were; it keeps the rest."""
    with closing(_Processes()) as processes:
        for batch in _batches(folders, store):
            fresh = _read_all([one.folder.path / name for one in batch for name in one.unknown], processes)
            for folder, kept, known, unknown in batch:
                read = zip(unknown, islice(fresh, len(unknown)), strict=True)
                headers = known.plus(folder, read) if unknown else known
                if headers.files and headers is not kept:
                    store.keep(folder.path, headers)
                yield IndexedFolder(folder, headers)
    store.commit()


def headers_of(path: Path, store: Store) -> Headers:
    """Those of a folder that was indexed; read again where the index broke since then."""
    kept = store.headers(path)
    if kept is None:
        (folder,) = index([next(walk(path))], store)
        return folder.headers
    return kept


class _Seen(NamedTuple):
    """A folder, what the store has of it, what of that is still so, and the names of the other files."""

    folder: Folder
    kept: Headers
    known: Headers
    unknown: list[str]


def _batches(folders: Iterable[Folder], store: Store) -> Iterator[list[_Seen]]:
    """Folders together until there is enough to read; those of which all is known need no others."""
    batch: list[_Seen] = []
    files = 0
    for folder in folders:
        kept = store.headers(folder.path) or Headers()
        known = kept.unchanged(folder)
        names = (file.name for file in folder.files if _is_read(file.name))
        batch.append(_Seen(folder, kept, known, [name for name in names if name not in known.files]))
        files += len(folder.files)
        if files >= BATCH_FILES or not any(one.unknown for one in batch):
            yield batch
            batch, files = [], 0
    yield batch


def volume_reader(path: Path) -> Any:
    """The reader for which this file is a study of its own, or None."""
    return next((reader for reader in VOLUME_READERS if reader.can_read((path,))), None)


def _is_read(name: str) -> bool:
    return not (name.lower().endswith(UNREAD_SUFFIXES) or name.upper() == "DICOMDIR")


# --- reading -------------------------------------------------------------------------------------


class _Processes:
    """Those that read headers, started when there is much to read."""

    def __init__(self) -> None:
        self._files = 0
        self._pool: ProcessPoolExecutor | None = None

    def are_worth_it(self, files: int) -> bool:
        """Whether for so many files more."""
        self._files += files
        return self._files >= PARALLEL_FROM_FILES

    def read(self, chunks: Iterable[Sequence[Path]]) -> Iterator[list[Found]]:
        """What the files are. Raises BrokenProcessPool when a process was killed."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(_processes(), get_context("spawn"), end_with_parent)
        return self._pool.map(_read_chunk, chunks)

    def close(self) -> None:
        """End them; the next `read` starts others."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None


def _read_all(paths: Sequence[Path], processes: _Processes) -> Iterator[Found]:
    if not processes.are_worth_it(len(paths)):
        yield from _read_chunk(paths)
        return
    chunks = [paths[start : start + CHUNK_FILES] for start in range(0, len(paths), CHUNK_FILES)]
    done, broken = 0, 0
    while broken < MOST_BROKEN_POOLS:
        before = done
        try:
            for found in processes.read(chunks[done:]):
                yield from found
                done += 1
            return
        except BrokenProcessPool:  # one was killed; what it was to read is read by another
            processes.close()
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


TEMPORARY, MEMORY = "", ":memory:"
"""For SQLite: a private file that has no name and is gone with the process, and none."""


class Store:
    """The index at `path`. Without one, or where the disk refuses it, TEMPORARY and at last MEMORY."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._instead = iter((TEMPORARY, MEMORY))
        self._committed = time.monotonic()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _opened(path or next(self._instead))
        except (OSError, sqlite3.Error) as error:
            self._database = self._another(error)

    def headers(self, path: Path) -> Headers | None:
        """What is known of the files of a folder."""
        try:
            row = self._database.execute("SELECT content FROM folders WHERE path = ?", _key(path)).fetchone()
        except sqlite3.Error as error:
            self._begin_anew(error)
            return None
        try:
            return _decoded(row[0]) if row else None
        except (zlib.error, ValueError, LookupError, TypeError):
            return None  # a damaged row: the folder is read, and its row written anew

    def keep(self, path: Path, headers: Headers) -> None:
        """Remember what the files of a folder are."""
        try:
            row = (*_key(path), _encoded(headers))
            self._database.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", row)
            if time.monotonic() - self._committed > COMMIT_EVERY_S:
                self._database.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            self._begin_anew(error)

    def commit(self) -> None:
        """Write what was kept since the last time."""
        try:
            self._database.commit()
        except sqlite3.Error as error:
            log.warning("The index of headers cannot be written (%s).", cause(error))

    def close(self) -> None:
        """Let go of it; of a temporary one nothing stays."""
        self.commit()
        self._database.close()

    def _begin_anew(self, error: sqlite3.Error) -> None:
        self._database.close()
        self._database = self._another(error)

    def _another(self, error: Exception) -> sqlite3.Connection:
        """A damaged file is made anew; one that a disk refuses, or another program holds, is left alone."""
        path, self._path = self._path, None  # mended once
        is_damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        if path and is_damaged:
            with suppress(OSError, sqlite3.Error):
                path.unlink()
                database = _opened(path)
                log.warning("The index of headers was damaged and is made anew.")
                return database
        log.warning("The index of headers cannot be used (%s); all files are read.", cause(error))
        return _opened(next(self._instead))


def _opened(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=1)
    if database.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
        database.executescript(
            "DROP TABLE IF EXISTS folders; CREATE TABLE folders (path BLOB PRIMARY KEY, content BLOB); "
            f"PRAGMA user_version = {FORMAT};"
        )
    return database


def _key(path: Path) -> tuple[bytes]:
    return (os.fsencode(str(path.absolute())),)


def _encoded(headers: Headers) -> bytes:
    numbers: dict[int, int] = {}  # kinds of files that are no more are forgotten
    files = {
        name: (
            entry.stamp,
            [(numbers.setdefault(number, len(numbers)), image) for number, image in entry.images],
            entry.unreadable,
            entry.blank,
        )
        for name, entry in headers.files.items()
        if not entry.is_passing
    }
    kinds = [headers.kinds[number] for number in numbers]
    return zlib.compress(json.dumps({"kinds": kinds, "files": files}).encode(), 1)


def _decoded(content: bytes) -> Headers:
    kept = json.loads(zlib.decompress(content))
    kinds = tuple(Kind(*map(_tuple, values)) for values in kept["kinds"])
    files = {
        name: Entry((size, mtime_ns), *rest) for name, ((size, mtime_ns), *rest) in kept["files"].items()
    }
    return Headers(kinds, files)


def image_of(values: Iterable[Any]) -> Image:
    """An image as it was before it was kept."""
    return Image(*map(_tuple, values))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
