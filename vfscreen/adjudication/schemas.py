"""The tables of adjudication: every column with its type, unit and meaning, as in `results/schemas.py`."""

from __future__ import annotations

import pyarrow as pa

from vfscreen.adjudication.verdicts import COLUMNS
from vfscreen.results import STUDIES, column

_TEXT, _COUNT = pa.string(), pa.int32()

_PATIENT, _STUDY = STUDIES.field("patient_id"), STUDIES.field("study_id")

BASES = {
    "single reader": "one reader alone read it",
    "all agree": "several readers, who gave the same verdict",
    "arbiter": "the reader named by `--arbiter` decided",
    "conflict": "the readers gave different verdicts",
}
"""What the consensus of a study rests on."""

CHANGES = {
    "confirmed": "readers and machine say the same: flagged and fractured, or neither",
    "rejected": "flagged, and not fractured",
    "added": "fractured, and not flagged",
    "ruled out": "not fractured, where `auto_flagged` is null",
    "open": "`fracture` is null",
}
"""What the readers change in the automatic result."""

VERDICT_ROWS = pa.schema(
    [
        _PATIENT,
        _STUDY,
        column("reader", _TEXT, COLUMNS["reader"]),
        *(
            column(name, _COUNT if name == "verdict_vertebra" else _TEXT, meaning)
            for name, meaning in COLUMNS.items()
            if name != "reader"
        ),
        column("file", _TEXT, "Name of the file that holds the verdict"),
        column("row", _COUNT, "Its row there, as a spreadsheet counts; the header is row 1"),
    ]
)


def _automatic(name: str) -> pa.Field:
    field = STUDIES.field(name)
    return column(f"auto_{name}", field.type, f"`{name}` of studies.parquet: {_meaning(field)}")


def _meaning(field: pa.Field) -> str:
    return str(field.metadata[b"meaning"].decode())


def _listed(meanings: dict[str, str]) -> str:
    return "; ".join(f"`{name}`: {meaning}" for name, meaning in meanings.items())


_AUTOMATIC = [_automatic(name) for name in ("status", "flagged", "grade", "min_genant_ratio")]

STUDIES_READ = pa.schema(
    [
        _PATIENT,
        _STUDY,
        STUDIES.field("study_date"),
        *_AUTOMATIC,
        column("n_readers", _COUNT, "Readers who gave a verdict"),
        column("readers", pa.list_(pa.field("element", _TEXT)), "Who they are"),
        column("basis", _TEXT, f"What the consensus rests on. {_listed(BASES)}"),
        column("consensus", _TEXT, "Verdict of the readers, who all gave it, or of the arbiter; else null"),
        column(
            "fracture",
            pa.bool_(),
            "True: the consensus is `fracture`. False: it is `no fracture`. Null: it is another, or there is "
            "none",
        ),
        column(
            "consensus_grade",
            _TEXT,
            "Grade of the worst fracture; null where readers differ or none gives one",
        ),
        column(
            "consensus_vertebra",
            _COUNT,
            "Number of that vertebra; null where readers differ or none gives one",
        ),
        column("change", _TEXT, f"What it changes in the automatic result. {_listed(CHANGES)}"),
    ]
)

CONFLICTS = pa.schema(
    [
        _PATIENT,
        _STUDY,
        *_AUTOMATIC,
        column("verdicts", _TEXT, "Who said what: reader, verdict, grade, vertebra, comment"),
        STUDIES.field("thumbnail"),
        STUDIES.field("source"),
    ]
)
