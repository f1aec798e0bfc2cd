"""Results that are kept on object storage are worked on in a copy here: tables and pages need files.

What an earlier call or another machine left there is brought here; each part that is finished here is copied
there, so that whoever goes on, on whatever machine, finds it.
"""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vfscreen.errors import VfscreenError
from vfscreen.results.folder import FOLDERS, SET_ASIDE
from vfscreen.storage import check_reachable, fetch, files_in, is_remote, names_below, remove, send
from vfscreen.whole_files import patiently

log = logging.getLogger(__name__)

_SUFFIXES = (".json", ".parquet", ".csv", ".xlsx", ".html", ".sqlite")  # of results outside their folders
_Stamp = tuple[int, int]  # size and time


@contextmanager
def working_copy(out: Path) -> Iterator[WorkingCopy]:
    """A folder of this machine to work on results in, which are kept in `out`; for a local `out` itself.

    Raises InputError where the storage of `out` gives no answer.
    """
    if not is_remote(out):
        yield WorkingCopy(out, out)
        return
    check_reachable(out)
    with tempfile.TemporaryDirectory(prefix="vfscreen_") as folder:
        log.info("Results of %s are worked on in %s.", out, folder)
        try:
            yield WorkingCopy(out, Path(folder))
        except VfscreenError as error:  # the copy is gone when it is read
            raise type(error)(str(error).replace(folder, str(out).rstrip("/"))) from error


@dataclass
class WorkingCopy:
    """`out` is where results are kept, `folder` where they are worked on: on a local disk the same."""

    out: Path
    folder: Path
    _kept: dict[str, _Stamp] = field(default_factory=dict)  # of each file when it was the same there

    def bring(self) -> None:
        """Copy here the results that are there and not here. Raises OSError.

        Of what was set aside there is only the folder, and whatever else is kept beside results, perhaps a
        whole archive, stays away. A workbook, which may have verdicts by now, is fetched anew.
        """
        if self.folder != self.out:
            self._patiently(self._bring)

    def _bring(self) -> None:
        folders = [(name, names_below(self.out / name)) for name in (*FOLDERS, SET_ASIDE)]
        if folders.pop()[1]:
            (self.folder / SET_ASIDE).mkdir(exist_ok=True)
        names = [name for name in files_in(self.out) if name.endswith(_SUFFIXES)]
        names += [f"{folder}/{name}" for folder, below in folders for name in below]
        copies = {
            name: self.folder / name
            for name in names
            if name.endswith(".xlsx") or not (self.folder / name).exists()
        }
        fetch({self.out / name: path for name, path in copies.items()})
        self._kept |= {name: _stamp(path) for name, path in copies.items()}

    def keep(self) -> None:
        """Copy there what is new here, and remove there what is gone here. Raises OSError.

        A part's studies go last, so that a study that is listed there has all that belongs to it.
        """
        if self.folder == self.out:
            return
        here = self._here()
        new = [name for name, stamp in here.items() if self._kept.get(name) != stamp]
        self._send([name for name in new if not _lists_studies(name)])
        self._send([name for name in new if _lists_studies(name)])
        gone = [self.out / name for name in self._kept.keys() - here.keys()]
        self._patiently(lambda: remove(gone))
        self._kept = here

    def _send(self, names: Sequence[str]) -> None:
        copies = {self.folder / name: self.out / name for name in names}
        self._patiently(lambda: send(copies))

    def _patiently(self, attempt: Callable[[], None]) -> None:
        try:
            patiently(attempt, self.out, _is_passing)
        except OSError as error:  # which tells no place
            raise OSError(f"{self.out}: {error}") from error

    def _here(self) -> dict[str, _Stamp]:
        """What is to be kept: no lock, and no file that is not whole yet."""
        files = (path for path in self.folder.rglob("*") if not path.name.startswith(".") and path.is_file())
        return {path.relative_to(self.folder).as_posix(): _stamp(path) for path in files}


def _is_passing(error: OSError) -> bool:
    """Whether a storage may be back soon; one that knows no such bucket, or not us, will not."""
    return not isinstance(error, (FileNotFoundError, PermissionError)) and error.errno != errno.ENOSPC


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _lists_studies(name: str) -> bool:
    return name.endswith(".studies.parquet")
