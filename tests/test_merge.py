"""Shards of an archive, and the folder that is made of all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fakes
import pandas as pd
import pytest

from vfscreen.errors import InputError
from vfscreen.merge import merge
from vfscreen.pipeline import RunSummary, run
from vfscreen.results import copy_parts
from vfscreen.settings import MeasureSettings, Settings
from vfscreen.shards import Shard

SHARDS = 3


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_nine_studies(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def folders(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of all shards."""
    outs = [tmp_path_factory.mktemp("shard") for _ in range(SHARDS)]
    for number, out in enumerate(outs, 1):
        screened(archive, out, Shard(number, SHARDS))
    return outs


def screened(archive: Path, out: Path, shard: Shard | None, **options: object) -> RunSummary:
    return run(archive, out, models=fakes.fake_models(), workers=1, shard=shard, **options)


def copied(folders: list[Path], to: Path) -> list[Path]:
    return [Path(shutil.copytree(folder, to / folder.name)) for folder in folders]


def without_times(out: Path, name: str) -> pd.DataFrame:
    table = pd.read_parquet(out / f"{name}.parquet")
    return table.drop(columns=[column for column in table if column.startswith("seconds")])


def test_every_study_is_in_exactly_one_shard_of_about_the_same_size() -> None:
    shards = [Shard(number, 8) for number in range(1, 9)]
    ids = [f"1.2.840.{i}" for i in range(8000)]
    assert all(sum(shard.has(study_id) for shard in shards) == 1 for study_id in ids)
    assert all(850 < sum(shard.has(study_id) for study_id in ids) < 1150 for shard in shards)


def test_a_study_stays_in_its_shard_from_version_to_version() -> None:
    assert Shard(3, 4).has("1.2.3")
    assert Shard(2, 4).has("a/b")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/4/2", "-1/4"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="2/4"):
        Shard.parse(text)


def test_merged_shards_equal_one_run(archive: Path, folders: list[Path], tmp_path: Path) -> None:
    one = screened(archive, tmp_path / "one", None)
    merged = merge(folders[::-1], tmp_path / "merged")
    for name in ("studies", "vertebrae", "patients"):
        pd.testing.assert_frame_equal(
            *(without_times(tmp_path / out, name) for out in ("one", "merged")), rtol=0, atol=0
        )
    assert (merged.studies, merged.measured, merged.flagged) == (one.studies, one.measured, one.flagged)
    for name in ("flagged.csv", "thumbnails/fractured.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} - {"index.sqlite"} == {
        path.name for path in (tmp_path / "merged").iterdir()
    }


def test_a_run_into_the_merged_folder_has_nothing_left_to_do(
    archive: Path, folders: list[Path], tmp_path: Path
) -> None:
    merge(folders, tmp_path / "merged")
    again = screened(archive, tmp_path / "merged", None)
    assert (again.new, again.studies) == (0, 9)


def test_run_json_of_the_merged_folder_has_the_calls_of_all_shards(
    folders: list[Path], tmp_path: Path
) -> None:
    merge(folders, tmp_path / "merged")
    about = json.loads((tmp_path / "merged" / "run.json").read_text())
    assert sum(call["new"] for call in about["calls"]) == about["counts"]["studies"] == 9
    assert about["shard"] is None
    assert about["seconds_by_stage"]["read"] > 0


def test_the_limit_counts_before_the_shards(archive: Path, tmp_path: Path) -> None:
    outs = [tmp_path / str(number) for number in (1, 2)]
    for number, out in enumerate(outs, 1):
        screened(archive, out, Shard(number, 2), limit=4)
    assert merge(outs, tmp_path / "merged").studies == 4


def test_a_shard_without_studies_is_finished_too(tmp_path: Path) -> None:
    study = fakes.write_study(tmp_path / "a.nii.gz")
    outs = [tmp_path / str(number) for number in (1, 2)]
    assert sorted(screened(study, out, Shard(n, 2)).studies for n, out in enumerate(outs, 1)) == [0, 1]
    assert merge(outs, tmp_path / "merged").studies == 1


def test_a_folder_of_another_shard_is_refused(archive: Path, folders: list[Path]) -> None:
    with pytest.raises(InputError, match=r'shard was "1/3" and is now "2/3".*another folder'):
        screened(archive, folders[0], Shard(2, 3))


def test_missing_shards_are_named(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: 1/3, 3/3"):
        merge([folders[1]], tmp_path / "merged")


def test_a_shard_twice_is_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both hold shard 1/3"):
        merge([*folders, folders[0]], tmp_path / "merged")


def test_shards_of_other_settings_are_refused(archive: Path, folders: list[Path], tmp_path: Path) -> None:
    other = Settings(measure=MeasureSettings(threshold=0.6))
    screened(archive, tmp_path / "other", Shard(3, SHARDS), settings=other)
    with pytest.raises(InputError, match=r"different ways.*threshold was 0\.74 and is now 0\.6"):
        merge([*folders[:2], tmp_path / "other"], tmp_path / "merged")


def test_shards_of_another_division_are_refused(archive: Path, folders: list[Path], tmp_path: Path) -> None:
    screened(archive, tmp_path / "other", Shard(2, 4))
    with pytest.raises(InputError, match=r"shard 1/3 and .* shard 2/4"):
        merge([folders[0], tmp_path / "other"], tmp_path / "merged")


def test_a_folder_of_a_whole_run_is_no_shard(archive: Path, tmp_path: Path) -> None:
    screened(archive, tmp_path / "one", None, limit=1)
    with pytest.raises(InputError, match="holds no shard"):
        merge([tmp_path / "one"], tmp_path / "merged")


def test_an_unfinished_shard_is_refused(archive: Path, folders: list[Path], tmp_path: Path) -> None:
    def interrupt(tally: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        screened(archive, tmp_path / "broken_off", Shard(1, SHARDS), progress=interrupt)
    with pytest.raises(InputError, match=r"broken_off is not finished, \d of its studies have no row"):
        merge([tmp_path / "broken_off", *folders[1:]], tmp_path / "merged")


def test_a_shard_that_lost_a_part_is_refused(folders: list[Path], tmp_path: Path) -> None:
    outs = copied(folders, tmp_path)
    next(iter((outs[0] / "parts").glob("*.studies.parquet"))).write_bytes(b"")
    with pytest.raises(InputError, match="lost results"):
        merge(outs, tmp_path / "merged")


def test_shards_that_share_a_study_are_refused(folders: list[Path], tmp_path: Path) -> None:
    outs = copied(folders, tmp_path)
    copy_parts(outs[0], outs[1])
    with pytest.raises(InputError, match="both have the study"):
        merge(outs, tmp_path / "merged")


def test_results_are_not_merged_over_others_unless_asked(folders: list[Path], tmp_path: Path) -> None:
    merge(folders, tmp_path)
    with pytest.raises(InputError, match=r"holds results already.*--fresh"):
        merge(folders, tmp_path)
    assert merge(folders, tmp_path, fresh=True).studies == 9
    assert len(list((tmp_path / "set_aside").iterdir())) == 1
