"""The DICOM SR of a study says what the tables say, and each measured DICOM study has one."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_writing import axial, ramp_volume, write_enhanced, write_series
from highdicom.sr import srread
from highdicom.sr.utils import find_content_items
from pydicom.sr.codedict import codes

from vfscreen.errors import InputError
from vfscreen.pipeline import run
from vfscreen.pseudonyms import Pseudonyms
from vfscreen.quality import VERTEBRA_DOUBTS
from vfscreen.readers.dicom_instances import source_images
from vfscreen.report import dicom_sr
from vfscreen.report.dicom_sr import DOUBT, GENANT_GRADE, GENANT_RATIO, GRADES, PLACES, SHAPE, SHAPES, STATUS
from vfscreen.results import StudyRecord
from vfscreen.study import HEIGHTS, KEYPOINTS, Doubt, SourceImages, StudyHeader, StudyResult, Vertebra
from vfscreen.volume import Volume, VolumeGeometry

SAMPLE = Path(__file__).parents[2] / "sample_data"
WEIGHTS = {name: {"sha256": 64 * name[0]} for name in ("localizer", "detector", "refiner")}
IMAGES = SourceImages("1.2.1", "1.2.2", "1.2.840.10008.5.1.4.1.1.2", "1.2.4", ("1.2.5", "1.2.6"), "101500")
HEADER = StudyHeader("P-17", "2020-01-31", "1.2.2")
POINTS = np.random.default_rng(0).uniform(-400, 400, (6, 3))
RESULT = StudyResult(
    HEADER,
    "partial",
    (
        Vertebra(POINTS, np.array([20.0, 15.0, 21.0]), 15 / 21, "moderate", "biconcave", 0.9),
        Vertebra(POINTS, np.array([22.5, 21.0, 22.0]), 21 / 22.5, "normal", "normal", 0.9, doubts=("metal",)),
    ),
    doubts=(Doubt("metal", "1 of 2 vertebrae", partial=True),),
)
RECORD = StudyRecord("1.2.1", "a", None, RESULT, None, HEADER, {})


def made(record: StudyRecord = RECORD, result: StudyResult = RESULT, images: SourceImages = IMAGES) -> bytes:
    return dicom_sr.structured_report(replace(record, result=result), result, images, WEIGHTS)


def read(content: bytes | Path) -> Any:
    return srread(BytesIO(content) if isinstance(content, bytes) else content)


def groups_of(report: Any) -> list[Any]:
    """The measurement groups: the study's, then the vertebrae's."""
    return list(report.content.get_image_measurement_groups())


def evaluated(group: Any, name: Any) -> list[str]:
    return [e.value.meaning for e in group.get_qualitative_evaluations(name)]


def heights_of(group: Any) -> dict[str, Any]:
    """The three heights by place."""
    names = {place: name for name, place in PLACES.items()}
    found = group.get_measurements(codes.DCM.Height)
    return {names[height.finding_sites[0].topographical_modifier]: height for height in found}


# --- content -------------------------------------------------------------------------------------


def test_the_study_has_its_smallest_ratio_grade_status_and_doubts():
    study = groups_of(read(made()))[0]
    (ratio,) = study.get_measurements(GENANT_RATIO)
    assert (ratio.value, ratio.derivation) == (15 / 21, codes.SCT.Minimum)
    assert evaluated(study, GENANT_GRADE) == ["Moderate"]
    assert evaluated(study, STATUS) == ["Too little measured to rule out a fracture"]
    texts = find_content_items(study[0], name=DOUBT)
    assert [text.value for text in texts] == ["metal: 1 of 2 vertebrae"]


def test_each_vertebra_has_heights_with_their_points_ratio_grade_shape_and_doubts():
    report = read(made())
    _, first, second = groups_of(report)
    assert [group.tracking_identifier for group in (first, second)] == ["vertebra 1", "vertebra 2"]
    assert first.tracking_uid != second.tracking_uid
    heights = heights_of(first)
    assert {name: height.value for name, height in heights.items()} == dict(
        zip(HEIGHTS, (20.0, 15.0, 21.0), strict=True)
    )
    for name, height in heights.items():
        assert height.unit == codes.UCUM.Millimeter
        superior, inferior = height.referenced_coordinates
        assert superior.frame_of_reference_uid == "1.2.4"
        assert superior.graphic_type.value == "POINT"
        i = KEYPOINTS.index(f"{name}_superior")
        np.testing.assert_allclose([superior.value[0], inferior.value[0]], POINTS[i : i + 2], atol=1e-4)
    assert evaluated(first, GENANT_GRADE) == ["Moderate"]
    assert evaluated(first, SHAPE) == ["Biconcave"]
    assert evaluated(second, DOUBT) == ["metal"]


def test_it_says_what_measured_it():
    report = read(made())
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.name == "vfscreen"
    (hashes,) = find_content_items(groups_of(report)[1][0], name=codes.DCM.AlgorithmParameters)
    assert all(made["sha256"] in hashes.value for made in WEIGHTS.values())


def test_it_belongs_to_the_study_and_lists_all_images_that_were_measured():
    report = read(made(replace(RECORD, patient_id="of the manifest")))
    assert (report.StudyInstanceUID, report.StudyDate, report.StudyTime) == ("1.2.1", "20200131", "101500")
    assert report.PatientID == "of the manifest"
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.2"
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["1.2.5", "1.2.6"]


def test_a_partial_result_is_a_partial_document():
    assert read(made()).CompletionFlag == "PARTIAL"
    assert read(made(result=replace(RESULT, status="ok"))).CompletionFlag == "COMPLETE"


def test_the_same_result_has_the_same_uids_and_another_one_another_instance():
    one, same = read(made()), read(made())
    other = read(made(result=replace(RESULT, vertebrae=RESULT.vertebrae[:1])))
    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert groups_of(one)[1].tracking_uid == groups_of(same)[1].tracking_uid


def test_every_grade_shape_and_doubt_has_a_code():
    assert set(GRADES) == {"normal", "mild", "moderate", "severe"}
    assert set(SHAPES) == {"normal", "wedge", "biconcave", "crush"}
    for doubt in VERTEBRA_DOUBTS:
        assert len(doubt) <= 16  # letters of a code


def test_texts_in_any_alphabet_are_kept():
    report = read(made(replace(RECORD, patient_id="Пациент 7")))
    assert report.PatientID == "Пациент 7"


# --- a validator that is not ours ----------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed (apt: dicom3tools)")
@pytest.mark.parametrize("status", ["ok", "partial"])
def test_dciodvfy_finds_no_error(tmp_path, status):
    (tmp_path / "sr.dcm").write_bytes(made(result=replace(RESULT, status=status)))
    said = subprocess.run(["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False)
    assert "Comprehensive3DSR" in said.stderr
    lines = [line for line in said.stderr.splitlines() if line.startswith("Error")]
    assert lines == []


# --- from headers --------------------------------------------------------------------------------


def test_a_series_is_its_instances_and_their_frame_of_reference(tmp_path):
    files = write_series(
        tmp_path,
        ramp_volume(axial()),
        FrameOfReferenceUID="1.2.9",
        StudyTime="101500.000",
        SeriesInstanceUID="1.8",
    )
    found = source_images(files)
    assert found == SourceImages(
        pydicom.dcmread(files[0]).StudyInstanceUID,
        "1.8",
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.9",
        tuple(pydicom.dcmread(file).SOPInstanceUID for file in files),
        "101500.000",
    )


def test_an_enhanced_file_is_one_instance(tmp_path):
    path = write_enhanced(
        tmp_path / "a.dcm", ramp_volume(axial()), [-1000.0] * 24, FrameOfReferenceUID="1.2.9"
    )
    found = source_images([path] * 24)
    assert found.instance_uids == (pydicom.dcmread(path).SOPInstanceUID,)
    assert found.frame_of_reference_uid == "1.2.9"


@pytest.mark.parametrize(
    "tags",
    [{}, {"FrameOfReferenceUID": "JANE DOE"}, {"FrameOfReferenceUID": "1.2", "StudyInstanceUID": ""}],
    ids=["absent", "no UID", "no study"],
)
def test_what_cannot_be_referred_to_has_none_and_the_log_says_so(tmp_path, caplog, tags):
    assert source_images(write_series(tmp_path, ramp_volume(axial()), **tags)) is None
    assert "no DICOM SR" in caplog.text
    assert "JANE" not in caplog.text


def test_a_study_time_that_is_none_is_left_out(tmp_path):
    files = write_series(tmp_path, ramp_volume(axial()), FrameOfReferenceUID="1.2.9", StudyTime="JANE DOE")
    assert source_images(files).study_time == ""


# --- a run ---------------------------------------------------------------------------------------


def spine(hu: int = fakes.BONE_HU) -> Volume:
    """A column of bone, as `fakes.write_study` writes it."""
    voxels = np.zeros((40, 30, 30), np.int16)
    voxels[0, 0, 0] = -1000
    voxels[:, 15:21, 12:18] = hu
    affine = np.eye(4)
    affine[:3, :3] = fakes.VOXEL_MM * np.eye(3)[::-1]
    return Volume(voxels, VolumeGeometry(voxels.shape, affine))


def uids(study: str) -> dict[str, str]:
    return {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "FrameOfReferenceUID": "1.2.9"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fractured and a healthy study, one in an enhanced file, one without bone, and one in NIfTI."""
    folder = tmp_path_factory.mktemp("archive")
    write_series(folder / "fractured", spine(fakes.FRACTURED_HU), **uids("1.7.1"))
    write_series(folder / "healthy", spine(), **uids("1.7.2"))
    write_enhanced(folder / "enhanced" / "a.dcm", spine(), [-1024.0] * 40, **uids("1.7.3"))
    write_series(folder / "no_bone", spine(0), **uids("1.7.4"))
    fakes.write_study(folder / "nifti.nii.gz")
    return folder


screened = partial(run, workers=1, models=fakes.fake_models())


@pytest.fixture(scope="module")
def reported(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with reports; tests do not change them."""
    out = tmp_path_factory.mktemp("reported")
    screened(archive, out, dicom_sr=True)
    return out


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "dicom_sr").glob("*"))


def test_each_measured_dicom_study_has_one(reported):
    assert names(reported) == ["1.7.1.dcm", "1.7.2.dcm", "1.7.3.dcm"]


def test_that_of_an_enhanced_file_refers_to_the_file(archive, reported):
    (study,) = read(reported / "dicom_sr" / "1.7.3.dcm").CurrentRequestedProcedureEvidenceSequence
    (image,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    enhanced = pydicom.dcmread(archive / "enhanced" / "a.dcm")
    assert image.ReferencedSOPClassUID == enhanced.SOPClassUID
    assert image.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID


def test_the_tables_are_those_of_a_run_without_reports(archive, reported, tmp_path):
    screened(archive, tmp_path)
    assert not (tmp_path / "dicom_sr").exists()
    for name in ("studies", "vertebrae", "patients"):
        one, other = (pd.read_parquet(out / f"{name}.parquet") for out in (reported, tmp_path))
        seconds = [column for column in one if column.startswith("seconds")]
        pd.testing.assert_frame_equal(one.drop(columns=seconds), other.drop(columns=seconds))


def test_run_json_tells_what_wrote_the_reports(reported):
    assert json.loads((reported / "run.json").read_text())["versions"]["highdicom"] == version("highdicom")


def test_a_run_that_goes_on_adds_those_of_the_new_studies(archive, reported, tmp_path, caplog):
    screened(archive, tmp_path, dicom_sr=True, limit=1)
    assert len(names(tmp_path)) == 1
    screened(archive, tmp_path, dicom_sr=True)
    assert names(tmp_path) == names(reported)
    assert caplog.text.count("Measured studies without a DICOM SR: 1. NIfTI") == 1


def test_a_repeated_run_makes_no_second_report(archive, reported, tmp_path):
    screened(archive / "healthy", tmp_path, dicom_sr=True)
    files = [out / "dicom_sr" / "1.7.2.dcm" for out in (reported, tmp_path)]
    assert len({pydicom.dcmread(file).SOPInstanceUID for file in files}) == 1


def test_asked_for_later_it_is_told_that_finished_studies_get_none(archive, tmp_path, caplog):
    screened(archive / "healthy", tmp_path)
    screened(archive / "healthy", tmp_path, dicom_sr=True)
    assert "Only new studies get a DICOM SR" in caplog.text


def test_a_report_of_an_earlier_result_does_not_stay(archive, reported, tmp_path):
    shutil.copytree(archive, tmp_path / "archive")
    screened(tmp_path / "archive", tmp_path / "out", dicom_sr=True)
    next((tmp_path / "archive" / "healthy").iterdir()).write_bytes(b"")
    write_series(tmp_path / "archive" / "fractured", spine(0), **uids("1.7.1"))
    screened(tmp_path / "archive", tmp_path / "out", dicom_sr=True)
    assert names(tmp_path / "out") == ["1.7.3.dcm"]


def test_fresh_sets_reports_aside(archive, reported, tmp_path):
    out = shutil.copytree(reported, tmp_path / "out")
    screened(archive / "healthy", out, fresh=True)
    assert names(out) == []
    assert len(list(out.glob("set_aside/*/dicom_sr/*.dcm"))) == 3


def test_a_report_that_cannot_be_made_costs_no_row_and_is_told(archive, tmp_path, monkeypatch, caplog):
    def fails(*_: object) -> bytes:
        raise ValueError("JANE DOE")

    monkeypatch.setattr(dicom_sr, "structured_report", fails)
    summary = screened(archive, tmp_path / "out", dicom_sr=True)
    assert summary.measured == 4
    assert names(tmp_path / "out") == []
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert sorted(message.split()[1] for message in told) == ["1.7.1", "1.7.2", "1.7.3"]
    assert "JANE" not in caplog.text


def test_with_pseudonyms_it_is_refused(archive, tmp_path):
    with pytest.raises(InputError, match="pseudonymise"):
        screened(archive, tmp_path / "out", dicom_sr=True, pseudonyms=Pseudonyms(b"0123456789abcdef"))


def test_without_highdicom_it_is_refused_and_told_what_to_install(archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom.sr", None)
    monkeypatch.delitem(sys.modules, "vfscreen.report.dicom_sr")
    with pytest.raises(InputError, match=r"highdicom.*dicom-sr"):
        screened(archive, tmp_path / "out", dicom_sr=True)
    assert not (tmp_path / "out").exists()


def test_a_run_without_reports_does_not_load_highdicom():
    code = "import sys, vfscreen.pipeline, vfscreen.reader_process; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- sample data ---------------------------------------------------------------------------------


def test_numbers_and_points_are_those_of_the_tables(shipped_models, tmp_path):
    run(SAMPLE / "severe_biconcave", tmp_path, models=shipped_models, workers=1, dicom_sr=True)
    study = pd.read_parquet(tmp_path / "studies.parquet").iloc[0]
    vertebrae = pd.read_parquet(tmp_path / "vertebrae.parquet")
    report = read(tmp_path / "dicom_sr" / f"{study.study_id}.dcm")
    assert (report.StudyInstanceUID, report.PatientID) == (study.study_id, study.patient_id)
    of_study, *groups = groups_of(report)
    assert of_study.get_measurements(GENANT_RATIO)[0].value == study.min_genant_ratio
    assert len(groups) == len(vertebrae)
    for group, row in zip(groups, vertebrae.itertuples(), strict=True):
        assert group.tracking_identifier == f"vertebra {row.vertebra}"
        assert group.get_measurements(GENANT_RATIO)[0].value == row.genant_ratio
        assert evaluated(group, GENANT_GRADE) == [row.grade.capitalize()]
        for name, height in heights_of(group).items():
            assert height.value == getattr(row, f"height_{name}_mm")
            for end, point in zip(("superior", "inferior"), height.referenced_coordinates, strict=True):
                expected = [getattr(row, f"{name}_{end}_{axis}_mm") for axis in "xyz"]
                np.testing.assert_allclose(point.value[0], expected, rtol=1e-6)
