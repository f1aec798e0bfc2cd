"""The tables as a REDCap project: its data dictionary, docs/redcap.csv, made from the Arrow schemas.

A record is a study. Vertebrae and readers' verdicts are instruments that repeat in it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from vfscreen.adjudication.schemas import VERDICT_ROWS
from vfscreen.adjudication.verdicts import GRADES as READ_GRADES
from vfscreen.adjudication.verdicts import VERDICTS
from vfscreen.results import STUDIES, VERTEBRAE

HEADER = (
    "Variable / Field Name",
    "Form Name",
    "Section Header",
    "Field Type",
    "Field Label",
    "Choices, Calculations, OR Slider Labels",
    "Field Note",
    "Text Validation Type OR Show Slider Number",
    "Text Validation Min",
    "Text Validation Max",
    "Identifier?",
    "Branching Logic (Show field only if...)",
    "Required Field?",
    "Custom Alignment",
    "Question Number (surveys only)",
    "Matrix Group Name",
    "Matrix Ranking?",
    "Field Annotation",
)
"""REDCap's own columns, in its order."""

RECORD = "study_id"
KEYS = ("patient_id", RECORD)


@dataclass(frozen=True)
class Instrument:
    """A table as a form. `prefix` makes the names of its columns unique in the project."""

    form: str
    schema: pa.Schema
    prefix: str = ""

    def columns(self) -> Iterator[tuple[str, pa.Field]]:
        """Variable and field; the keys stand in the form of the study alone, its record id first."""
        if not self.prefix:
            yield RECORD, self.schema.field(RECORD)
        for field in self.schema:
            if field.name not in (KEYS if self.prefix else (RECORD,)):
                yield f"{self.prefix}{field.name}", field


INSTRUMENTS = (
    Instrument("study", STUDIES),
    Instrument("vertebrae", VERTEBRAE, "v_"),
    Instrument("verdicts", VERDICT_ROWS, "r_"),
)

_GRADES = {"normal": "Normal", "mild": "Mild", "moderate": "Moderate", "severe": "Severe"}
CHOICES: Mapping[str, Mapping[str, str]] = {
    "status": {
        "ok": "Measured",
        "partial": "Too little could be measured, never to be counted as negative",
        "failed": "An error",
        "skipped": "Nothing in it to screen",
    },
    "grade": _GRADES,
    "v_grade": _GRADES,
    "v_shape": {"normal": "Normal", "wedge": "Wedge", "biconcave": "Biconcave", "crush": "Crush"},
    "r_verdict": {verdict.replace(" ", "_"): verdict.capitalize() for verdict in VERDICTS},
    "r_verdict_grade": {grade: _GRADES[grade] for grade in READ_GRADES},
}
"""Of each variable with a few values what a cell holds, in which REDCap takes no blank, and its label."""

IDENTIFIERS = (
    *KEYS,
    "study_date",
    "source",
    "series_uid",
    "reason",
    "thumbnail",
    "r_reader",
    "r_verdict_comment",
)
"""What names a person, a day, or a place in the archive, or may do so."""

LONG_TEXTS = ("series_choice", "reason", "r_verdict_comment")
VALIDATION = {pa.int32(): "integer", pa.float64(): "number", pa.date32(): "date_ymd"}


def data_dictionary() -> str:
    """The project's data dictionary as REDCap imports it, in CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, HEADER, restval="", lineterminator="\n")
    writer.writeheader()
    for instrument in INSTRUMENTS:
        writer.writerows(_row(instrument.form, *column) for column in instrument.columns())
    return stream.getvalue()


def _row(form: str, variable: str, field: pa.Field) -> dict[str, str]:
    unit = _told(field, "unit")
    choices = CHOICES.get(variable, {})
    return {
        "Variable / Field Name": variable,
        "Form Name": form,
        "Field Type": _type(variable, field.type),
        "Field Label": _label(_told(field, "meaning")),
        "Choices, Calculations, OR Slider Labels": " | ".join(
            f"{code}, {text}" for code, text in choices.items()
        ),
        "Field Note": "Several are separated by a semicolon" if pa.types.is_list(field.type) else unit,
        "Text Validation Type OR Show Slider Number": VALIDATION.get(field.type, ""),
        "Identifier?": "y" if variable in IDENTIFIERS else "",
    }


def _type(variable: str, kind: pa.DataType) -> str:
    if variable in CHOICES:
        return "radio"
    if kind == pa.bool_():
        return "yesno"
    return "notes" if variable in LONG_TEXTS else "text"


def _label(meaning: str) -> str:
    """Without Markdown, and without a < that REDCap would take for the beginning of a tag."""
    return meaning.replace("`", "").replace("<=", "≤")


def _told(field: pa.Field, key: str) -> str:
    return str(field.metadata[key.encode()].decode())
