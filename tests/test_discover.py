"""What `discover` finds: studies, the series of each to screen, and what must not vanish."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_writing import PRIVATE, ramp_volume, write_nifti, write_series

from vfscreen import discover as discovery
from vfscreen.discover import discover
from vfscreen.errors import InputError, NoSuitableSeries, UnreadableFile
from vfscreen.study import StudyFiles

SHARED = Path(__file__).parents[2] / "shared"


def volume(slices: int = 4, step_mm: float = 3.0):
    return ramp_volume(np.column_stack([[0, 0, step_mm], [0, 2, 0], [2, 0, 0]]), (slices, 4, 5))


def names(study: StudyFiles) -> list[str]:
    return [path.name for path in study.files]


def only(found: list[StudyFiles]) -> StudyFiles:
    (study,) = found
    return study


def test_an_archive_is_listed_by_source_relative_to_it(tmp_path):
    write_series(tmp_path / "p2" / "ct", volume(), StudyInstanceUID="1.2.2")
    write_series(tmp_path / "p1", volume(), StudyInstanceUID="1.2.1", PatientID="P-1")
    write_nifti(tmp_path / "p3" / "scan.nii.gz", volume())
    write_nifti(tmp_path / "other.nii", volume())
    found = discover(tmp_path)
    assert [s.source for s in found] == ["other.nii", "p1", "p2/ct", "p3/scan.nii.gz"]
    assert [s.study_id for s in found] == ["other", "1.2.1", "1.2.2", "p3__scan"]
    assert [s.patient_id for s in found] == [None, "P-1", "P-17", None]
    assert not any(s.error for s in found)


def test_a_folder_of_one_series_is_named_after_itself(tmp_path):
    write_series(tmp_path / "case", volume())
    assert only(discover(tmp_path / "case")).source == "case"


def test_a_single_nifti_file_is_an_input(tmp_path):
    study = only(discover(write_nifti(tmp_path / "ct.nii.gz", volume())))
    assert (study.source, study.study_id) == ("ct.nii.gz", "ct")


def test_dicom_needs_no_extension_and_other_files_are_ignored(tmp_path):
    write_series(tmp_path, volume(), names=["I10", "I20", "I30", "IM4.IMA"])
    for name in ["README", "notes.txt", "table.csv", "._I10", "._x.dcm", "picture.png"]:
        (tmp_path / name).write_text("not an image")
    assert names(only(discover(tmp_path))) == ["I10", "I20", "I30", "IM4.IMA"]


def test_a_series_may_lie_in_several_folders(tmp_path):
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    files = write_series(tmp_path / "s" / "a", volume(), **uids)
    (tmp_path / "s" / "b").mkdir()
    shutil.move(files[3], tmp_path / "s" / "b")
    study = only(discover(tmp_path))
    assert study.source == "s"
    assert names(study) == ["0000.dcm", "0001.dcm", "0002.dcm", "0003.dcm"]


def test_an_exact_copy_of_a_series_is_screened_once(tmp_path):
    write_series(tmp_path / "a", volume())
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    assert only(discover(tmp_path)).source == "a"


def test_studies_without_uids_are_kept_apart_by_folder(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, volume(), StudyInstanceUID="", SeriesInstanceUID="")
    assert [(s.source, s.study_id, len(s.files)) for s in discover(tmp_path)] == [
        ("a", "a", 4),
        ("b", "b", 4),
    ]


def test_patients_who_share_a_study_uid_stay_two_studies(tmp_path):
    for patient in ("A", "B"):
        write_series(tmp_path / patient, volume(), StudyInstanceUID="1.2", PatientID=patient)
    assert [(s.study_id, s.patient_id) for s in discover(tmp_path)] == [("1.2", "A"), ("1.2-2", "B")]


def test_a_link_to_a_folder_is_followed_and_a_loop_ends(tmp_path):
    write_series(tmp_path / "disk", volume())
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "p1").symlink_to(tmp_path / "disk")
    (tmp_path / "archive" / "loop").symlink_to(tmp_path / "archive")
    assert only(discover(tmp_path / "archive")).source == "p1"


SERIES = {  # what makes the one called "wanted" better than the other
    "not a localizer": ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    "not a reformat": ({}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "slices": 50}),
    "not another modality": ({}, {"Modality": "PT", "slices": 50}),
    "not coronal": ({}, {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "slices": 50}),
    "longer": ({"slices": 40, "step_mm": 5.0}, {"slices": 40, "step_mm": 2.0}),
    "thinner": ({"slices": 40, "step_mm": 2.0}, {"slices": 16, "step_mm": 5.0}),
    "softer": ({"ConvolutionKernel": "STANDARD"}, {"ConvolutionKernel": "LUNG"}),
    "softer, by number": ({"ConvolutionKernel": ["Br36f", "3"]}, {"ConvolutionKernel": ["Bl57d", "3"]}),
    "softer, though a little thicker": (
        {"slices": 40, "step_mm": 1.5, "ConvolutionKernel": "B30f"},
        {"slices": 60, "step_mm": 1.0, "ConvolutionKernel": "B60f"},
    ),
    "not scanner data": ({}, {"SOPClassUID": "1.3.12.2.1107.5.9.1", "Rows": None, "slices": 50}),
    "with positions": ({}, {"ImagePositionPatient": None}),
}


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("better", SERIES)
def test_the_series_screened_is(tmp_path, better, swap):
    for number, (name, tags) in enumerate(zip(("wanted", "other"), SERIES[better], strict=True)):
        grid = {key: tags[key] for key in ("slices", "step_mm") if key in tags}
        headers = {key: value for key, value in tags.items() if key not in grid}
        uid = f"1.3.{2 - number if swap else number}"
        write_series(
            tmp_path / name, volume(**grid), StudyInstanceUID="1.2", SeriesInstanceUID=uid, **headers
        )
    study = only(discover(tmp_path))
    assert study.error is None
    assert study.source == "wanted"


def test_a_study_without_a_suitable_series_says_what_it_holds(tmp_path):
    write_series(
        tmp_path / "a", volume(1), StudyInstanceUID="1.2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    write_series(
        tmp_path / "b", volume(3), StudyInstanceUID="1.2", Modality="SR", SeriesDescription="DOE^JANE"
    )
    study = only(discover(tmp_path))
    assert isinstance(study.error, NoSuitableSeries)
    assert "3 SR, 1 localizer" in str(study.error)
    assert not [word for word in PRIVATE if word in repr(study).upper()]


def test_a_derived_image_within_the_series_is_left_out(tmp_path):
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    write_series(tmp_path, volume(), **uids)
    write_series(tmp_path, volume(1), names=["dose.dcm"], ImageType=["DERIVED", "SECONDARY"], **uids)
    assert "dose.dcm" not in names(only(discover(tmp_path)))


# --- what cannot be read must not vanish ------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x00" * 128 + b"DICM" + b"\xff" * 40])
def test_a_folder_of_unreadable_dicom_is_one_row(tmp_path, content):
    write_series(tmp_path / "good", volume())
    (tmp_path / "bad").mkdir()
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "bad" / name).write_bytes(content)
    bad, good = discover(tmp_path)
    assert (bad.source, bad.study_id) == ("bad", "bad")
    assert isinstance(bad.error, UnreadableFile)
    assert "1.dcm" in str(bad.error)
    assert good.error is None


def test_an_unreadable_slice_spoils_its_study_and_is_named(tmp_path):
    files = write_series(tmp_path / "a", volume())
    files[2].write_bytes(b"")
    study = only(discover(tmp_path))
    assert isinstance(study.error, UnreadableFile)
    assert "0002.dcm" in str(study.error)


def test_a_header_cut_off_is_unreadable(tmp_path):
    files = write_series(tmp_path / "a", volume())
    files[2].write_bytes(files[2].read_bytes()[:500])
    assert "0002.dcm" in str(only(discover(tmp_path)).error)


def test_in_a_folder_of_many_studies_an_unreadable_file_is_a_row_of_its_own(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / "all", volume(), names=[f"{name}{k}.dcm" for k in range(4)])
    (tmp_path / "all" / "broken.dcm").write_bytes(b"")
    errors = [type(study.error) for study in discover(tmp_path)]
    assert sorted(errors, key=str) == [type(None), type(None), UnreadableFile]


def test_an_unreadable_nifti_file_is_a_row(tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(b"no gzip")
    study = only(discover(tmp_path))
    assert study.source == "ct.nii.gz"
    assert isinstance(study.error, UnreadableFile)


def test_a_folder_that_cannot_be_listed_is_a_row(tmp_path, monkeypatch):
    write_series(tmp_path / "a", volume())
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    good, locked = discover(tmp_path)
    assert good.error is None
    assert (locked.source, str(locked.error).endswith("Permission denied")) == ("locked", True)


# --- names ------------------------------------------------------------------------------------------


def test_study_ids_are_unique_and_safe_as_file_names(tmp_path):
    for name in [
        "a/b.nii",
        "a__b.nii",
        "a/b.nii.gz",
        "с пробелом/µ?.nii",
        f"{'long' * 40}.nii",
        f"{'long' * 41}.nii",
    ]:
        write_nifti(tmp_path / name, volume())
    ids = [study.study_id for study in discover(tmp_path)]
    assert len(set(ids)) == 6
    for study_id in ids:
        (tmp_path / f"{study_id}.png").touch()
        assert (tmp_path / f"{study_id}.png").parent == tmp_path


def test_a_study_uid_cannot_lead_out_of_the_results(tmp_path):
    write_series(tmp_path, volume(), StudyInstanceUID="../../x")
    assert "/" not in only(discover(tmp_path)).study_id


# --- manifests --------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path) -> Path:
    write_series(tmp_path / "data" / "p1", volume(), StudyInstanceUID="1.2.1")
    write_nifti(tmp_path / "data" / "p2.nii.gz", volume())
    return tmp_path


def write_manifest(file: Path, /, **columns: list[object]) -> Path:
    table = pd.DataFrame(columns)
    table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_names_studies_and_patients(archive, suffix):
    manifest = write_manifest(
        archive / f"list{suffix}",
        path=["data/p2.nii.gz", "data/p1"],
        study_id=["second", "first"],
        patient_id=["002", "001"],
    )
    found = [(s.source, s.study_id, s.patient_id, s.error) for s in discover(manifest)]
    assert found == [("data/p1", "first", "001", None), ("data/p2.nii.gz", "second", "002", None)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_needs_only_paths(archive, suffix):
    manifest = write_manifest(
        archive / f"list{suffix}", path=["data/p1/0001.dcm", str(archive / "data/p2.nii.gz")]
    )
    found = [(s.source, s.study_id, s.patient_id, len(s.files)) for s in discover(manifest)]
    assert found == [("data/p1", "1.2.1", "P-17", 4), ("data/p2.nii.gz", "data__p2", None, 1)]


def test_numbers_in_a_parquet_manifest_become_text(archive):
    manifest = write_manifest(archive / "list.parquet", path=["data/p1"], study_id=[17], patient_id=[4])
    study = only(discover(manifest))
    assert (study.study_id, study.patient_id) == ("17", "4")


def test_a_path_that_does_not_exist_is_a_row(archive):
    manifest = write_manifest(
        archive / "list.csv", path=["data/p1", "data/gone", "gone.nii"], study_id=["a", "b", "c"]
    )
    found = {s.study_id: s.error for s in discover(manifest)}
    assert found["a"] is None
    assert isinstance(found["b"], UnreadableFile)
    assert isinstance(found["c"], UnreadableFile)
    assert "does not exist" in str(found["b"])


def test_a_path_may_lead_out_of_the_manifest_folder(archive):
    (archive / "lists").mkdir()
    study = only(discover(write_manifest(archive / "lists" / "list.csv", path=["../data/p2.nii.gz"])))
    assert (study.source, study.error) == ("../data/p2.nii.gz", None)


def test_a_row_with_several_studies_is_refused_for_itself(archive):
    study = only(discover(write_manifest(archive / "list.csv", path=["data"])))
    assert isinstance(study.error, NoSuitableSeries)
    assert "2 studies" in str(study.error)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"file": ["data/p1"]}, "no column path; its columns are file"),
        ({"path": ["data/p1", "data/p2.nii.gz"], "study_id": ["a", "a"]}, "more than one row: a"),
        ({"path": ["data/p1"], "study_id": ["../a"]}, "cannot name a file"),
        ({"path": ["data/p1", None], "study_id": ["a", "b"]}, "row 2 has no path"),
    ],
)
def test_a_wrong_manifest_is_an_input_error(archive, columns, reason):
    with pytest.raises(InputError, match=reason):
        discover(write_manifest(archive / "list.csv", **columns))


def test_a_manifest_that_is_no_table_is_an_input_error(tmp_path):
    (tmp_path / "list.parquet").write_bytes(b"text")
    with pytest.raises(InputError, match=r"list\.parquet"):
        discover(tmp_path / "list.parquet")


@pytest.mark.parametrize("name", ["gone", "empty", "slice.dcm"])
def test_an_input_that_is_no_archive_is_an_input_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README").write_text("nothing here")
    (tmp_path / "slice.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=name):
        discover(tmp_path / name)


def test_many_files_are_read_by_several_processes_with_the_same_result(tmp_path, monkeypatch):
    for patient in range(3):
        write_series(tmp_path / f"p{patient}", volume())
    alone = discover(tmp_path)
    monkeypatch.setattr(discovery, "PARALLEL_FROM_FILES", 1)
    assert discover(tmp_path) == alone


# --- real files, where the checkout has them --------------------------------------------------------


def test_the_real_archive_gives_its_axial_series():
    folder = SHARED / "dicom" / "real_archive"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    assert [(s.source, len(s.files), s.error) for s in discover(folder)] == [
        ("GE", 28, None),
        ("Philips/S21570/S2010", 28, None),
        ("Philips/S21610/S3010", 58, None),
    ]


def test_the_real_ct_have_the_sources_that_their_score_expects():
    if not (SHARED / "ct").exists():
        pytest.skip(f"{SHARED / 'ct'} is not here")
    assert [s.source for s in discover(SHARED / "ct")] == [
        "abdomen_pelvis.nii.gz",
        "jpeg2000_slab",
        "lung_crop_1",
        "lung_crop_2",
        "lung_whole_5mm.nii.gz",
        "right_lung_2mm5.nii.gz",
        "thoracic_angio.nii.gz",
    ]
