"""A file appears whole or not at all, and a share may be away for a moment."""

from __future__ import annotations

import errno
import os

import pytest

from vfscreen import whole_files
from vfscreen.whole_files import write_stream, write_whole


def failing(times: int, number: int):
    replace, left = os.replace, [times]

    def sometimes(source, target):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        replace(source, target)

    return sometimes


def test_a_share_that_comes_back_is_waited_for(tmp_path, monkeypatch, caplog):
    pauses = []
    monkeypatch.setattr(whole_files.time, "sleep", pauses.append)
    monkeypatch.setattr(os, "replace", failing(2, errno.ESTALE))
    write_whole(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"
    assert pauses == [1, 5]
    assert "the next attempt is in 5 s" in caplog.text


@pytest.mark.parametrize(("number", "attempts"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EIO, 6)])
def test_what_does_not_pass_is_raised_and_leaves_the_old_file(tmp_path, monkeypatch, number, attempts):
    (tmp_path / "a").write_bytes(b"old")
    calls = []
    fail = failing(100, number)
    monkeypatch.setattr(whole_files.time, "sleep", lambda _: None)
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append(names), fail(*names)))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_whole(tmp_path / "a", b"new")
    assert len(calls) == attempts
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_is_written_piece_by_piece_is_written_anew_when_the_share_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files.time, "sleep", lambda _: None)
    failures = [OSError(errno.EIO, "away")]

    def write(stream):
        stream.write(b"first, ")
        if failures:
            raise failures.pop()
        stream.write(b"second")

    write_stream(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"first, second"


def test_a_writer_that_breaks_off_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def write(stream):
        stream.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stream(tmp_path / "a", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
