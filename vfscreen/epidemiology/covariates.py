"""Age, sex and further covariates of patients or studies, from a CSV or Parquet file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from vfscreen.epidemiology.dictionary import ANALYSIS
from vfscreen.errors import InputError
from vfscreen.spreadsheets import read_csv

KEYS = ("study_id", "patient_id")
OLDEST = 120  # years
YEARS = (1850, 2100)
LONGEST_NAME = 32  # letters of a name in Stata

_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
_UNKNOWN = {"na", "n/a", "#n/a", "<na>", "nan", "none", "null", "."}
"""What R, Stata, SPSS, spreadsheets and Python write for an unknown value, in small letters."""
_TAKEN = {
    *(column.name for column in ANALYSIS),
    *("all", "age_group_sex", "status", "error", "is_listed", "who", "years"),
}


@dataclass(frozen=True)
class Covariates:
    """Covariates as read: one row a `key`, which is `study_id` or `patient_id`.

    `table` has the key, `sex`, `age` in years or `birth_year`, the columns named by `by`, and `patient_id`
    where the file has both keys. Ids, sex and `by` are text, None where unknown: where the cell is empty, and
    in ids, age, `birth_year` and sex also where it is NA, NaN or the like. Of a column of `by` NA is a value.
    """

    path: Path
    key: str
    by: tuple[str, ...]
    table: pd.DataFrame


def read_covariates(path: Path, by: Sequence[str] = ()) -> Covariates:
    """Read and check covariates. A file with `study_id` is joined by it, else by `patient_id`.

    Raises InputError naming file, column and row for what is missing, no number, no age, or contradictory.
    """
    by = tuple(dict.fromkeys(by))
    table = _read(path)
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        raise InputError(
            f"{path} has no column patient_id or study_id that tells whose a row is{_has(table)}"
        )
    age = next((name for name in ("age", "birth_year") if name in table), None)
    if age is None:
        raise InputError(f"{path} has no column age (in years) or birth_year{_has(table)}")
    _check_columns(table, by, path)
    low, high = (0, OLDEST) if age == "age" else YEARS
    known = [*(name for name in KEYS if name in table), age, "sex"]
    table = table[list(dict.fromkeys([*known, *by]))]
    table = table.assign(**{name: _without_unknown(table[name]) for name in known})
    table = table.assign(**{age: _numbers(table, age, path, low, high), "sex": table.sex.map(_sex)})
    return Covariates(path, key, by, _one_row_a_key(table, key, path))


def _read(path: Path) -> pd.DataFrame:
    """All columns as text; the index is the number of the row as a spreadsheet shows it."""
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give the table of the covariates, a CSV in UTF-8 or Parquet"
        )
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
            table.index = pd.RangeIndex(1, len(table) + 1)
        else:
            table = read_csv(path, str, skip_blank_lines=False, keep_default_na=False, na_values=[""])
            table.index = pd.RangeIndex(2, len(table) + 2)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read as a table: {error}; give a CSV in UTF-8 or Parquet"
        ) from error
    table.columns = table.columns.map(lambda name: str(name).strip())
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise InputError(f"{path} has two columns {twice}; keep one of them")
    table = table.dropna(how="all").apply(_texts)
    if table.empty:
        raise InputError(f"{path} has no rows; give one row a patient or study")
    return table


def _texts(column: pd.Series) -> pd.Series:
    """Text without spaces round it, None for nothing; 1.0 is 1, as whole numbers beside a null are floats."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    texts = column.map(lambda value: str(value).strip(), na_action="ignore").astype(object)
    return texts.where(texts.notna() & (texts != ""), None)


def _check_columns(table: pd.DataFrame, by: Sequence[str], path: Path) -> None:
    for name in ("sex", *by):
        if name not in table:
            raise InputError(f"{path} has no column {name}{_has(table)}")
    for name in by:
        if name in _TAKEN:
            raise InputError(f"{path}: to group by {name}, rename it; the tables have a column of that name")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or len(name) > LONGEST_NAME:
            raise InputError(
                f"{path}: to group by {name!r}, rename it: a name for Stata has letters, digits and _, at "
                f"most {LONGEST_NAME}, and does not begin with a digit"
            )


def _has(table: pd.DataFrame) -> str:
    return f"; it has: {', '.join(table.columns)}"


def _numbers(table: pd.DataFrame, name: str, path: Path, low: float, high: float) -> pd.Series:
    numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
    wrong = table[name].notna() & ~numbers.between(low, high)
    if wrong.any():
        row = table[wrong].iloc[0]
        has_comma = re.fullmatch(r"\d+,\d+", row[name])
        mend = f"write {row[name].replace(',', '.')}, not {row[name]}" if has_comma else "mend it"
        raise InputError(
            f"{path}, row {row.name}: {name} is {row[name]!r}, which is no number from {low} to {high}; "
            f"{mend}, or leave it empty where it is unknown"
        )
    return numbers


def _without_unknown(texts: pd.Series) -> pd.Series:
    return texts.where(~texts.map(str.lower, na_action="ignore").isin(_UNKNOWN), None)


def _sex(text: str | None) -> str | None:
    return text if text is None else _SEXES.get(text.lower(), text)


def _one_row_a_key(table: pd.DataFrame, key: str, path: Path) -> pd.DataFrame:
    if table[key].isna().any():
        raise InputError(
            f"{path}, row {table[key].isna().idxmax()}: {key} is empty (as NA is); fill it in or drop the row"
        )
    table = table.drop_duplicates()
    again = table[table[key].duplicated()]
    if len(again):
        value = again[key].iloc[0]
        two = table[table[key] == value][:2]
        differing = [str(name) for name in two if two[name].nunique(dropna=False) > 1]
        raise InputError(
            f"{path}, rows {two.index[0]} and {two.index[1]}: {key} {value} is there twice, with different "
            f"{', '.join(differing)}; keep one row, or give rows a study_id where they belong to studies"
        )
    return table
