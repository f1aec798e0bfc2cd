"""Keyed pseudonyms: results that can be linked among each other, and to persons only with the key.

Each kind of name (patient, study, series, source) has pseudonyms of its own, so that nobody learns
from two equal ones that a patient's id is also a folder's name.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
from dataclasses import dataclass, field, replace
from pathlib import Path

from vfscreen.errors import InputError, StudyError
from vfscreen.results import StudyRecord, valid
from vfscreen.study import StudyHeader

MIN_KEY_BYTES = 16
DIGITS = 16  # of a pseudonym, hexadecimal: two of a million patients are alike with a chance of 3e-8
LONGEST_SHIFT = 365  # days
MAKE_KEY = 'python -c "import secrets; print(secrets.token_hex(32))" > key.txt'


class Plain:
    """Stands in for `Pseudonyms` where none are wanted: everything keeps its name."""

    key_digest = None

    def study(self, study_id: str) -> str:
        """As the tables hold it."""
        return valid(study_id)

    def series(self, uid: str) -> str:
        """Itself."""
        return uid

    def source(self, path: str) -> str:
        """As the tables hold it."""
        return valid(path)

    def stamp(self, stamp: str) -> str:
        """Itself."""
        return stamp

    def record(self, record: StudyRecord) -> StudyRecord:
        """Itself."""
        return record


@dataclass(frozen=True)
class Pseudonyms:
    """What replaces names and dates, always the same under one `key`. A date goes back by 1 to 365 days.

    `repr` does not show the key.
    """

    key: bytes = field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> Pseudonyms:
        """The key is the file's content without the newline at its end.

        Raises InputError where the file cannot be read, or holds less than 16 bytes.
        """
        try:
            key = path.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise InputError(
                f"the key {path} cannot be read ({error.strerror}); make one with: {MAKE_KEY}"
            ) from error
        if len(key) < MIN_KEY_BYTES:
            raise InputError(
                f"the key in {path} has {len(key)} bytes of {MIN_KEY_BYTES} needed; make one with: {MAKE_KEY}"
            )
        return cls(key)

    @property
    def key_digest(self) -> str:
        """By which a changed key is noticed; 16 hexadecimal digits."""
        return hashlib.sha256(b"key:" + self.key).hexdigest()[:DIGITS]

    def patient(self, patient_id: str) -> str:
        """The pseudonym of a patient."""
        return self._pseudonym("patient", patient_id)

    def study(self, study_id: str) -> str:
        """The pseudonym of a study."""
        return self._pseudonym("study", study_id)

    def series(self, uid: str) -> str:
        """The pseudonym of a SeriesInstanceUID."""
        return self._pseudonym("series", uid)

    def source(self, path: str) -> str:
        """The pseudonym of the place where a study was found."""
        return self._pseudonym("source", path)

    def stamp(self, stamp: str) -> str:
        """The pseudonym of a digest of files, which whoever has the files could compute again."""
        return self._pseudonym("stamp", stamp)

    def date(self, iso_date: str, owner: str) -> str:
        """A date (YYYY-MM-DD) shifted back by 1 to 365 days, the same number for all dates of one `owner`.

        The owner is the patient, so that the days between two studies stay. A shift that would pass the
        calendar's first day ends there. Raises ValueError where the date is none.
        """
        days = 1 + int.from_bytes(self._digest("date", owner), "big") % LONGEST_SHIFT
        day = datetime.date.fromisoformat(iso_date).toordinal()
        return datetime.date.fromordinal(max(1, day - days)).isoformat()

    def record(self, record: StudyRecord) -> StudyRecord:
        """The record without anything that links it to the archive.

        Measurements, doubts and the choice of the series, told by numbers, stay. The sentence of an
        error, which may name files, becomes the general one of its class.
        """
        patient_id = record.patient_id or record.header.patient_id
        owner = patient_id or record.study_id
        result = record.result
        return replace(
            record,
            study_id=self.study(record.study_id),
            source=self.source(record.source),
            patient_id=self.patient(patient_id) if patient_id else None,
            result=result and replace(result, header=self._header(result.header, owner)),
            error=record.error and general(record.error),
            header=self._header(record.header, owner),
            stamp=self.stamp(record.stamp),
        )

    def _header(self, header: StudyHeader, owner: str) -> StudyHeader:
        return replace(
            header,
            patient_id=self.patient(header.patient_id) if header.patient_id else None,
            study_date=self._shifted(header.study_date, owner),
            series_uid=self.series(header.series_uid) if header.series_uid else None,
        )

    def _shifted(self, iso_date: str | None, owner: str) -> str | None:
        """A date that is none is left out."""
        try:
            return self.date(iso_date, owner) if iso_date else None
        except ValueError:
            return None

    def _pseudonym(self, kind: str, name: str) -> str:
        return self._digest(kind, name).hex()[:DIGITS]

    def _digest(self, kind: str, name: str) -> bytes:
        # a path that is no UTF-8 has surrogates
        text = f"{kind}:{name}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.key, text, "sha256")


def general(error: StudyError) -> StudyError:
    """An error of the same class that says what all of them have in common."""
    sentence = (type(error).__doc__ or type(error).code).partition("\n")[0]
    return type(error)(sentence)
