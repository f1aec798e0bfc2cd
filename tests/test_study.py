"""What travels between the stages."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vfscreen.study import PackedPaths


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["ct.nii.gz"],
        ["/in/a/1", "/in/a/2", "/in/b/1", "/in/a/3"],
        ["in/many frames.dcm"] * 3,
        ["/in/\udcff\udcfe", "/in/ä\nö"],
    ],
    ids=["none", "one", "several folders", "one file", "odd names"],
)
def test_packed_paths_are_the_paths(names):
    paths = [Path(name) for name in names]
    packed = PackedPaths.of(paths)
    assert list(packed) == [packed[place] for place in range(len(packed))] == paths
    assert pickle.loads(pickle.dumps(packed)) == packed == PackedPaths.of(packed)


def test_packed_paths_of_a_series_are_small_in_memory_and_on_their_way():
    packed = PackedPaths.of([Path("/archive/patient/study/series") / f"IM{n:05d}" for n in range(1000)])
    assert len(pickle.dumps(packed)) < 5_000
