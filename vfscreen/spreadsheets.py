"""CSV files as spreadsheets save them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

SEPARATORS = ",;\t"


def read_csv(path: Path, dtype: type[str] | Mapping[str, type[str]], **options: Any) -> pd.DataFrame:
    """A table in UTF-8, with or without its mark, its columns parted by what parts the header the most.

    Spaces round the names of columns are left out. `options` are those of pandas. Raises OSError, and
    ValueError where it is no table, two columns have one name, or a row has more cells than the header.
    """
    with path.open(encoding="utf-8-sig") as stream:
        header = stream.readline()
    separator = max(SEPARATORS, key=header.count)
    names = [name.strip().strip('"').strip() for name in header.split(separator)]
    again = [name for name in names if name and names.count(name) > 1]
    if again:
        raise ValueError(f"two of its columns are called {again[0]}; keep one of them")
    try:
        table = pd.read_csv(path, sep=separator, dtype=dtype, encoding="utf-8-sig", **options)
    except pd.errors.ParserError as error:
        raise ValueError(" ".join(str(error).split())) from error
    table.columns = [str(name).strip() for name in table.columns]
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first cells for names of the rows
        raise ValueError("its rows have more cells than its header")
    return table
