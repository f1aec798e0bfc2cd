"""Likely mistakes of a first user: each ends with 2 and a message that says what is wrong and what to do."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import fakes
import pytest

from vfscreen.adjudication.reading import read_verdicts
from vfscreen.cli import main
from vfscreen.epidemiology.covariates import read_covariates
from vfscreen.errors import InputError
from vfscreen.networks import weights

Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive, and what may be taken for one, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    fakes.write_study(tmp_path / "archive" / "study.nii.gz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no CT")
    (tmp_path / "nopath.csv").write_text("file,patient\na,b\n")
    (tmp_path / "norows.csv").write_text("path\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "halfweights").mkdir()
    (tmp_path / "halfweights" / "localizer.safetensors").write_bytes(b"none")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("study", "")
    return tmp_path


def message(monkeypatch: pytest.MonkeyPatch, capsys: Shown, command: str) -> str:
    monkeypatch.setattr(sys, "argv", ["vfscreen", *command.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return " ".join(shown.replace("│", " ").split())


RUNS = {
    "run archiv --out out": ("archiv does not exist", "is archive meant?"),
    "run /nowhere/at/all --out out": ("of its path / is there", "mounted"),
    "run empty --out out": ("empty holds nothing", "give the folder that holds the studies"),
    "run notes.txt --out out": ("neither a folder", "give the folder:"),
    "run packed.zip --out out": ("packed.zip is packed", "unpack it"),
    "run archive --out archive": ("archive is the archive itself", "archive_results"),
    "run archive --out notes.txt": ("'notes.txt' is a file", "For example: vfscreen run"),
    "run archive --out notes.txt/out": ("cannot be written", "choose a folder"),
    "run archive": ("Missing option '--out'", "For example: vfscreen run sample_data --out results"),
    "run --out out": ("Missing argument 'INPUT'", "For example: vfscreen run"),
    "run archive empty --out out": ("extra argument(s) (empty)", "For example: vfscreen run"),
    "run archive --output out": ("--output", "--out"),
    "run archive --out out --treshold 1": ("--treshold", "--threshold"),
    "runs archive --out out": ("No such command 'runs'", "Did you mean 'run'?"),
    "archive --out out": ("No such command 'archive'", "For example: vfscreen run /archive --out results"),
    "run nopath.csv --out out": ("no column path; its columns are file, patient", "Rename"),
    "run norows.csv --out out": ("norows.csv has no rows", "one row a study"),
    "run archive --out out --series 1.2.3": ("no series 1.2.3", "`vfscreen check archive`"),
    "run archive --out out --series thorax": ("--series thorax", "`vfscreen check`"),
}
WEIGHTS = {
    "run archive --out out --weights nowhere": ("nowhere/localizer.safetensors", "leave the option out"),
    "run archive --out out --weights halfweights": ("SHA256SUMS records no", "leave the option out"),
    "run archive --out out --device cuda": ("sees no GPU", "leave the option out"),
    "train --out runs --start nowhere": ("no weights of localizer", "the word shipped"),
}
RESULTS = {
    "evaluate results": ("takes --reference", "vfscreen evaluate results --reference"),
    "evaluate archive --reference other.csv": ("names the study", "it has a, b"),
    "summarize archive --covariates other.csv --out s": ("archive/studies.parquet is not", "give a folder"),
    "summarize archive --out s": ("Missing option '--covariates'", "For example: vfscreen summarize"),
    "adjudicate archive": ("Missing option '--verdicts'", "For example: vfscreen adjudicate"),
    "adjudicate archive --verdicts other.csv": ("archive/studies.parquet is not there", "give a folder"),
}


@pytest.mark.parametrize("command", RUNS)
def test_a_mistake_in_a_run_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Shown, command: str
) -> None:
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())
    shown = message(monkeypatch, capsys, command)
    assert [part for part in RUNS[command] if part not in shown] == [], shown
    assert not Path("out", "run.json").exists()


@pytest.mark.parametrize("command", WEIGHTS)
def test_wrong_weights_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Shown, command: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shown = message(monkeypatch, capsys, command)
    assert [part for part in WEIGHTS[command] if part not in shown] == [], shown


@pytest.mark.parametrize("command", RESULTS)
def test_a_mistake_with_results_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Shown, command: str
) -> None:
    shown = message(monkeypatch, capsys, command)
    assert [part for part in RESULTS[command] if part not in shown] == [], shown


def test_tables_that_are_not_there_are_told_with_what_is_expected() -> None:
    with pytest.raises(InputError, match=r"nowhere.csv does not exist; give the table of the covariates"):
        read_covariates(Path("nowhere.csv"))
    with pytest.raises(InputError, match=r"nowhere.csv does not exist; give flagged.xlsx"):
        read_verdicts(Path("nowhere.csv"))


@pytest.mark.parametrize(("name", "status"), [("study.nii.gz", 0), ("bad.nii.gz", 1)])
def test_a_run_ends_with_what_comes_next(
    monkeypatch: pytest.MonkeyPatch, capsys: Shown, name: str, status: int
) -> None:
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())
    Path("archive", "bad.nii.gz").write_bytes(b"no image")
    monkeypatch.setattr(sys, "argv", f"vfscreen run archive/{name} --out out --workers 1".split())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert str(Path("out", "report.html")) in last
    assert ("Not one study" in last) == bool(status)
