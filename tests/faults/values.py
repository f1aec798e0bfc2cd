"""Texts of headers: dates that are none, UIDs that are paths, IDs that are formulas."""

from __future__ import annotations

from pathlib import Path

from faults.registry import Failed, Measured, fault
from faults.sound import short, sound
from faults.writing import put_all, save, slices


def _text(name: str, keyword: str, text: str | bytes, **columns: object) -> None:
    @fault(name, Measured(columns=columns))
    def write(folder: Path) -> None:
        save(put_all(slices(sound()), keyword, text), folder)


_text("a date that is none", "StudyDate", "DOE^JANE", study_date=None)
_text("a date of the old form", "StudyDate", "2020.01.31", study_date=None)
_text("the thirtieth of February", "StudyDate", "20200230", study_date=None)
_text("an empty date", "StudyDate", "", study_date=None)
_text("a study UID that is a path", "StudyInstanceUID", "../../../escaped")
_text("a study UID that is an absolute path", "StudyInstanceUID", "/tmp/vfscreen_escaped")
_text("a study UID of two dots", "StudyInstanceUID", "..")
_text("a study UID of three hundred digits", "StudyInstanceUID", "1." + "2" * 300)
_text("a study UID with zeros and blanks round it", "StudyInstanceUID", " 1.2.3.9 \0\0")
_text("a patient ID that is a formula", "PatientID", "=cmd()", patient_id="=cmd()")
_text("a patient ID that is a formula with a sign", "PatientID", "+1+cmd|' /C calc'!A0")
_text("a patient ID with quotes and commas", "PatientID", "\"a\",'b';c")
_text("a patient ID that looks like markup", "PatientID", "[red]x[/red]<b>&amp;")
_text("a patient ID in Latin letters without a character set", "PatientID", "Müller".encode("latin-1"))
_text("a patient ID of ten thousand letters", "PatientID", "p" * 10_000)
_text("a patient ID with a line break and an escape", "PatientID", "a\r\nb\x1b[31mc\x07")
_text("a patient ID of two values", "PatientID", "A\\B", patient_id="A\\B")
_text("no patient ID", "PatientID", "", patient_id=None)
_text("a character set that is unknown", "SpecificCharacterSet", "ISO_IR DOE")
_text("a kernel of several words", "ConvolutionKernel", "Qr40f\\2")
_text("numbers with blanks, signs and exponents", "RescaleIntercept", "  -1.024E+03 ")


@fault("a name in a text of the wrong character set", Measured())
def wrong_character_set(folder: Path) -> None:
    datasets = slices(sound(), SpecificCharacterSet="ISO_IR 192")
    save(put_all(datasets, "PatientName", b"DOE^JANE\xff\xfe"), folder)


@fault("a path as the UID of a study that fails", Failed("missing_geometry", "PixelSpacing"))
def failing_path(folder: Path) -> None:
    save(put_all(slices(short(), PixelSpacing=None), "StudyInstanceUID", "../../../escaped2"), folder)


@fault("names planted where the reason could repeat them", Failed("missing_geometry"))
def planted(folder: Path) -> None:
    datasets = put_all(slices(short()), "ImagePositionPatient", "DOE^JANE\\19500101\\3")
    put_all(datasets, "PixelSpacing", "DOE^JANE")
    put_all(datasets, "ImageOrientationPatient", "DOE^JANE")
    save(datasets, folder)


@fault("names planted in image type and modality", Failed("no_suitable_series"))
def planted_modality(folder: Path) -> None:
    datasets = put_all(slices(short()), "Modality", "DOE JANE")
    save(put_all(datasets, "ImageType", "DOE JANE\\19500101"), folder)


@fault("Rows that are a letter", Failed(("too_large", "unreadable_file")))
def wrong_type(folder: Path) -> None:
    save(put_all(slices(short()), "Rows", b"a"), folder)
