"""The pipeline with networks that need no weights: every study has its row, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fakes
import pandas as pd
import pytest

from vfscreen import pipeline
from vfscreen.errors import InputError, VfscreenError
from vfscreen.pipeline import RunSummary, run
from vfscreen.progress import Tally, describe
from vfscreen.results import ResultWriter
from vfscreen.settings import MeasureSettings, ReadSettings, Settings

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
    assert about["weights"] == {"made by": "tests"}
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
    with pytest.raises(InputError, match="other settings"):
        run(archive, screened[0], other, models=fakes.fake_models())


def test_dying_hanging_and_raising_readers_cost_one_row_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["1_good", "2_dies", "3_good", "4_raises", "5_hangs", "6_good", "7_good"]
    for name in names:
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    accident_prone = partial(pipeline.Screening, read=fakes.read_with_accidents)
    monkeypatch.setattr(pipeline, "Screening", accident_prone)
    settings = Settings(read=ReadSettings(time_limit_s=4.0))
    run(tmp_path / "in", tmp_path / "out", settings, models=fakes.fake_models(), workers=2)
    rows = studies(tmp_path / "out")
    assert list(rows.index) == names
    assert set(rows.loc[["1_good", "3_good", "6_good", "7_good"], "status"]) <= MEASURED
    errors = {"2_dies": "reader_died", "4_raises": "unexpected_error", "5_hangs": "reader_timeout"}
    assert rows.loc[list(errors), "error"].to_dict() == errors
    assert "exit code 3" in rows.loc["2_dies", "reason"]
    assert "ZeroDivisionError: an exception that no stage foresaw" in rows.loc["4_raises", "reason"]


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

    monkeypatch.setattr(pipeline, "_MAX_DEVICE_FAILURES", 3)
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
    tally = Tally(total=1000, before=100, measured=90, failed=10, flagged=3)
    assert describe(tally, seconds=120) == (
        "200/1000 studies, 50.0/min, 16 min left; 90 measured, 3 flagged, 10 failed, 0 skipped"
    )


def test_results_inside_the_input_are_not_taken_for_studies(tmp_path: Path) -> None:
    fakes.write_study(tmp_path / "fractured.nii.gz", fakes.FRACTURED_HU)
    first = run(tmp_path, tmp_path / "results", models=fakes.fake_models(), workers=1)
    again = run(tmp_path, tmp_path / "results", models=fakes.fake_models(), workers=1)
    assert (first.studies, again.studies, again.new) == (1, 1, 0)
