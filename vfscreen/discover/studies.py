"""Indexed folders -> studies, each with its series, the one to screen, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vfscreen.discover.index import VOLUME_SUFFIXES, IndexedFile, IndexedFolder, index, volume_reader
from vfscreen.discover.names import common_folder, order, relative, safe_id
from vfscreen.discover.series import ArchiveImage, Series, choice, choose, nothing_suitable, series_of
from vfscreen.discover.walk import COMPRESSED_SUFFIXES, PACKED_SUFFIXES, UNSUPPORTED_SUFFIXES, Folder
from vfscreen.errors import (
    InconsistentGeometry,
    PackedArchive,
    StudyError,
    UnreadableFile,
    UnsupportedFormat,
)
from vfscreen.readers.common import cause
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles


@dataclass(frozen=True)
class Look:
    """How an archive is looked at: limits of the readers, the file that keeps headers, series asked for."""

    settings: ReadSettings
    index: Path | None
    wanted: frozenset[str]


@dataclass(frozen=True)
class FoundStudy:
    """A study, its DICOM series in the order of the rule, and the chosen one of them."""

    study: StudyFiles
    series: tuple[Series, ...] = ()
    chosen: Series | None = None


def studies_below(root: Path, folders: Sequence[Folder], look: Look) -> list[FoundStudy]:
    """The studies of folders, named as seen from `root`; ids may still be shared."""
    return grouped(root, index(folders, look.index), look)


def grouped(root: Path, folders: Sequence[IndexedFolder], look: Look) -> list[FoundStudy]:
    """The studies of folders whose headers are known."""
    parts: defaultdict[tuple[str, str | None], list[ArchiveImage]] = defaultdict(list)
    for folder in folders:
        for image in _completed(list(_images(folder.files))):
            # Without a StudyInstanceUID nothing but the folder holds images together.
            parts[image.kind.study_uid or str(folder.folder.path), image.kind.patient_id].append(image)
    found = [study for images in parts.values() for study in _dicom_studies(root, images, look)]
    volumes = [
        FoundStudy(_volume_study(root, file, look.settings)) for folder in folders for file in folder.volumes
    ]
    closed = [FoundStudy(study) for folder in folders for study in _not_opened(root, folder.folder)]
    return _with_unreadable(root, folders, found) + volumes + closed


def _images(files: Iterable[IndexedFile]) -> Iterable[ArchiveImage]:
    for file in files:
        for kind, image in file.found.images:
            yield ArchiveImage(file.path, file.stamp, kind, image)


def _completed(images: list[ArchiveImage]) -> list[ArchiveImage]:
    """The images of a folder, where those without a UID or patient have that of all others.

    An export that lost it for some slices must not make two halves of a series.
    """
    for name in ("study_uid", "patient_id", "series_uid"):
        values = {getattr(one.kind, name) or None for one in images}
        if None in values and len(values) == 2:
            value: Any = next(filter(None, values))
            images = [one._replace(kind=one.kind._replace(**{name: value})) for one in images]
    return images


def _dicom_studies(root: Path, images: Sequence[ArchiveImage], look: Look) -> list[FoundStudy]:
    """The study that these images are, and with an error what pretends to be a series of it."""
    kind = images[0].kind
    series, strangers = series_of(images, look.settings, look.wanted)
    chosen = choose(series, look.wanted)
    used = chosen.images if chosen else tuple(images)
    files = tuple(one.path for one in used)
    source = relative(root, common_folder({path.parent for path in files}))
    study = StudyFiles(
        study_id=safe_id(kind.study_uid or source),
        source=source,
        files=files,
        patient_id=kind.patient_id,
        error=None if chosen else nothing_suitable(series),
        frames=tuple(one.image.frame for one in used if one.image.frame is not None) if chosen else (),
        choice=choice(series, chosen, look.wanted) if chosen else None,
        stamp=_stamp((one.path, one.stamp) for one in used),
    )
    found = FoundStudy(study, tuple(series), chosen)
    return [found, *(FoundStudy(_stranger(root, parts, source)) for parts in strangers if chosen)]


def _stamp(files: Iterable[tuple[Path, tuple[int, int]]]) -> str:
    digest = hashlib.sha256()
    for line in sorted({f"{path.name}|{size}|{mtime}" for path, (size, mtime) in files}):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def stamped(found: FoundStudy) -> FoundStudy:
    """The study with its patient and error in its stamp: when one is put right, it is screened again."""
    study = found.study
    error = f"{study.error.code}|{study.error}" if study.error else ""
    text = f"{study.stamp}|{study.patient_id or ''}|{error}"
    stamp = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return replace(found, study=replace(study, stamp=stamp))


def _stranger(root: Path, images: Sequence[ArchiveImage], source: str) -> StudyFiles:
    own = relative(root, images[0].path.parent)
    error = InconsistentGeometry(
        f"the images have the study and series UID and the positions of those in {source}, but are no copy "
        "of them; export the studies with UIDs of their own"
    )
    stamp = _stamp((one.path, one.stamp) for one in images)
    return StudyFiles(safe_id(own), own, (), images[0].kind.patient_id, error, stamp=stamp)


def _with_unreadable(
    root: Path, folders: Sequence[IndexedFolder], found: Sequence[FoundStudy]
) -> list[FoundStudy]:
    """Unreadable files become the error of the one study in their folder, otherwise a study of their own.

    A series with a file missing must not be measured: what is missing may be one of its slices.
    """
    found = list(found)
    owners: defaultdict[Path, set[int]] = defaultdict(set)
    for number, one in enumerate(found):
        for path in {file.parent for file in one.study.files}:
            owners[path].add(number)
    for folder in folders:
        unreadable = folder.unreadable
        if not unreadable:
            continue
        error = UnreadableFile(f"unreadable files in the folder: {len(unreadable)}; {unreadable[0]}")
        here = owners[folder.folder.path]
        if len(here) == 1:
            (number,) = here
            found[number] = replace(found[number], study=replace(found[number].study, error=error))
        else:
            source = relative(root, folder.folder.path)
            found.append(FoundStudy(_failed(source, error)))
    return found


def _failed(source: str, error: StudyError) -> StudyFiles:
    return StudyFiles(safe_id(source), source, (), error=error)


def _not_opened(root: Path, folder: Folder) -> Iterator[StudyFiles]:
    """What may hold studies but is left alone: archives, volumes of other formats, and packed slices."""
    error: StudyError = PackedArchive("a packed archive is not opened; unpack it if it holds studies")
    for name in folder.names(PACKED_SUFFIXES):
        yield _failed(relative(root, folder.path / name), error)
    error = UnsupportedFormat("a volume in a format that is not read; convert it to NIfTI")
    for name in folder.names(UNSUPPORTED_SUFFIXES):
        yield _failed(relative(root, folder.path / name), error)
    others = (*PACKED_SUFFIXES, *UNSUPPORTED_SUFFIXES, *VOLUME_SUFFIXES)
    compressed = [n for n in folder.names(COMPRESSED_SUFFIXES) if not n.lower().endswith(others)]
    if compressed:
        count = f"{len(compressed)} compressed files, the first is {compressed[0]}"
        error = PackedArchive(f"{count}: they are not opened; unpack them if they are slices")
        yield _failed(f"{relative(root, folder.path)}/*{Path(compressed[0]).suffix}", error)


def _volume_study(root: Path, file: IndexedFile, settings: ReadSettings) -> StudyFiles:
    path = file.path
    reader = volume_reader(path)
    source = relative(root, path)
    suffix = next(suffix for suffix in reader.SUFFIXES if source.lower().endswith(suffix))
    study = StudyFiles(safe_id(source[: -len(suffix)]), source, (path,), stamp=_stamp([(path, file.stamp)]))
    try:
        reader.read_geometry(study, settings)
    except StudyError as error:
        return replace(study, error=error)
    except Exception as error:  # the border of a volume, as that of a file in the index
        return replace(study, error=UnreadableFile(f"{path.name} cannot be read ({cause(error)})"))
    return study


def with_unique_ids(found: Sequence[FoundStudy], taken: Collection[str] = ()) -> list[FoundStudy]:
    """Of studies that share an id, or have one of `taken`, every one gets a suffix.

    It is made of source and patient, so that no id goes over from one study to another when the
    archive grows; only for what shares these too the place counts.
    """
    sharing = Counter(one.study.study_id for one in found)
    alike: Counter[tuple[str, str, str | None]] = Counter()
    unique = []
    for one in sorted(found, key=lambda one: order(one.study)):
        study = one.study
        if sharing[study.study_id] > 1 or study.study_id in taken:
            key = (study.study_id, study.source, study.patient_id)
            alike[key] += 1
            digest = hashlib.sha256(repr((study.source, study.patient_id, alike[key])).encode())
            study = replace(study, study_id=f"{study.study_id}-{digest.hexdigest()[:8]}")
        unique.append(replace(one, study=study))
    return unique
