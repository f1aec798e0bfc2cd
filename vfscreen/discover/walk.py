"""The folders and files of an archive, with sizes and times; nothing is opened.

Links are followed, loops are not. Hidden names and what is neither file nor folder (a pipe would
block who opens it) are left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PACKED_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


class File(NamedTuple):
    """A file as its folder lists it."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Folder:
    """What one folder holds, without its subfolders; `faults` are sentences on what cannot be seen."""

    path: Path
    files: tuple[File, ...] = ()
    dangling: tuple[str, ...] = ()  # names of links that lead nowhere
    faults: tuple[str, ...] = ()

    @property
    def packed(self) -> list[str]:
        """Names of packed archives."""
        return [file.name for file in self.files if is_packed(file.name)]


def is_packed(name: str) -> bool:
    """Whether a file holds others, which are not looked at."""
    return name.lower().endswith(PACKED_SUFFIXES)


def walk(root: Path) -> list[Folder]:
    """A folder and all below it, in order of their names."""
    return list(_below(root, set()))


def _below(root: Path, seen: set[tuple[int, int]]) -> Iterator[Folder]:
    waiting = [root]
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
            except FileNotFoundError:
                dangling.append(entry.name)
            except OSError as error:
                faults.append(f"{entry.name} cannot be read ({error.strerror})")
            else:
                if stat.S_ISDIR(status.st_mode):
                    subfolders.append(path / entry.name)
                elif stat.S_ISREG(status.st_mode):
                    files.append(File(entry.name, status.st_size, status.st_mtime_ns))
    return Folder(path, tuple(sorted(files)), tuple(sorted(dangling)), tuple(sorted(faults))), subfolders


def beside(path: Path) -> Folder:
    """The folder of a file, without its subfolders."""
    return _listed(path.parent)[0]


def alone(path: Path) -> Folder:
    """A file's folder with nothing in it but the file."""
    status = path.stat()
    return Folder(path.parent, (File(path.name, status.st_size, status.st_mtime_ns),))


def is_visible(name: str) -> bool:
    """Whether a name is looked at; macOS leaves companions of files that begin as hidden ones do."""
    return not name.startswith(".") and name != "__MACOSX"
