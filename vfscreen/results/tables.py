"""The tables made from the parts, as often as wanted.

The studies are in memory meanwhile, as a table of Arrow. The vertebrae are not: they go from the parts
to their table a few thousand studies at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfscreen.results.files import TableRows, table_of, write_csv, write_table, write_tables
from vfscreen.results.ordering import RANK, STUDIES_AT_ONCE, in_order, joined
from vfscreen.results.parts import WITHDRAWN, parts, read_vertebrae
from vfscreen.results.rows import OF_STUDIES, patient_key, patient_rows
from vfscreen.results.schemas import FLAGGED, PATIENTS, STUDIES, VERTEBRAE, WORST

PART = "part"  # column: the number of the part that has the study


def consolidate(out: Path) -> None:
    """Make studies, vertebrae and patients (`.parquet`) and flagged.csv from the parts.

    Rows are sorted by source and study, so the tables do not depend on the order of completion. Of
    a study in several parts the latest counts.
    """
    studies, files = _collect(out)
    vertebrae = out / "vertebrae.parquet"
    write_tables(lambda: in_order(_ranked(studies, files), out), VERTEBRAE, vertebrae)
    studies = studies.drop_columns([PART])
    write_table(_patients(studies), out / "patients.parquet")
    write_csv(TableRows(flagged_studies(studies, vertebrae)), FLAGGED, out / "flagged.csv")
    write_table(studies, out / "studies.parquet")


def _collect(out: Path) -> tuple[pa.Table, list[Path]]:
    """The studies in their order, each with the number of its part; the files of the parts' vertebrae."""
    files: list[Path] = []
    none = STUDIES.append(pa.field(PART, pa.int64())).empty_table()
    studies = pa.concat_tables([none, *joined(_latest(out, files), STUDIES_AT_ONCE)])
    studies = studies.filter(pc.not_equal(studies["status"], WITHDRAWN))
    return studies.sort_by([("source", "ascending"), ("study_id", "ascending")]), files


def _latest(out: Path, files: list[Path]) -> Iterator[pa.Table]:
    """Studies of each part that no later part has, with the part's number; its vertebrae go to `files`."""
    seen: set[str] = set()
    for studies, vertebrae in parts(out):
        ids = studies["study_id"].to_pylist()
        is_latest = pa.array([study_id not in seen for study_id in ids], pa.bool_())
        seen.update(ids)
        yield studies.append_column(PART, pa.repeat(len(files), len(ids))).filter(is_latest)
        files.append(vertebrae)


def _ranked(studies: pa.Table, files: Sequence[Path]) -> Iterator[pa.Table]:
    """The vertebrae of each part, without those of studies that a later part has, and with a rank."""
    ids, numbers = studies["study_id"].combine_chunks(), studies[PART].to_numpy()
    by_part = np.argsort(numbers, kind="stable")
    borders = np.searchsorted(numbers, np.arange(len(files) + 1), sorter=by_part)
    for path, (start, end) in zip(files, pairwise(borders), strict=True):
        ranks = pa.array(by_part[start:end])
        vertebrae = read_vertebrae(path)
        places = pc.index_in(vertebrae["study_id"], ids.take(ranks))
        yield vertebrae.append_column(RANK, ranks.take(places)).filter(places.is_valid())


def _patients(studies: pa.Table) -> pa.Table:
    ordered = studies.select(OF_STUDIES).sort_by([("patient_id", "ascending"), ("study_id", "ascending")])
    patients = groupby(TableRows(ordered), patient_key)
    return table_of((row for _, rows in patients for row in patient_rows(list(rows))), PATIENTS)


def flagged_studies(studies: pa.Table, vertebrae: Path) -> pa.Table:
    """The flagged studies, worst first, each with its vertebra of the smallest G."""
    flagged = studies.filter(studies["flagged"]).sort_by(
        [("min_genant_ratio", "ascending"), ("source", "ascending"), ("study_id", "ascending")]
    )
    worst = _worst_vertebrae(vertebrae, flagged["study_id"])
    of_each = worst.take(pc.index_in(flagged["study_id"], worst["study_id"]))
    for column, name in WORST.items():
        flagged = flagged.append_column(name, of_each[column])
    return flagged.select(FLAGGED.names)


def _worst_vertebrae(path: Path, study_ids: pa.ChunkedArray) -> pa.Table:
    """Of each of these studies the vertebra with the smallest G."""
    columns = ["study_id", "genant_ratio", *WORST]
    worst = [VERTEBRAE.empty_table().select(columns)]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):  # each holds whole studies
            table = file.read_row_group(group, columns)
            table = table.filter(pc.is_in(table["study_id"], study_ids))
            rising = table.sort_by([("genant_ratio", "ascending"), ("vertebra", "ascending")])
            firsts = pc.index_in(pc.unique(rising["study_id"]), rising["study_id"])
            worst.append(rising.take(firsts))
    return pa.concat_tables(worst)
