"""The instances of a series as a DICOM SR refers to them: UIDs from the headers, nothing else."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from vfscreen.readers.dicom_fields import Fields, read_header, text
from vfscreen.study import SourceImages

logger = logging.getLogger(__name__)

_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", re.ASCII)
SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
"""What the instances of a series have in common."""


def source_images(files: Sequence[Path]) -> SourceImages | None:
    """The instances of these files, of which one of many frames stands there once for each frame.

    None, with a warning, where they cannot be referred to: a UID is absent or none, or they do not share
    study, series, class or frame of reference. Raises UnreadableFile where a header is damaged.
    """
    headers = [read_header(path).top for path in dict.fromkeys(files)]
    shared = {tuple(text(fields, keyword) for keyword in SHARED) for fields in headers}
    instances = dict.fromkeys(text(fields, "SOPInstanceUID") for fields in headers)
    if len(shared) > 1:
        logger.warning("no DICOM SR, the files differ in one of %s", ", ".join(SHARED))
        return None
    ((study, series, sop_class, frame_of_reference),) = shared
    if not all(map(_UID.fullmatch, (study, series, sop_class, frame_of_reference, *instances))):
        logger.warning("no DICOM SR, one of %s, SOPInstanceUID is absent or no UID", ", ".join(SHARED))
        return None
    return SourceImages(study, series, sop_class, frame_of_reference, tuple(instances), _time(headers[0]))


def _time(fields: Fields) -> str:
    """What is no time may be anything."""
    time = text(fields, "StudyTime")
    return time if _TIME.fullmatch(time) else ""
