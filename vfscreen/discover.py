"""Which studies an input holds, and which series of each is screened. Only headers are read.

A study is what shares a StudyInstanceUID (and a PatientID), wherever its files lie; a NIfTI file is
a study of its own. Of a DICOM study one series is screened, chosen so:

1. Suitable are CT images that are neither localizers nor derived or secondary images, and axial
   (slice normal within 45 degrees of the body's axis). Modality and ImageType say so, not the
   SOPClassUID, which old archives leave empty.
2. Of the suitable series those within a tenth of the longest coverage along the body stay.
3. Of these the one with the thinnest steps is taken, where steps up to 1.5 mm count as equal;
   then the softer kernel, then the thinner steps, then the smaller SeriesInstanceUID.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, MediaStorageDirectoryStorage

from vfscreen.errors import InconsistentGeometry, InputError, NoSuitableSeries, StudyError, UnreadableFile
from vfscreen.readers import VOLUME_READERS, dicom
from vfscreen.readers.common import cause
from vfscreen.study import StudyFiles
from vfscreen.volume import Floats

log = logging.getLogger(__name__)

DICOM_SUFFIXES = (".dcm", ".ima")
MANIFEST_SUFFIXES = (".csv", ".parquet")
OTHER_SUFFIX = re.compile(
    r"\.(?:avi|bmp|cfg|csv|db|docx?|done|exe|gif|gz|h5|html?|img|in[fi]|iso|jpe?g|js|json|lock|log|md|mh[ad]|npy"
    r"|npz|nrrd|parquet|pdf|png|py|raw|rst|sh|tar|tiff?|tmp|toml|tsv|txt|xlsx?|xml|ya?ml|zip)",
    re.IGNORECASE,
)
"""Of files that are no slice, even if they are empty."""
TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "PatientID",
    "ConvolutionKernel",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
]
SHARP_KERNEL = re.compile(r"BONE|LUNG|EDGE|ULTRA|^[BHTUQ][A-Z]?[5-9]\d|^Y|^[DEL]$|^FC[358]\d", re.IGNORECASE)
"""Edge-enhancing kernels: GE by word, Siemens by number (B50 up), Philips by letter, Canon by FC number."""
MODALITY = re.compile(r"[A-Z]{2,4}")
AXIAL_COSINE = 0.7
SIMILAR_COVERAGE = 0.9
THIN_MM = 1.5
PARALLEL_FROM_FILES = 10_000  # below it, starting processes takes longer than reading
LONGEST_ID = 120


class _Kind(NamedTuple):
    """What files have in common that form one stack; `unsuitable` says why it is not screened, or ""."""

    study_uid: str
    patient_id: str | None
    series_uid: str
    unsuitable: str
    sharp: bool


class _Image(NamedTuple):
    """One file's image; `z_mm` is None where it has no valid position."""

    path: Path
    z_mm: float | None
    instance_uid: str


@dataclass(frozen=True)
class _Stack:
    """Files of one series that are alike in kind; `z_mm` of the slices that have a position, sorted."""

    kind: _Kind
    z_mm: tuple[float, ...]
    files: tuple[Path, ...]
    instances: str = ""  # digest of the SOPInstanceUIDs, equal for a copy; "" where one is missing

    @property
    def coverage_mm(self) -> float:
        return self.z_mm[-1] - self.z_mm[0] if self.z_mm else 0.0

    @property
    def step_mm(self) -> float:
        return self.coverage_mm / (len(self.z_mm) - 1) if len(self.z_mm) > 1 else float("inf")


class _Listing(NamedTuple):
    """The names of the files of a folder, or why it cannot be listed."""

    path: Path
    names: list[str]
    error: str = ""


@dataclass(frozen=True)
class _Folder:
    """What the files of one folder, without its subfolders, turned out to be."""

    path: Path
    stacks: tuple[_Stack, ...] = ()
    volumes: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()  # sentences, each with the file's name


def discover(source: Path) -> list[StudyFiles]:
    """The studies of a folder, a NIfTI file, or a manifest, sorted by `source`.

    A manifest is CSV or Parquet with a column `path` (a NIfTI file, a DICOM series' folder or one
    of its files, relative to the manifest) and optionally `study_id` and `patient_id`; a row is a
    study. A study that cannot be screened is in the list with its error: UnreadableFile or
    NoSuitableSeries. Raises InputError where the input itself is wrong or holds no image.
    """
    if source.is_dir():
        studies = _with_unique_ids(_studies(source, _scan(_walk(source))))
    elif not source.exists():
        raise InputError(f"{source} does not exist")
    elif _volume_reader(source):
        studies = [_volume_study(source.parent, source)]
    elif source.suffix.lower() in MANIFEST_SUFFIXES:
        studies = _manifest_studies(source)
    else:
        raise InputError(
            f"{source} is neither a folder, a NIfTI file (.nii, .nii.gz) nor a manifest (.csv, .parquet)"
        )
    if not studies:
        raise InputError(f"{source} holds nothing that looks like a CT (DICOM, .nii, .nii.gz)")
    return sorted(studies, key=_order)


def _order(study: StudyFiles) -> tuple[str, str, tuple[Path, ...]]:
    return study.source, study.study_id, study.files


# --- folders and files ---------------------------------------------------------------------------


def _walk(root: Path) -> list[_Listing]:
    """Folders with their file names, sorted; links are followed, hidden names and loops are not."""
    found: list[_Listing] = []
    seen: set[str] = set()

    def unlisted(error: OSError) -> None:
        found.append(_Listing(Path(error.filename), [], f"the folder cannot be listed: {error.strerror}"))

    for folder, subfolders, names in os.walk(root, onerror=unlisted, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if _visible(name))
        found.append(_Listing(Path(folder), sorted(name for name in names if _visible(name))))
    return found


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _scan(folders: list[_Listing]) -> list[_Folder]:
    if sum(len(folder.names) for folder in folders) < PARALLEL_FROM_FILES:
        return [_scan_folder(folder) for folder in folders]
    processes = min(8, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_scan_folder, folders, chunksize=4))


def _scan_folder(folder: _Listing) -> _Folder:
    path, names, error = folder
    images: defaultdict[_Kind, list[_Image]] = defaultdict(list)
    volumes: list[Path] = []
    unreadable = [error] if error else []
    blank: list[str] = []
    for file in (path / name for name in names):
        if _volume_reader(file):
            volumes.append(file)
            continue
        try:
            header = _image_header(file)
            if header is not None:
                kind, image = _kind(header), _image(file, header)
                images[kind].append(image)
        except _BlankFile as fault:
            blank.append(str(fault))
        except UnreadableFile as fault:
            unreadable.append(str(fault))
        except Exception as fault:  # the border of a file: whatever is in it, the others are still listed
            unreadable.append(f"{file.name} cannot be read ({cause(fault)})")
    if images or unreadable or not volumes:  # among NIfTI files alone a blank file is no slice
        unreadable += blank
    return _Folder(path, tuple(_stack(*item) for item in images.items()), tuple(volumes), tuple(unreadable))


class _BlankFile(UnreadableFile):
    """A file of nothing, or of zeros where DICOM begins: a slice that was not written, or no slice."""


def _image_header(path: Path) -> Dataset | None:
    """The tags of a DICOM file; None for other files and DICOM directories. Raises UnreadableFile."""
    if not dicom.looks_like_dicom(path):
        _check_is_other(path)
        return None
    header = dicom.read_header(path, TAGS)
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    is_ct = header.get("SOPClassUID") in (CTImageStorage, EnhancedCTImageStorage)
    if not header.get("Rows") and (is_ct or not header.get("Modality")):
        raise UnreadableFile(f"{path.name} ends within its header")
    if not header.get("Modality"):
        raise UnreadableFile(f"{path.name} has no Modality: whether it is a CT is not known")
    return header


def _check_is_other(path: Path) -> None:
    """Raise UnreadableFile where a file that does not begin as DICOM does may be a slice all the same."""
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        raise UnreadableFile(f"{path.name} is named like DICOM but is not ({path.stat().st_size} bytes)")
    with path.open("rb") as file:
        start = file.read(dicom.PREAMBLE_BYTES)
    if not OTHER_SUFFIX.fullmatch(suffix) and not start.strip(b"\0"):
        raise _BlankFile(f"{path.name} is {'blank' if start else 'empty'} ({path.stat().st_size} bytes)")


def _kind(header: Dataset) -> _Kind:
    return _Kind(
        study_uid=str(header.get("StudyInstanceUID") or ""),
        patient_id=str(header.get("PatientID") or "") or None,
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        unsuitable=_unsuitable(header),
        sharp=any(SHARP_KERNEL.search(word) for word in _words(header, "ConvolutionKernel")),
    )


def _unsuitable(header: Dataset) -> str:
    modality = str(header.Modality)
    words = {word.upper() for word in _words(header, "ImageType")}
    if modality != "CT":
        return modality if MODALITY.fullmatch(modality) else "another modality"
    if not header.get("Rows"):
        return "CT without an image"
    if words & {"LOCALIZER", "SCOUT"}:
        return "localizer"
    if words & {"DERIVED", "SECONDARY"}:
        return "derived"
    axes = _numbers(header, "ImageOrientationPatient", 6)
    if axes is not None and abs(np.cross(axes[:3], axes[3:])[2]) < AXIAL_COSINE:
        return "not axial"
    return ""


def _words(header: Dataset, tag: str) -> list[str]:
    value = header.get(tag) or []
    return [value] if isinstance(value, str) else [str(word) for word in value]


def _image(path: Path, header: Dataset) -> _Image:
    position = _numbers(header, "ImagePositionPatient", 3)
    z_mm = None if position is None else float(position[2])
    return _Image(path, z_mm, str(header.get("SOPInstanceUID") or ""))


def _numbers(header: Dataset, tag: str, count: int) -> Floats | None:
    """The values of a tag; None where they are not `count` finite numbers, which the reader will refuse."""
    values = np.array(header.get(tag) or np.nan, float)
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _stack(kind: _Kind, images: list[_Image]) -> _Stack:
    uids = sorted(image.instance_uid for image in images)
    return _Stack(
        kind,
        z_mm=tuple(sorted(image.z_mm for image in images if image.z_mm is not None)),
        files=tuple(image.path for image in images),
        instances=hashlib.sha256("\n".join(uids).encode()).hexdigest() if all(uids) else "",
    )


# --- studies -------------------------------------------------------------------------------------


def _studies(root: Path, folders: list[_Folder]) -> list[StudyFiles]:
    parts: defaultdict[tuple[str, str | None], list[_Stack]] = defaultdict(list)
    for folder in folders:
        for stack in folder.stacks:
            # Without a StudyInstanceUID nothing but the folder holds images together.
            parts[stack.kind.study_uid or str(folder.path), stack.kind.patient_id].append(stack)
    studies = [study for stacks in parts.values() for study in _dicom_studies(root, stacks)]
    volumes = [_volume_study(root, path) for folder in folders for path in folder.volumes]
    return _with_unreadable(root, folders, studies) + volumes


def _dicom_studies(root: Path, stacks: list[_Stack]) -> list[StudyFiles]:
    """The study that these stacks are, and with an error what pretends to be the series chosen of it."""
    kind = stacks[0].kind
    series, strangers = _merged(stacks)
    chosen = _choose(series)
    files = chosen.files if chosen else tuple(path for stack in series for path in stack.files)
    source = _relative(root, Path(os.path.commonpath([path.parent for path in files])))
    error = None if chosen else _nothing_suitable(series)
    study = StudyFiles(_safe_id(kind.study_uid or source), source, files, kind.patient_id, error)
    return [study, *(_stranger(root, s, source) for s in strangers if chosen and s.kind == chosen.kind)]


def _merged(stacks: list[_Stack]) -> tuple[list[_Stack], list[_Stack]]:
    """One stack a series, also where its files lie in several folders; and what cannot belong to it.

    An exact copy is left out. Other images at the same positions with the same UIDs do not belong.
    """
    parts: defaultdict[_Kind, list[_Stack]] = defaultdict(list)
    strangers = []
    for stack in stacks:
        twins = [part for part in parts[stack.kind] if stack.z_mm and part.z_mm == stack.z_mm]
        if not twins:
            parts[stack.kind].append(stack)
        elif stack.instances and stack.instances == twins[0].instances:
            log.warning("%s is a copy of %s and left out", stack.files[0].parent, twins[0].files[0].parent)
        else:
            strangers.append(stack)
    return [_joined(same) for same in parts.values()], strangers


def _joined(parts: list[_Stack]) -> _Stack:
    if len(parts) == 1:
        return parts[0]
    z_mm = tuple(sorted(z for part in parts for z in part.z_mm))
    return _Stack(parts[0].kind, z_mm, tuple(path for part in parts for path in part.files))


def _stranger(root: Path, stack: _Stack, source: str) -> StudyFiles:
    own = _relative(root, stack.files[0].parent)
    error = InconsistentGeometry(
        f"the images have the study and series UID and the positions of those in {source}, but are no copy "
        "of them; export the studies with UIDs of their own"
    )
    return StudyFiles(_safe_id(own), own, (), stack.kind.patient_id, error)


def _choose(series: list[_Stack]) -> _Stack | None:
    """The series to screen, by the rule at the head of this module."""
    suitable = [stack for stack in series if not stack.kind.unsuitable]
    longest = max((stack.coverage_mm for stack in suitable), default=0.0)
    return min(
        (stack for stack in suitable if stack.coverage_mm >= SIMILAR_COVERAGE * longest),
        key=lambda s: (max(round(s.step_mm, 1), THIN_MM), s.kind.sharp, s.step_mm, s.kind.series_uid),
        default=None,
    )


def _nothing_suitable(series: list[_Stack]) -> NoSuitableSeries:
    images: Counter[str] = Counter()
    for stack in series:
        images[stack.kind.unsuitable] += len(stack.files)
    found = ", ".join(f"{count} {name}" for name, count in sorted(images.items()))
    return NoSuitableSeries(f"no original axial CT series; images found: {found}")


def _with_unreadable(root: Path, folders: list[_Folder], studies: list[StudyFiles]) -> list[StudyFiles]:
    """Unreadable files become the error of the one study in their folder, otherwise a study of their own.

    A series with a file missing must not be measured: what is missing may be one of its slices.
    """
    studies = list(studies)
    owners: defaultdict[Path, list[int]] = defaultdict(list)
    for number, study in enumerate(studies):
        for path in {file.parent for file in study.files}:
            owners[path].append(number)
    for folder in folders:
        if not folder.unreadable:
            continue
        error = UnreadableFile(
            f"unreadable files in the folder: {len(folder.unreadable)}; {folder.unreadable[0]}"
        )
        here = owners[folder.path]
        if len(here) == 1:
            studies[here[0]] = replace(studies[here[0]], error=error)
        else:
            source = _relative(root, folder.path)
            studies.append(StudyFiles(_safe_id(source), source, (), error=error))
    return studies


def _volume_study(root: Path, path: Path) -> StudyFiles:
    reader = _volume_reader(path)
    source = _relative(root, path)
    suffix = next(suffix for suffix in reader.SUFFIXES if source.lower().endswith(suffix))
    study = StudyFiles(_safe_id(source[: -len(suffix)]), source, (path,))
    try:
        reader.read_geometry(study)
    except StudyError as error:
        return replace(study, error=error)
    except Exception as error:  # the border of a volume, as that of a file in `_scan_folder`
        return replace(study, error=UnreadableFile(f"{path.name} cannot be read ({cause(error)})"))
    return study


def _volume_reader(path: Path) -> Any:
    """The reader for which this file is a study of its own, or None."""
    return next((reader for reader in VOLUME_READERS if reader.can_read((path,))), None)


# --- manifest ------------------------------------------------------------------------------------


class _Row(NamedTuple):
    path: str
    study_id: str | None
    patient_id: str | None


def _manifest_studies(manifest: Path) -> list[StudyFiles]:
    root = manifest.parent
    rows = _rows(manifest)
    places = [_files_at(root / row.path) for row in rows]
    scanned = iter(_scan([folder for place in places for folder in place]))
    named: list[StudyFiles] = []
    unnamed: list[StudyFiles] = []
    for row, place in zip(rows, places, strict=True):
        study = _row_study(root, row, list(islice(scanned, len(place))))
        (named if row.study_id else unnamed).append(study)
    return named + _with_unique_ids(unnamed, {study.study_id for study in named})


def _rows(manifest: Path) -> list[_Row]:
    try:
        columns, records = (
            _read_csv(manifest) if manifest.suffix.lower() == ".csv" else _read_parquet(manifest)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{manifest} cannot be read as a manifest: {error}") from error
    if "path" not in columns:
        raise InputError(f"{manifest} has no column path; its columns are {', '.join(columns) or 'none'}")
    if not records:
        raise InputError(f"{manifest} has no rows")
    for number, record in enumerate(records, start=1):
        if None in record:
            raise InputError(
                f"{manifest}: row {number} has more cells than columns; put text with commas into quotes"
            )
    rows = [_Row(*(_text(record.get(name)) for name in _Row._fields)) for record in records]
    for number, row in enumerate(rows, start=1):
        if not row.path:
            raise InputError(f"{manifest}: row {number} has no path")
        if row.study_id and row.study_id != _safe_id(row.study_id):
            raise InputError(
                f"{manifest}: study_id {row.study_id!r} cannot name a file; use letters, digits, . _ -"
            )
    ids = Counter(row.study_id for row in rows if row.study_id)
    doubled = [study_id for study_id, count in ids.items() if count > 1]
    if doubled:
        raise InputError(f"{manifest}: study_id stands in more than one row: {', '.join(doubled[:5])}")
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and the rows; what a row has beyond its columns stands under None."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    table = pq.read_table(path)
    return table.column_names, table.to_pylist()


def _text(value: object) -> str:
    """A cell as text. Numbers with gaps are floats in Parquet: the gaps NaN, 7 as 7.0."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return "" if value is None else str(value).strip()


def _files_at(path: Path) -> list[_Listing]:
    """The files that a row of a manifest means: a folder's, a NIfTI file, or those beside a DICOM file."""
    if path.is_dir():
        return _walk(path)
    if not path.is_file():
        return []
    beside = [path] if _volume_reader(path) else path.parent.iterdir()
    return [
        _Listing(path.parent, sorted(file.name for file in beside if file.is_file() and _visible(file.name)))
    ]


def _row_study(root: Path, row: _Row, folders: list[_Folder]) -> StudyFiles:
    found = _studies(root, folders)
    study = found[0] if len(found) == 1 else _faulty_row(root, row, len(found))
    return replace(
        study, study_id=row.study_id or study.study_id, patient_id=row.patient_id or study.patient_id
    )


def _faulty_row(root: Path, row: _Row, found: int) -> StudyFiles:
    path = root / row.path
    error: StudyError
    if not path.exists():
        error = UnreadableFile(f"the manifest lists {row.path}, which does not exist")
    elif not found:
        error = UnreadableFile(f"{row.path} holds nothing that looks like a CT")
    else:
        error = NoSuitableSeries(f"{row.path} holds {found} studies; give each a row of its own")
    source = _relative(root, path)
    return StudyFiles(_safe_id(source), source, (), error=error)


# --- names ---------------------------------------------------------------------------------------


def _relative(root: Path, path: Path) -> str:
    """Posix path below the input; the input's own name for itself. A name that is not UTF-8 is escaped."""
    if path.is_relative_to(root):
        path = path.relative_to(root) if path != root else Path(root.resolve().name)
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _safe_id(text: str) -> str:
    """The text as a file name: folders joined by two underscores, the unusual replaced, the long cut."""
    name = re.sub(r"[^\w.-]", "_", text.replace("/", "__")).strip(".") or "study"
    if len(name.encode()) <= LONGEST_ID:
        return name
    return f"{name[: LONGEST_ID // 4]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _with_unique_ids(studies: list[StudyFiles], taken: Collection[str] = ()) -> list[StudyFiles]:
    """Of studies that share an id, or have one of `taken`, every one gets a suffix.

    It is made of source and patient, so that no id goes over from one study to another when the
    archive grows; only for what shares these too the place counts.
    """
    sharing = Counter(study.study_id for study in studies)
    alike: Counter[tuple[str, str, str | None]] = Counter()
    unique = []
    for study in sorted(studies, key=_order):
        if sharing[study.study_id] > 1 or study.study_id in taken:
            key = (study.study_id, study.source, study.patient_id)
            alike[key] += 1
            digest = hashlib.sha256(repr((study.source, study.patient_id, alike[key])).encode())
            study = replace(study, study_id=f"{study.study_id}-{digest.hexdigest()[:8]}")
        unique.append(study)
    return unique
