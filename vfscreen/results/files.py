"""Rows as Parquet and CSV files, written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfscreen.errors import InputError
from vfscreen.results.schemas import Row
from vfscreen.whole_files import write_stream

ROWS_AT_ONCE = 10_000  # as Python objects, some 20 MB


def write_parquet(rows: Iterable[Row], schema: pa.Schema, path: Path) -> None:
    """Write rows whole or not at all. Raises OSError when the disk refuses."""
    write_table(table_of(rows, schema), path)


def write_csv(rows: Iterable[Row], schema: pa.Schema, path: Path) -> None:
    """Write a table for a spreadsheet, whole or not at all; no text in it is taken for a formula.

    The rows are asked for again where a share was away for a moment.
    """

    def write(stream: IO[bytes]) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(schema.names)
        writer.writerows([_cell(name, _valid(row[name])) for name in schema.names] for row in rows)
        text.detach()

    write_stream(path, write)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of Arrow whole or not at all. Raises OSError when the disk refuses."""
    write_tables(lambda: [table], table.schema, path)


def write_tables(tables: Callable[[], Iterable[pa.Table]], schema: pa.Schema, path: Path) -> None:
    """Write tables of one schema as one, of which only one at a time need be in memory. Raises as above.

    They are made again where a share was away for a moment.
    """

    def write(stream: IO[bytes]) -> None:
        with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for table in tables():
                writer.write_table(table)

    write_stream(path, write)


def read_result(path: Path, columns: Sequence[str], filters: pc.Expression | None = None) -> pa.Table:
    """Some columns of a finished table. Raises InputError where it is not there or is none of ours."""
    try:
        return pq.read_table(path, columns=list(columns), filters=filters)
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: give a folder that vfscreen run has finished") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is no table of vfscreen run: {error}; give its folder of results"
        ) from error


def parquet_bytes(table: pa.Table) -> bytes:
    """The file that `write_table` writes."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Rows as a table of Arrow, which takes a tenth of their memory; they may come one after the other."""
    left = iter(rows)
    tables = [schema.empty_table()]
    while some := [{k: _valid(v) for k, v in row.items()} for row in islice(left, ROWS_AT_ONCE)]:
        tables.append(pa.Table.from_pylist(some, schema=schema))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class TableRows:
    """The rows of a table of Arrow, made as they are asked for."""

    table: pa.Table

    def __iter__(self) -> Iterator[Row]:
        """Each row once, as often as asked."""
        for batch in self.table.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from batch.to_pylist()


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
