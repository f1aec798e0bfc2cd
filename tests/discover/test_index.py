"""The index of headers: what is known is not read again, and what is odd in an archive is not opened."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import psutil
import pytest
from dicom_writing import ramp_volume, write_series

from vfscreen.discover import discover, index, studies
from vfscreen.discover.series import ArchiveImage, series_of
from vfscreen.errors import PackedArchive, UnreadableFile, VfscreenError
from vfscreen.study import StudyFiles


def write(folder: Path, **tags: object) -> list[Path]:
    axes = np.column_stack([[0, 0, 3.0], [0, 2, 0], [2, 0, 0]])
    return write_series(folder, ramp_volume(axes, (30, 4, 5)), **tags)


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers are read."""
    paths: list[Path] = []
    read_images = index.read_images

    def noted(path: Path) -> object:
        paths.append(path)
        return read_images(path)

    monkeypatch.setattr(index, "read_images", noted)
    return paths


def only(folder: Path, **options: Path) -> StudyFiles:
    (study,) = discover(folder, **options)
    return study


def test_a_second_look_reads_nothing_and_finds_the_same(tmp_path, read_paths):
    write(tmp_path / "in" / "a")
    (tmp_path / "in" / "a" / "notes").write_text("no image")
    first = discover(tmp_path / "in", index=tmp_path / "index")
    read_paths.clear()
    assert discover(tmp_path / "in", index=tmp_path / "index") == first
    assert read_paths == []


def test_what_is_equal_in_the_images_of_a_series_is_in_memory_once(tmp_path, monkeypatch):
    def noted(images: Sequence[ArchiveImage], *others: object) -> object:
        for of_image in ("phase", "rescale", "study_date"):
            assert len({id(getattr(one.image, of_image)) for one in images}) == 1
        assert len({id(one.kind) for one in images}) == 1
        assert len({one.image.position for one in images}) == len(images) == 30
        return series_of(images, *others)

    monkeypatch.setattr(studies, "series_of", noted)
    write(tmp_path / "in")
    for _ in ("read", "from the index"):
        assert len(discover(tmp_path / "in", index=tmp_path / "index")) == 1


def test_only_what_is_new_or_changed_is_read(tmp_path, read_paths):
    files = write(tmp_path / "in")
    before = only(tmp_path / "in", index=tmp_path / "index")
    os.utime(files[3], ns=(1, 1))
    shutil.copy(files[5], files[5].with_name("copy"))
    read_paths.clear()
    after = only(tmp_path / "in", index=tmp_path / "index")
    assert sorted(path.name for path in read_paths) == ["0003.dcm", "copy"]
    assert after.stamp != before.stamp


def test_a_file_that_is_gone_is_not_remembered(tmp_path):
    files = write(tmp_path / "in")
    discover(tmp_path / "in", index=tmp_path / "index")
    files[29].unlink()
    assert len(only(tmp_path / "in", index=tmp_path / "index").files) == 29
    with index.closing(index.Store(tmp_path / "index")) as store:
        assert "0029.dcm" not in store.headers(tmp_path / "in").files


@pytest.mark.parametrize("content", [b"no database", b""])
def test_an_index_that_is_none_costs_time_and_nothing_else(tmp_path, content):
    write(tmp_path / "in")
    (tmp_path / "index").write_bytes(content)
    assert only(tmp_path / "in", index=tmp_path / "index").error is None


def test_a_damaged_row_is_read_again(tmp_path, read_paths):
    write(tmp_path / "in")
    first = only(tmp_path / "in", index=tmp_path / "index")
    with index.closing(index.sqlite3.connect(tmp_path / "index")) as database:
        database.execute("UPDATE folders SET content = ?", (b"junk",))
        database.commit()
    assert only(tmp_path / "in", index=tmp_path / "index") == first
    read_paths.clear()
    assert only(tmp_path / "in", index=tmp_path / "index") == first
    assert read_paths == []


def test_what_an_index_loses_while_it_is_used_is_read_again(tmp_path, monkeypatch):
    for name in "abc":
        write(tmp_path / "in" / name, StudyInstanceUID="1.2.3", PatientID=f"P-{name}")
    (tmp_path / "in" / "c" / "0000.dcm").write_bytes(b"junk")
    sound = discover(tmp_path / "in")
    monkeypatch.setattr(index.Store, "keep", lambda *_: None)
    assert list(map(repr, discover(tmp_path / "in"))) == list(map(repr, sound))


def test_a_disk_that_refuses_the_index_costs_time_and_nothing_else(tmp_path, caplog):
    write(tmp_path / "in")
    (tmp_path / "index").mkdir()
    assert only(tmp_path / "in", index=tmp_path / "index").error is None
    assert "cannot be used" in caplog.text


def test_no_more_than_two_studies_have_their_headers_in_memory(tmp_path, monkeypatch):
    for name in "abcdef":
        write(tmp_path / name)
    in_memory: list[int] = []

    def noted(*given: object) -> object:
        images = [one for one in gc.get_objects() if type(one) is ArchiveImage]
        in_memory.append(sum(one.path.is_relative_to(tmp_path) for one in images))
        return series_of(*given)

    monkeypatch.setattr(studies, "series_of", noted)
    assert len(discover(tmp_path)) == 6
    assert max(in_memory) <= 2 * 30


@pytest.mark.parametrize("place", [0, 4096])
def test_a_damaged_index_is_made_anew(tmp_path, read_paths, place):
    write(tmp_path / "in")
    first = only(tmp_path / "in", index=tmp_path / "index")
    content = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(content[:place] + b"junk" * 1000 + content[place + 4000 :])
    assert only(tmp_path / "in", index=tmp_path / "index") == first
    read_paths.clear()
    assert only(tmp_path / "in", index=tmp_path / "index") == first
    assert read_paths == []


def test_one_archive_by_two_spellings_is_known(tmp_path, read_paths, monkeypatch):
    write(tmp_path / "in")
    discover(tmp_path / "in", index=tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    read_paths.clear()
    discover(Path("in"), index=Path("index"))
    assert read_paths == []


def test_a_process_that_is_killed_while_it_lists_is_replaced(tmp_path, monkeypatch):
    class Pool:
        killed = 0

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def shutdown(self) -> None:
            pass

        def map(self, function, chunks):
            for number, chunk in enumerate(chunks):
                if number == 1 and Pool.killed < 2:
                    Pool.killed += 1
                    raise BrokenProcessPool
                yield function(chunk)

    write(tmp_path)
    monkeypatch.setattr(index, "PARALLEL_FROM_FILES", 1)
    monkeypatch.setattr(index, "CHUNK_FILES", 7)
    monkeypatch.setattr(index, "ProcessPoolExecutor", Pool)
    assert len(only(tmp_path).files) == 30
    assert Pool.killed == 2


def test_processes_that_never_live_end_the_call(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    write(tmp_path)
    monkeypatch.setattr(index, "PARALLEL_FROM_FILES", 1)
    monkeypatch.setattr(index, "ProcessPoolExecutor", broken)
    with pytest.raises(VfscreenError, match="__main__"):
        discover(tmp_path)


@pytest.mark.parametrize("name", ["old.zip", "old.TAR.GZ", "old.7z"])
def test_a_packed_archive_is_reported_and_left_alone(tmp_path, name):
    write(tmp_path / "a")
    (tmp_path / "a" / name).write_bytes(b"PK")
    study, packed = discover(tmp_path)
    assert study.error is None
    assert (packed.source, type(packed.error)) == (f"a/{name}", PackedArchive)


def test_a_pipe_is_not_opened(tmp_path):
    write(tmp_path)
    os.mkfifo(tmp_path / "pipe.dcm")
    assert only(tmp_path).error is None


def test_a_link_to_nothing_beside_slices_may_be_a_slice(tmp_path):
    write(tmp_path)
    (tmp_path / "IM9").symlink_to(tmp_path / "moved")
    assert isinstance(only(tmp_path).error, UnreadableFile)
    assert "IM9 is a link to nothing" in str(only(tmp_path).error)


def test_the_index_being_written_into_an_archive_is_none_of_its_files(tmp_path):
    write(tmp_path / "in")
    (tmp_path / "in" / "index.sqlite-journal").write_bytes(b"")
    assert only(tmp_path / "in").error is None


def test_a_dicom_directory_means_its_folder(tmp_path):
    write(tmp_path / "in" / "a")
    (tmp_path / "in" / "DICOMDIR").write_bytes(b"")
    assert only(tmp_path / "in" / "DICOMDIR").source == "a"


def test_a_change_of_what_is_wrong_with_a_study_changes_its_stamp(tmp_path):
    write(tmp_path)
    sound = only(tmp_path).stamp
    (tmp_path / "x.dcm").write_bytes(b"junk")
    broken = only(tmp_path).stamp
    (tmp_path / "x.dcm").unlink()
    assert broken != sound == only(tmp_path).stamp


def test_processes_that_list_end_with_a_main_process_that_is_killed(tmp_path):
    """They would wait for work for ever: they hold the other end of their own pipe."""
    write(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(KILLED_WHILE_IT_LISTS)
    subprocess.run([sys.executable, script, tmp_path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
    for process in alive:
        process.kill()
    assert pids
    assert alive == []


KILLED_WHILE_IT_LISTS = """
import os, signal, sys
from pathlib import Path
import psutil
from vfscreen.discover import discover, index, survey

def end(*_):
    pids = [str(child.pid) for child in psutil.Process().children(recursive=True)]
    Path(sys.argv[1], "pids").write_text(" ".join(pids))
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    index.PARALLEL_FROM_FILES = 1
    index.Store.keep = end
    discover(Path(sys.argv[1]))
"""
