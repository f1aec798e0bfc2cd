"""Object storage beside local disks: `s3://`, `gs://`, and whatever else fsspec opens, as paths.

A path of object storage is a UPath, which has the methods of pathlib and no name that `open` would take:
what is to be opened by name is fetched to this machine first, and only headers are read from afar. Where
the storage is and who may read it, fsspec's drivers learn from their own environment variables and files.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeVar, cast

from vfscreen.errors import FilesVanished, InputError
from vfscreen.study import StudyFiles

_T = TypeVar("_T")
_R = TypeVar("_R")

HEADER_BYTES = 2**14  # that are fetched at a time where a header is read
REQUESTS = 32  # at a time
_COPIES = "vfscreen_{pid}_"  # how the folder of a process' copies begins


def path_of(text: str | Path) -> Path:
    """The path that a local name or a URL tells; `file://` is local.

    Raises InputError where the packages for such a URL are not installed, or nobody knows it.
    """
    if is_remote(text):
        return cast(Path, text)
    if "://" not in str(text):
        return Path(text)
    try:
        from upath import UPath

        path: Any = UPath(text, use_listings_cache=False)  # it would hold the names of a whole archive
        local = path.protocol in ("file", "local")
        return Path(path.path) if local else _with_driver(path)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{text} needs the package {error.name}: pip install -c constraints.txt -e '.[storage]'"
        ) from error
    except ImportError as error:
        raise InputError(
            f"{text} needs a driver ({error}); those of s3:// and gs:// come with pip install "
            "-c constraints.txt -e '.[storage]'"
        ) from error
    except ValueError as error:
        raise InputError(f"{text} cannot be opened: {error}") from error


def _with_driver(path: Any) -> Path:
    """The path, if what opens it is installed and can list folders."""
    import fsspec

    if path.protocol in ("http", "https"):
        raise ValueError("it has no folders to list")
    fsspec.get_filesystem_class(path.protocol)
    return cast(Path, path)


def is_remote(path: object) -> bool:
    """Whether a path is one of object storage."""
    return not isinstance(path, (str, PurePath))


@contextmanager
def _drivers_errors() -> Iterator[None]:
    """As OSError: each driver has errors of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def check_reachable(path: Path) -> None:
    """Raise InputError where a storage gives no answer, or none to us."""
    try:
        with _drivers_errors():
            path.exists()
    except OSError as error:
        raise InputError(
            f"{path} cannot be reached ({error}); are the storage's credentials and address set, and is the "
            "network there?"
        ) from error


def one_look(path: Path) -> Path:
    """The path for one look at its header: of object storage no more is fetched, and that once."""
    return cast(Path, _RemoteHeader(path)) if is_remote(path) else path


class _RemoteHeader:
    """A file of object storage as a path that is opened, perhaps several times, to be read to some place."""

    def __init__(self, path: Any) -> None:
        self._path = path
        self.name, self.suffix = path.name, path.suffix

    def open(self, mode: str) -> BinaryIO:
        return io.BufferedReader(_Remote(self), HEADER_BYTES)

    def stat(self) -> os.stat_result:
        with _drivers_errors():
            return self._path.stat()

    def range(self, start: int, end: int) -> bytes:
        if start < HEADER_BYTES or len(self._first) < HEADER_BYTES:
            return self._first[start:end]
        return self._fetched(start, end)

    @cached_property
    def _first(self) -> bytes:
        return self._fetched(0, HEADER_BYTES)

    def _fetched(self, start: int, end: int) -> bytes:
        try:
            with _drivers_errors():
                return self._path.fs.cat_file(self._path.path, start=start, end=end)
        except OSError:
            if start < self.stat().st_size:
                raise
            return b""  # behind its end a storage refuses to read


class _Remote(io.RawIOBase):
    """A file that is fetched as far as it is read."""

    def __init__(self, header: _RemoteHeader) -> None:
        self._header, self._at = header, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
        self._at = offset + (base[whence] if whence in base else self._header.stat().st_size)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._header.range(self._at, self._at + len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def map_requests(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """function(item) of each, many at a time: what takes long is the way to the storage."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(function, items))


def is_afar(study: StudyFiles) -> bool:
    """Whether a study's files are on object storage."""
    return any(map(is_remote, islice(study.files, 1)))


@contextmanager
def on_this_machine(study: StudyFiles) -> Iterator[StudyFiles]:
    """The study with files that can be opened by name, meanwhile: of object storage with copies.

    Raises FilesVanished where they cannot be fetched.
    """
    if not is_afar(study):
        yield study
        return
    with tempfile.TemporaryDirectory(prefix=_COPIES.format(pid=os.getpid())) as folder:
        yield replace(study, files=_copied(study.files, Path(folder)))


def remove_copies(pid: int) -> None:
    """Remove the copies that a process was killed with."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_COPIES.format(pid=pid)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _copied(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Copies with their own names, those of one folder together."""
    folders = {parent: folder / str(number) for number, parent in enumerate({file.parent for file in files})}
    copies = {file: folders[file.parent] / file.name for file in files}
    try:
        fetch(copies)
    except FileNotFoundError as error:
        raise FilesVanished("files of the study are gone from the storage") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise FilesVanished("the temporary folder (TMPDIR) has no room for the study") from error
        reason = type(error.__cause__ or error).__name__
        raise FilesVanished(f"the storage with the study gives no answer ({reason})") from error
    return tuple(copies[file] for file in files)


def fetch(copies: Mapping[Path, Path]) -> None:
    """Copy each of these files of one storage to its local path, many at a time. Raises OSError."""
    for folder in {copy.parent for copy in copies.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    if copies:
        with _drivers_errors():
            _storage(*copies).get([_key(file) for file in copies], [str(copy) for copy in copies.values()])


def send(copies: Mapping[Path, Path]) -> None:
    """Copy each of these local files to its path of one storage, where it appears whole or not at all.

    Raises OSError.
    """
    if copies:
        with _drivers_errors():
            _storage(*copies.values()).put(
                [str(file) for file in copies], [_key(copy) for copy in copies.values()]
            )


def remove(paths: Collection[Path]) -> None:
    """Remove these files of one storage. Raises OSError."""
    if paths:
        with _drivers_errors():
            _storage(*paths).rm([_key(path) for path in paths])


def names_below(folder: Path) -> list[str]:
    """The files of a folder and all below it, as seen from it, but for objects that stand for folders.

    Raises OSError.
    """
    root = _key(folder)
    with _drivers_errors():
        keys = [key for key in _storage(folder).find(root) if key != root]
    return [key.removeprefix(root).lstrip("/") for key in keys if not key.endswith("/")]


def files_in(folder: Path) -> list[str]:
    """The files of a folder itself. Raises OSError."""
    try:
        with _drivers_errors():
            entries = entries_of(folder)
    except FileNotFoundError:
        return []  # yet
    return [name for name, entry in entries if entry["type"] != "directory"]


def entries_of(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """What lies in a folder: names, and what fsspec tells of each. Raises whatever the driver does.

    An empty object of the folder's own name, by which some programs make a folder, is left out.
    """
    root = _key(folder).rstrip("/")
    entries = [(entry["name"].rstrip("/"), entry) for entry in _storage(folder).ls(root, detail=True)]
    return [(key.rpartition("/")[2], entry) for key, entry in entries if key != root]


def _storage(path: Path, *_: Path) -> Any:
    return cast(Any, path).fs


def _key(path: Path) -> str:
    """What the storage itself calls a path of it."""
    return str(cast(Any, path).path)
