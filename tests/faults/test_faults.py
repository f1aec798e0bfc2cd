"""Each fault gives the rows that it must, in one run over all of them, and spoils nothing round it."""

from __future__ import annotations

import csv
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from faults.registry import Fault, Measured, faults
from faults.running import SOUND, Run, screened
from faults.writing import NAMES

FAULTS = faults()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shipped_models: object) -> Run:
    return screened(FAULTS, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, shipped_models: object) -> Run:
    return screened([], tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_gives_its_rows(fault: Fault, run: Run) -> None:
    if fault.name in run.not_possible:
        pytest.skip(run.not_possible[fault.name])
    assert run.differences(fault) == []


def test_there_are_many_faults_and_their_rows_are_of_every_kind(run: Run) -> None:
    assert len(FAULTS) >= 200
    assert {"failed", "skipped", "ok", "partial"} <= set(run.studies.status)
    assert set(run.studies.error.dropna()) >= {
        "implausible_values",
        "inconsistent_geometry",
        "missing_geometry",
        "no_suitable_series",
        "packed_archive",
        "spine_not_found",
        "too_large",
        "too_short",
        "unreadable_file",
    }


def test_no_fault_kills_a_reader_or_was_unforeseen(run: Run) -> None:
    assert not set(run.studies.error.dropna()) & {
        "out_of_memory",
        "reader_died",
        "reader_timeout",
        "unexpected_error",
    }


def test_no_study_got_lost_and_none_came_from_nowhere(run: Run) -> None:
    expected = Counter(
        {fault.folder: len(fault.rows) for fault in FAULTS if fault.name not in run.not_possible}
    )
    expected.update(SOUND)
    found = Counter({folder: len(rows) for folder, rows in run.rows.items()})
    assert {
        folder: found[folder] - expected[folder]
        for folder in found | expected
        if found[folder] != expected[folder]
    } == {}


def test_the_run_ends_with_exit_code_0_and_without_a_traceback_or_warning(run: Run) -> None:
    assert run.done.returncode == 0
    assert "Traceback" not in run.done.stderr
    assert "Warning" not in run.done.stderr


def test_sound_neighbours_are_as_in_an_archive_without_faults(run: Run, alone: Run) -> None:
    for folder in SOUND:
        (here,), (there,) = run.rows[folder], alone.rows[folder]
        seconds = [name for name in map(str, run.studies) if name.startswith("seconds")]
        other = [*seconds, "study_id", "series_uid", "files_digest"]  # which the writing made
        pd.testing.assert_series_equal(
            run.studies.loc[here].drop(other),
            alone.studies.loc[there].drop(other),
            check_names=False,
            rtol=1e-3,
        )
        pd.testing.assert_frame_equal(
            run.vertebrae_of(here).drop(columns="study_id"),
            alone.vertebrae_of(there).drop(columns="study_id"),
            atol=1e-2,
            rtol=0,
        )


def test_every_measured_fault_is_in_the_list_of_the_flagged(run: Run) -> None:
    """The threshold is 1, so that the spreadsheet holds every study."""
    with (run.out / "flagged.csv").open(newline="", encoding="utf-8-sig") as file:
        listed = {line["study_id"] for line in csv.DictReader(file)}
    assert listed == set(run.studies.study_id[run.studies.status.isin(["ok", "partial"])])


def test_no_cell_of_a_spreadsheet_is_a_formula(run: Run) -> None:
    for path in run.out.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))] == []
        assert [cell for cell in cells if cell.startswith("-") and not _is_number(cell)] == []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_nothing_is_written_outside_the_result_folder(run: Run) -> None:
    beside = {path.name for path in run.out.parent.iterdir() if not path.name.startswith("tmp")}
    assert beside == {"archive", "results"}
    assert not list(run.out.parent.parent.glob("*escaped*"))
    assert not list(Path("/tmp").glob("*escaped*"))


def test_no_name_of_the_headers_is_said_anywhere(run: Run) -> None:
    said = [("stderr", run.done.stderr), ("stdout", run.done.stdout), *_texts_below(run.out)]
    assert [(place, name) for place, text in said for name in NAMES if name in text] == []


def _texts_below(out: Path) -> Iterator[tuple[str, str]]:
    """The names of the files, their bytes, and what is packed in them."""
    for path in out.rglob("*"):
        yield "names", path.name
        if path.is_file():
            yield path.name, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield path.name, pd.read_parquet(path).to_csv()
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as database:
                for (content,) in database.execute("SELECT content FROM folders"):
                    yield path.name, zlib.decompress(content).decode("latin-1")


def test_a_fault_that_is_measured_is_measured_with_all_its_vertebrae(run: Run) -> None:
    """The suite itself: its sound study has enough vertebrae to tell places apart."""
    (index,) = run.rows[SOUND[0]]
    assert run.studies.n_vertebrae[index] >= 4
    assert sum(isinstance(row, Measured) for fault in FAULTS for row in fault.rows) > 100
