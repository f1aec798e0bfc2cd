"""The folders and files of an archive, with sizes and times; nothing is opened.

On object storage a folder is what shares a prefix, and listing one is a request.
Links are followed, loops are not. Hidden names and what is neither file nor folder (a pipe would
block who opens it) are left out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vfscreen.storage import entries_of, is_remote, map_requests

FOLDERS_AT_ONCE = 256  # of object storage, whose files are in memory together
PACKED_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
"""Of archives, each of which may be a study."""
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".z")
"""Of single files, each of which may be a slice; .nii.gz is none of them."""
VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
"""What object storages call that which changes with an object, the surest first."""
UNSUPPORTED_SUFFIXES = (
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".hdr",
    ".mgz",
    ".mgh",
    ".nii.bz2",
    ".nii.xz",
    ".nii.zst",
)
"""Of volumes in formats that are not read."""


class File(NamedTuple):
    """A file as its folder lists it."""

    name: str
    size: int
    mtime_ns: int

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time: another one is another file."""
        return self.size, self.mtime_ns


@dataclass(frozen=True)
class Folder:
    """What one folder holds, without its subfolders; `faults` are sentences on what cannot be seen."""

    path: Path
    files: tuple[File, ...] = ()
    dangling: tuple[str, ...] = ()  # names of links that lead nowhere
    faults: tuple[str, ...] = ()

    def names(self, suffixes: tuple[str, ...]) -> list[str]:
        """The files that end so, in whatever case."""
        return [file.name for file in self.files if file.name.lower().endswith(suffixes)]


def walk(root: Path) -> Iterator[Folder]:
    """A folder and all below it, each when it is asked for: in order of their names, or level by level."""
    return _below_remote(root) if is_remote(root) else _below(root)


def _below_remote(root: Path) -> Iterator[Folder]:
    level = [root]
    while level:
        below: list[Path] = []
        for start in range(0, len(level), FOLDERS_AT_ONCE):
            for folder, subfolders in map_requests(_listed_remote, level[start : start + FOLDERS_AT_ONCE]):
                yield folder
                below += sorted(subfolders)
        level = below


def _listed_remote(path: Path) -> tuple[Folder, list[Path]]:
    try:
        entries = entries_of(path)
    except Exception as error:  # each driver has errors of its own
        return Folder(path, faults=(f"the folder cannot be listed: {type(error).__name__}",)), []
    files, subfolders = [], []
    for name, entry in entries:
        if not is_visible(name):
            continue
        if entry["type"] == "directory":
            subfolders.append(path / name)
        else:
            files.append(_remote_file(name, entry))
    return Folder(path, tuple(sorted(files))), subfolders


def _remote_file(name: str, entry: dict[str, Any]) -> File:
    """An object, with a number that changes as its content does in place of a time."""
    version = next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")
    digest = hashlib.sha256(version.encode()).digest()
    return File(name, entry["size"], int.from_bytes(digest[:7], "big"))


def _below(root: Path) -> Iterator[Folder]:
    waiting = [root]
    seen: set[tuple[int, int]] = set()
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            folder, subfolders = _listed(path)
        except OSError as error:
            folder, subfolders = Folder(path, faults=(f"the folder cannot be listed: {error.strerror}",)), []
        yield folder
        waiting += sorted(subfolders, reverse=True)


def _listed(path: Path) -> tuple[Folder, list[Path]]:
    files: list[File] = []
    subfolders: list[Path] = []
    dangling: list[str] = []
    faults: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP):
                    dangling.append(entry.name)
                else:
                    faults.append(f"{entry.name} cannot be read ({error.strerror})")
            else:
                if stat.S_ISDIR(status.st_mode):
                    subfolders.append(path / entry.name)
                elif stat.S_ISREG(status.st_mode):
                    files.append(File(entry.name, status.st_size, status.st_mtime_ns))
    return Folder(path, tuple(sorted(files)), tuple(sorted(dangling)), tuple(sorted(faults))), subfolders


def listed(path: Path) -> Folder:
    """One folder, without its subfolders."""
    return (_listed_remote(path) if is_remote(path) else _listed(path))[0]


def alone(path: Path) -> Folder:
    """A file's folder with nothing in it but the file."""
    status = path.stat()
    return Folder(path.parent, (File(path.name, status.st_size, status.st_mtime_ns),))


def is_visible(name: str) -> bool:
    """Whether a name is looked at; macOS leaves companions of files that begin as hidden ones do."""
    return not name.startswith(".") and name != "__MACOSX"
