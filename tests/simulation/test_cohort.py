import json
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest

from vfscreen.discover import discover
from vfscreen.readers import read_volume
from vfscreen.simulation.cohort import SAMPLE_PATIENTS, Field, simulate_cohort, simulate_study
from vfscreen.simulation.files import write_dicom, write_nifti
from vfscreen.simulation.painting import SampleGrid, paint
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.simulation.spine import Deformities
from vfscreen.study import KEYPOINTS

SCANNER = Scanner(2.5, 2.5, 2.0, 0.5, 0.0, 6.0, 0.8, 0.0)
SMALL = Field("T6", "T9", 110.0, 110.0, 2.0)


def simulated(seed=0, scanner=SCANNER, **field):
    rng = np.random.default_rng(seed)
    person = draw_person(rng, Deformities(0, 0, 0, forced=(("T8", "wedge", 0.6),)))
    return simulate_study(rng, person, scanner, replace(SMALL, **field))


@pytest.fixture(scope="module")
def study():
    return simulated()


@pytest.fixture(scope="module")
def truth(study):
    return study.truth()


def points(vertebra):
    return np.array([vertebra["keypoints_mm"][name] for name in KEYPOINTS])


def test_the_truth_names_the_levels_of_the_field(truth):
    assert [v["level"] for v in truth["vertebrae"]] == ["T6", "T7", "T8", "T9"]


def test_the_forced_deformity_is_in_the_truth(truth):
    (t8,) = (v for v in truth["vertebrae"] if v["level"] == "T8")
    assert t8["genant_ratio"] == pytest.approx(0.6, abs=1e-4)
    assert t8["grade"] in ("moderate", "severe")
    assert truth["min_genant_ratio"] == t8["genant_ratio"]


def test_true_keypoints_lie_in_the_image_and_give_the_true_heights(study, truth):
    for vertebra in truth["vertebrae"]:
        assert study.volume.geometry.contains(points(vertebra)).all()
        heights = np.linalg.norm(points(vertebra)[1::2] - points(vertebra)[::2], axis=1)
        np.testing.assert_allclose(heights, vertebra["heights_mm"], atol=0.003)


def test_vertebrae_cut_by_the_field_are_named_and_not_measured():
    cut = simulated(width_mm=40.0, height_mm=150.0, shift_mm=(12.0, 35.0)).truth()
    measured = {v["level"] for v in cut["vertebrae"]}
    assert not measured & set(cut["cut_levels"])
    field = simulated().volume.geometry.corners_mm()[:, 2]
    whole = simulated().truth()
    for level, z in ((v["level"], points(v)[:, 2]) for v in whole["vertebrae"]):
        assert z.min() > field.min(), level
        assert z.max() < field.max(), level


def test_the_image_shows_the_person_where_the_truth_says(truth):
    quiet = simulated(scanner=replace(SCANNER, noise_hu=0.0, blur_mm=0.01))
    middle = points(truth["vertebrae"][1]).mean(0) - quiet.offset_mm
    z, y, x = (middle[a] + np.arange(-20, 20, 1.0) for a in (2, 1, 0))
    at = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).transpose(2, 1, 0, 3)
    painted = paint(quiet.person.structures, SampleGrid(z, y, x))
    seen = quiet.volume.sample(at + quiet.offset_mm)
    moved = quiet.volume.sample(at + quiet.offset_mm + np.array([0, 0, 3.0]))
    assert np.corrcoef(painted.ravel(), seen.ravel())[0, 1] > 0.9
    assert np.abs(seen - painted).mean() < 0.7 * np.abs(moved - painted).mean()


def test_the_field_has_the_size_and_pixel_asked_for(study):
    geometry = study.volume.geometry
    np.testing.assert_allclose(geometry.voxel_sizes_mm, [2.5, 2.0, 2.0])
    assert geometry.shape[1:] == (55, 55)
    assert study.volume.hu.dtype == np.int16


@pytest.mark.parametrize("compress", [True, False])
def test_a_study_written_as_dicom_reads_back_at_the_same_place(study, tmp_path, compress):
    write_dicom(tmp_path / "study", study.volume, "SIM-1", "20200101", compress=compress)
    assert_same(read_volume(tmp_path / "study"), study.volume)


def test_a_study_written_as_nifti_reads_back_at_the_same_place(study, tmp_path):
    write_nifti(tmp_path / "study.nii.gz", study.volume)
    assert_same(read_volume(tmp_path / "study.nii.gz"), study.volume)


def assert_same(read, written):
    near = written.geometry.corners_mm().mean(0) + np.random.default_rng(0).uniform(-30, 30, (100, 3))
    read, written = read.canonical(), written.canonical()
    np.testing.assert_array_equal(read.hu, written.hu)
    np.testing.assert_allclose(read.geometry.affine, written.geometry.affine, atol=1e-3)
    np.testing.assert_allclose(read.sample(near), written.sample(near), atol=0.5)


def test_every_dicom_image_says_that_it_is_simulated(study, tmp_path):
    write_dicom(tmp_path, study.volume, "SIM-1", "20200101", compress=False)
    for path in tmp_path.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert "SIMULATED" in header.SeriesDescription
        assert "SIMULATED" in header.StudyDescription
        assert header.PatientName == "SIMULATED"
        assert header.PatientID == "SIM-1"


def test_a_nifti_file_says_that_it_is_simulated(study, tmp_path):
    write_nifti(tmp_path / "study.nii.gz", study.volume)
    assert b"SIMULATED" in nibabel.load(tmp_path / "study.nii.gz").header["descrip"].item()


def test_the_same_seed_gives_the_same_voxels(study):
    again = simulated()
    np.testing.assert_array_equal(again.volume.hu, study.volume.hu)
    np.testing.assert_array_equal(again.volume.geometry.affine, study.volume.geometry.affine)
    assert again.truth() == study.truth()
    assert not np.array_equal(simulated(seed=1).offset_mm, study.offset_mm)


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_the_same_study_is_written_as_the_same_bytes(study, tmp_path, kind):
    for folder in ("a", "b"):
        if kind == "dicom":
            write_dicom(tmp_path / folder, study.volume, "SIM-1", "20200101", compress=True)
        else:
            write_nifti(tmp_path / folder / "study.nii.gz", study.volume)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_files_of_different_patients_share_no_uid(study, tmp_path):
    for patient in ("SIM-1", "SIM-2"):
        write_dicom(tmp_path / patient, study.volume, patient, "20200101", compress=False)
    one, other = (pydicom.dcmread(tmp_path / p / "IM0000") for p in ("SIM-1", "SIM-2"))
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[name].value != other[name].value


def test_cohorts_of_two_seeds_stay_apart_in_one_folder(study, tmp_path, monkeypatch):
    monkeypatch.setattr("vfscreen.simulation.cohort.draw_study", lambda seed, index: study)
    for seed in (1, 2):
        simulate_cohort(tmp_path / str(seed), 1, seed, "dicom")
    found = discover(tmp_path)
    assert len({each.study_id for each in found}) == len({each.patient_id for each in found}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["dicom", "nifti"])
def test_a_cohort_is_studies_and_their_truth(tmp_path, file_format):
    simulate_cohort(tmp_path, 2, 7, file_format)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert len(truth) == 2
    for source, entry in truth.items():
        volume = read_volume(tmp_path / source)
        for vertebra in entry["vertebrae"]:
            assert volume.geometry.contains(points(vertebra)).all()


def test_the_sample_holds_a_patient_of_every_kind():
    names = [p.name for p in SAMPLE_PATIENTS]
    assert len(set(names)) == len(names)
    assert {"nifti", "missing_slice", "normal"} < set(names)
