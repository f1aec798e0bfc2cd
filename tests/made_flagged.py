"""Result folders with flagged studies, made on the spot, and workbooks that a reader fills in."""

from __future__ import annotations

import datetime

import numpy as np
import openpyxl
from made_scenes import scene

from vfscreen.measure import grade
from vfscreen.report.picture import draw_picture
from vfscreen.results import STUDIES, VERTEBRAE, thumbnail_path, write_parquet

WHITE = draw_picture(scene(sheet_hu=np.full((300, 80), 1000, np.float32)))  # a sheet of bone


def study(study_id, *ratios, picture=True, status="ok", **columns):
    """A row of the studies, flagged at 0.74, with the G of its vertebrae, and whether it has a picture."""
    smallest = min(ratios, default=None)
    row = {
        **dict.fromkeys(STUDIES.names),
        "study_id": study_id,
        "patient_id": f"P{study_id}",
        "source": f"archive/{study_id}",
        "study_date": datetime.date(2020, 5, 1),
        "status": status,
        "n_vertebrae": len(ratios) or None,
        "min_genant_ratio": smallest,
        "grade": grade(smallest) if ratios else None,
        "n_moderate": sum(g <= 0.74 for g in ratios) if ratios else None,
        "flagged": smallest <= 0.74 if ratios else None,
        "quality": ["thick_slices"] if ratios else [],
        "thumbnail": thumbnail_path(study_id) if picture and ratios else None,
    }
    return {**row, **columns}, ratios


def write_results(folder, *studies):
    """A result folder of these studies."""
    (folder / "thumbnails").mkdir(parents=True)
    rows = [row for row, _ in studies]
    write_parquet(rows, STUDIES, folder / "studies.parquet")
    write_parquet(
        (v for row, ratios in studies for v in vertebrae(row, ratios)),
        VERTEBRAE,
        folder / "vertebrae.parquet",
    )
    for row in rows:
        if row["thumbnail"]:
            (folder / row["thumbnail"]).write_bytes(WHITE)
    return folder


def vertebrae(row, ratios):
    for number, ratio in enumerate(ratios, start=1):
        yield {
            **dict.fromkeys(VERTEBRAE.names),
            **{name: row[name] for name in ("patient_id", "study_id")},
            "vertebra": number,
            "height_anterior_mm": 20.0 * ratio,
            "height_middle_mm": 20.0,
            "height_posterior_mm": 20.0,
            "genant_ratio": ratio,
            "grade": grade(ratio),
            "shape": "normal" if ratio > 0.8 else "wedge",
            "quality": [],
        }


def cells(path, sheet="flagged"):
    """The rows of a sheet as dictionaries."""
    rows = openpyxl.load_workbook(path)[sheet].iter_rows(values_only=True)
    names = next(rows)
    return [dict(zip(names, row, strict=True)) for row in rows]


def fill(path, said, to=None):
    """Type into the workbook: `said` is by study, what goes into which column."""
    book = openpyxl.load_workbook(path)
    sheet = book["flagged"]
    places = {cell.value: cell.column for cell in sheet[1]}
    for row in sheet.iter_rows(min_row=2):
        for name, value in said.get(row[places["study_id"] - 1].value, {}).items():
            row[places[name] - 1].value = value
            if isinstance(value, str):
                row[places[name] - 1].data_type = "s"  # as a spreadsheet keeps it in a cell of text
    book.save(to or path)
    return to or path
