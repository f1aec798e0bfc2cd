import csv
import datetime
import errno
import itertools
import json
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfscreen.errors import (
    InputError,
    NoSuitableSeries,
    ReaderDied,
    ReaderTimeout,
    UnexpectedError,
    UnreadableFile,
)
from vfscreen.measure import genant_ratio, grade, heights_mm, shape
from vfscreen.results import (
    PATIENTS,
    STUDIES,
    VERTEBRAE,
    ResultWriter,
    StudyRecord,
    consolidate,
    files,
    finished_studies,
    is_flagged,
    locked,
    ordering,
    patient_rows,
    read_run_json,
    study_row,
    tables,
    thumbnail_path,
    vertebra_rows,
    write_run_json,
)
from vfscreen.results.files import write_table
from vfscreen.study import Doubt, StudyHeader, StudyResult, Vertebra

SECONDS = {"read": 2.0, "localize": 0.5, "straighten": 0.25, "detect": 0.125}


def vertebra(anterior, middle=20.0, posterior=20.0, z=0.0):
    points = np.zeros((6, 3))
    points[:, 1] = np.repeat([-15, 0, 15], 2)
    points[::2, 2] = z + np.array([anterior, middle, posterior]) / 2
    points[1::2, 2] = z - np.array([anterior, middle, posterior]) / 2
    heights = heights_mm(points)
    ratio = float(genant_ratio(heights))
    return Vertebra(points, heights, ratio, grade(ratio), shape(heights), 0.9)


def record(
    study_id, *ratios, status="ok", patient_id="p", date="2020-01-02", source=None, doubts=(), error=None
):
    header = StudyHeader(patient_id, date, "1.2.3", 200, 1.5, 0.7)
    vertebrae = tuple(vertebra(20 * g, z=-30.0 * i) for i, g in enumerate(ratios))
    result = None if error else StudyResult(header, status, vertebrae, doubts=doubts)
    return StudyRecord(study_id, source or f"in/{study_id}", None, result, error, header, SECONDS)


def write(out, *records, **options):
    with ResultWriter(out, 0.74, **options) as writer:
        for each in records:
            writer.add(each)


def flagged(each, threshold=0.74):
    assert study_row(each, threshold)["flagged"] is is_flagged(each.result, threshold)
    return is_flagged(each.result, threshold)


def finished(out):
    return {study_id for (study_id, _), row in finished_studies(out).items() if not row.may_be_the_machine}


def read_flagged(out):
    with (out / "flagged.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_study_row_tells_what_was_measured():
    row = study_row(record("a", 0.9, 0.7, 0.72), 0.74, "thumbnails/a.png")
    assert row["study_date"] == datetime.date(2020, 1, 2)
    assert (row["status"], row["error"], row["reason"]) == ("ok", None, None)
    assert (row["n_vertebrae"], row["n_moderate"], row["grade"]) == (3, 2, "moderate")
    assert row["min_genant_ratio"] == pytest.approx(0.7)
    assert row["seconds"] == 2.875
    assert row["seconds_read"] == 2.0


def test_rows_hold_every_column_of_their_schema_and_no_other():
    each = record("a", 0.7)
    assert set(study_row(each, 0.74)) == set(STUDIES.names)
    assert set(vertebra_rows(each)[0]) == set(VERTEBRAE.names)
    assert set(patient_rows([study_row(each, 0.74)])[0]) == set(PATIENTS.names)


def test_a_vertebra_row_holds_heights_and_keypoints_of_the_same_vertebra():
    first, second = vertebra_rows(record("a", 0.9, 0.7))
    assert (first["vertebra"], second["vertebra"]) == (1, 2)
    assert second["height_anterior_mm"] == pytest.approx(14)
    assert second["anterior_superior_z_mm"] - second["anterior_inferior_z_mm"] == pytest.approx(14)
    assert (second["anterior_superior_y_mm"], second["posterior_inferior_y_mm"]) == (-15, 15)
    assert (second["center_z_mm"], second["shape"], second["level"]) == (-30, "wedge", None)


def test_a_failed_study_is_a_row_with_code_and_sentence_and_no_number():
    row = study_row(record("a", error=ReaderDied("the reader died of memory")), 0.74)
    assert (row["status"], row["error"], row["reason"]) == (
        "failed",
        "reader_died",
        "the reader died of memory",
    )
    for column in ("n_vertebrae", "min_genant_ratio", "grade", "n_moderate", "flagged"):
        assert row[column] is None


def test_a_reason_is_one_line():
    each = record("a", error=UnexpectedError("first\n  second\tthird "))
    assert study_row(each, 0.74)["reason"] == "first second third"


def test_a_skipped_study_says_so():
    assert study_row(record("a", error=NoSuitableSeries("only scouts")), 0.74)["status"] == "skipped"


def test_a_partial_study_gives_the_reasons_that_made_it_partial():
    doubts = (
        Doubt("few_vertebrae", "only 2 seen", True),
        Doubt("noisy", "much noise"),
        Doubt("cut", "cut off", True),
    )
    row = study_row(record("a", 0.9, status="partial", doubts=doubts), 0.74)
    assert row["reason"] == "only 2 seen; cut off"
    assert row["quality"] == ["few_vertebrae", "noisy", "cut"]


def test_a_result_that_is_neither_measured_nor_failed_is_refused():
    empty = StudyRecord("a", "a", None, None, None, StudyHeader(), {})
    with pytest.raises(ValueError, match="neither"):
        study_row(empty, 0.74)


def test_a_study_is_flagged_at_the_threshold_and_not_above():
    assert flagged(record("a", 0.9, 0.7), threshold=record("a", 0.7).result.min_genant_ratio) is True
    assert flagged(record("a", 0.9, 0.75)) is False


def test_a_partial_study_is_flagged_or_unknown_but_never_negative():
    assert flagged(record("a", 0.7, status="partial")) is True
    assert flagged(record("a", 0.9, status="partial")) is None
    assert flagged(record("a", status="partial")) is None


def test_what_was_not_measured_is_not_negative():
    assert flagged(record("a", error=ReaderDied("x"))) is None
    assert flagged(record("a")) is None


def test_the_patient_of_the_manifest_goes_before_the_header():
    each = record("a", 0.9, patient_id="header")
    manifest = StudyRecord("a", "a", "manifest", each.result, None, each.header, SECONDS)
    assert study_row(manifest, 0.74)["patient_id"] == "manifest"
    assert vertebra_rows(manifest)[0]["patient_id"] == "manifest"


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_study_without_patient_keeps_a_null(nobody):
    assert study_row(record("a", patient_id=nobody), 0.74)["patient_id"] is None


def test_a_date_that_is_none_becomes_null(caplog):
    assert study_row(record("a", date="2020-13-45"), 0.74)["study_date"] is None
    assert "study a" in caplog.text
    assert "2020-13-45" not in caplog.text  # it may be anything


def test_tables_keep_schema_units_and_values(tmp_path):
    doubt = Doubt("noisy", "much noise")
    write(tmp_path, record("a", 0.9, 0.7, doubts=(doubt,)), record("b", error=ReaderDied("x")))
    consolidate(tmp_path)
    for name, schema in (("studies", STUDIES), ("vertebrae", VERTEBRAE), ("patients", PATIENTS)):
        assert pq.read_schema(tmp_path / f"{name}.parquet").equals(schema, check_metadata=True)
    studies = pq.read_table(tmp_path / "studies.parquet").to_pylist()
    assert studies[0] == study_row(record("a", 0.9, 0.7, doubts=(doubt,)), 0.74)
    assert pq.read_table(tmp_path / "vertebrae.parquet").to_pylist() == vertebra_rows(record("a", 0.9, 0.7))


def test_tables_of_a_run_that_finished_nothing_are_empty(tmp_path):
    write(tmp_path)
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "studies.parquet").num_rows == 0
    assert pq.read_table(tmp_path / "patients.parquet").num_rows == 0
    assert read_flagged(tmp_path) == []


def test_tables_do_not_depend_on_the_order_of_completion(tmp_path):
    records = [
        record(f"s{i}", 0.5 + i / 50, 0.9, patient_id=f"p{i % 4}", source=f"in/{i % 3}") for i in range(12)
    ]
    shuffled = random.Random(0).sample(records, len(records))
    for name, each, size in (("a", records, 5), ("b", shuffled, 2)):
        write(tmp_path / name, *each, max_studies=size)
        consolidate(tmp_path / name)
    for name in ("studies.parquet", "vertebrae.parquet", "patients.parquet"):
        assert pq.read_table(tmp_path / "a" / name).equals(pq.read_table(tmp_path / "b" / name))
    assert (tmp_path / "a/flagged.csv").read_bytes() == (tmp_path / "b/flagged.csv").read_bytes()


def test_vertebrae_follow_the_order_of_studies_and_of_the_spine(tmp_path):
    records = [record("b", 0.9, 0.8, source="1"), record("a", 0.9, 0.8, source="2")]
    write(tmp_path, *records, max_studies=1)
    consolidate(tmp_path)
    table = pq.read_table(tmp_path / "vertebrae.parquet").to_pylist()
    assert [(v["study_id"], v["vertebra"]) for v in table] == [("b", 1), ("b", 2), ("a", 1), ("a", 2)]


def test_a_full_buffer_is_written(tmp_path):
    writer = ResultWriter(tmp_path, 0.74, max_studies=2, max_seconds=1e9)
    writer.add(record("a", 0.9))
    assert finished(tmp_path) == set()
    writer.add(record("b", 0.9))
    assert finished(tmp_path) == {"a", "b"}


def test_a_study_does_not_wait_for_others_longer_than_the_limit(tmp_path):
    writer = ResultWriter(tmp_path, 0.74, max_studies=1000, max_seconds=0.0)
    writer.add(record("a", 0.9))
    assert finished(tmp_path) == {"a"}


def interrupted(out):
    with ResultWriter(out, 0.74) as writer:
        writer.add(record("a", 0.9))
        raise KeyboardInterrupt


def test_what_waits_is_written_when_the_run_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    assert finished(tmp_path) == {"a"}


def test_a_second_run_goes_on_after_the_parts_of_the_first(tmp_path):
    write(tmp_path, record("a", 0.9))
    write(tmp_path, record("b", error=ReaderDied("x")))
    assert finished(tmp_path) == {"a"}
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "studies.parquet")["study_id"].to_pylist() == ["a", "b"]


def test_nothing_is_finished_in_a_new_folder(tmp_path):
    assert finished(tmp_path) == set()


@pytest.mark.parametrize("error", [ReaderDied, ReaderTimeout, UnexpectedError])
def test_what_may_be_the_fault_of_the_machine_is_not_finished(tmp_path, error):
    write(tmp_path, record("a", error=error("x")), record("b", error=UnreadableFile("x")))
    assert finished(tmp_path) == {"b"}
    write(tmp_path, record("a", 0.9))
    assert finished(tmp_path) == {"a", "b"}


def test_the_same_name_in_another_place_is_another_study(tmp_path):
    write(tmp_path, record("a", 0.9, source="here/a"))
    assert set(finished_studies(tmp_path)) == {("a", "here/a")}
    write(tmp_path, record("a", 0.9, source="there/a"))
    assert set(finished_studies(tmp_path)) == {("a", "there/a")}


def test_a_file_name_that_is_no_unicode_is_found_again(tmp_path):
    write(tmp_path, record("caf\udce9", 0.9, source="in/caf\udce9"))
    assert set(finished_studies(tmp_path)) == {("caf\\udce9", "in/caf\\udce9")}


def test_a_study_screened_again_counts_once_with_its_latest_vertebrae(tmp_path):
    write(tmp_path, record("a", 0.9, 0.5, 0.9), record("b", 0.9))
    write(tmp_path, record("a", 0.85))
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "studies.parquet")["n_vertebrae"].to_pylist() == [1, 1]
    assert pq.read_table(tmp_path / "vertebrae.parquet")["study_id"].to_pylist() == ["a", "b"]


def many():
    """Studies of several patients in an order that is not that of their sources, some of them twice."""
    records = [
        record(
            f"s{i}",
            *(0.6 + (i * j) % 17 / 40 for j in range(i % 5)),
            patient_id=f"p{i % 4}" if i % 3 else None,
        )
        for i in range(23)
    ]
    again = [record(f"s{i}", 0.7, 0.65, 0.65) for i in (3, 11, 12)]
    return [*random.Random(0).sample(records, len(records)), *again]


def test_tables_do_not_depend_on_how_many_rows_are_in_memory(tmp_path, monkeypatch):
    for name in ("at_once", "some"):
        write(tmp_path / name, *many(), max_studies=4)
    consolidate(tmp_path / "at_once")
    for module, limit, value in (
        (ordering, "STUDIES_AT_ONCE", 2),
        (ordering, "ROWS_AT_ONCE", 3),
        (ordering, "BYTES_IN_MEMORY", 1),
        (tables, "STUDIES_AT_ONCE", 2),
        (files, "ROWS_AT_ONCE", 2),
    ):
        monkeypatch.setattr(module, limit, value)
    consolidate(tmp_path / "some")
    for name in ("studies.parquet", "vertebrae.parquet", "patients.parquet"):
        expected = pq.read_table(tmp_path / "at_once" / name)
        assert pq.read_table(tmp_path / "some" / name).equals(expected, check_metadata=True)
    assert (tmp_path / "at_once/flagged.csv").read_bytes() == (tmp_path / "some/flagged.csv").read_bytes()
    assert {path.name for path in (tmp_path / "some").iterdir()} == {
        *("parts", "thumbnails", "studies.parquet", "vertebrae.parquet", "patients.parquet", "flagged.csv")
    }
    groups = pq.ParquetFile(tmp_path / "some/vertebrae.parquet")
    ids = [set(groups.read_row_group(i)["study_id"].to_pylist()) for i in range(groups.num_row_groups)]
    assert max(map(len, ids)) == 2
    assert sum(map(len, ids)) == len(set().union(*ids))  # each holds whole studies


def test_a_disk_that_gets_full_while_vertebrae_are_sorted_leaves_the_old_tables(tmp_path, monkeypatch):
    write(tmp_path, record("a", 0.7))
    consolidate(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    write(tmp_path, record("b", 0.7))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ordering.tempfile, "SpooledTemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        consolidate(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_of_vertebrae_with_the_same_ratio_the_upper_one_is_the_worst(tmp_path):
    write(tmp_path, record("a", 0.9, 0.7, 0.7))
    consolidate(tmp_path)
    assert [row["worst_vertebra"] for row in read_flagged(tmp_path)] == ["2"]


def fail_from(monkeypatch, n):
    """`os.replace` works n - 1 times, then the disk is gone."""
    calls, replace = itertools.count(1), os.replace

    def failing(source, target):
        if next(calls) >= n:
            raise OSError("disk gone")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)


@pytest.mark.parametrize("n", [1, 2])
def test_a_part_that_is_not_complete_holds_no_finished_study(tmp_path, monkeypatch, n):
    writer = ResultWriter(tmp_path, 0.74)
    writer.add(record("a", 0.9))
    with monkeypatch.context() as broken:
        fail_from(broken, n)
        with pytest.raises(OSError, match="disk gone"):
            writer.close()
    assert finished(tmp_path) == set()
    assert not list(tmp_path.glob("parts/*.tmp"))
    writer.close()
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "vertebrae.parquet").num_rows == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tables_broken_off_while_remade_are_old_or_new_but_whole(tmp_path, monkeypatch, n):
    write(tmp_path, record("a", 0.7))
    consolidate(tmp_path)
    write(tmp_path, record("b", 0.7))
    fail_from(monkeypatch, n)
    with pytest.raises(OSError, match="disk gone"):
        consolidate(tmp_path)
    for name in ("studies", "vertebrae", "patients"):
        assert pq.read_table(tmp_path / f"{name}.parquet").num_rows in (1, 2)
    assert len(read_flagged(tmp_path)) in (1, 2)


@pytest.mark.parametrize("kind", ["studies", "vertebrae"])
def test_a_torn_part_is_left_out_with_a_warning(tmp_path, caplog, kind):
    write(tmp_path, record("a", 0.9), record("b", 0.9), max_studies=1)
    torn = tmp_path / f"parts/000001.{kind}.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    assert finished(tmp_path) == {"b"}
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "vertebrae.parquet")["study_id"].to_pylist() == ["b"]
    assert "000001" in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_byte_of_the_vertebrae_that_changed_is_noticed(tmp_path, caplog, share):
    write(tmp_path, record("a", 0.9, 0.8), record("b", 0.9), max_studies=1)
    path = tmp_path / "parts/000001.vertebrae.parquet"
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    assert finished(tmp_path) == {"b"}
    assert "000001.vertebrae.parquet is not as it was written" in caplog.text


def without_checksum(out):
    for path in out.glob("parts/*.studies.parquet"):
        write_table(pq.read_table(path).replace_schema_metadata(None), path)


def test_parts_of_an_earlier_version_count_too_and_are_read_whole(tmp_path):
    write(tmp_path, record("a", 0.9), record("b", 0.9), max_studies=1)
    without_checksum(tmp_path)
    assert finished(tmp_path) == {"a", "b"}
    torn = tmp_path / "parts/000001.vertebrae.parquet"
    torn.write_bytes(torn.read_bytes()[:100])
    assert finished(tmp_path) == {"b"}


def test_columns_that_a_part_of_an_earlier_version_lacks_are_null(tmp_path):
    write(tmp_path, record("a", 0.9), record("b", 0.9), max_studies=1)
    for kind, column in (("studies", "widest_step_mm"), ("vertebrae", "genant_ratio_sd")):
        path = tmp_path / f"parts/000001.{kind}.parquet"
        write_table(pq.read_table(path).drop_columns([column]), path)
    without_checksum(tmp_path)
    consolidate(tmp_path)
    for name, schema in (("studies", STUDIES), ("vertebrae", VERTEBRAE)):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        assert table.schema.equals(schema, check_metadata=True)
        assert table["study_id"].to_pylist() == ["a", "b"]


def test_vertebrae_without_their_studies_are_replaced_by_the_next_run(tmp_path):
    write(tmp_path, record("a", 0.9))
    (tmp_path / "parts/000001.studies.parquet").unlink()
    write(tmp_path, record("a", 0.9))
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "vertebrae.parquet").num_rows == 1


def test_patients_have_the_smallest_ratio_and_the_latest_study():
    studies = [
        record("s1", 0.7, 0.9, date="2019-05-01"),
        record("s3", 0.85, date="2021-05-01"),
        record("s2", error=ReaderDied("x"), date="2020-05-01"),
        record("other", 0.9, patient_id="q", date=None),
    ]
    first, second = patient_rows([study_row(each, 0.74) for each in studies])
    assert first["min_genant_ratio"] == pytest.approx(0.7)
    assert (first["patient_id"], first["study_id"], first["grade"]) == ("p", "s1", "moderate")
    assert (first["n_studies"], first["n_measured"], first["flagged"]) == (3, 2, True)
    assert (first["latest_study_id"], first["latest_study_date"]) == ("s3", datetime.date(2021, 5, 1))
    assert first["study_ids"] == ["s3", "s2", "s1"]
    assert (second["patient_id"], second["latest_study_date"]) == ("q", None)


def test_studies_without_patient_are_not_joined_and_not_lost():
    studies = [record(name, 0.9, patient_id=None) for name in "ab"]
    rows = patient_rows([study_row(each, 0.74) for each in studies])
    assert [(row["patient_id"], row["study_ids"]) for row in rows] == [(None, ["a"]), (None, ["b"])]


@pytest.mark.parametrize(
    ("studies", "expected"),
    [
        ([record("a", 0.9), record("b", 0.7)], True),
        ([record("a", 0.9), record("b", 0.85)], False),
        ([record("a", 0.9), record("b", error=ReaderDied("x"))], None),
        ([record("a", 0.9), record("b", error=NoSuitableSeries("x"))], False),
        ([record("a", error=NoSuitableSeries("x"))], None),
        ([record("a", 0.9), record("b", 0.9, status="partial")], None),
    ],
)
def test_a_patient_is_negative_only_when_every_study_is(studies, expected):
    assert patient_rows([study_row(each, 0.74) for each in studies])[0]["flagged"] is expected


def test_the_spreadsheet_lists_flagged_studies_worst_first(tmp_path):
    doubts = (Doubt("noisy", "Noise."), Doubt("cut", "Cut."))
    write(tmp_path, record("mild", 0.78), record("bad", 0.9, 0.7, 0.95, doubts=doubts), record("worst", 0.5))
    consolidate(tmp_path)
    worst, bad = read_flagged(tmp_path)
    assert (worst["study_id"], bad["study_id"]) == ("worst", "bad")
    assert (bad["min_genant_ratio"], bad["grade"], bad["quality"]) == ("0.7000", "moderate", "noisy; cut")
    assert (bad["worst_vertebra"], bad["worst_height_anterior_mm"], bad["worst_center_z_mm"]) == (
        "2",
        "14.0",
        "-30.0",
    )
    assert (bad["study_date"], bad["thumbnail"], bad["source"]) == ("2020-01-02", "", "in/bad")


@pytest.mark.parametrize("patient", ["=1+1", "+1", "-1", "@sum"])
def test_an_id_cannot_become_a_formula_of_the_spreadsheet(tmp_path, patient):
    write(tmp_path, record("a", 0.7, patient_id=patient))
    consolidate(tmp_path)
    assert read_flagged(tmp_path)[0]["patient_id"] == f"'{patient}"
    assert pq.read_table(tmp_path / "studies.parquet")["patient_id"].to_pylist() == [patient]


def test_the_picture_is_on_disk_before_the_row_that_names_it(tmp_path):
    writer = ResultWriter(tmp_path, 0.74, max_seconds=1e9)
    writer.add(record("a", 0.7), b"png")
    assert (tmp_path / "thumbnails/a.png").read_bytes() == b"png"
    writer.close()
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "studies.parquet")["thumbnail"].to_pylist() == ["thumbnails/a.png"]
    assert read_flagged(tmp_path)[0]["thumbnail"] == "thumbnails/a.png"


@pytest.mark.parametrize("study_id", ["../../etc/passwd", "a/b\\c:d", "x" * 400, "caf\udce9", ".."])
def test_any_study_id_has_a_picture_inside_the_result_folder(tmp_path, study_id):
    with ResultWriter(tmp_path, 0.74) as writer:
        writer.add(record(study_id, 0.7), b"png")
    assert (tmp_path / thumbnail_path(study_id)).read_bytes() == b"png"
    assert len(list((tmp_path / "thumbnails").iterdir())) == 1


def test_two_long_ids_have_two_pictures():
    assert thumbnail_path("x" * 400 + "1") != thumbnail_path("x" * 400 + "2")


def test_a_file_name_that_is_no_unicode_costs_no_study(tmp_path):
    write(tmp_path, record("a", 0.9, source="in/caf\udce9"))
    consolidate(tmp_path)
    assert pq.read_table(tmp_path / "studies.parquet")["source"].to_pylist() == ["in/caf\\udce9"]


def test_every_field_has_a_meaning_and_millimetres_have_their_unit():
    for field in itertools.chain(STUDIES, VERTEBRAE, PATIENTS):
        assert field.metadata[b"meaning"]
        assert (field.metadata[b"unit"] == b"mm") == field.name.endswith("_mm")


def test_ratios_are_stored_without_rounding():
    ratio = float(np.nextafter(0.74, 1))
    assert pa.array([ratio], STUDIES.field("min_genant_ratio").type)[0].as_py() == ratio


def test_run_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_run_json(tmp_path, {"threshold": 0.74})
    fail_from(monkeypatch, 1)
    with pytest.raises(OSError, match="disk gone"):
        write_run_json(tmp_path, {"threshold": 0.8})
    assert json.loads((tmp_path / "run.json").read_text()) == {"threshold": 0.74}


def test_parts_without_run_json_are_refused(tmp_path):
    assert read_run_json(tmp_path) is None
    write(tmp_path, record("a", 0.9))
    with pytest.raises(InputError, match=r"no run\.json"):
        read_run_json(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\udce9"])
def test_parts_with_a_broken_run_json_are_refused(tmp_path, text):
    write(tmp_path, record("a", 0.9))
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"run\.json.*choose another folder"):
        read_run_json(tmp_path)


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no fcntl")
    with locked(tmp_path), pytest.raises(InputError, match="Another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no fcntl")
    code = "import os, sys, pathlib; from vfscreen.results import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): os._exit(0)"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    with locked(tmp_path):
        pass


def test_a_study_that_is_withdrawn_has_no_row_and_no_picture_until_it_is_added_again(tmp_path):
    write(tmp_path, record("a", 0.9), record("b", 0.9))
    with ResultWriter(tmp_path, 0.74) as writer:
        writer.add(record("a", 0.5), b"png")
    with ResultWriter(tmp_path, 0.74) as writer:
        writer.withdraw("a", "in/a")
    consolidate(tmp_path)
    for name in ("studies", "vertebrae"):
        assert set(pq.read_table(tmp_path / f"{name}.parquet")["study_id"].to_pylist()) == {"b"}
    assert finished(tmp_path) == {"b"}
    assert list((tmp_path / "thumbnails").iterdir()) == []
    write(tmp_path, record("a", 0.8))
    assert finished(tmp_path) == {"a", "b"}


def test_a_study_that_is_no_longer_flagged_loses_its_picture(tmp_path):
    with ResultWriter(tmp_path, 0.74) as writer:
        writer.add(record("a", 0.5), b"png")
        assert (tmp_path / thumbnail_path("a")).exists()
        writer.add(record("a", 0.9))
        assert not (tmp_path / thumbnail_path("a")).exists()
