"""Training on annotated CT: points come back in the patient, and three networks learn from them."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfscreen.cli import main
from vfscreen.errors import InconsistentGeometry, InputError, UnreadableFile
from vfscreen.localize import window
from vfscreen.measure import genant_ratio, heights_mm
from vfscreen.networks.detector import Detector
from vfscreen.networks.weights import load_models, load_weights
from vfscreen.simulation.annotation import levels_of, voxels, write_annotated
from vfscreen.simulation.cohort import Field, SimulatedStudy, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.simulation.spine import Deformities
from vfscreen.training import annotated, detector, localizer, refiner
from vfscreen.training.annotation import FOLDS, consensus, deal_folds, read_annotation
from vfscreen.training.studies import load_studies, plane_heights, series_files, unwindowed

NAMES = [f"study_{i}" for i in range(FOLDS)]
SCANNER = Scanner(2.5, 2.5, 2.0, 0.5, 0.0, 10.0, 0.5, 0.0)
DEFORMED = Deformities(0, 0, 0, forced=(("T8", "wedge", 0.65), ("T10", "biconcave", 0.7)))


def scan(seed: int) -> SimulatedStudy:
    """A small chest: T6 to T11, 10 cm wide; that of every second seed has two deformed vertebrae."""
    rng = np.random.default_rng(seed)
    person = draw_person(rng, DEFORMED if seed % 2 else Deformities(0, 0, 0), cobb_deg=3.0)
    return simulate_study(rng, person, SCANNER, Field("T6", "T11", 104, 110, 2.0))


def true_keypoints(study: SimulatedStudy) -> np.ndarray:
    return np.stack(list(levels_of(study.truth()).values()))


def in_one_slice(keypoints: np.ndarray, study: SimulatedStudy) -> np.ndarray:
    """The keypoints as an expert can give them: those of a vertebra in one sagittal slice of the image."""
    y, x, z = np.moveaxis(voxels(keypoints, study.volume.geometry), -1, 0)
    return study.volume.geometry.to_patient(np.stack([z, y, x], -1))


@pytest.fixture(scope="module")
def scans() -> dict[str, SimulatedStudy]:
    return {name: scan(i) for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def archive(scans, tmp_path_factory) -> Path:
    """`FOLDS` studies in the layout of CTLungCa-500 and its annotation, two experts each."""
    out = tmp_path_factory.mktemp("archive")
    for name, study in scans.items():
        first = levels_of(study.truth())
        second = {level: points + np.array([0, 0.5, -0.5]) for level, points in list(first.items())[:-1]}
        readings = {"expert1": first, "expert2": second}
        write_annotated(out, name, study.volume, readings, named=name == NAMES[0])
    return out


@pytest.fixture(scope="module")
def studies(archive, tmp_path_factory):
    return load_studies(archive / "dicom", archive / "annotation", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copy(archive, tmp_path) -> Path:
    return Path(shutil.copytree(archive, tmp_path / "archive"))


def edit(archive: Path, name: str, change) -> None:
    """Change a study's stored annotation in place."""
    path = archive / "annotation" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def load(archive: Path):
    return load_studies(archive / "dicom", archive / "annotation", archive / "cache")


def test_keypoints_in_voxels_come_back_in_patient_millimetres(studies, scans):
    for study in studies:
        expected = in_one_slice(true_keypoints(scans[study.name]), scans[study.name])
        np.testing.assert_allclose(study.readings[0], expected, atol=0.05)


def test_both_formats_are_read_to_the_same_points(archive):
    by_format = [json.loads((archive / "annotation" / f"{n}.json").read_text()) for n in NAMES[:2]]
    assert {"segments", "type"} == set(by_format[0]["Annotation"]["expert1"][0])
    assert by_format[0]["Annotation"]["expert1"][0]["type"].startswith("Th")
    assert np.shape(by_format[1]["Annotation"]["expert1"][0]) == (6, 3)
    for name in NAMES[:2]:
        assert read_annotation(archive / "annotation" / f"{name}.json").readings["expert1"].shape[1:] == (
            3,
            2,
            3,
        )


def test_the_order_of_ends_heights_and_vertebrae_does_not_matter(copy, studies):
    rng = np.random.default_rng(0)

    def shuffle(content):
        for vertebrae in content["Annotation"].values():
            rng.shuffle(vertebrae)
            for i, points in enumerate(vertebrae):
                heights = np.reshape(points, (3, 2, 3))[rng.permutation(3)][:, :: rng.choice([-1, 1])]
                vertebrae[i] = heights.reshape(6, 3).tolist()

    edit(copy, NAMES[1], shuffle)
    found = next(study for study in load(copy) if study.name == NAMES[1])
    for reading, expected in zip(found.readings, studies[1].readings, strict=True):
        np.testing.assert_allclose(reading, expected)


def test_what_is_kept_of_the_ct_shows_the_vertebrae_where_they_are_annotated(studies, scans):
    for study in studies:
        points = study.consensus.mean(1)
        expected = scans[study.name].volume.sample(points)
        np.testing.assert_allclose(study.column().sample(points), expected, rtol=1e-5)


def test_the_coarse_ct_ends_with_the_annotated_vertebrae(studies):
    for study in studies:
        z, points = plane_heights(study.coarse().geometry), study.readings[0][:, :, 2]
        assert points.min() < z[0] < points.min() + 3.1
        assert points.max() - 3.1 < z[-1] < points.max()


def test_hu_come_back_from_the_localizer_s_window():
    hu = np.array([-1024, -1000, 0, 50, 400, 1400], np.float32)
    np.testing.assert_allclose(unwindowed(window(hu)), hu, atol=1)


def test_a_series_is_found_at_any_depth_among_others_and_with_a_dot_at_its_end(copy, studies):
    folder = copy / "dicom" / NAMES[1]
    (folder / "deep" / "er").mkdir(parents=True)
    for path in sorted(folder.glob("IM*")):
        path.rename(folder / "deep" / "er" / f"{path.name}.dcm")
    shutil.copytree(copy / "dicom" / NAMES[2], folder / "other")
    (folder / "notes.txt").write_text("not an image")

    def dotted(content):
        content["SeriesInstanceUID"] += "."

    edit(copy, NAMES[1], dotted)
    found = next(study for study in load(copy) if study.name == NAMES[1])
    np.testing.assert_allclose(found.readings[0], studies[1].readings[0])


def test_instance_numbers_that_run_to_cranial_are_an_error(copy):
    folder = copy / "dicom" / NAMES[0]
    files = sorted(folder.iterdir())
    for i, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = len(files) - i
        dataset.save_as(path)
    with pytest.raises(InconsistentGeometry, match="from cranial to caudal"):
        series_files(folder, str(dataset.SeriesInstanceUID))


def test_file_names_need_not_follow_instance_numbers(copy, studies):
    folder = copy / "dicom" / NAMES[1]
    files = sorted(folder.iterdir())
    for i, path in enumerate(files):
        path.rename(folder / f"x{(7 * i) % len(files):04d}{i}")
    found = next(study for study in load(copy) if study.name == NAMES[1])
    np.testing.assert_allclose(found.readings[0], studies[1].readings[0])


def test_points_outside_the_image_are_an_error_of_that_study(copy, caplog):
    def move(content):
        for vertebra in content["Annotation"]["expert1"]:
            for point in vertebra:
                point[2] += 40

    edit(copy, NAMES[1], move)
    with caplog.at_level(logging.WARNING):
        assert len(load(copy)) == FOLDS - 1
    assert f"{NAMES[1]} is left out" in caplog.text
    assert "outside the image" in caplog.text


def test_a_study_without_images_is_named_and_left_out(copy, caplog):
    shutil.rmtree(copy / "dicom" / NAMES[3])
    with caplog.at_level(logging.WARNING):
        assert [study.name for study in load(copy)] == [n for n in NAMES if n != NAMES[3]]
    assert f"{NAMES[3]} is left out" in caplog.text
    with pytest.raises(UnreadableFile):
        series_files(copy / "dicom" / NAMES[3], "1.2")


def test_a_study_of_which_too_little_is_annotated_is_left_out(copy, caplog):
    def shorten(content):
        content["Annotation"] = {expert: reading[:2] for expert, reading in content["Annotation"].items()}

    edit(copy, NAMES[2], shorten)
    with caplog.at_level(logging.WARNING):
        assert len(load(copy)) == FOLDS - 1
    assert f"{NAMES[2]} is left out: no expert annotated 3 vertebrae" in caplog.text


def test_no_image_at_all_is_an_error_that_says_what_is_expected(archive, tmp_path):
    with pytest.raises(InputError, match=r"folders named as in the annotation .*study_4"):
        load_studies(tmp_path, archive / "annotation", tmp_path / "cache")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"Folder": "a"}', '{"Annotation": {"expert1": [[], [], []]}}'],
)
def test_a_file_that_is_no_annotation_is_named(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"odd\.json"):
        read_annotation(path)


@pytest.mark.parametrize("points", [[[1, 2, 3]] * 5, [[1, 2]] * 6, [[float("nan")] * 3] * 6])
def test_a_vertebra_of_another_shape_is_an_error(tmp_path, points):
    content = {"Folder": "a", "SeriesInstanceUID": "1", "Annotation": {"expert1": [points] * 4}}
    (tmp_path / "odd.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="points of shape"):
        read_annotation(tmp_path / "odd.json")


def test_the_consensus_is_the_mean_of_those_who_saw_a_vertebra(studies):
    for study in studies:
        first, second = study.readings
        np.testing.assert_allclose(study.consensus[:-1], (first[:-1] + second) / 2)
        np.testing.assert_allclose(study.consensus[-1], first[-1])


def test_vertebrae_further_apart_than_10_mm_are_two():
    one = np.tile(np.arange(4.0)[:, None, None] * [0, 0, -25], (1, 6, 1))
    other = one + np.array([0, 0, 11.0])
    assert len(consensus([one, other])) == 8
    assert len(consensus([one, one + np.array([0, 0, 9.0])])) == 4


def test_what_only_others_saw_and_one_beyond_each_end_is_doubtful(studies):
    study = studies[0]
    full, short = study.readings
    assert len(study.doubtful(full)) == 2
    only_others, above, below = study.doubtful(short)
    np.testing.assert_allclose(only_others, full[-1], atol=1e-9)
    assert above[:, 2].mean() > short[0, :, 2].mean() + 15
    assert below[:, 2].mean() < short[-1, :, 2].mean() - 15


def test_the_deformed_vertebrae_are_counted(studies, scans):
    expected = [
        int((genant_ratio(heights_mm(in_one_slice(true_keypoints(scans[n]), scans[n]))) <= 0.74).sum())
        for n in NAMES
    ]
    assert [study.deformed for study in studies] == expected
    assert sum(expected) > 0


COUNTS = st.lists(st.integers(0, 12), min_size=FOLDS, max_size=60)


@given(COUNTS, st.integers(0, 100))
def test_every_study_is_in_one_fold_and_the_folds_are_alike(counts, seed):
    deformed = {f"s{i:02d}": count for i, count in enumerate(counts)}
    folds = deal_folds(deformed, seed)
    assert sorted(name for fold in folds for name in fold) == sorted(deformed)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    sums = [sum(deformed[name] for name in fold) for fold in folds]
    assert max(sums) - min(sums) <= max(counts)
    assert deal_folds(dict(reversed(deformed.items())), seed) == folds


def test_folds_of_many_patients_differ_by_one_deformed_vertebra():
    rng = np.random.default_rng(0)
    deformed = {f"s{i}": int(n) for i, n in enumerate(rng.choice([0, 0, 1, 2, 5], 100))}
    folds = deal_folds(deformed, 1)
    sums = [sum(deformed[name] for name in fold) for fold in folds]
    assert max(sums) - min(sums) <= 1
    assert folds != deal_folds(deformed, 2)


def test_fewer_studies_than_folds_are_an_error():
    with pytest.raises(InputError, match="5 studies or more; 4 have"):
        deal_folds(dict.fromkeys("abcd", 1), 0)


@pytest.fixture(scope="module")
def samples(studies):
    return annotated.Samples(tuple(studies), 0)


@pytest.mark.parametrize(
    ("kind", "network"), [("torsos", localizer), ("sheets", detector), ("crops", refiner)]
)
def test_batches_are_like_the_simulated_ones(samples, kind, network):
    make = getattr(samples, kind)
    ours, again, others = make(1, 0), make(1, 0), network.make_batch(1, 0)
    for a, b, c in zip(ours, again, others, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == c.dtype
        assert a.ndim == c.ndim
        assert torch.isfinite(a).all()
    if kind == "torsos":
        assert ours[0].shape[:2] == others[0].shape[:2]
        assert ours[0].shape[3] in localizer.SIDES
    else:
        assert [a.shape for a in ours] == [c.shape for c in others]
    assert not torch.equal(make(1, 2)[0], ours[0])


def test_another_fold_draws_other_samples(studies):
    a, b = (annotated.Samples(tuple(studies), fold).sheets(1, 0) for fold in (0, 1))
    assert not torch.equal(a[0], b[0])


def test_every_other_batch_of_the_localizer_is_simulated(samples):
    for a, b in zip(samples.torsos(1, 3), localizer.make_batch(1, 3), strict=True):
        assert torch.equal(a, b)


def test_a_torso_shows_bone_at_its_centres_and_no_spine_where_nothing_is_annotated(studies):
    seen_hu = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image, centers, present = annotated.draw_torso(rng, studies[seed % FOLDS], (80, 64, 80))
        k = np.flatnonzero(present)
        rows, columns = np.rint(centers[k]).astype(int).T
        seen_hu += image[k, rows, columns].tolist()
        assert present[60:].sum() == 0  # 16 cm of 24 are annotated at most
    assert np.median(seen_hu) > 0.1


@pytest.fixture(scope="module")
def marked(studies, tmp_path_factory):
    """One expert's study whose CT shows a bright wire from left to right through each keypoint."""
    study, path = studies[1], tmp_path_factory.mktemp("marked") / "column.npy"
    geometry = study.column().geometry
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape[:2]), [0], indexing="ij"), -1)
    plane, points = geometry.to_patient(index)[:, :, 0, 1:], study.readings[0][..., 1:].reshape(-1, 2)
    apart = np.linalg.norm(plane[:, :, None] - points, axis=-1).min(-1)
    hu = np.repeat(1000 * np.exp(-((apart / 3) ** 2) / 2)[..., None], geometry.shape[2], axis=2)
    np.save(path, hu.astype(np.int16))
    return replace(study, readings=study.readings[:1], column_file=path)


def test_a_sheet_shows_its_keypoints_where_it_says(marked):
    shown = []
    for seed in range(20):
        image, keypoints, ratios = annotated.draw_sheet(np.random.default_rng(seed), marked)
        assert image.shape == (detector.ROWS, 80)
        rows, columns = np.rint(keypoints[~np.isnan(ratios)]).astype(int).reshape(-1, 2).T
        shown += image[rows, columns].tolist()
    assert len(shown) > 20 * 6 * 3
    assert np.quantile(shown, 0.02) > 600


def test_a_crop_shows_its_keypoints_where_it_says(marked):
    for crop in annotated.draw_crops(np.random.default_rng(3), marked, 12):
        rows, columns = np.rint(crop.keypoints).astype(int).T
        assert crop.hu[2, rows, columns].min() > 600


def test_an_anchor_beyond_the_annotated_range_counts_neither_way(studies):
    _, objectness, _, _ = annotated.Samples((studies[0],), 0).sheets(3, 0)
    assert (objectness == -1).any()
    assert (objectness == 1).any()


def test_crops_hold_the_vertebra_in_the_middle_with_its_own_heights(studies):
    crops = annotated.draw_crops(np.random.default_rng(1), studies[1], 8)
    true = heights_mm(np.concatenate(studies[1].readings))
    for crop in crops:
        found = heights_mm(crop.keypoints) * refiner.SETTINGS.pixel_mm
        assert np.abs(true - found).max(1).min() < 1.0
        assert np.abs(crop.keypoints.mean(0) - (refiner.SETTINGS.size - 1) / 2).max() < 14
        assert crop.slice_mm == pytest.approx(2.5)


def test_a_perfect_refiner_has_no_error_on_the_fold_left_out(studies, monkeypatch):
    monkeypatch.setattr(
        refiner, "measured", lambda network, device, crops: (heights_of(crops), heights_of(crops), None)
    )
    figures = annotated.HeldOut(studies, 0)(torch.nn.Identity(), "cpu")
    assert figures["ratio"] == 0
    assert figures["auc_moderate"] == 1


def heights_of(crops):
    return heights_mm(np.stack([crop.keypoints for crop in crops])) * refiner.SETTINGS.pixel_mm


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vfscreen", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_trains_all_three_on_a_fold_goes_on_and_its_weights_load(archive, tmp_path, monkeypatch):
    data = ("--dicom", archive / "dicom", "--annotation", archive / "annotation")
    command = ("train", "--out", tmp_path, *data, "--seed", 1, "--device", "cpu", "--workers", 1)
    assert run(monkeypatch, *command, "--fold", 2, "--steps", 2) == 0
    assert run(monkeypatch, *command, "--fold", 2, "--steps", 3) == 0
    fold = tmp_path / "fold_2"
    models = load_models(fold / "weights", "cpu")
    for name, made in models.provenance.items():
        assert (made["steps"], made["trained_on"]) == (3, "annotated CT, fold 2")
        curve = (fold / name / "learning_curve.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in curve] == ["step", "2", "3"]  # it went on after 2
    assert "auc_moderate" in (fold / "refiner" / "validation.csv").read_text()
    folds = json.loads((tmp_path / "folds.json").read_text())
    assert sorted(name for names in folds.values() for name in names) == NAMES
    assert not (tmp_path / "fold_1").exists()


def test_all_folds_are_trained_and_fine_tuned_from_given_weights(
    archive, random_weights, tmp_path, monkeypatch
):
    data = ("--dicom", archive / "dicom", "--annotation", archive / "annotation")
    options = ("--steps", 1, "--device", "cpu", "--workers", 1, "--start", random_weights)
    assert run(monkeypatch, "train", "detector", "--out", tmp_path, *data, *options) == 0
    start = Detector()
    load_weights(random_weights / "detector.safetensors", start)
    for fold in range(FOLDS):
        tuned = Detector()
        made = load_weights(tmp_path / f"fold_{fold}" / "weights" / "detector.safetensors", tuned)
        assert len(made["fine_tuned_from"]) == 64
        for value, before in zip(tuned.parameters(), start.parameters(), strict=True):
            assert (value - before).abs().max() < 2e-3  # one step at a low rate


def test_other_studies_in_the_same_folder_are_refused(copy, tmp_path, monkeypatch, capsys):
    data = ("--dicom", copy / "dicom", "--annotation", copy / "annotation")
    command = ("train", "detector", *data, "--steps", 1, "--device", "cpu", "--workers", 1, "--fold", 0)
    assert run(monkeypatch, *command, "--out", tmp_path / "out") == 0
    write_annotated(copy, "study_5", scan(7).volume, {"expert1": levels_of(scan(7).truth())})
    assert run(monkeypatch, *command, "--out", tmp_path / "out") == 2
    assert "folds.json was made of other studies" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--dicom", "."), ("--annotation", "."), ("--fold", 1)])
def test_images_and_annotation_go_together(tmp_path, monkeypatch, capsys, options):
    assert run(monkeypatch, "train", "--out", tmp_path, *options) == 2
    assert "--dicom and --annotation go together" in capsys.readouterr().err


def test_missing_weights_to_start_from_are_told_at_once(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "train", "refiner", "--out", tmp_path / "out", "--start", tmp_path) == 2
    assert "no weights of refiner" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_simulates_annotated_studies_that_can_be_read(tmp_path, monkeypatch):
    chests = (scan(seed) for seed in range(2))
    monkeypatch.setattr("vfscreen.simulation.annotation.scan_chest", lambda rng: next(chests))
    assert run(monkeypatch, "simulate", "--out", tmp_path, "--studies", 2, "--format", "annotated") == 0
    found = load(tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [study.name for study in found] == ["study_0_0000", "study_0_0001"] == list(truth)
    for study in found:
        true = np.array([v["center_mm"] for v in truth[study.name]["vertebrae"]])
        assert len(study.readings) == 2
        assert np.abs(study.consensus.mean(1) - true)[:, 1:].max() < 1.0


@pytest.mark.parametrize("layout", ["thoracic-2020", "all-levels-2022"])
def test_the_public_annotation_is_read(layout):
    folder = Path(__file__).parents[3] / "shared" / "annotation" / layout
    if not folder.exists():
        pytest.skip("the public annotation is not here")
    files = [read_annotation(path) for path in sorted(folder.glob("*.json"))]
    assert len(files) == 100
    assert all(reading.shape[1:] == (3, 2, 3) for one in files for reading in one.readings.values())
