"""The experts' consensus in the millimetres of their CT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vfscreen.errors import InputError
from vfscreen.evaluation.reference import read_reference
from vfscreen.simulation.annotation import levels_of, write_annotated
from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner

SCANNER = Scanner(2.5, 2.5, 2.0, 0.5, 0.0, 10.0, 0.5, 0.0)


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    return simulate_study(rng, draw_person(rng, cobb_deg=3.0), SCANNER, Field("T6", "T11", 104, 110, 2.0))


@pytest.fixture(scope="module")
def archive(scan, tmp_path_factory):
    """One study; the second expert saw all but the last vertebra."""
    out = tmp_path_factory.mktemp("archive")
    first = levels_of(scan.truth())
    second = dict(list(first.items())[:-1])
    write_annotated(out, "study_0", scan.volume, {"expert1": first, "expert2": second}, named=False)
    return out


def read(archive: Path):
    return read_reference(archive / "annotation", archive / "dicom")


def test_what_all_experts_see_counts_where_it_is(archive, scan):
    (study,) = read(archive).studies
    true = np.stack(list(levels_of(scan.truth()).values()))[:-1].mean(1)
    assert len(study.centers_mm) == len(true)
    assert np.abs(study.centers_mm - true)[:, 1:].max() < 0.5
    assert study.source == "study_0"
    assert study.slice_mm == pytest.approx(2.5)


def test_levels_are_those_that_all_experts_name(archive, scan, tmp_path):
    copy = Path(shutil.copytree(archive, tmp_path / "copy"))
    (file,) = (copy / "annotation").glob("*.json")
    content = json.loads(file.read_text())
    names = [f"Th{level[1:]}" for level in levels_of(scan.truth())]
    for expert, vertebrae in content["Annotation"].items():
        vertebrae.sort(key=lambda points: np.array(points)[..., 2].mean())
        own = names if expert == "expert1" else ["Th1", *names[1:]]
        content["Annotation"][expert] = [
            {"segments": np.reshape(points, (3, 2, 3)).tolist(), "type": own[i]}
            for i, points in enumerate(vertebrae)
        ][::-1]
    file.write_text(json.dumps(content))
    levels = list(levels_of(scan.truth()))
    assert read(archive).studies[0].levels == (None,) * (len(levels) - 1)
    assert read(copy).studies[0].levels == (None, *levels[1:-1])


def test_what_only_one_expert_sees_and_what_lies_beyond_does_not_count(archive, scan):
    (study,) = read(archive).studies
    last = np.stack(list(levels_of(scan.truth()).values()))[-1].mean(0)
    distances = np.linalg.norm(study.others_mm - last, axis=1)
    assert distances.min() < 2
    assert (study.others_mm[:, 2] > study.centers_mm[0, 2] + 15).any()
    assert study.others_mm[:, 2].min() < last[2] - 60


def test_the_annotation_alone_has_no_millimetres(archive):
    with pytest.raises(InputError, match="by --dicom"):
        read_reference(archive / "annotation")


def test_images_of_no_study_are_an_error(archive, tmp_path):
    with pytest.raises(InputError, match="images of none of the 1 studies"):
        read_reference(archive / "annotation", tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        read_reference(archive / "annotation", tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no annotation"):
        read_reference(tmp_path, archive / "dicom")


def test_two_files_of_one_series_are_an_error(archive, tmp_path):
    copy = Path(shutil.copytree(archive, tmp_path / "copy"))
    (file,) = (copy / "annotation").glob("*.json")
    content = json.loads(file.read_text())
    (copy / "annotation" / "again.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="more than one truth of the same series_uid"):
        read(copy)
