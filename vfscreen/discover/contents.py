"""Indexed folders -> what they hold, in short: an archive's headers do not fit into memory, this does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from vfscreen.discover.index import VOLUME_SUFFIXES, Headers, IndexedFolder, volume_reader
from vfscreen.discover.names import relative, safe_id, stamp_of
from vfscreen.discover.walk import COMPRESSED_SUFFIXES, PACKED_SUFFIXES, UNSUPPORTED_SUFFIXES, File, Folder
from vfscreen.errors import PackedArchive, StudyError, UnreadableFile, UnsupportedFormat
from vfscreen.readers.common import cause
from vfscreen.readers.dicom_headers import Kind
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles

StudyKey = tuple[str, str | None]
"""StudyInstanceUID and PatientID; without a UID nothing but the folder holds images together."""


class Contents:
    """What folders hold: which DICOM studies lie where, and what is known of the rest.

    `faults` are of folders with files that cannot be read; `volumes` are studies of a file each, `closed`
    what may hold studies but is left alone.
    """

    def __init__(self, root: Path, settings: ReadSettings) -> None:
        self._root, self._settings = root, settings
        self.folders: defaultdict[StudyKey, list[Path]] = defaultdict(list)
        self.faults: dict[Path, UnreadableFile] = {}
        self.volumes: list[StudyFiles] = []
        self.closed: list[StudyFiles] = []

    @classmethod
    def of(cls, root: Path, settings: ReadSettings, folders: Iterable[IndexedFolder]) -> Contents:
        """What all these folders hold."""
        contents = cls(root, settings)
        for folder in folders:
            contents.add(folder)
        return contents

    def add(self, indexed: IndexedFolder) -> None:
        """Take in one more folder."""
        path = indexed.folder.path
        for key in dict.fromkeys(study_key(kind, path) for kind in completed(indexed.headers).values()):
            self.folders[key].append(path)
        unreadable = indexed.unreadable
        if unreadable:
            reason = f"unreadable files in the folder: {len(unreadable)}; {unreadable[0]}"
            self.faults[path] = UnreadableFile(reason)
        self.volumes += [_volume_study(self._root, path, file, self._settings) for file in indexed.volumes]
        self.closed += _not_opened(self._root, indexed.folder)


def study_key(kind: Kind, folder: Path) -> StudyKey:
    """Whose images those of a kind in a folder are."""
    return kind.study_uid or str(folder), kind.patient_id


def completed(headers: Headers) -> dict[int, Kind]:
    """The kinds of a folder's images by their numbers, where those without a UID or patient have the others'.

    An export that lost it for some slices must not make two halves of a series.
    """
    numbers = dict.fromkeys(number for _, entry in headers.in_order() for number, _ in entry.images)
    kinds = {number: headers.kinds[number] for number in numbers}
    for name in ("study_uid", "patient_id", "series_uid"):
        values = {getattr(kind, name) or None for kind in kinds.values()}
        if None in values and len(values) == 2:
            value = next(filter(None, values))
            kinds = {number: kind._replace(**{name: value}) for number, kind in kinds.items()}
    return kinds


def failed(source: str, error: StudyError) -> StudyFiles:
    """What cannot be screened, as a study of its own."""
    return StudyFiles(safe_id(source), source, (), error=error)


def _not_opened(root: Path, folder: Folder) -> Iterator[StudyFiles]:
    """What may hold studies but is left alone: archives, volumes of other formats, and packed slices."""
    error: StudyError = PackedArchive("a packed archive is not opened; unpack it if it holds studies")
    for name in folder.names(PACKED_SUFFIXES):
        yield failed(relative(root, folder.path / name), error)
    error = UnsupportedFormat("a volume in a format that is not read; convert it to NIfTI")
    for name in folder.names(UNSUPPORTED_SUFFIXES):
        yield failed(relative(root, folder.path / name), error)
    others = (*PACKED_SUFFIXES, *UNSUPPORTED_SUFFIXES, *VOLUME_SUFFIXES)
    compressed = [n for n in folder.names(COMPRESSED_SUFFIXES) if not n.lower().endswith(others)]
    if compressed:
        count = f"{len(compressed)} compressed files, the first is {compressed[0]}"
        error = PackedArchive(f"{count}: they are not opened; unpack them if they are slices")
        yield failed(f"{relative(root, folder.path)}/*{Path(compressed[0]).suffix}", error)


def _volume_study(root: Path, folder: Path, file: File, settings: ReadSettings) -> StudyFiles:
    path = folder / file.name
    reader = volume_reader(path)
    source = relative(root, path)
    suffix = next(suffix for suffix in reader.SUFFIXES if source.lower().endswith(suffix))
    study = StudyFiles(safe_id(source[: -len(suffix)]), source, (path,), stamp=stamp_of([(path, file.stamp)]))
    try:
        reader.read_geometry(study, settings)
    except StudyError as error:
        return replace(study, error=error)
    except Exception as error:  # the border of a volume, as that of a file in the index
        return replace(study, error=UnreadableFile(f"{path.name} cannot be read ({cause(error)})"))
    return study
