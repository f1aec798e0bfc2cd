"""The workbook of flagged studies, as another library and LibreOffice read it."""

from __future__ import annotations

import datetime
import errno
import gc
import shutil
import subprocess
import zipfile

import openpyxl
import pytest
from made_flagged import cells, fill, study, write_results
from PIL import Image

from vfscreen.adjudication.verdicts import COLUMNS, GRADES, VERDICTS
from vfscreen.report import workbook
from vfscreen.report.workbook import write_workbook
from vfscreen.results import FLAGGED, VERTEBRAE

ODD = "=1+1"
ARCHIVE = (
    study("mild", 0.78, 0.9),
    study("007", 0.7, 0.5, 0.9),
    study(ODD, 0.65, 0.9, picture=False),
    study("a/b 100%#", 0.72, status="partial", reason="flagged all the same"),
    study("broken", status="failed", error="unreadable_file", reason="-x.dcm cannot be read"),
    study("half", 0.95, status="partial", reason="few vertebrae", flagged=None),
)


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", *ARCHIVE)


@pytest.fixture
def book(results):
    return openpyxl.load_workbook(write_workbook(results))


def named(sheet, name, row=2):
    """The cell of this column."""
    return sheet.cell(row, [cell.value for cell in sheet[1]].index(name) + 1)


def test_flagged_studies_stand_worst_first_under_the_names_of_flagged_csv(results):
    rows = cells(write_workbook(results))
    assert [row["study_id"] for row in rows] == ["007", ODD, "a/b 100%#"]
    assert set(rows[0]) == {*FLAGGED.names, *COLUMNS, "picture"}
    assert rows[0]["worst_vertebra"] == 2
    assert rows[0]["quality"] == "thick_slices"
    assert all(row[name] is None for row in rows for name in COLUMNS)


def test_ids_and_formulas_are_text_and_dates_are_dates(book):
    sheet = book["flagged"]
    assert (named(sheet, "study_id").value, named(sheet, "study_id").data_type) == ("007", "s")
    assert (named(sheet, "study_id", 3).value, named(sheet, "study_id", 3).data_type) == (ODD, "s")
    assert named(book["without_result"], "reason").data_type == "s"
    date = named(sheet, "study_date")
    assert (date.value, date.number_format) == (datetime.datetime(2020, 5, 1), "yyyy-mm-dd")
    assert named(sheet, "min_genant_ratio").number_format == "0.000"
    assert named(sheet, "worst_height_middle_mm").number_format == "0.0"


def test_verdicts_are_chosen_from_lists(book):
    rules = {str(rule.sqref): rule.formula1 for rule in book["flagged"].data_validations.dataValidation}
    sheet = book["flagged"]
    of = {name: named(sheet, name).column_letter for name in ("verdict", "verdict_grade")}
    assert rules[f"{of['verdict']}2:{of['verdict']}4"] == f'"{",".join(VERDICTS)}"'
    assert rules[f"{of['verdict_grade']}2:{of['verdict_grade']}4"] == f'"{",".join(GRADES)}"'


def test_header_and_ids_stay_in_sight_and_every_column_filters(book):
    sheet = book["flagged"]
    assert sheet.freeze_panes == "C2"
    assert sheet.auto_filter.ref == sheet.dimensions
    assert named(sheet, "min_genant_ratio", 1).comment.text.startswith("Smallest G")


def test_a_picture_is_in_its_row_and_the_link_leads_to_the_file(results):
    sheet = openpyxl.load_workbook(write_workbook(results))["flagged"]
    assert [image.anchor._from.row for image in sheet._images] == [1, 3]  # of 0 on; one study has none
    links = [named(sheet, "picture", row).hyperlink for row in (2, 3, 4)]
    assert links[1] is None
    assert links[0].target.replace("\\", "/") == "thumbnails/007.png"
    assert links[2].target.replace("\\", "/") == "thumbnails/a%252Fb%20100%2525%2523.png"


def test_a_picture_that_is_gone_or_damaged_is_left_out(results):
    (results / "thumbnails" / "007.png").unlink()
    damaged = results / "thumbnails" / "a%2Fb 100%25%23.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    sheet = openpyxl.load_workbook(write_workbook(results))["flagged"]
    assert sheet._images == []
    assert named(sheet, "picture").hyperlink is None


def test_the_strip_is_the_sheet_of_the_picture_without_what_is_round_it(results):
    (strip, *_) = openpyxl.load_workbook(write_workbook(results))["flagged"]._images
    image = Image.open(strip.ref).convert("L")
    assert image.width > 3 * image.height
    darkest, _ = image.crop((2, 2, image.width - 2, image.height - 2)).getextrema()
    assert darkest > 245


def test_only_the_first_rows_have_their_strip(results, monkeypatch):
    monkeypatch.setattr(workbook, "PICTURES", 1)
    sheet = openpyxl.load_workbook(write_workbook(results))["flagged"]
    assert len(sheet._images) == 1
    assert named(sheet, "picture", 4).hyperlink


def test_vertebrae_are_those_of_the_flagged_studies_without_positions(results):
    rows = cells(write_workbook(results), "vertebrae")
    assert [(row["study_id"], row["vertebra"]) for row in rows] == [
        *(("007", 1), ("007", 2), ("007", 3)),
        *((ODD, 1), (ODD, 2), ("a/b 100%#", 1)),
    ]
    assert set(rows[0]) == {
        name for name in VERTEBRAE.names if not name.endswith(("_x_mm", "_y_mm", "_z_mm"))
    }


def test_a_study_without_a_result_has_its_reason_and_what_to_do(results):
    failed, partial = cells(write_workbook(results), "without_result")
    assert (failed["error"], failed["reason"]) == ("unreadable_file", "-x.dcm cannot be read")
    assert failed["advice"].startswith("Copy or export the files")
    assert (partial["status"], partial["reason"]) == ("partial", "few vertebrae")


def test_every_column_is_in_the_dictionary(results):
    path = write_workbook(results)
    told = {(row["sheet"], row["column"]) for row in cells(path, "data_dictionary") if row["meaning"]}
    for sheet in ("flagged", "vertebrae", "without_result"):
        assert {(sheet, name) for name in cells(path, sheet)[0]} <= told


def test_a_night_without_a_flagged_study_gives_a_workbook_too(tmp_path):
    path = write_workbook(write_results(tmp_path / "results", study("a", 0.9)))
    assert cells(path) == cells(path, "vertebrae") == []


def test_a_folder_of_nothing_but_failures_gives_a_workbook_too(tmp_path):
    path = write_workbook(write_results(tmp_path / "results", study("a", status="failed", error="too_large")))
    assert len(cells(path, "without_result")) == 1


def test_odd_characters_long_texts_and_old_dates_reach_the_file(tmp_path):
    row = study("a\x07b", 0.7, picture=False, study_date=datetime.date(1, 1, 1), source="х" * 40_000)
    (read,) = cells(write_workbook(write_results(tmp_path / "results", row)))
    assert read["study_date"] == "0001-01-01"
    assert len(read["source"]) == 32_767


def test_a_workbook_without_verdicts_is_replaced(results):
    path = write_workbook(results)
    assert write_workbook(results) == path
    assert not list(results.glob("flagged-*"))
    assert not list(results.glob(".flagged*"))


def test_a_workbook_with_verdicts_is_never_overwritten(results, caplog):
    path = fill(write_workbook(results), {"007": {"verdict": "fracture"}})
    content = path.read_bytes()
    newer = write_workbook(results)
    assert newer.name == "flagged-2.xlsx"
    assert path.read_bytes() == content
    assert "flagged.xlsx holds verdicts" in caplog.text
    assert write_workbook(results) == newer
    fill(newer, {"007": {"verdict_comment": "see 3"}})
    assert write_workbook(results).name == "flagged-3.xlsx"


def test_a_file_that_does_not_tell_whether_it_holds_verdicts_stays(results):
    (results / "flagged.xlsx").write_bytes(b"half a workbook")
    assert write_workbook(results).name == "flagged-2.xlsx"


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # XlsxWriter closes no file then
def test_a_full_disk_is_an_error_of_the_disk_and_leaves_the_earlier_workbook(results, monkeypatch):
    path = write_workbook(results)
    content = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_workbook(results)
    gc.collect()
    assert path.read_bytes() == content
    assert not list(results.glob(".flagged*"))


def test_no_name_and_no_place_of_this_machine_is_in_the_file(tmp_path):
    path = write_workbook(write_results(tmp_path / "DOE_JANE" / "results", *ARCHIVE))
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            assert b"DOE_JANE" not in packed.read(name)
            assert str(tmp_path).encode() not in packed.read(name)


def test_the_file_has_no_macro_and_no_link_but_to_pictures(results):
    with zipfile.ZipFile(write_workbook(results)) as packed:
        assert not [name for name in packed.namelist() if "vba" in name.lower() or "externalLink" in name]
        external = [
            part
            for name in packed.namelist()
            if name.endswith(".rels")
            for part in packed.read(name).decode().split("<Relationship ")
            if 'TargetMode="External"' in part
        ]
    assert external
    assert all('Target="thumbnails' in part for part in external)


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice (soffice) is not installed")
def test_libreoffice_reads_the_same_rows(results, tmp_path):
    path = write_workbook(results)
    saved = tmp_path / "saved"
    call = ["soffice", f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", "--convert-to"]
    subprocess.run([*call, "xlsx", "--outdir", saved, path], check=True, capture_output=True)
    for sheet in ("flagged", "vertebrae", "without_result", "data_dictionary"):
        assert cells(saved / path.name, sheet) == cells(path, sheet)
    rules = openpyxl.load_workbook(saved / path.name)["flagged"].data_validations.dataValidation
    assert f'"{",".join(VERDICTS)}"' in [rule.formula1 for rule in rules]
