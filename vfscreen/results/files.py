"""Rows as Parquet and CSV files, written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfscreen.results.schemas import Row
from vfscreen.whole_files import write_whole


def write_parquet(rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    """Write rows whole or not at all. Raises OSError when the disk refuses."""
    write_table(_table(rows, schema), path)


def write_csv(rows: Sequence[Row], schema: pa.Schema, path: Path) -> None:
    """Write a table for a spreadsheet, whole or not at all; no text in it is taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    writer.writerows([_cell(name, _valid(row[name])) for name in schema.names] for row in rows)
    write_whole(path, text.getvalue().encode())


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of Arrow whole or not at all. Raises OSError when the disk refuses."""
    write_tables([table], table.schema, path)


def write_tables(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write tables of one schema as one, of which only one at a time need be in memory. Raises as above."""
    content = io.BytesIO()
    with pq.ParquetWriter(content, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    write_whole(path, content.getbuffer())


def _table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{k: _valid(v) for k, v in row.items()} for row in rows], schema=schema)


def valid(text: str) -> str:
    """Text as the tables hold it: a file name that is no UTF-8 has surrogates, which Arrow refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


def _valid(value: Any) -> Any:
    return valid(value) if isinstance(value, str) else value


def _cell(column: str, value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.1f}" if column.endswith("_mm") else f"{value:.4f}"
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
