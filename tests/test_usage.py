"""What limits a run is the part that is busy all the time."""

from __future__ import annotations

import json
from pathlib import Path

import fakes
import pytest

from vfscreen.pipeline import run
from vfscreen.usage import BusySeconds, Usage


def test_shares_are_of_all_readers_and_of_the_time_of_the_run() -> None:
    busy = BusySeconds(writer=1.0)
    for _ in range(2):
        busy.add({"read": 3.0, "localize": 1.0, "straighten": 1.0, "detect": 2.0})
    assert busy.of(10.0, workers=2, devices=1) == Usage(10.0, readers=0.4, device=0.6, writer=0.1)
    assert busy.of(10.0, workers=2, devices=3).device == pytest.approx(0.2)


def test_a_study_that_failed_counts_with_what_it_took() -> None:
    busy = BusySeconds()
    busy.add({"read": 3.0})
    busy.add({})
    assert busy.of(6.0, workers=1, devices=1).readers == 0.5


@pytest.mark.parametrize(
    ("usage", "limit"),
    [
        (Usage(9, 0.95, 0.5, 0.1), "the limit: readers"),
        (Usage(9, 0.5, 0.9, 0.1), "the limit: networks"),
        (Usage(9, 0.1, 0.1, 0.8), "the limit: writer"),
        (Usage(9, 0.2, 0.3, 0.0), "too short a run"),
    ],
)
def test_the_busiest_part_is_the_limit(usage: Usage, limit: str) -> None:
    assert limit in usage.sentence()


def test_run_json_tells_how_busy_each_part_was(tmp_path: Path) -> None:
    for i in range(3):
        fakes.write_study(tmp_path / "in" / f"{i}.nii.gz")
    summary = run(tmp_path / "in", tmp_path / "out", models=fakes.fake_models(), workers=1)
    (call,) = json.loads((tmp_path / "out" / "run.json").read_text())["calls"]
    assert set(call["busy"]) == {"seconds", "readers", "device", "writer"}
    assert summary.usage is not None
    assert 0 < call["busy"]["readers"] == summary.usage.readers <= 1
