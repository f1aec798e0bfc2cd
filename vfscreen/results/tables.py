"""The tables made from the parts, as often as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vfscreen.results.files import write_csv, write_parquet, write_table, write_tables
from vfscreen.results.parts import WITHDRAWN, parts
from vfscreen.results.rows import patient_rows
from vfscreen.results.schemas import FLAGGED, PATIENTS, STUDIES, VERTEBRAE, WORST, Row

ROWS_AT_ONCE = 100_000  # of vertebrae, some 50 MB


def consolidate(out: Path) -> None:
    """Make studies, vertebrae and patients (`.parquet`) and flagged.csv from the parts.

    Rows are sorted by source and study, so the tables do not depend on the order of completion. Of
    a study in several parts the latest counts.
    """
    studies, vertebrae = _collect(out)
    studies = studies.sort_by([("source", "ascending"), ("study_id", "ascending")])
    rows = studies.to_pylist()
    write_tables(_in_order_of(rows, vertebrae), VERTEBRAE, out / "vertebrae.parquet")
    write_parquet(patient_rows(rows), PATIENTS, out / "patients.parquet")
    write_csv(_flagged_rows(rows, vertebrae), FLAGGED, out / "flagged.csv")
    write_table(studies, out / "studies.parquet")


def _flagged_rows(studies: Sequence[Row], vertebrae: pa.Table) -> list[Row]:
    flagged = [row for row in studies if row["flagged"]]
    ids = pa.array([row["study_id"] for row in flagged], pa.string())
    of_them = vertebrae.select(["study_id", "genant_ratio", *WORST]).filter(
        pc.is_in(vertebrae["study_id"], ids)
    )
    falling = of_them.sort_by([("genant_ratio", "descending"), ("vertebra", "descending")]).to_pylist()
    worst = {row["study_id"]: row for row in falling}  # the last one stays
    flagged.sort(key=lambda row: (row["min_genant_ratio"], row["source"], row["study_id"]))
    return [
        {**row, **{name: worst[row["study_id"]][column] for column, name in WORST.items()}} for row in flagged
    ]


def _collect(out: Path) -> tuple[pa.Table, pa.Table]:
    """All studies and vertebrae of the parts, in no order; the latest part of a study counts."""
    seen: set[str] = set()
    tables = [(STUDIES.empty_table(), VERTEBRAE.empty_table())]
    for studies, vertebrae in parts(out):
        ids = studies["study_id"].to_pylist()
        again = pa.array([study_id for study_id in ids if study_id in seen], pa.string())
        seen.update(ids)
        tables.append((_without(studies, again), _without(vertebrae, again)))
    studies, vertebrae = map(pa.concat_tables, zip(*tables, strict=True))
    return studies.filter(pc.not_equal(studies["status"], WITHDRAWN)), vertebrae


def _without(table: pa.Table, study_ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["study_id"], study_ids)))


def _in_order_of(studies: Sequence[Row], vertebrae: pa.Table) -> Iterator[pa.Table]:
    """The vertebrae in the order of the studies, some at a time: there may be millions."""
    ids = pa.array([row["study_id"] for row in studies], pa.string())
    keys = pa.table({"study": pc.index_in(vertebrae["study_id"], ids), "vertebra": vertebrae["vertebra"]})
    order = pc.sort_indices(keys, [("study", "ascending"), ("vertebra", "ascending")])
    for start in range(0, len(order), ROWS_AT_ONCE):
        yield vertebrae.take(order[start : start + ROWS_AT_ONCE])
