"""DICOM headers -> what each image of a file is and where it lies. No pixels, no free text.

Single-frame CT and enhanced CT with functional groups give the same records, a frame being an image.
What identifies a person beyond the linking keys is not kept: kernels and instance UIDs are only
compared, so their digests will do.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import CTImageStorage

from vfscreen.errors import InconsistentGeometry, MissingGeometry, StudyError, TooLarge, UnreadableFile
from vfscreen.readers.common import cause
from vfscreen.readers.dicom_fields import ENHANCED, FOREIGN_ERRORS, Fields, Header, read_header, text

PREAMBLE_BYTES = 132  # with the letters DICM at its end
FIRST_TAGS = (b"\x02\0\0\0UL", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")
"""How a DICOM file without preamble can begin."""
LARGEST_SIDE = 8192  # rows or columns of a slice: ten times what a CT has
LARGEST_RESCALE = 1e6
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
SHARP_KERNEL = re.compile(
    r"BONE|LUNG|EDGE|ULTRA|SHARP|^[BDHIJTUQ][A-Z]?[5-9]\d|^Y|^[DEL]$|^FC[358]\d", re.IGNORECASE
)
"""Edge-enhancing kernels: GE by word, Siemens by number (B50 up), Philips by letter, Canon by FC number."""
PERPENDICULAR = 0.01  # off which two directions may be, as the product of their cosines
_PHASES = (
    ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("NominalPercentageOfCardiacPhase",),
    ("TriggerTime",),
    ("FrameAcquisitionNumber", "AcquisitionNumber"),
    ("AcquisitionTime",),
)

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
    header = read_header(path)
    if header.is_directory:
        return []
    _check_complete(header.top, path)
    try:
        return _images(header, path)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"the header of {path.name} is damaged ({cause(error)})") from error


def _check_complete(top: Fields, path: Path) -> None:
    is_ct = text(top, "SOPClassUID") in (CTImageStorage, *ENHANCED)
    modality = text(top, "Modality")
    if not _count(top, "Rows") and (is_ct or not modality):
        raise UnreadableFile(f"{path.name} ends within its header")
    if not modality:
        raise UnreadableFile(f"{path.name} has no Modality: whether it is a CT is not known")


def _images(header: Header, path: Path) -> list[tuple[Kind, Image]]:
    if header.frames is None:
        reason = f"{path.name} is a multi-frame image without functional groups"
        fault = (UnreadableFile.code, reason) if header.promised > 1 else None
        return [_image(header.top, path, None, fault)]
    if len(header.frames) == header.promised:
        return [_image(fields, path, number) for number, fields in enumerate(header.frames)]
    groups, promised = len(header.frames), header.promised
    reason = f"{path.name} has {promised} frames, and functional groups with positions for {groups}"
    return [_image(header.top, path, 0, (MissingGeometry.code, reason))]


def _image(
    fields: Fields, path: Path, frame: int | None, fault: tuple[str, str] | None = None
) -> tuple[Kind, Image]:
    kernel, image_type = _words(fields, "ConvolutionKernel"), _words(fields, "FrameType", "ImageType")
    orientation = _numbers(fields, "ImageOrientationPatient", 6)
    kind = Kind(
        study_uid=text(fields, "StudyInstanceUID"),
        patient_id="\\".join(_words(fields, "PatientID")) or None,
        series_uid=text(fields, "SeriesInstanceUID"),
        unsuitable=_unsuitable(fields, {word.upper() for word in image_type}, orientation),
        sharp=any(SHARP_KERNEL.search(word) for word in kernel),
        content=_digest("|".join([*kernel, "", *image_type[:3], "", *_words(fields, "KVP")])),
        rows=_count(fields, "Rows"),
        columns=_count(fields, "Columns"),
        orientation=orientation,
        spacing=_numbers(fields, "PixelSpacing", 2),
    )
    slope, intercept = _numbers(fields, "RescaleSlope", 1), _numbers(fields, "RescaleIntercept", 1)
    phase = [_number_or_digest(_words(fields, *names)) for names in _PHASES]
    image = Image(
        frame=frame,
        instance=_digest(text(fields, "SOPInstanceUID")),
        position=_numbers(fields, "ImagePositionPatient", 3),
        phase=(*phase[:3], _digest("|".join(image_type[3:])), *phase[3:]),
        rescale=slope + intercept if slope and intercept else None,
        study_date=_date(text(fields, "StudyDate")),
        fault=None,
    )
    return _placeable(kind), image._replace(fault=fault or _fault(kind, image, path.name))


def _unsuitable(fields: Fields, image_type: set[str], orientation: Numbers | None) -> str:
    """Why an image is not screened, in words that are none of the header's own."""
    modality = text(fields, "Modality")
    if modality != "CT":
        return modality if modality in MODALITIES else "another modality"
    if not _count(fields, "Rows"):
        return "CT without an image"
    if text(fields, "SOPClassUID").startswith(SECONDARY_CAPTURE):
        return "secondary capture"
    if image_type & LOCALIZERS:
        return "localizer"
    if image_type & PROJECTIONS:
        return "projection or reformat"
    if image_type & DERIVED:
        return "derived"
    if not set(_words(fields, "RescaleType")) <= HOUNSFIELD:
        return "not in Hounsfield units"
    if orientation and _is_perpendicular(orientation) and abs(_normal_z(orientation)) < AXIAL_COSINE:
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
    if image.rescale is None or max(map(abs, image.rescale)) > LARGEST_RESCALE:
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


def _normal_z(axes: Numbers) -> float:
    """The third component of the directions' cross product."""
    return axes[0] * axes[4] - axes[1] * axes[3]


def _is_perpendicular(axes: Numbers | None) -> bool:
    if axes is None:
        return False
    row, column = axes[:3], axes[3:]
    products = (_dot(row, row) - 1, _dot(column, column) - 1, _dot(row, column))
    return max(map(abs, products)) <= PERPENDICULAR


def _dot(one: Numbers, other: Numbers) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _is_positive(spacing: Numbers | None) -> bool:
    return min(spacing or (0.0,)) > 0


def _placeable(kind: Kind) -> Kind:
    """The kind without the numbers that place nothing, which its image has as a fault."""
    return kind._replace(
        orientation=kind.orientation if _is_perpendicular(kind.orientation) else None,
        spacing=kind.spacing if _is_positive(kind.spacing) else None,
    )


def _words(fields: Fields, *keywords: str) -> list[str]:
    """The values of the first keyword that has any."""
    return next((fields[keyword] for keyword in keywords if keyword in fields), [])


def _numbers(fields: Fields, keyword: str, count: int) -> Numbers | None:
    """None where there are not `count` finite numbers."""
    try:
        values = tuple(float(word) for word in fields.get(keyword, ()))
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _count(fields: Fields, keyword: str) -> int:
    return int(text(fields, keyword) or 0)


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
