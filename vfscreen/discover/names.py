"""Names of studies: where they lie, as the tables show it, and ids that can be file names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path, PurePath

from vfscreen.storage import is_remote
from vfscreen.study import StudyFiles

LONGEST_ID = 120


def relative(root: Path, path: Path) -> str:
    """Posix path below the input; the input's own name for itself. A name that is not UTF-8 is escaped."""
    shown: PurePath = path
    if path.is_relative_to(root):
        shown = path.relative_to(root) if path != root else PurePath(_name(root))
    return os.fsencode(shown.as_posix()).decode("utf-8", "backslashreplace")


def _name(root: Path) -> str:
    """A folder's own name; that of a bucket is no name to pathlib."""
    return str(root.resolve()).rstrip("/").rpartition("/")[2] if is_remote(root) else root.resolve().name


def common_folder(folders: Collection[Path]) -> Path:
    """The innermost folder that holds all of these."""
    first = next(iter(folders))
    return next(
        folder for folder in (first, *first.parents) if all(other.is_relative_to(folder) for other in folders)
    )


def safe_id(text: str) -> str:
    """The text as a file name: folders joined by two underscores, the unusual replaced, the long cut."""
    name = re.sub(r"[^\w.-]", "_", text.replace("/", "__")).strip(".") or "study"
    if len(name.encode()) <= LONGEST_ID:
        return name
    return f"{name[: LONGEST_ID // 4]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def order(study: StudyFiles) -> tuple[str, str, tuple[Path, ...]]:
    """The order in which studies are listed and screened; two that differ also do so in their first file."""
    return study.source, study.study_id, tuple(islice(study.files, 1))


def stamp_of(files: Iterable[tuple[Path, tuple[int, int]]]) -> str:
    """A digest of files' names, sizes and times."""
    digest = hashlib.sha256()
    for line in sorted({f"{path.name}|{size}|{mtime}" for path, (size, mtime) in files}):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
