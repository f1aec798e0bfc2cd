"""The command line: exit codes, messages, and that help is instant."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fakes
import pyarrow.parquet as pq
import pytest

from vfscreen import __version__, pipeline
from vfscreen.cli import main
from vfscreen.networks import weights


@pytest.fixture
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vfscreen", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, vfscreen.cli as c; c.app(['run', '--help'], standalone_mode=False)"
    check = "; sys.exit(len({'torch', 'numpy', 'scipy', 'pandas', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code + check], capture_output=True).returncode == 0


def test_version_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"vfscreen {__version__}\n"


def test_the_public_names_are_listed_before_they_are_loaded() -> None:
    code = "import sys, vfscreen; sys.exit(not set(vfscreen.__all__) < set(dir(vfscreen)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.usefixtures("fake_weights")
def test_a_run_ends_with_0_and_a_row_for_each_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_study(tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no image")
    assert exit_code(monkeypatch, "run", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "good.nii.gz" in shown.out
    assert "bad.nii.gz: " in shown.out
    assert "unreadable_file" in shown.out
    assert str(tmp_path / "out") in shown.out


@pytest.mark.usefixtures("fake_weights")
def test_a_run_in_which_nothing_could_be_measured_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    assert exit_code(monkeypatch, "run", tmp_path, "--out", tmp_path / "out", "--workers", 1) == 1


def test_a_run_without_one_vertebra_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = fakes.fake_models(detector=fakes.no_vertebra)
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": blind)
    study = fakes.write_study(tmp_path / "air.nii.gz")
    assert exit_code(monkeypatch, "run", study, "--out", tmp_path / "out", "--workers", 1) == 1


@pytest.mark.usefixtures("fake_weights")
def test_the_table_of_studies_folds_no_name_and_lists_reasons_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "patient_0815_baseline.nii.gz"
    (tmp_path / name).write_bytes(b"no image")
    fractured = fakes.write_study(tmp_path / "fractured.nii.gz", fakes.FRACTURED_HU)
    exit_code(monkeypatch, "run", tmp_path, "--out", tmp_path / "out", "--workers", 1)
    lines = capsys.readouterr().out.splitlines()
    first, second = pq.read_table(tmp_path / "out" / "studies.parquet").to_pylist()
    assert [line for line in lines if fractured.name in line and f" {first['min_genant_ratio']:.3f} " in line]
    assert [line for line in lines if name in line and "failed" in line]
    assert f"{name}: {second['reason']}" in lines


@pytest.mark.usefixtures("fake_weights")
def test_wrong_input_ends_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "run", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "does not exist" in message
    assert "Traceback" not in message


@pytest.mark.usefixtures("fake_weights")
def test_an_unwritable_out_ends_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fakes.write_study(tmp_path / "study.nii.gz")
    assert exit_code(monkeypatch, "run", study, "--out", study / "out") == 2


@pytest.mark.parametrize("command", [("simulate", "--studies", 1), ("train", "detector", "--steps", 1)])
def test_other_commands_too_tell_an_unwritable_out_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[object, ...],
) -> None:
    (tmp_path / "file").touch()
    assert exit_code(monkeypatch, *command, "--out", tmp_path / "file" / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith("vfscreen: ")
    assert message.count("\n") == 1


def test_one_command_trains_all_three_goes_on_and_its_weights_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vfscreen.training import refiner

    monkeypatch.setattr(refiner, "Validation", lambda seed: None)  # its persons take a minute
    command = ("train", "--out", tmp_path, "--device", "cpu", "--workers", 1, "--seed", 3, "--patients", 0)
    assert exit_code(monkeypatch, *command, "--steps", 1) == 0
    assert exit_code(monkeypatch, *command, "--steps", 2) == 0
    made = weights.load_models(tmp_path / "weights", "cpu").provenance
    assert set(made) == {"localizer", "detector", "refiner"}
    for name in made:
        assert (made[name]["steps"], made[name]["seed"]) == (2, 3)
        curve = (tmp_path / name / "learning_curve.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in curve] == ["step", "1", "2"]


def test_missing_weights_end_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fakes.write_study(tmp_path / "study.nii.gz")
    none = tmp_path / "no_weights"
    assert exit_code(monkeypatch, "run", study, "--out", tmp_path / "out", "--weights", none) == 2


@pytest.mark.usefixtures("fake_weights")
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    assert exit_code(monkeypatch, "run", tmp_path, "--out", tmp_path / "out") == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.fixture
def sigterm_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("fake_weights", "sigterm_ignored")
def test_sigterm_ends_a_run_as_ctrl_c_does_but_with_143(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = fakes.write_study(tmp_path / "study.nii.gz")
    monkeypatch.setattr(pipeline, "_outcome", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert exit_code(monkeypatch, "run", study, "--out", tmp_path / "out", "--workers", 1) == 143
    assert "the same command goes on" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "out" / "studies.parquet").num_rows == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


@pytest.mark.usefixtures("fake_weights")
def test_info_tells_versions_and_codecs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "info") == 0
    shown = capsys.readouterr().out
    assert "pydicom" in shown
    assert "JPEG 2000" in shown
    assert "weights detector: sha256 detector's hash, 7 steps\n" in shown


def test_warnings_of_libraries_are_logged_and_do_not_tear_the_progress_bar() -> None:
    code = """
import warnings
from rich.console import Console
import vfscreen.cli as cli, vfscreen.progress as progress

def app():
    with progress.shown(Console(stderr=True, force_terminal=True, width=60)) as on_progress:
        on_progress(progress.Tally(total=1))
        warnings.warn("odd header")

cli.app = app
cli.main()
"""
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = [line for line in end.stderr.splitlines() if "odd header" in line]
    assert re.match(r"\d\d:\d\d:\d\d .*UserWarning: odd header", line.lstrip("\r").replace("\x1b[2K", ""))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("series_uid,größe\n1.2,3\n".encode("latin-1"), "UTF-8"),
        (b"series_uid,verdict\n,screened\n", "is empty"),
        (b"uid\n1.2\n", "no column series_uid"),
        (None, "neither a UID nor a file"),
    ],
)
def test_a_list_of_series_that_is_none_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    reason: str,
) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content)
    assert exit_code(monkeypatch, "check", tmp_path, "--series", tmp_path / "list.csv") == 2
    assert reason in capsys.readouterr().err


@pytest.mark.usefixtures("fake_weights")
def test_shards_are_run_and_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    outs = [tmp_path / f"out{i}" for i in (1, 2)]
    for i, out in enumerate(outs, 1):
        exit_code(monkeypatch, "run", tmp_path / "in", "--out", out, "--workers", 1, "--shard", f"{i}/2")
    assert exit_code(monkeypatch, "merge", *outs, "--out", tmp_path / "all") == 0
    assert "3 studies, 0 flagged" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "all" / "studies.parquet")["study_id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shard", "5/4"), "--shard 5/4 is none"),
        (("--cluster-workers", 2), "are for --cluster"),
        (("--cluster", "mars"), "slurm"),
        (("--cluster", "slurm"), "--cluster-config"),
    ],
)
@pytest.mark.usefixtures("fake_weights")
def test_a_wrong_division_or_place_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    words: str,
) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("dask_jobqueue")
    study = fakes.write_study(tmp_path / "a.nii.gz")
    assert exit_code(monkeypatch, "run", study, "--out", tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
