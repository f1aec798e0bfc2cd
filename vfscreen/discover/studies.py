"""Indexed folders -> studies, each with its series, the one to screen, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vfscreen.discover.contents import Contents, StudyKey, completed, failed, study_key
from vfscreen.discover.index import Headers, Store, headers_of, image_of, index
from vfscreen.discover.names import common_folder, order, relative, safe_id, stamp_of
from vfscreen.discover.series import ArchiveImage, Series, choice, choose, nothing_suitable, series_of
from vfscreen.discover.walk import Folder
from vfscreen.errors import InconsistentGeometry, UnreadableFile
from vfscreen.readers.dicom_headers import Image
from vfscreen.settings import ReadSettings
from vfscreen.study import PackedPaths, StudyFiles


@dataclass(frozen=True)
class FoundStudy:
    """A study, its DICOM series in the order of the rule, and the chosen one of them."""

    study: StudyFiles
    series: tuple[Series, ...] = ()
    chosen: Series | None = None


@dataclass(frozen=True)
class Look:
    """How an archive is looked at: limits of the readers, the file that keeps headers, series asked for.

    Unless `all_series` are to be shown, only those asked for stay in memory, and none with its images.
    """

    settings: ReadSettings
    index: Path | None
    wanted: frozenset[str]
    all_series: bool

    def kept(self, found: FoundStudy) -> FoundStudy:
        """What stays of a study while others are looked at."""
        series = [one for one in found.series if self.all_series or one.kind.series_uid in self.wanted]
        bare = tuple(replace(one, images=()) for one in series)
        return FoundStudy(
            found.study, bare, bare[series.index(found.chosen)] if found.chosen in series else None
        )


def studies_below(root: Path, folders: Iterable[Folder], look: Look) -> list[FoundStudy]:
    """The studies of folders, named as seen from `root`; ids may still be shared."""
    with closing(Store(look.index)) as store:
        contents = Contents.of(root, look.settings, index(folders, store))
        return grouped(root, contents, store, look, look.kept)


def grouped(
    root: Path, contents: Contents, store: Store, look: Look, keep: Callable[[FoundStudy], FoundStudy]
) -> list[FoundStudy]:
    """What is to keep of the studies of folders whose headers are in the store, one after the other."""
    opened, found = _Opened(store), list[FoundStudy]()
    owners: defaultdict[Path, set[int]] = defaultdict(set)
    for key, folders in contents.folders.items():
        images = [image for folder in folders for image in opened.take(folder, key)]
        for one in _dicom_studies(root, images, look) if images else ():
            for folder in contents.faults.keys() & folders:
                if any(path.parent == folder for path in one.study.files):
                    owners[folder].add(len(found))
            found.append(keep(one))
    others = map(FoundStudy, [*contents.volumes, *contents.closed])
    return [*_with_unreadable(root, contents.faults, found, owners), *others]


class _Opened:
    """Folders whose headers are in memory, each until the images of all its studies were taken."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._images: dict[Path, defaultdict[StudyKey, list[ArchiveImage]]] = {}

    def take(self, folder: Path, study: StudyKey) -> list[ArchiveImage]:
        """The images of a study in a folder."""
        if folder not in self._images:
            self._images[folder] = _by_study(folder, headers_of(folder, self._store))
        of_folder = self._images[folder]
        images = of_folder.pop(study, [])
        if not of_folder:
            del self._images[folder]
        return images


def _by_study(folder: Path, headers: Headers) -> defaultdict[StudyKey, list[ArchiveImage]]:
    found: defaultdict[StudyKey, list[ArchiveImage]] = defaultdict(list)
    kinds, alike = completed(headers), dict[Hashable, Any]()
    for name, entry in headers.in_order():
        path = folder / name
        for number, values in entry.images:
            kind, image = kinds[number], _sharing(image_of(values), alike)
            found[study_key(kind, folder)].append(ArchiveImage(path, entry.stamp, kind, image))
    return found


def _sharing(image: Image, alike: dict[Hashable, Any]) -> Image:
    """The image with one object for what is equal in others: a folder may have a million."""

    def one(value: Any) -> Any:
        return alike.setdefault(value, value)

    return image._replace(
        phase=one(image.phase), rescale=one(image.rescale), study_date=one(image.study_date)
    )


def _dicom_studies(root: Path, images: Sequence[ArchiveImage], look: Look) -> list[FoundStudy]:
    """The study that these images are, and with an error what pretends to be a series of it."""
    kind = images[0].kind
    series, strangers = series_of(images, look.settings, look.wanted)
    chosen = choose(series, look.wanted)
    used = chosen.images if chosen else tuple(images)
    files = PackedPaths.of([one.path for one in used])
    source = relative(root, common_folder({folder for folder, _ in files.folders}))
    study = StudyFiles(
        study_id=safe_id(kind.study_uid or source),
        source=source,
        files=files,
        patient_id=kind.patient_id,
        error=None if chosen else nothing_suitable(series),
        frames=tuple(one.image.frame for one in used if one.image.frame is not None) if chosen else (),
        choice=choice(series, chosen, look.wanted) if chosen else None,
        stamp=stamp_of((one.path, one.stamp) for one in used),
    )
    found = FoundStudy(study, tuple(series), chosen)
    return [found, *(FoundStudy(_stranger(root, parts, source)) for parts in strangers if chosen)]


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
    stamp = stamp_of((one.path, one.stamp) for one in images)
    return StudyFiles(safe_id(own), own, (), images[0].kind.patient_id, error, stamp=stamp)


def _with_unreadable(
    root: Path,
    faults: Mapping[Path, UnreadableFile],
    found: Sequence[FoundStudy],
    owners: Mapping[Path, Collection[int]],
) -> list[FoundStudy]:
    """Unreadable files become the error of the one study in their folder, otherwise a study of their own.

    A series with a file missing must not be measured: what is missing may be one of its slices.
    """
    found = list(found)
    for folder, error in faults.items():
        here = owners.get(folder, ())
        if len(here) == 1:
            (number,) = here
            found[number] = replace(found[number], study=replace(found[number].study, error=error))
        else:
            found.append(FoundStudy(failed(relative(root, folder), error)))
    return found


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
