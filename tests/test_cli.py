"""The command line: exit codes, messages, and that help is instant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fakes
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


@pytest.mark.usefixtures("fake_weights")
def test_a_run_ends_with_0_and_a_row_for_each_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.write_study(tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no image")
    assert exit_code(monkeypatch, "run", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "good.nii.gz" in shown.out
    assert "unreadable_file" in shown.out
    assert str(tmp_path / "out") in shown.out


@pytest.mark.usefixtures("fake_weights")
def test_a_run_in_which_nothing_could_be_measured_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    assert exit_code(monkeypatch, "run", tmp_path, "--out", tmp_path / "out", "--workers", 1) == 1


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


@pytest.mark.usefixtures("fake_weights")
def test_info_tells_versions_and_codecs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, "info") == 0
    shown = capsys.readouterr().out
    assert "pydicom" in shown
    assert "JPEG 2000" in shown
