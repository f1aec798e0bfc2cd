"""From readers' files to tables beside the automatic ones."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import typer
from made_flagged import fill, study, write_results
from scipy.stats import norm
from typer.testing import CliRunner

from vfscreen.adjudication.adjudicate import adjudicate
from vfscreen.adjudication.agreement import pair
from vfscreen.adjudication.schemas import BASES, CHANGES, CONFLICTS, STUDIES_READ, VERDICT_ROWS
from vfscreen.cli.adjudication import adjudicate as command
from vfscreen.errors import InputError
from vfscreen.report.workbook import write_workbook

FORMULA = "=1+1"
ARCHIVE = (
    study("007", 0.5, 0.9),
    study(FORMULA, 0.6, 0.9, picture=False),
    study("c", 0.7),
    study("d", 0.72),
    study("fine", 0.9, 0.85),
    study("half", 0.9, status="partial", flagged=None),
    study("broken", status="failed", error="unreadable_file"),
)


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", *ARCHIVE)


def csv(path, **verdicts):
    """A file of one reader, its name; of each study the verdict or a whole row."""
    rows = [{"verdict": said} if isinstance(said, str) else said for said in verdicts.values()]
    table = pd.DataFrame([{"study_id": id_, **row} for id_, row in zip(verdicts, rows, strict=True)])
    table.assign(reader=path.stem).to_csv(path, index=False)
    return path


def by_study(rows):
    return {row["study_id"]: row for row in rows}


def test_verdicts_typed_into_the_workbook_come_back(results):
    said = {
        "007": {
            **{"verdict": "fracture", "verdict_grade": "severe", "verdict_vertebra": 1, "reader": "Ann"},
            **{"verdict_comment": "=old", "read_at": "2026-01-31T14:30+01:00"},
        },
        FORMULA: {"verdict": "no fracture"},
    }
    path = fill(write_workbook(results), said)
    made = adjudicate(results, [path], reader="Bo")
    table = pd.read_parquet(results / "adjudicated" / "verdicts.parquet").set_index("study_id")
    assert list(table.loc["007"]) == [
        *("P007", "Ann", "fracture", "severe", 1, "=old", "2026-01-31T14:30+01:00", "flagged.xlsx", 2)
    ]
    assert table.reader[FORMULA] == "Bo"
    assert len(made.studies) == len(table) == 2
    assert path.exists()


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice (soffice) is not installed")
def test_verdicts_come_back_from_a_workbook_that_libreoffice_saved(results, tmp_path):
    said = {"007": {"verdict": "fracture", "verdict_vertebra": 2}, FORMULA: {"verdict": "unsure"}}
    typed = {id_: {**row, "reader": "012", "read_at": "2026-01-31"} for id_, row in said.items()}
    path = fill(write_workbook(results), typed, tmp_path / "typed.xlsx")
    call = ["soffice", f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", "--convert-to"]
    for kind in ("xlsx", "csv"):
        subprocess.run([*call, kind, "--outdir", tmp_path / kind, path], check=True, capture_output=True)
    files = [path, *(tmp_path / kind / f"typed.{kind}" for kind in ("xlsx", "csv"))]
    made = [adjudicate(results, [file], tmp_path / f"out{n}") for n, file in enumerate(files)]
    assert made[0].verdicts == [{**row, "file": "typed.xlsx"} for row in made[1].verdicts]
    assert made[0].verdicts == [{**row, "file": "typed.xlsx"} for row in made[2].verdicts]
    assert made[0].verdicts[0] | {"reader": "012", "read_at": "2026-01-31"} == made[0].verdicts[0]


def test_automatic_tables_stay_as_they_are(results, tmp_path):
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    adjudicate(results, [csv(tmp_path / "Ann.csv", c="fracture")])
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match="holds the automatic results"):
        adjudicate(results, [tmp_path / "Ann.csv"], results)


def test_what_the_readers_change_is_told_of_every_study(results, tmp_path):
    said = {"007": "fracture", "c": "no fracture", "d": "unsure", "fine": "fracture", "half": "no fracture"}
    made = adjudicate(results, [csv(tmp_path / "Ann.csv", **said)])
    rows = by_study(made.studies)
    assert {id_: row["change"] for id_, row in rows.items()} == {
        **{"007": "confirmed", "c": "rejected", "d": "open", "fine": "added", "half": "ruled out"}
    }
    assert {id_: row["fracture"] for id_, row in rows.items()} == {
        **{"007": True, "c": False, "d": None, "fine": True, "half": False}
    }
    assert (rows["007"]["auto_flagged"], rows["007"]["auto_min_genant_ratio"]) == (True, 0.5)
    assert {row["basis"] for row in made.studies} == {"single reader"}
    assert {row["change"] for row in made.studies} <= set(CHANGES)


def test_readers_agree_contradict_each_other_and_are_decided_on(results, tmp_path):
    grades = {"verdict": "fracture", "verdict_grade": "mild", "verdict_vertebra": 1}
    files = [
        csv(tmp_path / "Ann.csv", c=grades, d="fracture"),
        csv(tmp_path / "Bo.csv", c={"verdict": "fracture", "verdict_grade": "severe"}, d="no fracture"),
    ]
    made = adjudicate(results, files)
    rows = by_study(made.studies)
    assert (rows["c"]["basis"], rows["c"]["consensus"]) == ("all agree", "fracture")
    assert (rows["c"]["consensus_grade"], rows["c"]["consensus_vertebra"]) == (None, 1)
    assert (rows["d"]["basis"], rows["d"]["consensus"], rows["d"]["change"]) == ("conflict", None, "open")
    (conflict,) = pd.read_csv(made.out / "conflicts.csv").to_dict("records")
    assert (conflict["study_id"], conflict["verdicts"]) == ("d", "Ann: fracture; Bo: no fracture")
    made = adjudicate(results, [*files, csv(tmp_path / "Cy.csv", d="no fracture")], arbiter="cy")
    assert (
        by_study(made.studies)["d"] | {"basis": "arbiter", "fracture": False, "n_readers": 3}
        == by_study(made.studies)["d"]
    )
    assert made.conflicts == []
    assert {row["basis"] for row in made.studies} <= set(BASES)
    with pytest.raises(InputError, match=r"--arbiter Dee has read nothing; .* Ann, Bo"):
        adjudicate(results, files, tmp_path / "out", arbiter="Dee")


def test_the_later_verdict_of_a_reader_counts(results, tmp_path):
    early = {"verdict": "fracture", "verdict_comment": "crushed", "read_at": "2026-01-31T23:30-05:00"}
    late = {"verdict": "no fracture", "read_at": "2026-02-01T05:00+00:00"}
    (tmp_path / "later").mkdir()
    files = [csv(tmp_path / "later" / "ANN.csv", d=late), csv(tmp_path / "Ann.csv", d=early)]
    made = adjudicate(results, files)
    assert [(row["verdict"], row["file"]) for row in made.verdicts] == [("no fracture", "ANN.csv")]
    (superseded,) = pd.read_csv(made.out / "superseded.csv").to_dict("records")
    assert (superseded["verdict"], superseded["verdict_comment"]) == ("fracture", "crushed")
    assert superseded["reader"] == "ANN"


@pytest.mark.parametrize("times", [("", ""), ("2026-01-31", ""), ("2026-01-31", "2026-01-31T10:00+00:00")])
def test_two_verdicts_of_a_reader_need_times_that_tell_the_later(results, tmp_path, times):
    first, second = ({"verdict": v, "read_at": t} for v, t in zip(("unsure", "fracture"), times, strict=True))
    (tmp_path / "b").mkdir()
    files = [csv(tmp_path / "Ann.csv", d=first), csv(tmp_path / "b" / "Ann.csv", d=second)]
    with pytest.raises(InputError, match=r"row 2, study_id d: Ann says .* which is later"):
        adjudicate(results, files)


def test_the_same_file_twice_is_one_reader(results, tmp_path):
    path = csv(tmp_path / "Ann.csv", c="fracture", d="unsure")
    shutil.copy(path, tmp_path / "copy.csv")
    made = adjudicate(results, [path, tmp_path / "copy.csv"])
    assert (len(made.verdicts), made.superseded, made.agreement.readers) == (2, [], ())


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"7": "fracture"}, r"Ann.csv, row 2, study_id 7: there is no such study .*, but 007: .* zeros"),
        ({"fime": "fracture"}, "did you mean fine"),
        ({"9.9": "fracture"}, "of another run"),
        (
            {"c": {"verdict": "fracture", "verdict_vertebra": 2}},
            "2 is no vertebra of this study; it has 1 to 1",
        ),
        ({"broken": {"verdict": "fracture", "verdict_vertebra": 1}}, "none was measured"),
        ({"c": ""}, "no row of Ann.csv has a verdict"),
    ],
)
def test_verdicts_on_what_is_not_there_are_refused(results, tmp_path, said, says):
    with pytest.raises(InputError, match=says):
        adjudicate(results, [csv(tmp_path / "Ann.csv", **said)])
    assert not (results / "adjudicated").exists()


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(InputError, match="that vfscreen run has finished"):
        adjudicate(tmp_path, [csv(tmp_path / "Ann.csv", c="fracture")])


def test_no_verdict_gets_lost_by_a_second_call(results, tmp_path, caplog):
    ann, bo = csv(tmp_path / "Ann.csv", **{FORMULA: "fracture"}), csv(tmp_path / "Bo.csv", d="fracture")
    made = adjudicate(results, [ann])
    with pytest.raises(
        InputError, match=r"1 of 1 verdicts .* Ann on study_id =1\+1, from Ann.csv; .*verdicts.csv"
    ):
        adjudicate(results, [bo])
    again = adjudicate(results, [bo, made.out / "verdicts.csv"])
    assert [(row["study_id"], row["file"], row["row"]) for row in again.verdicts] == [
        (FORMULA, "Ann.csv", 2),
        ("d", "Bo.csv", 2),
    ]
    csv(bo, d="unsure")
    adjudicate(results, [ann, bo])
    assert "Bo.csv, row 2, study_id d: Bo said 'fracture' before" in caplog.text


def test_the_same_files_give_the_same_tables_in_any_order(results, tmp_path):
    files = [csv(tmp_path / "Ann.csv", c="fracture", d="unsure"), csv(tmp_path / "Bo.csv", d="fracture")]
    for name, given in (("one", files), ("two", files[::-1])):
        adjudicate(results, given, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_tables_have_their_columns_with_meaning(results, tmp_path):
    out = adjudicate(results, [csv(tmp_path / "Ann.csv", c="fracture")]).out
    for name, schema in (("verdicts", VERDICT_ROWS), ("studies", STUDIES_READ)):
        assert list(pd.read_parquet(out / f"{name}.parquet")) == list(pd.read_csv(out / f"{name}.csv"))
        assert all(field.metadata[b"meaning"] for field in schema)
    assert list(pd.read_csv(out / "conflicts.csv")) == CONFLICTS.names
    assert list(pd.read_csv(out / "superseded.csv")) == VERDICT_ROWS.names


def test_kappa_is_that_of_cohen_by_hand():
    one = dict(enumerate([1] * 20 + [1] * 5 + [0] * 10 + [0] * 15))
    other = dict(enumerate([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15))
    compared = pair("a", "b", one, other)
    assert (compared.n, compared.share) == (50, 0.7)
    assert compared.kappa == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def test_kappa_is_unknown_where_one_says_the_same_of_all():
    assert pair("a", "b", {1: True, 2: False}, {1: True, 2: True}).kappa is None
    assert pair("a", "b", {1: True}, {2: True}).share is None


def test_agreement_counts_what_both_are_sure_of(results, tmp_path):
    files = [
        csv(
            tmp_path / "Ann.csv",
            **{"007": "fracture", "c": "no fracture", "d": "unsure", "fine": "no fracture"},
        ),
        csv(tmp_path / "Bo.csv", **{"007": "fracture", "c": "no fracture", "half": "fracture"}),
    ]
    figures = json.loads((adjudicate(results, files).out / "agreement.json").read_text())
    ann, bo = figures["machine"]
    assert (ann["one"], ann["other"], ann["n"], ann["share"]) == ("Ann", "machine", 3, pytest.approx(2 / 3))
    assert (bo["n"], bo["share"], bo["kappa"]) == (2, 0.5, None)
    assert figures["readers"] == [{"one": "Ann", "other": "Bo", "n": 2, "share": 1.0, "kappa": 1.0}]
    assert figures["studies"]["change"] == {"added": 1, "confirmed": 2, "open": 1, "rejected": 1}


def test_the_share_of_confirmed_flags_has_wilsons_interval(results, tmp_path):
    files = [csv(tmp_path / "Ann.csv", **{"007": "fracture", "c": "no fracture", "fine": "fracture"})]
    flag = adjudicate(results, files).agreement.flag
    assert (flag.flagged, flag.read, flag.decided, flag.confirmed, flag.value) == (4, 2, 2, 1, 0.5)
    z, n = norm.ppf(0.975), 2
    half = z * np.sqrt(0.25 / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert (flag.low, flag.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_nothing_but_the_columns_of_a_verdict_is_taken_over(results, tmp_path):
    folder = tmp_path / "DOE_JANE"
    folder.mkdir()
    row = {"verdict": "fracture", "patient_name": "DOE^JANE", "picture": "DOE^JANE"}
    out = adjudicate(results, [csv(folder / "Ann.csv", c=row)]).out
    for path in out.iterdir():
        content = path.read_bytes()
        assert b"JANE" not in content
        assert str(tmp_path).encode() not in content


def test_the_command_prints_agreement_and_where_the_tables_are(results, tmp_path):
    app = typer.Typer()
    app.command()(command)
    files = [
        csv(tmp_path / "Ann.csv", **{"007": "fracture", "fine": "no fracture", "d": "unsure"}),
        csv(tmp_path / "[Bo].csv", **{"007": "fracture", "d": "fracture"}),
    ]
    options = [part for file in files for part in ("--verdicts", str(file))]
    done = CliRunner().invoke(app, [str(results), *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "[Bo]" in done.stdout
    assert "Studies read: 3, readers: 2; 2 confirmed, 1 open." in done.stdout
    assert "In 1 the readers contradict each other" in done.stdout
    assert (
        "2 of 4 flagged studies are read; there is a fracture in 1 of 1 decided ones: 1.000 (0.207 to"
        in done.stdout
    )
    assert str(results / "adjudicated") in done.stdout
