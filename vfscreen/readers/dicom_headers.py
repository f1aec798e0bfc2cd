"""DICOM headers -> what each image of a file is and where it lies. No pixels, no free text.

Single-frame CT and enhanced CT with functional groups give the same records, a frame being an image.
What identifies a person beyond the linking keys is not kept: kernels and instance UIDs are only
compared, so their digests will do.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom.config
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from vfscreen.errors import InconsistentGeometry, MissingGeometry, StudyError, TooLarge, UnreadableFile
from vfscreen.readers.common import DAMAGE_ERRORS, cause

# Values are checked where they are used; pydicom's warnings would repeat them in the log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module="pydicom")

PREAMBLE_BYTES = 132  # with the letters DICM at its end
FIRST_TAGS = (b"\x02\0\0\0UL", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")
"""How a DICOM file without preamble can begin."""
FOREIGN_ERRORS = (*DAMAGE_ERRORS, InvalidDicomError)
"""What pydicom and its decoders raise on damaged files."""
LARGEST_SIDE = 8192  # rows or columns of a slice: ten times what a CT has
LARGEST_INFLATED = 2**30  # bytes of a deflated file
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MODALITIES = frozenset(
    "AU BI CR CT DX ECG EPS ES GM HD IO IVUS KO LS MG MR NM OCT OP OT PR PT PX REG RF RG RTDOSE RTIMAGE "  # noqa: SIM905
    "RTPLAN RTSTRUCT RWV SC SEG SM SMR SR TG US XA XC".split()
)
LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
DERIVED = frozenset({"DERIVED", "SECONDARY"})
PROJECTIONS = frozenset(
    (
        "MIP",
        "MINIP",
        "MAX_IP",
        "MIN_IP",
        "MPR",
        "AVERAGE",
        "MEAN_IP",
        "PROJECTION IMAGE",
        "VOLREN",
        "RENDERED",
    )
)
HOUNSFIELD = frozenset({"", "HU", "HU_MOD", "US"})  # RescaleType; US is unspecified
AXIAL_COSINE = 0.7
SHARP_KERNEL = re.compile(r"BONE|LUNG|EDGE|ULTRA|^[BHTUQ][A-Z]?[5-9]\d|^Y|^[DEL]$|^FC[358]\d", re.IGNORECASE)
"""Edge-enhancing kernels: GE by word, Siemens by number (B50 up), Philips by letter, Canon by FC number."""

_PLAIN = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AcquisitionTime",
    "ImageType",
    "Modality",
    "PatientID",
    "KVP",
    "TriggerTime",
    "ConvolutionKernel",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
)
_BINARY = ("NominalPercentageOfCardiacPhase", "TemporalPositionIndex", "FrameAcquisitionNumber")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def _tag(keyword: str) -> BaseTag:
    number = tag_for_keyword(keyword)
    if number is None:
        raise ValueError(f"{keyword} is no DICOM keyword")
    return Tag(number)


_TAGS = {keyword: _tag(keyword) for keyword in (*_PLAIN, *_GROUPS)}
_WANTED: list[BaseTag | int] = list(_TAGS.values())
_LAST_PLAIN = max(_TAGS[keyword] for keyword in _PLAIN)
_SHARED = _TAGS["SharedFunctionalGroupsSequence"]
_PIXELS = _tag("PixelData")

Numbers = tuple[float, ...]


class Kind(NamedTuple):
    """What images have in common that can form one stack; `unsuitable` says why it is not screened, or "".

    `orientation` holds the directions of a row and of a column, `spacing` the mm between rows and
    between columns; both are None where the header has none that is valid.
    """

    study_uid: str
    patient_id: str | None
    series_uid: str
    unsuitable: str
    sharp: bool
    content: str  # digest of the kernel, the first three words of the image type, and the tube voltage
    rows: int
    columns: int
    orientation: Numbers | None
    spacing: Numbers | None


class Image(NamedTuple):
    """One image of a file: a frame, or the only one (None). LPS mm.

    `fault` is the code and the sentence of what the reader will refuse, or None. `phase` tells images
    at one position apart: temporal position, heart phase, trigger time, the further words of the image
    type, acquisition, its time; a digest where it is no number.
    """

    frame: int | None
    instance: str  # digest of the SOPInstanceUID, "" where there is none
    position: Numbers | None
    phase: tuple[float | str | None, ...]
    rescale: Numbers | None  # slope, intercept
    study_date: str
    fault: tuple[str, str] | None


_FAULTS = {kind.code: kind for kind in (MissingGeometry, InconsistentGeometry, UnreadableFile, TooLarge)}


def fault_of(image: Image) -> StudyError | None:
    """What the reader refuses in this image, as the error that it raises."""
    return _FAULTS[image.fault[0]](image.fault[1]) if image.fault else None


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with its preamble or, as old archives have it, without.

    Raises OSError where the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(PREAMBLE_BYTES)
    return start[128:] == b"DICM" or start.startswith(FIRST_TAGS)


def read_images(path: Path) -> list[tuple[Kind, Image]]:
    """The images of a DICOM file, by its frames; none in a DICOM directory.

    Raises UnreadableFile where the header is damaged, or ends too early.
    """
    header = _read(path)
    if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return []
    try:
        _check_complete(header, path)
        return list(_frames(header, path)) if _is_enhanced(header) else [_single(header, path)]
    except FOREIGN_ERRORS as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> FileDataset:
    """The elements that are used, of all before the pixels no other."""
    try:
        with path.open("rb") as file:
            check_inflation(file.read(4096), path)
            file.seek(0)
            return read_partial(file, _stop_after_header(), specific_tags=_WANTED, force=True)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{path.name} cannot be read as DICOM ({cause(error)})") from error


def _stop_after_header() -> Any:
    """Reading ends behind the last plain tag, or at the pixels where there may be functional groups."""
    found_frames = False

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal found_frames
        found_frames |= tag == _TAGS["NumberOfFrames"]
        return tag >= _PIXELS or (tag > _LAST_PLAIN and not found_frames)

    return stop


def check_inflation(start: bytes, path: Path) -> None:
    """Raise TooLarge for a deflated file that would fill the memory; `start` is its beginning."""
    if DeflatedExplicitVRLittleEndian.encode() not in start:
        return
    length = int.from_bytes(start[140:144], "little")  # of the file meta information behind it
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    with path.open("rb") as file:
        file.seek(144 + length)
        while (packed := inflate.unconsumed_tail or file.read(2**16)) and not inflate.eof:
            size += len(inflate.decompress(packed, 2**20))
            if size > LARGEST_INFLATED:
                raise TooLarge(f"{path.name} unpacks to more than {LARGEST_INFLATED} bytes")


def _check_complete(header: FileDataset, path: Path) -> None:
    is_ct = header.get("SOPClassUID") in (CTImageStorage, *ENHANCED)
    modality = _text(header, "Modality")
    if not header.get("Rows") and (is_ct or not modality):
        raise UnreadableFile(f"{path.name} ends within its header")
    if not modality:
        raise UnreadableFile(f"{path.name} has no Modality: whether it is a CT is not known")


def _is_enhanced(header: Dataset) -> bool:
    return header.get("SOPClassUID") in ENHANCED or "PerFrameFunctionalGroupsSequence" in header


def _single(header: Dataset, path: Path) -> tuple[Kind, Image]:
    frames = _text(header, "NumberOfFrames") or "1"
    if int(frames) > 1:
        raise UnreadableFile(f"{path.name} is a multi-frame image without functional groups")
    return _image(_Elements([header]), header, path, None)


def _frames(header: Dataset, path: Path) -> Iterator[tuple[Kind, Image]]:
    """Each frame with its functional groups: its own go before the shared ones, these before the top."""
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    promised = int(_text(header, "NumberOfFrames") or 1)
    if len(frames) != promised:
        yield _image(_Elements([header]), header, path, 0, _no_positions(path, len(frames), promised))
        return
    common = _flat(shared)
    for number, group in enumerate(frames):
        yield _image(_Elements([*_flat([group]), *common, header]), header, path, number)


def _no_positions(path: Path, groups: int, promised: int) -> tuple[str, str]:
    reason = f"{path.name} has {promised} frames, and functional groups with positions for {groups}"
    return MissingGeometry.code, reason


def _flat(groups: Iterable[Dataset]) -> list[Dataset]:
    """The items of the sequences of functional groups, one after the other."""
    return [item for group in groups for element in group if element.VR == "SQ" for item in element.value]


class _Elements:
    """Values by keyword of the first of several datasets that has it, as texts."""

    def __init__(self, datasets: list[Dataset]) -> None:
        self._datasets = datasets

    def words(self, *keywords: str) -> list[str]:
        for keyword in keywords:
            for dataset in self._datasets:
                if keyword in dataset:
                    return _words(dataset, keyword)
        return []

    def numbers(self, keyword: str, count: int) -> Numbers | None:
        """None where there are not `count` finite numbers."""
        try:
            values = tuple(float(word) for word in self.words(keyword))
        except ValueError:
            return None
        return values if len(values) == count and all(map(math.isfinite, values)) else None


def _image(
    found: _Elements, header: Dataset, path: Path, frame: int | None, fault: tuple[str, str] | None = None
) -> tuple[Kind, Image]:
    kernel = found.words("ConvolutionKernel")
    image_type = found.words("FrameType", "ImageType")
    orientation = found.numbers("ImageOrientationPatient", 6)
    kind = Kind(
        study_uid=_text(header, "StudyInstanceUID"),
        patient_id=str(header.get("PatientID") or "").strip() or None,
        series_uid=_text(header, "SeriesInstanceUID"),
        unsuitable=_unsuitable(header, found, {word.upper() for word in image_type}, orientation),
        sharp=any(SHARP_KERNEL.search(word) for word in kernel),
        content=_digest("|".join([*kernel, "", *image_type[:3], "", *found.words("KVP")])),
        rows=int(header.get("Rows") or 0),
        columns=int(header.get("Columns") or 0),
        orientation=orientation,
        spacing=found.numbers("PixelSpacing", 2),
    )
    slope, intercept = found.numbers("RescaleSlope", 1), found.numbers("RescaleIntercept", 1)
    image = Image(
        frame=frame,
        instance=_digest(_text(header, "SOPInstanceUID")),
        position=found.numbers("ImagePositionPatient", 3),
        phase=(
            *(_number_or_digest(found.words(*names)) for names in _PHASES[:3]),
            _digest("|".join(image_type[3:])),
            *(_number_or_digest(found.words(*names)) for names in _PHASES[3:]),
        ),
        rescale=slope + intercept if slope and intercept else None,
        study_date=_date(_text(header, "StudyDate")),
        fault=None,
    )
    return _placeable(kind), image._replace(fault=fault or _fault(kind, image, path.name))


_PHASES = (
    ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("NominalPercentageOfCardiacPhase",),
    ("TriggerTime",),
    ("FrameAcquisitionNumber", "AcquisitionNumber"),
    ("AcquisitionTime",),
)


def _unsuitable(header: Dataset, found: _Elements, image_type: set[str], orientation: Numbers | None) -> str:
    """Why an image is not screened, in words that are none of the header's own."""
    modality = _text(header, "Modality")
    if modality != "CT":
        return modality if modality in MODALITIES else "another modality"
    if not header.get("Rows"):
        return "CT without an image"
    if str(header.get("SOPClassUID") or "").startswith(SECONDARY_CAPTURE):
        return "secondary capture"
    if image_type & LOCALIZERS:
        return "localizer"
    if image_type & PROJECTIONS:
        return "projection or reformat"
    if image_type & DERIVED:
        return "derived"
    if not set(found.words("RescaleType")) <= HOUNSFIELD:
        return "not in Hounsfield units"
    if orientation and abs(np.cross(orientation[:3], orientation[3:])[2]) < AXIAL_COSINE:
        return "not axial"
    return ""


def _fault(kind: Kind, image: Image, name: str) -> tuple[str, str] | None:
    """What makes it impossible to place this image or to read its values."""
    for keyword, value in (
        ("ImageOrientationPatient", kind.orientation),
        ("PixelSpacing", kind.spacing),
        ("ImagePositionPatient", image.position),
    ):
        if value is None:
            return MissingGeometry.code, f"{name} has no valid {keyword}; it is never guessed"
    if image.rescale is None:
        return (
            UnreadableFile.code,
            f"{name} has no valid RescaleSlope and RescaleIntercept; they are never guessed",
        )
    if not _is_perpendicular(kind.orientation):
        reason = f"in {name} ImageOrientationPatient is not two perpendicular directions"
        return InconsistentGeometry.code, reason
    if not _is_positive(kind.spacing):
        return MissingGeometry.code, f"in {name} PixelSpacing is not positive"
    if max(kind.rows, kind.columns) > LARGEST_SIDE:
        return TooLarge.code, f"{name} promises {kind.rows} x {kind.columns} pixels"
    return None


def _is_perpendicular(orientation: Numbers | None) -> bool:
    axes = np.array(orientation or (0.0,) * 6).reshape(2, 3)
    return bool(np.allclose(axes @ axes.T, np.eye(2), atol=0.01))


def _is_positive(spacing: Numbers | None) -> bool:
    return min(spacing or (0.0,)) > 0


def _placeable(kind: Kind) -> Kind:
    """The kind without the numbers that place nothing, which its image has as a fault."""
    return kind._replace(
        orientation=kind.orientation if _is_perpendicular(kind.orientation) else None,
        spacing=kind.spacing if _is_positive(kind.spacing) else None,
    )


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    return UnreadableFile(f"the header of {path.name} is damaged ({cause(error)})")


def _text(dataset: Dataset, keyword: str) -> str:
    """The value as it stands, the first of several."""
    words = _words(dataset, keyword)
    return words[0] if words else ""


def _words(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an element as texts; those that are stored as text are not converted, which is slow."""
    tag = _TAGS.get(keyword) or _tag(keyword)
    if tag not in dataset:
        return []
    value: Any = dataset[tag].value if keyword in _BINARY else dataset.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        return [word.strip(" \0") for word in value.split("\\")] if value.strip(" \0") else []
    if value is None:
        return []
    return [str(word) for word in ([value] if isinstance(value, (int, float)) else value)]


def _date(text: str) -> str:
    """What is no date may be anything."""
    return text if re.fullmatch(r"\d{8}", text, re.ASCII) else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _number_or_digest(words: list[str]) -> float | str | None:
    try:
        return float(words[0]) if words else None
    except ValueError:
        return _digest(words[0])
