"""The values of a DICOM header that are used, as texts by keyword; of each frame where there are many."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom.config
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from vfscreen.errors import TooLarge, UnreadableFile
from vfscreen.readers.common import DAMAGE_ERRORS, cause
from vfscreen.readers.header_scan import Element, scan

# Values are checked where they are used; pydicom's warnings would repeat them in the log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module="pydicom")

FOREIGN_ERRORS = (*DAMAGE_ERRORS, InvalidDicomError)
"""What pydicom and its decoders raise on damaged files."""
LARGEST_INFLATED = 2**30  # bytes of a deflated file
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_PLAIN = (
    "MediaStorageSOPClassUID",
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "AcquisitionTime",
    "ImageType",
    "Modality",
    "PatientID",
    "KVP",
    "TriggerTime",
    "ConvolutionKernel",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
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
_OF_FRAMES = ("FrameType", "TemporalPositionIndex", "FrameAcquisitionNumber")
_BINARY = {
    "Rows": (b"US", "<H"),
    "Columns": (b"US", "<H"),
    "NominalPercentageOfCardiacPhase": (b"FD", "<d"),
    "TemporalPositionIndex": (b"UL", "<I"),
    "FrameAcquisitionNumber": (b"US", "<H"),
}
"""Values that are not stored as text: VR and form."""
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def _tag(keyword: str) -> BaseTag:
    number = tag_for_keyword(keyword)
    if number is None:
        raise ValueError(f"{keyword} is no DICOM keyword")
    return Tag(number)


_TAGS = {keyword: _tag(keyword) for keyword in (*_PLAIN, *_OF_FRAMES, *_GROUPS)}
_KEYWORDS: dict[int, str] = {int(_TAGS[keyword]): keyword for keyword in _PLAIN}
_LAST_PLAIN = max(_KEYWORDS)
_PIXELS = _tag("PixelData")

Fields = Mapping[str, list[str]]
"""Values by keyword; what is absent or empty has no entry."""


@dataclass(frozen=True)
class Header:
    """A file's fields, and those of each frame, its functional groups before the file's own.

    `promised` is NumberOfFrames; `frames` is None in a single-frame file.
    """

    top: Fields
    frames: list[Fields] | None = None

    @property
    def promised(self) -> int:
        """The number of frames that the header tells."""
        return int(text(self.top, "NumberOfFrames") or 1)

    @property
    def is_directory(self) -> bool:
        """Whether the file is a DICOMDIR."""
        return text(self.top, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def text(fields: Fields, keyword: str) -> str:
    """The first value, or nothing."""
    return next(iter(fields.get(keyword, ())), "")


def read_header(path: Path) -> Header:
    """The fields of a DICOM file. Raises UnreadableFile where the header is damaged."""
    try:
        elements = scan(path, _KEYWORDS, _LAST_PLAIN)
        top = None if elements is None else _scanned(elements)
        if top is None or "NumberOfFrames" in top or text(top, "SOPClassUID") in ENHANCED:
            return _parsed(path)
        return Header(top)
    except FOREIGN_ERRORS as error:
        raise UnreadableFile(f"{path.name} cannot be read as DICOM ({cause(error)})") from error


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


# --- the fast way --------------------------------------------------------------------------------


def _scanned(elements: Mapping[int, Element]) -> Fields | None:
    """Scanned elements as texts; None where a character set or a VR needs more than that."""
    fields = {}
    for tag, (vr, value) in elements.items():
        keyword = _KEYWORDS[tag]
        form = _BINARY.get(keyword)
        if form:
            if vr not in (b"", form[0]):
                return None
            words = [str(number) for (number,) in struct.iter_unpack(form[1], value)]
        elif value.isascii():
            words = _split(value.decode("ascii"))
        elif keyword == "PatientID":
            return None
        else:
            words = _split(value.decode("ascii", "replace"))
        if words:
            fields[keyword] = words
    return fields


# --- pydicom's way -------------------------------------------------------------------------------


def _parsed(path: Path) -> Header:
    with path.open("rb") as file:
        check_inflation(file.read(4096), path)
        file.seek(0)
        dataset = read_partial(file, _stop_after_header(), specific_tags=list(_TAGS.values()), force=True)
    top = {**_fields(dataset.file_meta), **_fields(dataset)}
    has_groups = text(top, "SOPClassUID") in ENHANCED or _GROUPS[1] in dataset
    return Header(top, _frames(dataset, top) if has_groups else None)


def _stop_after_header() -> Any:
    """Reading ends behind the last plain tag, or at the pixels where there may be functional groups."""
    found_frames = False

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal found_frames
        found_frames |= tag == _TAGS["NumberOfFrames"]
        return tag >= _PIXELS or (tag > _LAST_PLAIN and not found_frames)

    return stop


def _frames(dataset: FileDataset, top: dict[str, list[str]]) -> list[Fields]:
    shared, frames = (list(dataset.get(name) or ()) for name in _GROUPS)
    common = [*map(_fields, _items(shared)), top]
    return [ChainMap(*map(_fields, _items([group])), *common) for group in frames]


def _items(groups: Iterable[Dataset]) -> list[Dataset]:
    """The items of the sequences of functional groups, one after the other."""
    return [item for group in groups for element in group if element.VR == "SQ" for item in element.value]


def _fields(dataset: Dataset) -> dict[str, list[str]]:
    found = {keyword: _words(dataset, keyword) for keyword in (*_PLAIN, *_OF_FRAMES) if keyword in dataset}
    return {keyword: words for keyword, words in found.items() if words}


def _words(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an element as texts; those that are stored as text are not converted, which is slow."""
    is_converted = keyword in _BINARY or keyword == "PatientID"
    value: Any = dataset[keyword].value if is_converted else dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        return _split(value)
    if value is None:
        return []
    return [str(word) for word in ([value] if isinstance(value, (int, float)) else value)]


def _split(value: str) -> list[str]:
    return [word.strip(" \0") for word in value.split("\\")] if value.strip(" \0") else []
