"""`vfscreen show`: every stage of a study, as far as it came, and the reason where it stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from vfscreen.cli import main
from vfscreen.networks import weights
from vfscreen.report.stages import draw_stages, labelled, said
from vfscreen.screening import screen
from vfscreen.settings import RefineSettings, Settings
from vfscreen.stages import stages

SAMPLE = Path(__file__).parents[2] / "sample_data"
SETTINGS = Settings()


def seen(study, settings=SETTINGS, **models):
    return stages(study, fakes.fake_models(**models), settings)


def doubtful(sheets):
    """A detector that is sure of all but the uppermost vertebra."""
    logits, offsets = fakes.vertebra_every_30_mm(sheets)
    rows = np.flatnonzero((logits > 0).any((0, 1, 3)))
    logits[:, :, rows[0]] = np.where(logits[:, :, rows[0]] > 0, -1.0, -9.0)
    return logits, offsets


def pixels(path):
    return np.asarray(Image.open(path).convert("L"))


@pytest.fixture
def study(tmp_path):
    return fakes.write_study(tmp_path / "DOE_JANE.nii.gz", hu=fakes.FRACTURED_HU, height=60)


@pytest.fixture
def show(monkeypatch, capsys):
    """The command with these arguments: exit code, and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vfscreen", "show", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().out

    return call


@pytest.fixture
def fake_weights(monkeypatch):
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())


@pytest.mark.parametrize("enabled", [True, False])
def test_stage_by_stage_the_result_is_that_of_screen(study, enabled):
    settings = Settings(refine=RefineSettings(enabled=enabled))
    result = screen(study, fakes.fake_models(), settings)
    found = seen(study, settings).measured.result
    assert len(found.vertebrae) > 2
    for ours, theirs in zip(found.vertebrae, result.vertebrae, strict=True):
        np.testing.assert_array_equal(ours.keypoints_mm, theirs.keypoints_mm)
    assert found.doubts == result.doubts


def test_the_track_is_where_the_bone_is_and_nowhere_else(study):
    track = seen(study).track
    with_bone = track.presence > 0.5
    np.testing.assert_allclose(np.ptp(track.centers_mm[with_bone, :2], axis=0), 0, atol=1e-6)
    assert track.centers_mm[with_bone, 0].mean() == pytest.approx((12 + 2.5) * fakes.VOXEL_MM)


def test_a_study_without_a_spine_shows_what_the_localizer_saw_and_the_reason(tmp_path):
    found = seen(fakes.write_study(tmp_path / "study.nii.gz", hu=0))
    assert found.track is not None
    assert found.along is None
    (first, *_) = said(found, SETTINGS)
    assert first.startswith("failed, spine_not_found: the spine is seen over 0 mm only")


def test_every_detection_is_labelled_with_its_score_or_why_it_does_not_count(study):
    found = seen(study, detector=doubtful)
    labels = labelled(found, SETTINGS)
    assert "0.27  score not over 0.5" in {label for _, label, grade in labels if grade is None}
    counted = [(label, grade) for _, label, grade in labels if grade]
    grades = [vertebra.grade for vertebra in found.measured.result.vertebrae]
    assert counted == [(f"{i}  score 0.993", grade) for i, grade in enumerate(grades, start=1)]


def test_a_detection_beside_the_curve_says_so(study):
    def beside(sheets):
        logits, offsets = fakes.vertebra_every_30_mm(sheets)
        return np.roll(logits, 12, axis=3), offsets

    found = seen(study, detector=beside)
    assert {label for _, label, _ in labelled(found, SETTINGS)} == {"0.99  beside the curve of the spine"}
    assert "no vertebra measured" in said(found, SETTINGS)


def test_the_text_has_heights_and_g_with_their_spread_and_the_doubts(study):
    found = seen(study)
    vertebra, lines = found.measured.result.vertebrae[0], said(found, SETTINGS)
    row = next(line for line in lines if line.startswith(" 1  "))
    assert f"{vertebra.genant_ratio:.3f}±{vertebra.genant_ratio_sd:.3f}" in row
    assert f"{vertebra.heights_mm[1]:.1f}±{vertebra.height_sd_mm[1]:.1f}" in row
    for doubt in found.measured.result.doubts:
        assert any(line.startswith(f"{doubt.name}: ") for line in lines)


def test_the_picture_has_more_to_show_the_further_the_study_came(study, tmp_path):
    unread = tmp_path / "unread.nii.gz"
    unread.write_bytes(b"no image")
    heights = []
    for i, path in enumerate((unread, fakes.write_study(tmp_path / "soft.nii.gz", hu=0), study)):
        draw_stages(seen(path), SETTINGS, tmp_path / f"{i}.png")
        heights.append(len(pixels(tmp_path / f"{i}.png")))
    assert heights == sorted(set(heights))


@pytest.mark.usefixtures("fake_weights")
def test_the_picture_lies_where_it_is_wanted_and_tells_nobody_whose_it_is(study, tmp_path, show):
    code, printed = show(study, "--out", tmp_path / "seen.png")
    assert code == 0
    assert "status" in printed
    assert str(tmp_path / "seen.png") in printed
    assert Image.open(tmp_path / "seen.png").info.keys() <= {"dpi"}
    assert b"DOE" not in (tmp_path / "seen.png").read_bytes()


@pytest.mark.usefixtures("fake_weights")
def test_a_study_that_fails_ends_with_1_its_reason_and_a_picture(tmp_path, monkeypatch, show):
    monkeypatch.chdir(tmp_path)
    code, printed = show(fakes.write_study(tmp_path / "soft.nii.gz", hu=0))
    assert code == 1
    assert "spine_not_found: the spine is seen over 0 mm only" in printed
    assert pixels(tmp_path / "soft_stages.png").std() > 1


def test_a_path_that_is_not_there_is_a_wrong_command_line(tmp_path, show):
    assert show(tmp_path / "nothing")[0] == 2


def test_a_sample_is_shown_with_the_shipped_weights(tmp_path, show, shipped_models, monkeypatch):
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": shipped_models)
    code, printed = show(SAMPLE / "severe_biconcave", "--out", tmp_path / "seen.png")
    assert code == 0
    assert "severe" in printed
    assert pixels(tmp_path / "seen.png").shape[1] > 1500
