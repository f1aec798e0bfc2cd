"""flagged.xlsx: the flagged studies in a spreadsheet, with a strip of the spine and room for verdicts."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from math import ceil
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.utility import xl_col_to_name

from vfscreen.adjudication.reading import SHEET, holds_verdicts
from vfscreen.adjudication.verdicts import COLUMNS, GRADES, VERDICTS
from vfscreen.pages import study_errors
from vfscreen.report.marks import COLORS
from vfscreen.report.picture import LEFT, SHEET_WIDTH, TOP
from vfscreen.results import FLAGGED, STUDIES, VERTEBRAE, Row
from vfscreen.results.files import TableRows
from vfscreen.results.tables import flagged_studies
from vfscreen.whole_files import write_stream

log = logging.getLogger(__name__)

PICTURES = 1_000
"""So many studies, the worst, have their strip in the row (some 5 MB together); all have the link."""
STRIP_PX = (330, 70)  # of a strip, at most
MOST_ROWS = 1_048_575  # of a sheet, below the header
MOST_LINKS = 65_530  # of a sheet
FIRST_YEAR = 1900  # of a date in Excel

_PICTURE = "picture"
_FROZEN = ("patient_id", "study_id")
_BESIDE = ("study_date", "min_genant_ratio", "grade", "worst_vertebra", "n_moderate")
_WIDTHS = {  # characters; other columns are as wide as their name
    **{"patient_id": 16, "study_id": 28, _PICTURE: 47, "study_date": 13, "grade": 12, "source": 40},
    **{"shape": 12, "quality": 24, "thumbnail": 40, "error": 24, "reason": 70, "advice": 70},
    **{"verdict": 14, "verdict_comment": 36, "reader": 12, "read_at": 13},
    **{"sheet": 14, "column": 28, "meaning": 100},
}
_FILTER_BUTTON = 3  # characters that it hides
_TO_FILL = {"bg_color": "#FFF9E0", "border": 1, "border_color": "#D0C8A0"}
_LINE_PX = 18
_HEAD = {"bold": True, "bottom": 1, "bg_color": "#E6E6E6", "valign": "vcenter", "indent": 1}
_HEAD_TO_FILL = {**_HEAD, "bg_color": "#F2D96B"}
_COLORED = {
    **dict.fromkeys(("min_genant_ratio", "genant_ratio", "grade"), "grade"),
    "verdict_grade": "verdict_grade",
}
"""Columns, and the column of the grade that colours them."""
_COMMENT_PX = {"width": 300, "height": 120}
_A4 = 9


@dataclass(frozen=True)
class _Column:
    name: str
    meaning: str
    unit: str = ""
    number_format: str = "@"  # text, also where it looks like a number
    is_to_fill: bool = False

    @property
    def width(self) -> int:
        return _WIDTHS.get(self.name, len(self.name) + _FILTER_BUTTON)


def write_workbook(out: Path) -> Path:
    """Make flagged.xlsx of a finished result folder, whole or not at all; gives its path.

    One sheet has the flagged studies, the worst first, one their vertebrae without positions, one the studies
    without a result and why, and one the meaning of every column. A workbook in which somebody has typed a
    verdict is never overwritten: the new one is then flagged-2.xlsx, and so on. Raises OSError when the disk
    refuses.
    """
    path = _path_without_verdicts(out)
    studies = flagged_studies(
        pq.read_table(out / "studies.parquet", filters=[("flagged", "=", True)]), out / "vertebrae.parquet"
    )
    tables = {
        SHEET: (_flagged_columns(), studies),
        "vertebrae": (_vertebra_columns(), _vertebrae(out, studies["study_id"])),
        "without_result": (_without_result_columns(), _without_result(out)),
    }
    meanings = [row for name, (columns, _) in tables.items() for row in _meanings(name, columns)]

    def write(stream: IO[bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix=".flagged.", dir=out) as folder:
            options = {"constant_memory": True, "tmpdir": folder, "nan_inf_to_errors": True}
            with Workbook(stream, options) as book:
                for name, (columns, table) in tables.items():
                    sheet = _Sheet(book, name, columns, table.num_rows)
                    sheet.add_rows(TableRows(table), out)
                _Sheet(book, "data_dictionary", _DICTIONARY, len(meanings)).add_rows(meanings, out)

    try:
        write_stream(path, write)
    except FileCreateError as error:  # XlsxWriter's own of an OSError
        raise error.args[0] from error
    return path


def _path_without_verdicts(out: Path) -> Path:
    path, numbers = out / "flagged.xlsx", count(2)
    while path.exists() and holds_verdicts(path):
        newer = out / f"flagged-{next(numbers)}.xlsx"
        log.warning("%s holds verdicts and stays as it is; what is new goes to %s", path, newer.name)
        path = newer
    return path


class _Sheet:
    """A sheet with its header, filters and colours, which takes rows one after the other."""

    def __init__(self, book: Any, name: str, columns: Sequence[_Column], n_rows: int) -> None:
        self.columns, self.last_row = columns, max(n_rows, 1)
        self.wraps = name != "vertebrae"  # one line each
        self.sheet = book.add_worksheet(name)
        self.formats = [self._format(book, column) for column in columns]
        self.link = book.add_format({"font_color": "blue", "underline": 1, "valign": "vcenter"})
        self._add_header(book)
        self._color_grades(book)
        self._offer_choices()

    def add_rows(self, rows: Iterable[Row], out: Path) -> None:
        """Write the rows, with the pictures of this result folder where the sheet shows them."""
        for number, row in enumerate(rows, start=1):
            picture = out / row["thumbnail"] if row.get("thumbnail") else None
            strip = _strip(picture) if picture and number <= PICTURES else None
            self._set_height(number, row, STRIP_PX[1] if strip else _LINE_PX)
            if picture and picture.is_file() and number <= MOST_LINKS:
                self._add_picture(number, f"external:{quote(row['thumbnail'])}", strip)
            for place, column in enumerate(self.columns):
                self._write(number, place, row.get(column.name))

    def _last_printed(self) -> int:
        """What comes after the verdict makes the print too small."""
        to_fill = [place for place, column in enumerate(self.columns) if column.is_to_fill]
        return to_fill[-1] if to_fill else len(self.columns) - 1

    def _format(self, book: Any, column: _Column) -> Any:
        look = {"num_format": column.number_format, "text_wrap": self.wraps, "valign": "vcenter", "indent": 1}
        if column.number_format != "@":
            look["align"] = "right"
        return book.add_format(look | (_TO_FILL if column.is_to_fill else {}))

    def _set_height(self, number: int, row: Row, least_px: int) -> None:
        """For as many lines as the longest text takes: LibreOffice does not find that out by itself."""
        if self.wraps:
            texts = ((row.get(column.name), column.width) for column in self.columns)
            lines = [ceil(len(text) / (width - 2)) for text, width in texts if isinstance(text, str)]
            self.sheet.set_row_pixels(number, max(least_px, *(_LINE_PX * n for n in lines)) + 4)

    def _add_header(self, book: Any) -> None:
        heads = {False: book.add_format(_HEAD), True: book.add_format(_HEAD_TO_FILL)}
        for place, column in enumerate(self.columns):
            self.sheet.set_column(place, place, column.width)
            self.sheet.write_string(0, place, column.name, heads[column.is_to_fill])
            self.sheet.write_comment(0, place, column.meaning, _COMMENT_PX)
        self.sheet.set_row(0, 24)
        self.sheet.freeze_panes(1, sum(column.name in _FROZEN for column in self.columns))
        self.sheet.autofilter(0, 0, self.last_row, len(self.columns) - 1)
        self.sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
        self.sheet.set_landscape()
        self.sheet.set_paper(_A4)
        self.sheet.fit_to_pages(1, 0)
        self.sheet.repeat_rows(0)
        self.sheet.print_area(0, 0, self.last_row, self._last_printed())

    def _color_grades(self, book: Any) -> None:
        names = [column.name for column in self.columns]
        for name, by in _COLORED.items():
            if name in names and by in names:
                self._color(book, names.index(name), names.index(by))

    def _color(self, book: Any, place: int, by: int) -> None:
        for grade in GRADES:
            color = "#{:02X}{:02X}{:02X}".format(*COLORS[grade])
            rule = {
                "type": "formula",
                "criteria": f'=${xl_col_to_name(by)}2="{grade}"',
                "format": book.add_format({"bg_color": color, "font_color": "black"}),
            }
            self.sheet.conditional_format(1, place, self.last_row, place, rule)

    def _offer_choices(self) -> None:
        choices = {"verdict": list(VERDICTS), "verdict_grade": list(GRADES)}
        for place, column in enumerate(self.columns):
            if column.name in choices:
                rule: dict[str, Any] = {"validate": "list", "source": choices[column.name]}
            elif column.name == "verdict_vertebra":
                rule = {"validate": "integer", "criteria": ">=", "value": 1}
            else:
                continue
            rule |= {"error_title": column.name, "error_message": column.meaning[:255]}
            self.sheet.data_validation(1, place, self.last_row, place, rule)

    def _add_picture(self, number: int, link: str, strip: bytes | None) -> None:
        place = [column.name for column in self.columns].index(_PICTURE)
        if strip:
            options = {
                **{"image_data": io.BytesIO(strip), "url": link, "description": "The spine of this study"},
                **{"x_offset": 2, "y_offset": 2, "object_position": 1},  # moves with its row
            }
            self.sheet.insert_image(number, place, "strip.jpg", options)
        self.sheet.write_url(number, place, link, self.link, string="open")

    def _write(self, number: int, place: int, value: Any) -> None:
        cell_format = self.formats[place]
        if value is None or value == "":
            if self.columns[place].is_to_fill:
                self.sheet.write_blank(number, place, None, cell_format)
        elif isinstance(value, str):
            self.sheet.write_string(number, place, value, cell_format)
        elif isinstance(value, list):
            self._write(number, place, "; ".join(value))
        elif isinstance(value, date) and value.year < FIRST_YEAR:
            self.sheet.write_string(number, place, value.isoformat(), cell_format)
        elif isinstance(value, date):
            self.sheet.write_datetime(number, place, value, cell_format)
        else:
            self.sheet.write_number(number, place, value, cell_format)


def _strip(path: Path) -> bytes | None:
    """The spine alone, lying, cranial at the left, as a small JPEG; None where there is no picture."""
    try:
        with Image.open(path) as picture:
            sheet = picture.convert("RGB").crop((LEFT, TOP, LEFT + SHEET_WIDTH, picture.height))
            spine = sheet.crop(sheet.getbbox()).transpose(Image.Transpose.ROTATE_90)  # black below it
    except (OSError, ValueError, SyntaxError):  # Pillow's, of damaged files
        return None
    spine.thumbnail(STRIP_PX, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    spine.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _vertebrae(out: Path, study_ids: pa.ChunkedArray) -> pa.Table:
    """The vertebrae of these studies, in their order."""
    columns = [column.name for column in _vertebra_columns()]
    table = pq.read_table(
        out / "vertebrae.parquet",
        columns=columns,
        filters=pc.field("study_id").isin(study_ids.combine_chunks()),
    )
    ranked = table.append_column("rank", pc.index_in(table["study_id"], study_ids))
    ranked = ranked.sort_by([("rank", "ascending"), ("vertebra", "ascending")])
    if ranked.num_rows > MOST_ROWS:
        log.warning("A sheet takes %d vertebrae; all are in vertebrae.parquet", MOST_ROWS)
    return ranked.select(columns).slice(0, MOST_ROWS)


def _without_result(out: Path) -> pa.Table:
    names = [column.name for column in _without_result_columns() if column.name in STUDIES.names]
    table = pq.read_table(out / "studies.parquet", columns=names, filters=pc.field("flagged").is_null())
    table = table.sort_by([("status", "ascending"), ("error", "ascending"), ("source", "ascending")])
    advice = {kind.code: kind.advice.replace("`", "") for kind in study_errors()}
    return table.append_column("advice", pa.array(map(advice.get, table["error"].to_pylist()), pa.string()))


def _flagged_columns() -> list[_Column]:
    choices = "; ".join(f"{verdict}: {meaning}" for verdict, meaning in VERDICTS.items())
    formats = {"verdict_vertebra": "0", "read_at": "yyyy-mm-dd"}
    verdicts = [
        _Column(name, choices if name == "verdict" else meaning, "", formats.get(name, "@"), True)
        for name, meaning in COLUMNS.items()
    ]
    picture = _Column(
        _PICTURE,
        "The spine, lying: cranial at the left, posterior above. A click opens the whole picture, with every "
        "number; it needs the folder thumbnails beside this file",
    )
    others = [name for name in FLAGGED.names if name not in (*_FROZEN, *_BESIDE)]
    return [
        *_columns(FLAGGED, _FROZEN),
        picture,
        *_columns(FLAGGED, _BESIDE),
        *verdicts,
        *_columns(FLAGGED, others),
    ]


def _vertebra_columns() -> list[_Column]:
    positions = ("_x_mm", "_y_mm", "_z_mm")
    return _columns(VERTEBRAE, [name for name in VERTEBRAE.names if not name.endswith(positions)])


def _without_result_columns() -> list[_Column]:
    names = ("patient_id", "study_id", "study_date", "status", "error", "reason", "source")
    return [*_columns(STUDIES, names), _Column("advice", "What to do about the error")]


def _columns(schema: pa.Schema, names: Sequence[str]) -> list[_Column]:
    return [_column(schema.field(name)) for name in names]


def _column(field: pa.Field) -> _Column:
    meaning, unit = (field.metadata[key].decode() for key in (b"meaning", b"unit"))
    return _Column(field.name, meaning.replace("`", ""), unit, _number_format(field))


def _number_format(field: pa.Field) -> str:
    if pa.types.is_date(field.type):
        return "yyyy-mm-dd"
    if pa.types.is_integer(field.type):
        return "0"
    if pa.types.is_floating(field.type):
        return "0.0" if field.name.endswith("_mm") else "0.000"
    return "@"


_DICTIONARY = [
    _Column("sheet", "Sheet of this workbook"),
    _Column("column", "Its column; those of flagged.csv and of the Parquet tables have the same names"),
    _Column("unit", "Unit of its numbers"),
    _Column("meaning", "What it says"),
]


def _meanings(sheet: str, columns: Iterable[_Column]) -> Iterable[Row]:
    for column in columns:
        yield {"sheet": sheet, "column": column.name, "unit": column.unit, "meaning": column.meaning}
