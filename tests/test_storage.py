"""Archives and results on object storage, beside the same on disk."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest
from object_storage import bucket, storage, uploaded  # noqa: F401

import vfscreen.storage
from vfscreen import pipeline, whole_files
from vfscreen.cli import main
from vfscreen.discover import discover
from vfscreen.errors import FilesVanished, InputError
from vfscreen.merge import merge
from vfscreen.networks import weights
from vfscreen.pipeline import RunSummary, run
from vfscreen.pseudonyms import Pseudonyms
from vfscreen.results import copies
from vfscreen.results.copies import working_copy
from vfscreen.shards import Shard
from vfscreen.storage import (
    HEADER_BYTES,
    files_in,
    is_remote,
    on_this_machine,
    one_look,
    path_of,
    remove_copies,
)
from vfscreen.study import StudyFiles

SAMPLES = Path(__file__).parents[1] / "sample_data"
OF_ITS_PLACE = ("files_digest", "seconds")  # columns that differ, or begin so


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_nine_studies(tmp_path_factory.mktemp("archive"))


def screened(source: str | Path, out: str | Path, **options: Any) -> RunSummary:
    return run(source, out, models=fakes.fake_models(), **{"workers": 1, **options})


def tables(out: str | Path) -> dict[str, pd.DataFrame]:
    found = {}
    for name in ("studies", "vertebrae", "patients"):
        with (path_of(out) / f"{name}.parquet").open("rb") as file:
            table = pd.read_parquet(file)
        found[name] = table.drop(columns=[c for c in table.columns if c.startswith(OF_ITS_PLACE)])
    return found


def assert_same_tables(one: str | Path, other: str | Path) -> None:
    for (name, table), same in zip(tables(one).items(), tables(other).values(), strict=True):
        pd.testing.assert_frame_equal(table, same, obj=name)


def found(source: Path) -> list[tuple[Any, ...]]:
    """The studies, but for where their files are."""
    return [
        (
            replace(study, files=(), stamp="", error=None),
            repr(study.error),
            [file.name for file in study.files],
        )
        for study in discover(source)
    ]


def test_an_archive_holds_the_same_studies_on_object_storage_as_on_disk(storage, bucket, tmp_path):  # noqa: F811
    for name in ("normal", "missing_slice"):
        shutil.copytree(SAMPLES / name, tmp_path / name)
    for path in sorted((tmp_path / "normal").iterdir())[8:]:
        path.unlink()
    shutil.copy(SAMPLES / "nifti.nii.gz", tmp_path)
    (tmp_path / "missing_slice" / "empty").touch()
    remote = path_of(uploaded(storage, tmp_path, f"{bucket}/archive"))
    assert found(remote) == found(tmp_path)
    assert all(is_remote(file) for study in discover(remote) for file in study.files)


def test_an_object_that_was_replaced_is_another_study(storage, bucket, archive):  # noqa: F811
    content = (archive / "healthy_0.nii.gz").read_bytes()
    place = path_of(f"{bucket}/archive/study.nii.gz")
    place.write_bytes(content)
    before = discover(place.parent)
    assert discover(place.parent) == before
    place.write_bytes(content[:4] + bytes([content[4] ^ 1]) + content[5:])  # the time in gzip's header
    assert discover(place.parent)[0].stamp != before[0].stamp


def test_a_run_from_object_storage_into_it_gives_the_tables_of_one_on_disk(
    storage,  # noqa: F811
    bucket,  # noqa: F811
    archive,
    tmp_path,
):
    source, out = uploaded(storage, archive, f"{bucket}/archive"), f"{bucket}/results"
    summary = screened(source, out, workers=2)
    on_disk = screened(archive, tmp_path / "results")
    assert (summary.studies, summary.flagged, summary.failed) == (9, on_disk.flagged, on_disk.failed)
    assert str(summary.out) == out
    assert_same_tables(out, tmp_path / "results")
    kept = {key.split("/results/")[1] for key in storage.find(out)}
    assert {"run.json", "flagged.csv", "flagged.xlsx", "report.html", "index.sqlite"} <= kept
    assert {name for name in kept if name.startswith("thumbnails/")} == {
        f"thumbnails/{path.name}" for path in (tmp_path / "results" / "thumbnails").iterdir()
    }
    assert screened(source, out).new == 0


def test_the_commands_take_urls(storage, bucket, archive, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())
    source = uploaded(storage, archive, f"{bucket}/archive")
    commands = {
        f"run {source} --out {bucket}/1 --shard 1/2 --workers 1": 0,
        f"run {source} --out {bucket}/2 --shard 2/2 --workers 1": 1,  # it has those that cannot be measured
        f"merge {bucket}/1 {bucket}/2 --out {bucket}/all": 0,
        f"check {source} --out {bucket}/checked": 0,
    }
    assert {command: run_command(monkeypatch, command) for command in commands} == commands
    shown = capsys.readouterr().out
    assert f"Next: open {bucket}/all/report.html in a browser." in shown
    assert storage.exists(f"{bucket}/all/report.html")
    assert storage.exists(f"{bucket}/checked/series.csv")


def run_command(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vfscreen", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_run_goes_on_with_what_another_machine_left(storage, bucket, archive, tmp_path):  # noqa: F811
    out = f"{bucket}/results"
    assert screened(archive, out, limit=4).new == 4
    for name in ("studies.parquet", "run.json"):  # and one that was killed before its tables
        assert storage.exists(f"{out}/{name}")
    storage.rm(f"{out}/studies.parquet")
    assert screened(archive, out).new == 5
    screened(archive, tmp_path)
    assert_same_tables(out, tmp_path)


def test_a_fresh_start_sets_aside_what_the_storage_holds(storage, bucket, archive):  # noqa: F811
    out = f"{bucket}/results"
    screened(archive, out, limit=4)
    assert screened(archive, out, limit=2, fresh=True).studies == 2
    assert len(storage.glob(f"{out}/set_aside/*/studies.parquet")) == 1
    assert screened(archive, out, limit=2).new == 0


def test_a_fresh_start_that_is_broken_off_leaves_no_new_run_json_beside_old_parts(
    storage,  # noqa: F811
    bucket,  # noqa: F811
    archive,
    monkeypatch,
):
    screened(archive, bucket, limit=1)

    def broken_off(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_open_results", broken_off)
    with pytest.raises(KeyboardInterrupt):
        screened(archive, bucket, fresh=True)
    assert not storage.glob(f"{bucket}/parts/*")
    assert len(storage.glob(f"{bucket}/set_aside/*/parts/*.studies.parquet")) == 1


def test_no_pseudonyms_stand_beside_what_was_set_aside_on_the_storage(storage, bucket, archive):  # noqa: F811
    storage.pipe(f"{bucket}/results/set_aside/1/studies.parquet", b"names")
    with pytest.raises(InputError, match=f"^{bucket}/results holds names .*set_aside"):
        screened(archive, f"{bucket}/results", limit=1, pseudonyms=Pseudonyms(b"k" * 32))


def test_what_lies_beside_results_is_not_brought_here(storage, bucket):  # noqa: F811
    for name in ("archive/1.dcm", "2.dcm", "run.json", "parts/1.studies.parquet", "parts/", "thumbnails/"):
        storage.pipe(f"{bucket}/{name}", b"1")
    with working_copy(path_of(bucket)) as copy:
        copy.bring()
        brought = {path.relative_to(copy.folder).as_posix() for path in copy.folder.rglob("*.*")}
    assert brought == {"run.json", "parts/1.studies.parquet"}


def test_verdicts_that_were_written_meanwhile_stay(storage, bucket):  # noqa: F811
    with working_copy(path_of(bucket)) as copy:
        (copy.folder / "flagged.xlsx").write_bytes(b"old")
        copy.keep()
        storage.pipe(f"{bucket}/flagged.xlsx", b"with verdicts")
        copy.bring()
        copy.keep()
    assert storage.cat(f"{bucket}/flagged.xlsx") == b"with verdicts"


def test_an_error_tells_where_results_are_kept_and_not_where_they_are_worked_on(bucket):  # noqa: F811
    with (
        pytest.raises(InputError, match=f"^{bucket}/x is wrong$"),
        working_copy(path_of(f"{bucket}/x")) as copy,
    ):
        raise InputError(f"{copy.folder} is wrong")


def test_results_are_brought_from_a_storage_that_was_away(storage, bucket, monkeypatch):  # noqa: F811
    storage.pipe(f"{bucket}/run.json", b"1")
    answers = iter([OSError("away")])

    def away_once(path: Path) -> list[str]:
        for error in answers:
            raise error
        return files_in(path)

    monkeypatch.setattr(copies, "files_in", away_once)
    monkeypatch.setattr(whole_files, "PAUSES_S", (0,))
    with working_copy(path_of(bucket)) as copy:
        copy.bring()
        assert (copy.folder / "run.json").exists()


def test_a_bucket_that_is_not_there_is_named(storage, archive, monkeypatch, capsys):  # noqa: F811
    for command in ("run", "check"):
        assert run_command(monkeypatch, f"{command} {archive} --out s3://not-there/results") == 2
        assert "s3://not-there/results" in capsys.readouterr().err.splitlines()[-1]


def test_a_driver_that_is_not_installed_is_told_with_what_to_install(monkeypatch):
    pytest.importorskip("upath")
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(InputError, match=r"abfs://bucket needs .*\[storage\]"):
        path_of("abfs://bucket")


def test_a_full_temporary_folder_is_not_the_storages_fault(storage, bucket, monkeypatch):  # noqa: F811
    def full(copies: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vfscreen.storage, "fetch", full)
    study = StudyFiles("id", "source", (path_of(f"{bucket}/a.dcm"),))
    with pytest.raises(FilesVanished, match="TMPDIR"), on_this_machine(study):
        pass


def test_a_study_on_object_storage_is_shown(storage, bucket, archive, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(weights, "load_models", lambda folder=None, device="auto": fakes.fake_models())
    source = uploaded(storage, archive, f"{bucket}/archive")
    picture = tmp_path / "stages.png"
    assert run_command(monkeypatch, f"show {source}/healthy_0.nii.gz --out {picture}") == 0
    assert picture.exists()


def test_shards_on_object_storage_are_merged(storage, bucket, archive, tmp_path):  # noqa: F811
    shards = [f"{bucket}/shard_{number}" for number in (1, 2)]
    for number, out in enumerate(shards, 1):
        screened(archive, out, shard=Shard(number, 2))
    merge(shards, f"{bucket}/all")
    screened(archive, tmp_path)
    assert_same_tables(f"{bucket}/all", tmp_path)


def test_workers_of_a_cluster_share_object_storage(storage, bucket, archive, tmp_path):  # noqa: F811
    distributed = pytest.importorskip("distributed", reason="the extra vfscreen[cluster] is not installed")
    from vfscreen.cluster.dispatch import DaskCluster
    from vfscreen.cluster.places import local_cluster

    source, out = uploaded(storage, archive, f"{bucket}/archive"), f"{bucket}/results"
    with local_cluster(2, "cpu") as cluster, distributed.Client(cluster, set_as_default=False) as client:
        workers = DaskCluster(client, fakes.fake_models, fakes.PROVENANCE)
        assert screened(source, out, cluster=workers).new == 9
        assert screened(source, out, cluster=workers).new == 0
        screened(archive, tmp_path)
        assert_same_tables(out, tmp_path)
        assert storage.exists(f"{out}/thumbnails/fractured.png")
        storage.put(str(archive / "healthy_0.nii.gz"), f"{source}/fractured.nii.gz")  # another scan
        assert screened(source, out, cluster=workers).flagged == 0
    assert not storage.exists(f"{out}/thumbnails/fractured.png")


def test_a_part_is_kept_before_the_run_ends(storage, bucket, tmp_path):  # noqa: F811
    with working_copy(path_of(bucket)) as copy:
        for name in ("b.studies.parquet", "a.vertebrae.parquet", ".hidden"):
            (copy.folder / name).write_bytes(b"1")
        copy.keep()
        assert sorted(storage.ls(bucket, detail=False)) == [
            f"{bucket[5:]}/a.vertebrae.parquet",
            f"{bucket[5:]}/b.studies.parquet",
        ]
        (copy.folder / "a.vertebrae.parquet").unlink()
        storage.pipe(f"{bucket}/c.csv", b"of another machine")
        copy.keep()
        copy.bring()
        assert storage.ls(bucket, detail=False) == [f"{bucket[5:]}/b.studies.parquet", f"{bucket[5:]}/c.csv"]
        assert (copy.folder / "c.csv").read_bytes() == b"of another machine"


def test_a_bucket_is_named_as_a_folder_is(storage, bucket):  # noqa: F811
    for path in sorted((SAMPLES / "normal").iterdir())[:4]:
        storage.put(str(path), f"{bucket}/{path.name}")
    assert [study.source for study in discover(path_of(bucket))] == [bucket.removeprefix("s3://")]


def test_what_a_killed_process_fetched_is_removed(storage, bucket, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage.pipe(f"{bucket}/1.dcm", b"1")
    with on_this_machine(StudyFiles("id", "source", (path_of(f"{bucket}/1.dcm"),))) as local:
        remove_copies(os.getpid())
        assert not local.files[0].exists()
        assert list(tmp_path.iterdir()) == []
        Path(local.files[0].parents[1]).mkdir()  # for the end of the context


def test_objects_that_are_gone_are_files_vanished(storage, bucket):  # noqa: F811
    study = StudyFiles("id", "source", (path_of(f"{bucket}/a.dcm"),))
    with pytest.raises(FilesVanished, match="gone from the storage"), on_this_machine(study):
        pass


def test_files_of_one_name_in_two_folders_stay_apart(storage, bucket):  # noqa: F811
    for folder in ("x", "y"):
        storage.pipe(f"{bucket}/{folder}/1.dcm", folder.encode())
    files = tuple(path_of(f"{bucket}/{folder}/1.dcm") for folder in ("x", "y", "x"))
    with on_this_machine(StudyFiles("id", "source", files)) as local:
        assert [path.read_bytes() for path in local.files] == [b"x", b"y", b"x"]
    assert not local.files[0].exists()


@pytest.mark.parametrize("size", [0, 100, HEADER_BYTES, HEADER_BYTES + 1, 5 * HEADER_BYTES])
def test_a_header_is_read_from_afar_as_from_disk(storage, bucket, size):  # noqa: F811
    chance = random.Random(size)
    content = chance.randbytes(size)
    storage.pipe(f"{bucket}/file", content)
    with one_look(path_of(f"{bucket}/file")).open("rb") as remote, io.BytesIO(content) as local:
        for _ in range(20):
            whence = chance.choice([io.SEEK_SET, io.SEEK_END])
            place = chance.randint(-size, 0) if whence else chance.randint(0, size + 10)
            count = chance.choice([0, 1, 132, HEADER_BYTES, 2 * HEADER_BYTES, -1])
            assert remote.seek(place, whence) == local.seek(place, whence)
            assert remote.read(count) == local.read(count)


def test_a_storage_without_an_answer_is_an_error_before_the_run(storage, bucket, monkeypatch, archive):  # noqa: F811
    type(storage).clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"s3://.*cannot be reached"):
        screened(f"{bucket}/archive", "results")
    type(storage).clear_instance_cache()


def test_a_local_url_is_a_path_and_an_unknown_one_is_refused(tmp_path):
    assert path_of(f"file://{tmp_path}/x") == tmp_path / "x"
    assert path_of("results") == Path("results")
    for url in ("nonsense://x", "http://host/archive"):
        with pytest.raises(InputError, match=f"{url} cannot be opened"):
            path_of(url)
