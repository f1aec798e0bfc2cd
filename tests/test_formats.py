"""The lines of docs/formats.md run on the results of `sample_data/`, and give what the page says."""

from __future__ import annotations

import ast
import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vfscreen.adjudication.adjudicate import adjudicate
from vfscreen.pipeline import run
from vfscreen.redcap import data_dictionary

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"), re.DOTALL
)


def of(word: str) -> str:
    """The block that has this word."""
    (block,) = [block for block in BLOCKS if word in block]
    return str(block)


def title(block: str) -> str:
    return block.splitlines()[0 if "import duckdb" in block else -1].strip()[:40]


@pytest.fixture(scope="module")
def made(shipped_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of the sample data, one of its studies read."""
    folder = tmp_path_factory.mktemp("formats")
    run(ROOT / "sample_data", folder / "results", models=shipped_models, workers=1, dicom_sr=True)
    studies = pd.read_parquet(folder / "results" / "studies.parquet")
    flagged = studies[studies["flagged"].eq(True)].iloc[:1]
    verdicts = flagged[["study_id"]].assign(
        reader="a", verdict="no fracture", verdict_grade="", verdict_vertebra=""
    )
    verdicts.to_csv(folder / "read.csv", index=False)
    adjudicate(folder / "results", [folder / "read.csv"])
    return folder


@pytest.fixture
def done(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a block in a folder with the results and gives its names."""
    shutil.copytree(made / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)

    def run_block(block: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(compile(block, "docs/formats.md", "exec"), names)
        return names

    return run_block


@pytest.mark.parametrize("block", BLOCKS, ids=title)
def test_the_lines_run(block, done):
    for node in ast.parse(block).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            pytest.importorskip(name, reason=f"{name} is not installed")
    done(block)


def test_what_nobody_has_read_is_null(done):
    studies = done(of('adjudicated/studies.parquet", columns'))["studies"]
    assert studies["fracture"].eq(False).sum() == 1
    assert studies["fracture"].isna().sum() == len(studies) - 1


def test_the_csv_has_lists_as_text_and_null_as_nothing(done, made):
    done(of("table.to_csv"))
    with open("studies.csv", newline="", encoding="utf-8") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    assert rows["missing_slice"]["flagged"] == rows["missing_slice"]["n_vertebrae"] == ""
    assert rows["normal"]["flagged"] == "False"
    assert rows["normal"]["n_vertebrae"] == "13"


def test_stata_gets_flags_as_numbers_and_the_unknown_as_missing(done):
    done(of("to_stata"))
    studies = pd.read_stata("studies.dta").set_index("source")
    assert studies.flagged["severe_biconcave"] == 1
    assert studies.flagged["normal"] == 0
    assert pd.isna(studies.flagged["missing_slice"])
    assert studies.study_date["normal"] == pd.Timestamp("2020-01-01")
    vertebrae, original = pd.read_stata("vertebrae.dta"), pd.read_parquet("results/vertebrae.parquet")
    assert list(vertebrae.columns) == list(original.columns)
    assert (vertebrae.genant_ratio == original.genant_ratio).all()
    assert (vertebrae.level == "").all()


@pytest.fixture
def imported(done) -> list[dict[str, str]]:
    """The rows of the file for REDCap, with vertebrae and verdicts."""
    done(of("redcap_import.csv").replace("# where there are verdicts: ", ""))
    with open("redcap_import.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_file_for_redcap_has_its_variables_and_the_record_first(imported):
    first = ["study_id", "redcap_repeat_instrument", "redcap_repeat_instance"]
    variables = {row["Variable / Field Name"] for row in csv.DictReader(io.StringIO(data_dictionary()))}
    assert list(imported[0])[:3] == first
    assert set(imported[0]) - set(first[1:]) == variables


def test_the_file_for_redcap_has_a_row_a_study_vertebra_and_verdict(imported, made):
    counts = pd.Series([row["redcap_repeat_instrument"] for row in imported]).value_counts().to_dict()
    n = {
        name: len(pd.read_parquet(made / "results" / f"{name}.parquet")) for name in ("studies", "vertebrae")
    }
    assert counts == {"": n["studies"], "vertebrae": n["vertebrae"], "verdicts": 1}
    for row in imported:
        assert bool(row["redcap_repeat_instance"]) == bool(row["redcap_repeat_instrument"])
        if row["redcap_repeat_instrument"] == "vertebrae":
            assert row["redcap_repeat_instance"] == row["v_vertebra"]
            assert row["status"] == ""


def test_every_cell_for_redcap_passes_its_validation(imported):
    patterns = {"integer": r"-?\d+", "number": r"-?\d+(\.\d+)?", "date_ymd": r"\d{4}-\d\d-\d\d"}
    wrong = []
    for field in csv.DictReader(io.StringIO(data_dictionary())):
        choices = field["Choices, Calculations, OR Slider Labels"]
        pattern = patterns.get(field["Text Validation Type OR Show Slider Number"], ".*")
        if field["Field Type"] == "radio":
            pattern = "|".join(choice.partition(",")[0] for choice in choices.split(" | "))
        if field["Field Type"] == "yesno":
            pattern = "[01]"
        name = field["Variable / Field Name"]
        cells = {row[name] for row in imported} - {""}
        wrong += [(name, cell) for cell in cells if not re.fullmatch(pattern, cell)]
    assert wrong == []
