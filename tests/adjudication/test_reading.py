"""Files of verdicts, as spreadsheets and the page save them."""

from __future__ import annotations

import datetime

import openpyxl
import pandas as pd
import pytest

from vfscreen.adjudication.reading import read_verdicts
from vfscreen.adjudication.verdicts import COLUMNS
from vfscreen.errors import InputError

ROW = {"study_id": "007", "verdict": "fracture", "reader": "Ann"}


def csv(path, *rows, sep=","):
    pd.DataFrame([ROW | row for row in rows]).to_csv(path, index=False, sep=sep)
    return path


def read_one(path, **row):
    (reading,) = read_verdicts(csv(path / "a.csv", row))
    return reading


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_spreadsheets_part_columns_in_their_own_ways(tmp_path, sep):
    (reading,) = read_verdicts(csv(tmp_path / "a.csv", {"verdict_comment": "see, above; so"}, sep=sep))
    assert (reading.study_id, reading.verdict, reading.reader) == ("007", "fracture", "Ann")
    assert reading.comment == "see, above; so"
    assert (reading.file, reading.row) == ("a.csv", 2)


def test_the_file_of_the_page_is_read(tmp_path):
    cells = ["'=1+1", "fracture", "mild", "3", 'a "wedge"', "Ann", "2026-01-31T14:30:00+01:00"]
    quoted = [f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in cells]
    content = f"{','.join(['study_id', *COLUMNS])}\r\n{','.join(quoted)}\r\n"
    (tmp_path / "verdicts.csv").write_bytes(content.encode("utf-8-sig"))
    (reading,) = read_verdicts(tmp_path / "verdicts.csv")
    assert (reading.study_id, reading.comment, reading.vertebra) == ("=1+1", 'a "wedge"', 3)


@pytest.mark.parametrize("text", ["no fracture", " No  Fracture", "NO_FRACTURE", "no-fracture"])
def test_a_verdict_is_known_in_any_case_and_spacing(tmp_path, text):
    assert read_one(tmp_path, verdict=text).verdict == "no fracture"


def test_whole_numbers_of_a_spreadsheet_are_vertebrae(tmp_path):
    assert read_one(tmp_path, verdict_vertebra="7").vertebra == 7
    assert read_one(tmp_path, verdict_vertebra="7.0").vertebra == 7
    book = openpyxl.Workbook()
    for row in (["study_id", "verdict", "verdict_vertebra", "reader"], ["007", "fracture", 7.0, 12]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (reading,) = read_verdicts(tmp_path / "a.xlsx")
    assert (reading.vertebra, reading.reader) == (7, "12")


def test_rows_without_a_verdict_are_unread(tmp_path, caplog):
    rows = ({"verdict": ""}, {"verdict": " ", "verdict_comment": "later"}, {"study_id": "8"})
    (reading,) = read_verdicts(csv(tmp_path / "a.csv", *rows))
    assert (reading.study_id, reading.row) == ("8", 4)
    assert "a.csv, row 3: a comment without a verdict" in caplog.text


def test_the_reader_of_the_call_reads_what_names_nobody(tmp_path):
    rows = csv(tmp_path / "a.csv", {"reader": ""}, {"reader": " Bo  Li "})
    assert [reading.reader for reading in read_verdicts(rows, "Cy")] == ["Cy", "Bo Li"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime.date(2026, 1, 31)),
        ("2026-01-31T14:30+01:00", datetime.datetime(2026, 1, 31, 13, 30, tzinfo=datetime.timezone.utc)),
        ("2026-01-31T13:30:00.000Z", datetime.datetime(2026, 1, 31, 13, 30, tzinfo=datetime.timezone.utc)),
        ("2026-01-31 14:30", datetime.datetime(2026, 1, 31, 14, 30).astimezone()),
    ],
)
def test_times_are_iso_8601(tmp_path, text, moment):
    reading = read_one(tmp_path, read_at=text)
    assert (reading.read_at, reading.moment) == (text, moment)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"verdict": "fractur"}, "a.csv, row 2, study_id 007: verdict 'fractur' .* did you mean 'fracture'"),
        ({"verdict": "x"}, "is none of fracture, no fracture, unsure, not readable; mend it"),
        ({"verdict_grade": "normal"}, "verdict_grade 'normal' is none of mild, moderate, severe"),
        ({"verdict_vertebra": "T7"}, "verdict_vertebra 'T7' is no number"),
        ({"verdict": "", "verdict_grade": "mild"}, "row 2, study_id 007: verdict_grade without a verdict"),
        ({"verdict": "no fracture", "verdict_grade": "mild"}, "'no fracture' contradicts verdict_grade"),
        ({"read_at": "31.01.2026"}, "read_at '31.01.2026' is no date"),
        ({"reader": ""}, "nobody is named .* --reader NAME"),
        ({"study_id": ""}, "a.csv, row 2: a verdict without study_id"),
    ],
)
def test_what_is_wrong_is_named_with_file_row_and_study(tmp_path, row, says):
    with pytest.raises(InputError, match=says):
        read_verdicts(csv(tmp_path / "a.csv", row))


def test_files_that_are_no_tables_of_verdicts_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("study_id,note\n007,x\n")
    (tmp_path / "b.xlsx").write_bytes(b"no workbook")
    (tmp_path / "c.ods").write_bytes(b"")
    (tmp_path / "d.csv").write_bytes("study_id,verdict\n007,für\n".encode("cp1252"))
    (tmp_path / "e.csv").write_text("study_id,verdict,verdict\n007,,fracture\n")
    book = openpyxl.Workbook()
    book.active.append(["study_id", "verdict", "verdict"])
    book.save(tmp_path / "e.xlsx")
    says = {
        "a.csv": "no column verdict; it has: study_id, note",
        "b.xlsx": "cannot be read as a table",
        "c.ods": "neither .xlsx nor .csv",
        "d.csv": "UTF-8",
        "e.csv": "verdict; keep one of them",
        "e.xlsx": "two columns verdict; keep one of them",
        "f.csv": "does not exist",
    }
    for name, text in says.items():
        with pytest.raises(InputError, match=text):
            read_verdicts(tmp_path / name)
