"""Pages of docs/ that are made from the code: the data dictionary and the errors."""

from __future__ import annotations

import pyarrow as pa

from vfscreen import errors
from vfscreen.adjudication.schemas import CONFLICTS, STUDIES_READ, VERDICT_ROWS
from vfscreen.check import SERIES
from vfscreen.errors import StudyError
from vfscreen.results import FLAGGED, PATIENTS, RETRIED, STUDIES, VERTEBRAE

_TABLES = {
    "studies.parquet": (STUDIES, "One row a study: what was measured, or why it was not."),
    "vertebrae.parquet": (VERTEBRAE, "One row a vertebra; positions in DICOM patient coordinates (LPS)."),
    "patients.parquet": (PATIENTS, "One row a patient: the smallest G over their studies."),
    "flagged.csv": (
        FLAGGED,
        "One row a flagged study, the smallest G first. A text that a spreadsheet would take for a "
        "formula (it begins with `=`, `+`, `-` or `@`) has an apostrophe before it.",
    ),
    "adjudicated/verdicts.csv, verdicts.parquet, superseded.csv": (
        VERDICT_ROWS,
        "Written by `vfscreen adjudicate`: one row a reader and study.",
    ),
    "adjudicated/studies.csv, studies.parquet": (STUDIES_READ, "One row a study that was read."),
    "adjudicated/conflicts.csv": (CONFLICTS, "What readers said differently of a study."),
    "series.csv, series.parquet": (SERIES, "Written by `vfscreen check`: one row a series."),
}


def data_dictionary() -> str:
    """The columns of every table, as Markdown: docs/data-dictionary.md."""
    lines = [
        "# Data dictionary",
        "",
        "Generated from the schemas in the code by `make docs`. The unit and meaning of a column are also in "
        "the metadata of its field in the Parquet file. The codes in `studies.error` are in "
        "[errors.md](errors.md).",
    ]
    head = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    for name, (schema, about) in _TABLES.items():
        lines += ["", f"## {name}", "", about, "", *head]
        lines += [f"| `{f.name}` | {f.type} | {_of(f, 'unit')} | {_of(f, 'meaning')} |" for f in schema]
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Every code of `studies.error` with its meaning and what to do, as Markdown: docs/errors.md."""
    kinds = study_errors()
    lines = [
        "# Errors",
        "",
        "Generated from `vfscreen/errors.py` by `make docs`. A study that cannot be screened is a row of "
        "`studies.parquet` with one of these codes in `error` and a sentence in `reason`; the others go on. "
        "`failed` means that something is wrong, `skipped` that there is nothing to screen.",
        "",
        "`vfscreen run ARCHIVE --out RESULTS --retry-failed` screens those that failed again, and no others. "
        "Without the option the next call screens those whose files changed, and those with "
        f"{_listed([kind.code for kind in kinds if kind.code in RETRIED])}, since the machine may have been "
        "the cause.",
        "",
        "| code | status | meaning |",
        "| --- | --- | --- |",
        *(f"| [`{kind.code}`](#{kind.code}) | {kind.status} | {meaning(kind)} |" for kind in kinds),
    ]
    for kind in kinds:
        lines += ["", f"## {kind.code}", "", f"{meaning(kind)} (`{kind.status}`)", "", kind.advice]
    return "\n".join(lines) + "\n"


def study_errors() -> list[type[StudyError]]:
    """The classes whose codes stand in the tables."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, StudyError) and kind is not StudyError]


def meaning(kind: type[StudyError]) -> str:
    """What an error means, in one sentence."""
    return (kind.__doc__ or "").partition("\n")[0]


def _listed(codes: list[str]) -> str:
    quoted = [f"`{code}`" for code in codes]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _of(field: pa.Field, key: str) -> str:
    return str(field.metadata[key.encode()].decode())
