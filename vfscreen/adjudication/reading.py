"""Files of verdicts: the workbook as Excel or LibreOffice saves it, or CSV, also that of the page."""

from __future__ import annotations

import datetime
import difflib
import logging
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from vfscreen.adjudication.schemas import VERDICT_ROWS
from vfscreen.adjudication.verdicts import COLUMNS, GRADES, VERDICTS
from vfscreen.errors import InputError
from vfscreen.spreadsheets import read_csv

log = logging.getLogger(__name__)

SHEET = "flagged"
"""The sheet of a workbook that holds the verdicts; where there is none of that name, the first one does."""

_READ = ("study_id", *COLUMNS)
_ORIGIN = ("file", "row")  # of a verdict, as verdicts.csv tells it
_WITHOUT_FRACTURE = ("no fracture", "not readable")

Cells = dict[str, str | None]


@dataclass(frozen=True)
class Reading:
    """What one reader says of one study, and in which row of which file.

    `moment` is when it was read: a time with its offset, a date where no time is known, or None.
    """

    study_id: str
    reader: str
    verdict: str
    grade: str | None
    vertebra: int | None
    comment: str | None
    read_at: str | None
    moment: datetime.date | None
    file: str
    row: int

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.file}, row {self.row}, study_id {self.study_id}"

    @property
    def decision(self) -> tuple[str, str | None, int | None]:
        """What it decides, without the comment."""
        return self.verdict, self.grade, self.vertebra


def read_verdicts(path: Path, reader: str = "") -> list[Reading]:
    """The rows of a file that have a verdict; the others are unread. `reader` is who, where no row says it.

    Verdict and grade are taken in any case and spacing. Raises InputError naming file, row and study for
    what is no verdict, contradicts itself, or has no reader.
    """
    table = _table(path)
    missing = [name for name in ("study_id", "verdict") if name not in table]
    if missing:
        raise InputError(
            f"{path.name} has no column {missing[0]}; it has: {', '.join(table.columns)}. Give flagged.xlsx, "
            f"the file of the page, or a table with study_id and {', '.join(COLUMNS)}"
        )
    is_ours = list(table.columns) == VERDICT_ROWS.names
    table = table.reindex(columns=[*_READ, *(_ORIGIN if is_ours else ())])
    table = table.astype(object).where(table.notna(), None)
    readings = [
        _reading(path.name, number, dict(zip(table.columns, cells, strict=True)), reader)
        for number, cells in zip(table.index, table.itertuples(index=False), strict=True)
    ]
    return [reading for reading in readings if reading]


def holds_verdicts(path: Path) -> bool:
    """Whether somebody has typed into the columns of the verdict of a workbook, or it does not tell."""
    try:
        table = _workbook(path)
    except (OSError, ValueError, KeyError, BadZipFile):
        return True
    return not set(COLUMNS) <= set(table) or bool(table[list(COLUMNS)].notna().any(axis=None))


def _table(path: Path) -> pd.DataFrame:
    """All columns as text; the index is the number of the row as a spreadsheet shows it."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path} does not exist; give flagged.xlsx, or the file that report.html saved")
    try:
        if suffix == ".xlsx":
            table = _workbook(path)
        elif suffix in (".csv", ".tsv", ".txt"):
            table = _csv(path)
        else:
            raise InputError(f"{path.name} is neither .xlsx nor .csv; save it as one of them")
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a table: {error}; give .xlsx, or CSV in UTF-8") from error
    table.columns = table.columns.map(lambda name: str(name).strip())
    twice = [name for name in _READ if f"{name}.1" in table]  # as pandas calls the second one
    if twice:
        raise InputError(f"{path.name} has two columns {twice[0]}; keep one of them")
    return table


def _workbook(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of drop-downs and colours that openpyxl drops
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheet = SHEET if SHEET in book.sheet_names else 0
            table = pd.read_excel(book, sheet, dtype=object, keep_default_na=False, na_values=[""])
    return _numbered(table.map(_text))


def _csv(path: Path) -> pd.DataFrame:
    table = read_csv(path, str, skip_blank_lines=False, keep_default_na=False, na_values=[""])
    return _numbered(table.map(_text).map(_without_apostrophe, na_action="ignore"))


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(pd.RangeIndex(2, len(table) + 2))


def _text(cell: Any) -> str | None:
    """A cell as text, None for nothing; 7.0 is 7, and midnight is a date."""
    if pd.isna(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, datetime.datetime):
        cell = cell.date() if cell.time() == datetime.time() else cell.isoformat()
    return str(cell).strip() or None


def _without_apostrophe(text: str) -> str:
    """As it was before `write_csv` kept it from being a formula."""
    return text[1:] if re.match("'[=+@-]", text) else text


def _reading(file: str, number: int, row: Cells, reader: str) -> Reading | None:
    said = [name for name in ("verdict_grade", "verdict_vertebra") if row[name]]
    if not row["verdict"] and not said:
        if row["verdict_comment"]:
            log.warning("%s, row %d: a comment without a verdict; the study counts as unread", file, number)
        return None
    if not row["study_id"]:
        raise InputError(f"{file}, row {number}: a verdict without study_id; fill it in")
    place = f"{file}, row {number}, study_id {row['study_id']}"
    if not row["verdict"]:
        raise InputError(f"{place}: {said[0]} without a verdict; choose one of {', '.join(VERDICTS)}")
    verdict = _choice(row["verdict"], VERDICTS, f"{place}: verdict") or ""
    if said and verdict in _WITHOUT_FRACTURE:
        raise InputError(f"{place}: {verdict!r} contradicts {said[0]} {row[said[0]]!r}; empty one of them")
    who = " ".join((row["reader"] or reader).split())
    if not who:
        raise InputError(f"{place}: nobody is named in the column reader; fill it in, or add --reader NAME")
    origin, row_there = row.get("file"), row.get("row") or ""
    return Reading(
        study_id=row["study_id"],
        reader=who,
        verdict=verdict,
        grade=_choice(row["verdict_grade"], GRADES, f"{place}: verdict_grade"),
        vertebra=_whole(row["verdict_vertebra"], place),
        comment=row["verdict_comment"],
        read_at=row["read_at"],
        moment=_moment(row["read_at"], place),
        file=origin or file,
        row=int(row_there) if row_there.isdecimal() else number,
    )


def _choice(text: str | None, choices: Collection[str], what: str) -> str | None:
    if text is None:
        return None
    known = {_plain(choice): choice for choice in choices}
    if _plain(text) in known:
        return known[_plain(text)]
    near = difflib.get_close_matches(_plain(text), known, n=1)
    hint = f"did you mean {known[near[0]]!r}?" if near else "mend it"
    raise InputError(f"{what} {text!r} is none of {', '.join(choices)}; {hint}")


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text).casefold()


def _whole(text: str | None, place: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,4}(\.0)?", text, re.ASCII):
        raise InputError(
            f"{place}: verdict_vertebra {text!r} is no number of a vertebra; give the one in the picture"
        )
    return int(text.removesuffix(".0"))


def _moment(text: str | None, place: str) -> datetime.date | None:
    """A date, or a time that knows its offset: without one it is in the time zone of this machine."""
    if text is None:
        return None
    try:
        if len(text) == len("2000-01-01"):
            return datetime.date.fromisoformat(text)
        time = datetime.datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text))
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{place}: read_at {text!r} is no date or time; write it as 2026-01-31 or 2026-01-31T14:30+01:00"
        ) from error
