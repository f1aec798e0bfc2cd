"""`vfscreen evaluate` and `vfscreen summarize` through the command: what is printed, written and refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from vfscreen.cli import main
from vfscreen.errors import UnreadableFile
from vfscreen.measure import genant_ratio, grade, heights_mm, shape
from vfscreen.results import ResultWriter, StudyRecord, consolidate
from vfscreen.study import KEYPOINTS, StudyHeader, StudyResult, Vertebra

SAMPLE = Path(__file__).parents[1] / "sample_data"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vfscreen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command; its exit code, and what it printed and complained."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vfscreen", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "160")
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def write_results(out: Path, studies: dict[str, list[list[list[float]]]]) -> Path:
    """Results that hold these keypoints, by the source of the study."""
    with ResultWriter(out, 0.74) as writer:
        for source, vertebrae in studies.items():
            header = StudyHeader(f"P-{source}", "2024-05-06", None, 150, 2.0, 1.4)
            result = StudyResult(header, "ok", tuple(map(vertebra, vertebrae)))
            writer.add(StudyRecord(source, source, None, result, None, header, {}))
        failed = StudyRecord("bad", "bad", "P-bad", None, UnreadableFile("damaged"), StudyHeader(), {})
        writer.add(failed)
    consolidate(out)
    return out


def vertebra(points: list[list[float]]) -> Vertebra:
    keypoints = pd.DataFrame(points).to_numpy()
    heights = heights_mm(keypoints)
    ratio = float(genant_ratio(heights))
    return Vertebra(keypoints, heights, ratio, grade(ratio), shape(heights), 0.9)


@pytest.fixture
def perfect(tmp_path: Path) -> Path:
    """Results that are the truth of sample_data."""
    truth = json.loads((SAMPLE / "truth.json").read_text())
    points = {
        source: [[v["keypoints_mm"][name] for name in KEYPOINTS] for v in study["vertebrae"]]
        for source, study in truth.items()
    }
    return write_results(tmp_path / "results", points)


def test_results_beside_the_truth(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    code, shown, _ = vfscreen("evaluate", perfect, "--reference", SAMPLE, "--out", tmp_path / "evaluation")
    assert code == 0
    assert "1.000 (n 52)" in shown
    assert "1 study with results that the reference does not know: left out: bad" in shown
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    recall = next(row for row in metrics["figures"] if row["figure"] == "recall" and row["group"] == "all")
    assert (recall["value"], recall["n"]) == (1.0, 52)
    assert metrics["about"]["reference"]["kind"] == "simulated cohort"
    assert (tmp_path / "evaluation" / "evaluation.html").exists()


def test_no_path_of_the_archive_stands_in_an_evaluation(
    vfscreen: Call, perfect: Path, tmp_path: Path
) -> None:
    (perfect / "run.json").write_text(
        json.dumps({"input": "/archive/SMITH_JOHN", "versions": {"vfscreen": "1"}})
    )
    out = tmp_path / "evaluation"
    assert vfscreen("evaluate", perfect, "--reference", SAMPLE, "--against", perfect, "--out", out)[0] == 0
    about = json.loads((out / "metrics.json").read_text())["about"]
    assert about["reference"] == {"kind": "simulated cohort", "name": "truth.json"}
    assert about["against"] == {"versions": {"vfscreen": "1"}}
    for path in out.iterdir():
        assert b"SMITH" not in path.read_bytes(), path.name
        assert str(SAMPLE).encode() not in path.read_bytes(), path.name


def test_studies_that_the_other_run_lost_are_told_and_count(
    vfscreen: Call, perfect: Path, tmp_path: Path
) -> None:
    truth = json.loads((SAMPLE / "truth.json").read_text())
    first = next(iter(truth))
    points = [[v["keypoints_mm"][name] for name in KEYPOINTS] for v in truth[first]["vertebrae"]]
    other = write_results(tmp_path / "other", {first: points})
    out = tmp_path / "evaluation"
    code, shown, _ = vfscreen("evaluate", perfect, "--reference", SAMPLE, "--against", other, "--out", out)
    assert code == 0
    assert f"The other run: {len(truth) - 1} studies of the reference without results" in shown
    rows = pd.read_csv(out / "differences.csv").set_index(["table", "group", "figure"])
    recall = rows.loc[("table 1", "all", "recall")]
    assert (recall["value"], recall["other"]) == (1.0, pytest.approx(len(points) / 52))


def test_numbers_of_one_run_do_not_compare_two(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    pd.read_parquet(perfect / "vertebrae.parquet")[["study_id", "vertebra", "genant_ratio"]].to_csv(table)
    code, shown, _ = vfscreen("evaluate", perfect, "--reference", table)
    assert code == 0
    assert "Paired by number: right only for the run that gave the numbers." in shown
    code, shown, complaint = vfscreen("evaluate", perfect, "--reference", table, "--against", perfect)
    assert (code, shown) == (2, "")
    assert "two runs cannot be compared" in complaint


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_read(
    vfscreen: Call, perfect: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, shown, complaint = vfscreen(
        "evaluate", perfect, "--reference", tmp_path / "nothing", "--out", file / "out"
    )
    assert (code, shown) == (2, "")
    assert f"nothing can be written to {file / 'out'}" in complaint


def test_a_run_against_itself_differs_in_nothing(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    code, _, _ = vfscreen("evaluate", perfect, "--reference", SAMPLE, "--against", perfect, "--out", out)
    assert code == 0
    assert (pd.read_csv(out / "differences.csv")["difference"].dropna() == 0).all()


def test_another_run_is_a_reference(vfscreen: Call, perfect: Path) -> None:
    assert vfscreen("evaluate", perfect, "--reference", perfect)[0] == 0


def write_reading(path: Path, *experts: str) -> Path:
    points = [[[50.0, 100, 20 + 30 * i], [50, 100, 45 + 30 * i]] * 3 for i in range(5)]
    rows = [[[y + 12 * (k // 2), x, z] for k, (y, x, z) in enumerate(vertebra)] for vertebra in points]
    content = {"Folder": "f", "SeriesInstanceUID": "1.2", "Annotation": {who: rows for who in experts}}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path.parent


def test_experts_who_agree(vfscreen: Call, tmp_path: Path) -> None:
    folder = write_reading(tmp_path / "annotation" / "a.json", "one", "two")
    code, shown, _ = vfscreen("evaluate", "experts", "--annotation", folder, "--out", tmp_path / "out")
    assert code == 0
    assert "2 readings of 1 studies" in shown
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["figures"]
    assert next(row for row in rows if row["figure"] == "recall")["value"] == 1


def test_what_cannot_be_compared_ends_with_2_and_one_line(
    vfscreen: Call, perfect: Path, tmp_path: Path
) -> None:
    one_reader = write_reading(tmp_path / "annotation" / "a.json", "one")
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    truth = json.loads((SAMPLE / "truth.json").read_text())
    (strangers / "truth.json").write_text(json.dumps({"another": truth["normal"]}))
    table = tmp_path / "table.csv"
    table.write_text("study,height\n1,2\n")
    for arguments, reason in [
        (("experts", "--annotation", one_reader), "no study was read by two experts"),
        (("experts",), "takes --annotation"),
        ((perfect,), "takes --reference"),
        ((perfect, "--reference", strangers), "another"),
        ((perfect, "--reference", table), "no column that names the study"),
        ((perfect, "--reference", tmp_path / "nothing"), "is not there"),
        ((tmp_path, "--reference", SAMPLE), "studies.parquet"),
    ]:
        out = tmp_path / "out"
        code, shown, complaint = vfscreen("evaluate", *arguments, "--out", out)
        assert (code, shown, complaint.count("\n")) == (2, "", 1), arguments
        assert reason in complaint
        assert not out.exists()


@pytest.fixture
def covariates(perfect: Path, tmp_path: Path) -> Path:
    patients = pd.read_parquet(perfect / "patients.parquet")["patient_id"]
    table = pd.DataFrame({"patient_id": patients, "age": range(55, 55 + len(patients)), "sex": "f"})
    table.to_csv(tmp_path / "covariates.csv", index=False)
    return tmp_path / "covariates.csv"


def test_a_cohort_is_summarized(vfscreen: Call, perfect: Path, covariates: Path, tmp_path: Path) -> None:
    out = tmp_path / "summary"
    code, shown, _ = vfscreen(
        *("summarize", perfect, "--covariates", covariates, "--out", out),
        *("--age-groups", "50,57,70", "--accuracy-moderate", "0.9,0.95,50,150"),
    )
    assert code == 0
    table = pd.read_csv(out / "prevalence.csv")
    everyone = table[(table.grouping == "all") & (table.threshold == "moderate")].iloc[0]
    assert (everyone.n, everyone.cases) == (4, 2)
    assert everyone.corrected == pytest.approx((0.5 + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert "2 of 4" in shown
    assert sorted(path.suffix for path in out.iterdir()).count(".csv") == 5


def test_accuracy_of_an_evaluation_corrects_the_prevalence(
    vfscreen: Call, perfect: Path, covariates: Path, tmp_path: Path
) -> None:
    vfscreen("evaluate", perfect, "--reference", SAMPLE, "--out", tmp_path / "evaluation")
    metrics, out = tmp_path / "evaluation" / "metrics.json", tmp_path / "summary"
    arguments = ("summarize", perfect, "--covariates", covariates, "--accuracy", metrics, "--out", out)
    assert vfscreen(*arguments)[0] == 0
    table = pd.read_csv(out / "prevalence.csv")
    everyone = table[(table.grouping == "all") & (table.threshold == "moderate")].iloc[0]
    assert (everyone.sensitivity, everyone.n_positive) == (1, 2)
    assert everyone.corrected == everyone.prevalence


@pytest.mark.parametrize(
    "option",
    [
        "--accuracy-mild=0.9",
        "--accuracy-mild=a,b,c,d",
        *(f"--accuracy-mild=0.84,0.86,{n}" for n in ("nan,42", "58,inf", "10.7,42", "58,0", "1e20,42")),
        *(f"--accuracy-mild={shares},58,42" for shares in ("nan,0.86", "0.84,inf", "84,86")),
        "--age-groups=60,50",
    ],
)
def test_numbers_that_are_none_are_refused(
    vfscreen: Call, perfect: Path, covariates: Path, tmp_path: Path, option: str
) -> None:
    out = tmp_path / "summary"
    code, _, complaint = vfscreen("summarize", perfect, "--covariates", covariates, "--out", out, option)
    assert (code, complaint.count("\n")) == (2, 1)
    assert not out.exists()


def test_figures_of_experts_correct_no_prevalence(
    vfscreen: Call, perfect: Path, covariates: Path, tmp_path: Path
) -> None:
    folder = write_reading(tmp_path / "annotation" / "a.json", "one", "two")
    vfscreen("evaluate", "experts", "--annotation", folder, "--out", tmp_path / "experts")
    given = ("--covariates", covariates, "--accuracy", tmp_path / "experts" / "metrics.json")
    code, _, complaint = vfscreen("summarize", perfect, *given, "--out", tmp_path / "summary")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "give the metrics.json of `vfscreen evaluate RESULTS" in complaint


def test_who_has_no_patient_or_fits_nobody_is_told(
    vfscreen: Call, perfect: Path, covariates: Path, tmp_path: Path
) -> None:
    table = pd.read_parquet(perfect / "studies.parquet")
    table.patient_id = table.patient_id.where(table.study_id != "normal", None)
    table.to_parquet(perfect / "studies.parquet")
    given = ("summarize", perfect, "--covariates", covariates, "--out", tmp_path / "summary")
    told = vfscreen(*given)[1]
    assert "1 study without a patient counts as a patient of its own." in told
    assert "1 row of the covariates fits nobody in the results." in told
    with covariates.open("a") as stream:
        stream.write("stranger,60,f\n")
    assert "2 rows of the covariates fit nobody in the results." in vfscreen(*given)[1]


def test_a_summary_that_cannot_be_written_is_told_before_anything_is_read(
    vfscreen: Call, covariates: Path, tmp_path: Path
) -> None:
    given = ("summarize", tmp_path / "no results", "--covariates", covariates)
    code, _, complaint = vfscreen(*given, "--out", covariates / "summary")
    assert (code, complaint.count("\n")) == (2, 1)
    assert f"nothing can be written to {covariates / 'summary'}" in complaint


def test_results_may_be_copied_without_run_json(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("studies.parquet", "vertebrae.parquet"):
        shutil.copy(perfect / name, copied)
    assert vfscreen("evaluate", copied, "--reference", SAMPLE, "--out", tmp_path / "evaluation")[0] == 0


def exported(perfect: Path, path: Path, separator: str = ",", **factors: float) -> Path:
    """The vertebrae of results as a spreadsheet would save them, some columns multiplied."""
    table = pd.read_parquet(perfect / "vertebrae.parquet")
    names = [name for name in table if name.startswith(("center_", "height_")) and "sd" not in name]
    numbers = table[names].mul({name: factors.get(name.split("_")[0], 1.0) for name in names})
    if "turned" in factors:
        numbers[["center_x_mm", "center_y_mm"]] *= factors["turned"]
    table[["study_id"]].join(numbers).to_csv(path, index=False, sep=separator, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_a_spreadsheet_is_a_reference(
    vfscreen: Call, perfect: Path, tmp_path: Path, separator: str
) -> None:
    table = exported(perfect, tmp_path / "table.csv", separator)
    code, shown, _ = vfscreen("evaluate", perfect, "--reference", table)
    assert code == 0
    assert "1.000 (n 52)" in shown


def test_positions_of_another_convention_are_told(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    table = exported(perfect, tmp_path / "table.csv", turned=-1.0)
    code, shown, complaint = vfscreen("evaluate", perfect, "--reference", table)
    assert (code, shown) == (2, "")
    assert "x and y turned" in complaint


def test_heights_of_another_unit_are_told(vfscreen: Call, perfect: Path, tmp_path: Path) -> None:
    table = exported(perfect, tmp_path / "table.csv", height=0.1)
    code, shown, complaint = vfscreen("evaluate", perfect, "--reference", table)
    assert (code, shown) == (2, "")
    assert "heights are in mm" in complaint
