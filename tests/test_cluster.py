"""A run on workers of Dask: the same tables as on one machine, whatever is lost on the way."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fakes
import pandas as pd
import pytest

distributed = pytest.importorskip("distributed", reason="the extra vfscreen[cluster] is not installed")

from vfscreen.cluster import dispatch, places  # noqa: E402
from vfscreen.cluster.dispatch import DaskCluster  # noqa: E402
from vfscreen.cluster.places import local_cluster, opened, queue_cluster, share_of_cores  # noqa: E402
from vfscreen.errors import InputError, VfscreenError, WeightsError  # noqa: E402
from vfscreen.pipeline import run  # noqa: E402
from vfscreen.pseudonyms import Pseudonyms  # noqa: E402
from vfscreen.results import finished_studies  # noqa: E402


def killing_models(mark: Path, times: int = 99) -> Any:
    """Models whose localizer ends its process for a poisoned study, some times."""
    return fakes.fake_models(localizer=partial(ends_the_process, mark, times))


def ends_the_process(mark: Path, times: int, images: Any) -> Any:
    if images.max() > 0.9999 and len(list(mark.glob("death_*"))) < times:
        (mark / f"death_{os.getpid()}").touch()
        os._exit(9)
    return fakes.centre_of_bright_voxels(images)


def other_models() -> Any:
    return fakes.fake_models(provenance={"localizer": {"sha256": "another"}})


def slow_models() -> Any:
    return fakes.fake_models(localizer=slowly)


def slowly(images: Any) -> Any:
    time.sleep(1)
    return fakes.centre_of_bright_voxels(images)


def end_the_worker() -> Any:
    os._exit(7)


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task starts readers, which takes longer than these studies."""
    monkeypatch.setattr(dispatch, "TASKS_A_WORKER", 1)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_cluster(2, "cpu") as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_nine_studies(tmp_path_factory.mktemp("archive"))


def screened(archive: Path, out: Path, client: Any, load: Any = fakes.fake_models, **options: Any) -> Any:
    workers = DaskCluster(client, load, fakes.PROVENANCE)
    return run(archive, out, models=fakes.fake_models(), cluster=workers, **options)


def without_times(out: Path, name: str) -> pd.DataFrame:
    table = pd.read_parquet(out / f"{name}.parquet")
    return table.drop(columns=[column for column in table if column.startswith("seconds")])


def test_the_tables_are_those_of_one_machine(archive: Path, tmp_path: Path, client: Any) -> None:
    tallies: list[Any] = []
    one = run(archive, tmp_path / "one", models=fakes.fake_models(), workers=1)
    many = screened(archive, tmp_path / "many", client, progress=tallies.append)
    for name in ("studies", "vertebrae", "patients"):
        tables = [without_times(tmp_path / out, name) for out in ("one", "many")]
        pd.testing.assert_frame_equal(*tables, rtol=0, atol=0)
    assert (tmp_path / "many" / "thumbnails" / "fractured.png").exists()
    assert (many.new, many.studies, many.flagged) == (one.new, one.studies, one.flagged)
    assert [tally.new for tally in tallies] == list(range(10))
    assert tallies[-1].failed == one.failed
    assert many.usage.readers > 0
    assert 1 <= len(list((tmp_path / "many" / "logs").glob("*.log"))) <= 2
    assert screened(archive, tmp_path / "many", client).new == 0


def test_a_study_that_kills_workers_costs_two_and_no_other_study(tmp_path: Path, client: Any) -> None:
    for i in range(8):
        fakes.write_study(tmp_path / "in" / f"good_{i}.nii.gz")
    fakes.write_study(tmp_path / "in" / "poisoned.nii.gz", fakes.POISONED_HU)
    screened(tmp_path / "in", tmp_path / "out", client, partial(killing_models, tmp_path))
    rows = pd.read_parquet(tmp_path / "out" / "studies.parquet").set_index("study_id")
    assert rows["error"].dropna().to_dict() == {"poisoned": "worker_died"}
    assert len(rows) == 9
    assert len(list(tmp_path.glob("death_*"))) == 2
    again = screened(tmp_path / "in", tmp_path / "out", client)
    assert (again.new, again.failed) == (1, 0)


@pytest.mark.slow
def test_a_worker_that_is_lost_once_costs_no_row(tmp_path: Path, client: Any) -> None:
    for i in range(4):
        fakes.write_study(tmp_path / "in" / f"good_{i}.nii.gz")
    fakes.write_study(tmp_path / "in" / "poisoned.nii.gz", fakes.POISONED_HU)
    summary = screened(tmp_path / "in", tmp_path / "out", client, partial(killing_models, tmp_path, times=1))
    assert (summary.studies, summary.failed) == (5, 0)


@pytest.mark.slow
def test_what_the_parts_of_a_task_hold_is_not_screened_again(
    archive: Path, tmp_path: Path, client: Any
) -> None:
    screened(archive, tmp_path, client)
    parts = list((tmp_path / "parts").glob("*.studies.parquet"))
    tasks = {path.name.split("-")[1] for path in parts}
    found = [finished_studies(tmp_path, f"{task}-*") for task in tasks]
    assert sorted(len(pd.read_parquet(path)) for path in parts) == sorted(map(len, found))
    assert sum(map(len, found)) == 9


@pytest.mark.slow
def test_workers_that_die_before_they_begin_stop_the_run(archive: Path, tmp_path: Path, client: Any) -> None:
    with pytest.raises(VfscreenError, match="workers ended one after the other"):
        screened(archive, tmp_path, client, end_the_worker)


@pytest.mark.slow
def test_a_worker_with_other_weights_is_refused(archive: Path, tmp_path: Path, client: Any) -> None:
    with pytest.raises(WeightsError, match=r"other weights: localizer\.sha256"):
        screened(archive, tmp_path, client, other_models)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_what_is_missing(archive: Path, tmp_path: Path, client: Any) -> None:
    def interrupt(tally: Any) -> None:
        if tally.new == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        screened(archive, tmp_path, client, progress=interrupt)
    assert screened(archive, tmp_path, client).studies == 9


@pytest.mark.slow
def test_workers_stop_when_the_client_is_gone(tmp_path: Path, client: Any) -> None:
    for i in range(40):
        fakes.write_study(tmp_path / "in" / f"good_{i}.nii.gz")

    def interrupt(tally: Any) -> None:
        if tally.new == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        screened(tmp_path / "in", tmp_path / "out", client, slow_models, progress=interrupt)
    deadline = time.monotonic() + 60
    while "Nobody waits" not in "".join(log.read_text() for log in (tmp_path / "out" / "logs").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    while not finished_studies(tmp_path / "out"):  # written after that
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert len(finished_studies(tmp_path / "out")) < 40


@pytest.mark.slow
def test_a_cluster_into_a_folder_of_one_machine_goes_on(archive: Path, tmp_path: Path, client: Any) -> None:
    run(archive, tmp_path, models=fakes.fake_models(), workers=1, limit=4)
    assert screened(archive, tmp_path, client).new == 5
    assert run(archive, tmp_path, models=fakes.fake_models(), workers=1).new == 0


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [share_of_cores(i, 2, [0, 1, 4, 5, 6]) for i in range(2)] == [[0, 1], [4, 5, 6]]
    assert [share_of_cores(i, 3, [0, 1]) for i in range(3)] == [[0], [1], [0]]


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="local, slurm, pbs, sge, lsf"), opened("mars", 1, None, "cpu"):
        pass


SETTINGS = """
jobqueue:
  {queue}:
    cores: 8
    memory: 32GB
    walltime: '12:00'
    queue: long
"""


@pytest.mark.parametrize(
    ("queue", "line"),
    [
        ("slurm", "#SBATCH --cpus-per-task=8"),
        ("pbs", "#PBS -l select=1:ncpus=8:mem=30GB"),
        ("sge", "#$ -q long"),
        ("lsf", "#BSUB -n 8"),
    ],
)
def test_a_job_is_one_worker_with_one_task_that_may_start_readers(
    tmp_path: Path, queue: str, line: str
) -> None:
    pytest.importorskip("dask_jobqueue")
    config = tmp_path / "jobs.yaml"
    config.write_text(SETTINGS.format(queue=queue))
    with queue_cluster(queue, config) as cluster:
        script = cluster.job_script()
    assert line in script
    assert "DASK_DISTRIBUTED__WORKER__DAEMON=False" in script
    assert script.rindex("--nthreads 1") > script.rindex("--nthreads 8")


SBATCH = """#!/bin/sh
for script; do :; done
cp "$script" {folder}/job.sh  # which is deleted as soon as this ends
sh {folder}/job.sh > {folder}/job.log 2>&1 &
echo "Submitted batch job $!"
"""


@pytest.mark.slow
def test_a_run_by_the_queue_of_a_batch_system(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    for name, text in {"sbatch": SBATCH, "scancel": "#!/bin/sh\nkill $1\n"}.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    config = tmp_path / "jobs.yaml"
    settings = {"cores": 2, "memory": "2GB", "interface": "lo", "processes": 2}
    config.write_text(f"jobqueue: {{slurm: {settings}}}")
    with opened("slurm", 1, config, "cpu") as client:
        assert screened(archive, tmp_path / "out", client).studies == 9


@pytest.mark.parametrize("text", ["jobqueue: {pbs: {cores: 1}}", "a: [", "jobqueue: {slurm: {colour: red}}"])
def test_a_wrong_file_of_settings_is_told(tmp_path: Path, text: str) -> None:
    pytest.importorskip("dask_jobqueue")
    config = tmp_path / "jobs.yaml"
    config.write_text(text)
    with pytest.raises(InputError, match=r"jobs\.yaml"), queue_cluster("slurm", config):
        pass


@pytest.mark.slow
def test_each_local_worker_has_its_own_gpu_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_gpus", lambda: ["4", "GPU-5"])
    with (
        local_cluster(None, "auto") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], sorted(os.sched_getaffinity(0))))
    assert sorted(gpu for gpu, _ in found.values()) == ["4", "GPU-5"]
    cores = sorted(os.sched_getaffinity(0))
    expected = [share_of_cores(number, 2, cores) for number in range(2)]
    assert sorted(share for _, share in found.values()) == sorted(expected)


@pytest.mark.slow
def test_pseudonyms_hold_on_workers_too(tmp_path: Path, client: Any) -> None:
    for name in ("ottokar", "wenzel"):
        fakes.write_study(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "lubosch.nii.gz").write_bytes(b"junk")
    names = Pseudonyms(b"sixteen bytes of key")
    screened(tmp_path / "in", tmp_path / "out", client, pseudonyms=names, thumbnails="all")
    assert screened(tmp_path / "in", tmp_path / "out", client, pseudonyms=names).new == 0
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() + path.name.encode() for path in written)
    assert not [name for name in (b"ottokar", b"wenzel", b"lubosch") if name in content]
    assert len(pd.read_parquet(tmp_path / "out" / "studies.parquet")) == 3
