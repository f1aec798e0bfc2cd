"""Millions of vertebrae in the order of their studies, in the memory of some ten thousand."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from vfscreen.results.schemas import VERTEBRAE

RANK = "rank"  # column: the place of the row's study among all studies
RANKED = VERTEBRAE.append(pa.field(RANK, pa.int64()))
STUDIES_AT_ONCE = 5_000
ROWS_AT_ONCE = 65_536  # some 30 MB
BYTES_IN_MEMORY = 2**24


def in_order(vertebrae: Iterable[pa.Table], folder: Path) -> Iterator[pa.Table]:
    """Tables of `RANKED` as tables of `VERTEBRAE`: sorted by rank and vertebra, for each span of ranks one.

    The rows come in any order, so they are written once and read once before. What memory should not hold
    of them waits in a file of `folder` that has no name and dies with the process. Raises OSError when the
    disk refuses.
    """
    with tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY, dir=str(folder)) as file:
        of_spans = _spread(vertebrae, file)
        with pa.ipc.open_file(file) as batches:
            for _, numbers in sorted(of_spans.items()):
                table = pa.Table.from_batches([batches.get_batch(number) for number in numbers])
                yield _sorted(table).drop_columns([RANK])


def _spread(vertebrae: Iterable[pa.Table], file: IO[bytes]) -> dict[int, list[int]]:
    """Write the rows in batches, each of one span of ranks; of each span the numbers of its batches."""
    of_spans: defaultdict[int, list[int]] = defaultdict(list)
    written = 0
    with pa.ipc.new_file(file, RANKED, options=pa.ipc.IpcWriteOptions(compression="lz4")) as batches:
        for table in map(_sorted, joined(vertebrae, ROWS_AT_ONCE)):
            spans = table[RANK].to_numpy() // STUDIES_AT_ONCE
            for span in np.unique(spans).tolist():
                start, end = np.searchsorted(spans, (span, span + 1)).tolist()
                (batch,) = table.slice(start, end - start).combine_chunks().to_batches()
                batches.write_batch(batch)
                of_spans[span].append(written)
                written += 1
    return of_spans


def joined(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The tables, some together, each so many rows or more: a thousand small ones take far more memory."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= rows:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _sorted(vertebrae: pa.Table) -> pa.Table:
    return vertebrae.sort_by([(RANK, "ascending"), ("vertebra", "ascending")])
