"""The pipeline with networks that need no weights: every study has its row, whatever happens."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import psutil
import pytest
from dicom_writing import ramp_volume, write_series

from vfscreen import pipeline, reader_process, streaming
from vfscreen.discover import discover
from vfscreen.errors import InputError, UnreadableFile, VfscreenError
from vfscreen.pipeline import RunSummary, run
from vfscreen.progress import Tally, describe
from vfscreen.results import ResultWriter, StudyRecord, locked
from vfscreen.settings import MeasureSettings, ReadSettings, Settings
from vfscreen.study import StudyFiles, StudyImage

MEASURED = {"ok", "partial"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven studies: three heights of the image, one fractured, one without bone, one unreadable."""
    folder = tmp_path_factory.mktemp("archive")
    for i, height in enumerate([40, 40, 40, 52]):
        fakes.write_study(folder / f"healthy_{i}.nii.gz", height=height, bend=i)
    fakes.write_study(folder / "fractured.nii.gz", fakes.FRACTURED_HU)
    fakes.write_study(folder / "no_bone.nii.gz", hu=0)
    (folder / "truncated.nii.gz").write_bytes((folder / "healthy_0.nii.gz").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def screened(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """The archive screened by one reader, study by study."""
    out = tmp_path_factory.mktemp("results")
    return out, run(archive, out, models=fakes.fake_models(), workers=1, batch_size=1)


def studies(out: Path) -> pd.DataFrame:
    table = pd.read_parquet(out / "studies.parquet")
    return table.set_index(table["source"].str.removesuffix(".nii.gz"))


def test_every_study_has_a_row_with_its_result_or_its_reason(screened: tuple[Path, RunSummary]) -> None:
    rows = studies(screened[0])
    healthy = [name for name in rows.index if name.startswith("healthy")]
    assert len(healthy) == 4
    assert set(rows.loc[[*healthy, "fractured"], "status"]) <= MEASURED
    assert (rows.loc[[*healthy, "fractured"], "n_vertebrae"] > 0).all()
    assert rows.loc["no_bone", "error"] == "spine_not_found"
    assert rows.loc["truncated", "error"] == "unreadable_file"
    assert rows.loc["truncated", "reason"]


def test_the_fractured_study_alone_is_flagged_and_has_a_picture(screened: tuple[Path, RunSummary]) -> None:
    out, summary = screened
    rows = studies(out)
    assert list(rows.index[rows["flagged"].eq(True)]) == ["fractured"]
    assert [path.stem for path in (out / "thumbnails").iterdir()] == [rows.loc["fractured", "study_id"]]
    assert summary.flagged == 1


def test_the_summary_counts_what_the_tables_hold(screened: tuple[Path, RunSummary]) -> None:
    _, summary = screened
    assert (summary.studies, summary.new, summary.measured, summary.failed) == (7, 7, 5, 2)


def test_run_json_tells_how_the_run_was_made(screened: tuple[Path, RunSummary]) -> None:
    about = json.loads((screened[0] / "run.json").read_text())
    assert about["settings"]["measure"]["threshold"] == 0.74
    assert about["weights"] == fakes.PROVENANCE
    assert about["counts"]["studies"] == 7
    assert set(about["seconds_by_stage"]) == {"read", "localize", "straighten", "detect"}


def test_results_do_not_depend_on_workers_and_batches(
    archive: Path, screened: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    run(archive, tmp_path, models=fakes.fake_models(), workers=3, batch_size=8)
    for name in ("studies", "vertebrae", "patients"):
        one, many = (pd.read_parquet(out / f"{name}.parquet") for out in (screened[0], tmp_path))
        times = [column for column in one if column.startswith("seconds")]
        pd.testing.assert_frame_equal(one.drop(columns=times), many.drop(columns=times), rtol=0, atol=1e-3)


def test_a_second_call_has_nothing_left_to_do(archive: Path, screened: tuple[Path, RunSummary]) -> None:
    again = run(archive, screened[0], models=fakes.fake_models(), workers=1, batch_size=1)
    assert (again.new, again.studies) == (0, 7)


def test_results_of_other_settings_are_not_mixed(archive: Path, screened: tuple[Path, RunSummary]) -> None:
    other = Settings(measure=MeasureSettings(threshold=0.6))
    with pytest.raises(InputError, match=r"settings\.measure\.threshold was 0\.74 and is now 0\.6\."):
        run(archive, screened[0], other, models=fakes.fake_models())


def test_results_of_other_weights_are_not_mixed(archive: Path, screened: tuple[Path, RunSummary]) -> None:
    other = fakes.fake_models(provenance={**fakes.PROVENANCE, "detector": {"sha256": "new", "steps": 7}})
    with pytest.raises(
        InputError, match=r'weights\.detector\.sha256 was "detector.s hash" and is now "new"\.'
    ):
        run(archive, screened[0], models=other)


def test_results_of_another_input_are_not_mixed(tmp_path: Path) -> None:
    first, second = (fakes.write_study(tmp_path / name / "same_name.nii.gz").parent for name in "ab")
    run(first, tmp_path / "out", models=fakes.fake_models(), workers=1)
    with pytest.raises(InputError, match=r"input was .*a\" and is now .*b\".*another folder"):
        run(second, tmp_path / "out", models=fakes.fake_models(), workers=1)
    assert (tmp_path / "out" / "run.json").read_text().count(str(second)) == 0


def test_one_input_by_two_names_goes_on(
    archive: Path, screened: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(archive)
    assert run(tmp_path / "link", screened[0], models=fakes.fake_models(), workers=1).new == 0


def test_a_study_id_that_means_other_images_now_is_screened_again(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    for name in ("first.nii.gz", "second.nii.gz"):
        fakes.write_study(tmp_path / name)
        manifest.write_text(f"path,study_id\n{name},one\n")
        summary = run(manifest, tmp_path / "out", models=fakes.fake_models(), workers=1)
        assert (summary.new, summary.studies) == (1, 1)
        assert pd.read_parquet(tmp_path / "out" / "studies.parquet")["source"].to_list() == [name]


def test_a_wrong_input_makes_no_result_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run(tmp_path / "nowhere", tmp_path / "out", models=fakes.fake_models())
    assert not (tmp_path / "out").exists()


def test_two_runs_on_one_folder_are_refused(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no fcntl")
    with locked(tmp_path), pytest.raises(InputError, match="Another run"):
        run(archive, tmp_path, models=fakes.fake_models(), workers=1)


def test_run_json_keeps_the_figures_of_earlier_calls(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (2, 2, 3):
        run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=limit)
    about = json.loads((tmp_path / "run.json").read_text())
    assert [(call["new"], call["options"]["limit"]) for call in about["calls"]] == [(2, 2), (0, 2), (1, 3)]
    assert about["seconds"] == pytest.approx(sum(call["seconds"] for call in about["calls"]))
    times = studies(tmp_path)["seconds"]
    assert sum(about["seconds_by_stage"].values()) == pytest.approx(times.sum())
    assert (times > 0).all()


def test_pictures_that_are_not_drawn_any_more_are_told(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=1)
    run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=1)
    assert "pictures" not in caplog.text
    run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=1, thumbnails="all")
    assert caplog.text.count("Only new studies get pictures") == 1


def test_a_picture_is_given_the_doubts_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, given = fakes.write_study(tmp_path / "study.nii.gz"), []
    models = fakes.fake_models(detector=fakes.no_vertebra)
    monkeypatch.setattr(streaming, "draw_picture", lambda scene: given.extend(scene.result.doubts) or b"png")
    run(study, tmp_path / "out", models=models, workers=1, thumbnails="all")
    assert [doubt.name for doubt in given] == list(studies(tmp_path / "out")["quality"].iloc[0])
    assert given


@pytest.mark.parametrize("what", ["Scene", "draw_picture"])
def test_a_picture_that_cannot_be_made_costs_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    study = fakes.write_study(tmp_path / "study.nii.gz")
    broken = {"Scene": None, "draw_picture": lambda scene: 1 / 0}
    monkeypatch.setattr(streaming, what, broken[what])
    summary = run(study, tmp_path / "out", models=fakes.fake_models(), workers=1, thumbnails="all")
    assert summary.measured == 1
    assert studies(tmp_path / "out")["thumbnail"].isna().all()
    assert "The picture of study" in caplog.text


def test_a_study_without_a_vertebra_is_not_counted_as_measured(tmp_path: Path) -> None:
    study, tallies = fakes.write_study(tmp_path / "study.nii.gz"), []
    models = fakes.fake_models(detector=fakes.no_vertebra)
    summary = run(study, tmp_path / "out", models=models, workers=1, progress=tallies.append)
    assert (summary.studies, summary.partial, summary.measured) == (1, 1, 0)
    assert (tallies[-1].measured, tallies[-1].unmeasured, tallies[-1].new) == (0, 1, 1)


def test_a_study_that_is_lost_is_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = ResultWriter.add

    def forgetful(self: ResultWriter, record: StudyRecord, png: bytes | None = None) -> None:
        if record.study_id != "no_bone":
            add(self, record, png)

    monkeypatch.setattr(ResultWriter, "add", forgetful)
    with pytest.raises(VfscreenError, match=r"1 of 7 studies have no row.*no_bone\.nii\.gz"):
        run(archive, tmp_path, models=fakes.fake_models(), workers=1)


def test_dying_hanging_and_raising_readers_cost_one_row_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["1_good", "2_dies", "3_good", "4_raises", "5_hangs", "6_good", "7_good", "8_swells"]
    for name in names:
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    accident_prone = partial(pipeline.Screening, read=fakes.read_with_accidents)
    monkeypatch.setattr(pipeline, "Screening", accident_prone)
    run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=2, time_limit_s=10.0)
    rows = studies(tmp_path / "out")
    assert list(rows.index) == names
    assert set(rows.loc[["1_good", "3_good", "6_good", "7_good"], "status"]) <= MEASURED
    errors = {
        "2_dies": "reader_died",
        "4_raises": "unexpected_error",
        "5_hangs": "reader_timeout",
        "8_swells": "out_of_memory",
    }
    assert rows.loc[list(errors), "error"].to_dict() == errors
    assert "exit code 3" in rows.loc["2_dies", "reason"]
    assert rows.loc["4_raises", "reason"].startswith("ZeroDivisionError in ")
    assert "foresaw" not in rows.loc["4_raises", "reason"]  # its text may repeat a header's


def test_a_study_beside_one_accident_after_the_other_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1_good", "2_dies", "3_dies", "4_dies"):
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    monkeypatch.setattr(pipeline, "Screening", partial(pipeline.Screening, read=fakes.read_with_accidents))
    models = fakes.fake_models(localizer=fakes.slow_localizer)  # so the reader takes up the next meanwhile
    run(tmp_path / "in", tmp_path / "out", models=models, workers=1)
    assert studies(tmp_path / "out")["error"].fillna("").to_dict() == {
        "1_good": "",
        "2_dies": "reader_died",
        "3_dies": "reader_died",
        "4_dies": "reader_died",
    }


def test_studies_that_an_accident_cost_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dies", "good", "raises"):
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "truncated.nii.gz").write_bytes(b"")
    with monkeypatch.context() as accidents:
        accidents.setattr(pipeline, "Screening", partial(pipeline.Screening, read=fakes.read_with_accidents))
        run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)
    again = run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)
    assert (again.studies, again.new, again.measured, again.failed) == (4, 2, 3, 1)


def test_the_studies_that_failed_are_screened_again_when_asked_and_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "z"):
        fakes.write_study(archive / f"{name}.nii.gz")
    whole = (archive / "b.nii.gz").read_bytes()
    (archive / "b.nii.gz").write_bytes(whole[:200])
    run(archive, out, models=fakes.fake_models(), workers=1, limit=2)
    assert run(archive, out, models=fakes.fake_models(), workers=1, limit=2).new == 0
    again = run(archive, out, models=fakes.fake_models(), workers=1, retry_failed=True)
    assert (again.studies, again.new, again.failed) == (2, 1, 1)
    assert "1 studies are not screened yet" in caplog.text
    (archive / "b.nii.gz").write_bytes(whole)
    mended = run(archive, out, models=fakes.fake_models(), workers=1, retry_failed=True)
    assert (mended.studies, mended.new, mended.failed) == (2, 1, 0)


def test_a_study_whose_files_changed_is_screened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        fakes.write_study(archive / f"{name}.nii.gz")
    run(archive, out, models=fakes.fake_models(), workers=1)
    fakes.write_study(archive / "b.nii.gz", fakes.FRACTURED_HU)
    again = run(archive, out, models=fakes.fake_models(), workers=1)
    assert (again.studies, again.new, again.flagged) == (2, 1, 1)
    assert "The files of 1 studies changed" in caplog.text


def test_a_fresh_start_sets_earlier_results_aside(archive: Path, tmp_path: Path) -> None:
    models = fakes.fake_models()
    run(archive, tmp_path, models=models, workers=1, limit=2)
    strict = Settings(measure=MeasureSettings(threshold=0.5))
    with pytest.raises(InputError, match="--fresh"):
        run(archive, tmp_path, strict, models=models, workers=1, limit=3)
    summary = run(archive, tmp_path, strict, models=models, workers=1, limit=3, fresh=True)
    assert (summary.studies, summary.new) == (3, 3)
    (aside,) = (tmp_path / "set_aside").iterdir()
    assert len(pd.read_parquet(aside / "studies.parquet")) == 2
    assert (aside / "run.json").exists()


def test_other_named_series_are_another_way_to_make_results(tmp_path: Path) -> None:
    axes = np.column_stack([[0, 0, 3.0], [0, 3, 0], [3, 0, 0]])
    for uid in ("1.3.1", "1.3.2"):
        grid = ramp_volume(axes, (30, 20, 20))
        write_series(tmp_path / "in" / uid, grid, StudyInstanceUID="1.2", SeriesInstanceUID=uid)
    run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1, series=["1.3.2"])
    assert pd.read_parquet(tmp_path / "out" / "studies.parquet")["series_uid"].to_list() == ["1.3.2"]
    with pytest.raises(InputError, match="series was"):
        run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)


def test_a_reader_that_hangs_does_not_outlive_its_killed_main_process(tmp_path: Path) -> None:
    fakes.write_study(tmp_path / "in" / "hangs.nii.gz")
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    import fakes; from functools import partial; from vfscreen import pipeline\n"
        "    pipeline.Screening = partial(pipeline.Screening, read=fakes.read_with_accidents)\n"
        f"    pipeline.run({str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}, models=fakes.fake_models())\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    main = psutil.Process(subprocess.Popen([sys.executable, script]).pid)
    readers = wait_for(lambda: [c for c in main.children() if c.cpu_times().user > 0.3])
    main.kill()
    assert psutil.wait_procs(readers, timeout=20)[1] == []


def test_an_archive_that_goes_away_stops_the_run_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, out = tmp_path / "in", tmp_path / "out"
    for i in range(5):
        fakes.write_study(archive / f"vanishes_{i}.nii.gz")
    fakes.write_study(archive / "a.nii.gz")
    monkeypatch.setattr(streaming, "_MAX_VANISHED", 3)
    with monkeypatch.context() as accidents:
        accidents.setattr(pipeline, "Screening", partial(pipeline.Screening, read=fakes.read_with_accidents))
        with pytest.raises(VfscreenError, match="files of the last 3 studies are gone"):
            run(archive, out, models=fakes.fake_models(), workers=1)
    assert set(studies(out)["error"].dropna()) == {"files_vanished"}
    for i in range(5):
        fakes.write_study(archive / f"vanishes_{i}.nii.gz")
    again = run(archive, out, models=fakes.fake_models(), workers=1)
    assert (again.studies, again.failed) == (6, 0)
    assert again.new >= 5


def wait_for(what: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    for _ in range(600):
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError


def test_what_a_reader_warns_of_is_logged_with_its_study(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fakes.write_study(tmp_path / "in" / "warns.nii.gz")
    monkeypatch.setattr(pipeline, "Screening", partial(pipeline.Screening, read=fakes.read_with_accidents))
    run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)
    assert "warns.nii.gz: " in caplog.text
    assert "an odd header" in caplog.text
    assert "an odd header" not in capfd.readouterr().err


def test_a_batch_that_raises_costs_only_the_culprit(tmp_path: Path) -> None:
    fakes.write_study(tmp_path / "in" / "poisoned.nii.gz", fakes.POISONED_HU)
    for i in range(3):
        fakes.write_study(tmp_path / "in" / f"good_{i}.nii.gz")
    models = fakes.fake_models(localizer=fakes.refuses_poison)
    run(tmp_path / "in", tmp_path / "out", models=models, workers=2)
    rows = studies(tmp_path / "out")
    assert rows.loc["poisoned", "error"] == "unexpected_error"
    assert set(rows.drop("poisoned")["status"]) <= MEASURED


def test_a_broken_device_stops_the_run(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: object) -> tuple[None, None]:
        raise RuntimeError("the device fell off the bus")

    monkeypatch.setattr(streaming, "_MAX_DEVICE_FAILURES", 3)
    with pytest.raises(VfscreenError, match="fell off the bus"):
        run(archive, tmp_path, models=fakes.fake_models(localizer=broken), workers=1)


def interrupt_after(n: int) -> Callable[[Tally], None]:
    def on_progress(tally: Tally) -> None:
        if tally.new == n:
            raise KeyboardInterrupt

    return on_progress


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(archive: Path, tmp_path: Path) -> None:
    models = fakes.fake_models()
    with pytest.raises(KeyboardInterrupt):
        run(archive, tmp_path, models=models, workers=1, progress=interrupt_after(2))
    assert len(studies(tmp_path)) == 2
    again = run(archive, tmp_path, models=models, workers=1)
    assert (again.new, again.studies) == (5, 7)


def test_a_full_disk_stops_the_run_and_says_what_is_safe(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ResultWriter, "add", full)
    with pytest.raises(VfscreenError, match=r"No space left.*safe"):
        run(archive, tmp_path, models=fakes.fake_models(), workers=1)


def test_limit_takes_the_first_studies(archive: Path, tmp_path: Path) -> None:
    run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=2, thumbnails="all")
    assert list(studies(tmp_path).index) == ["fractured", "healthy_0"]
    assert len(list((tmp_path / "thumbnails").iterdir())) == 2


def test_progress_tells_rate_and_time_left() -> None:
    tally = Tally(total=1000, before=100, measured=80, unmeasured=10, failed=10, flagged=3)
    assert describe(tally, seconds=120) == (
        "200/1000 studies, 50.0/min, 16 min left; "
        "80 measured, 3 flagged, 10 without a vertebra, 10 failed, 0 skipped"
    )


def test_results_inside_the_input_are_not_taken_for_studies(tmp_path: Path) -> None:
    fakes.write_study(tmp_path / "fractured.nii.gz", fakes.FRACTURED_HU)
    first = run(tmp_path, tmp_path / "results", models=fakes.fake_models(), workers=1)
    again = run(tmp_path, tmp_path / "results", models=fakes.fake_models(), workers=1)
    assert (first.studies, again.studies, again.new) == (1, 1, 0)


def test_a_repaired_folder_has_one_row(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"junk")
    options = {"models": fakes.fake_models(), "workers": 1}
    run(tmp_path / "in", tmp_path / "out", **options)
    (folder / "1.dcm").unlink()
    write_series(
        folder, ramp_volume(np.column_stack([[0, 0, 3.0], [0, 2, 0], [2, 0, 0]])), StudyInstanceUID="1.2"
    )
    run(tmp_path / "in", tmp_path / "out", **options)
    table = pd.read_parquet(tmp_path / "out" / "studies.parquet")
    assert table["study_id"].tolist() == ["1.2"]


def test_a_twin_that_changes_an_id_does_not_double_the_first(tmp_path: Path) -> None:
    grid = ramp_volume(np.column_stack([[0, 0, 3.0], [0, 2, 0], [2, 0, 0]]))
    for patient in "AB":
        write_series(tmp_path / "in" / patient, grid, StudyInstanceUID="1.2", PatientID=patient)
        summary = run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)
    assert summary.studies == 2


def test_a_measured_study_that_was_moved_away_keeps_its_row_and_a_failed_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("kept", "moved"):
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"junk")
    options = {"models": fakes.fake_models(), "workers": 1}
    run(tmp_path / "in", tmp_path / "out", **options)
    for name in ("moved", "broken"):
        (tmp_path / "in" / f"{name}.nii.gz").unlink()
    run(tmp_path / "in", tmp_path / "out", limit=1, **options)
    table = pd.read_parquet(tmp_path / "out" / "studies.parquet")
    assert table["source"].tolist() == ["kept.nii.gz", "moved.nii.gz"]
    assert table["error"].isna().all()
    assert "1 studies of earlier calls are in the archive no more" in caplog.text


def test_a_share_that_gives_no_answer_is_not_the_studys_fault(tmp_path: Path) -> None:
    fakes.write_study(tmp_path / "in" / "a.nii.gz")
    error = streaming_error(tmp_path / "in")
    assert (error.code, "no answer" in str(error)) == ("files_vanished", True)


def streaming_error(folder: Path) -> Any:
    def stale(study: StudyFiles, settings: ReadSettings) -> StudyImage:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError as error:
            raise UnreadableFile("cannot be decoded") from error

    (study,) = discover(folder)
    return reader_process._Work(Settings(), stale).reply(reader_process.Read(study)).value


def test_fresh_and_retry_failed_exclude_each_other(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--fresh.*--retry-failed"):
        run(archive, tmp_path, models=fakes.fake_models(), fresh=True, retry_failed=True)
