"""What `discover` finds: studies, the series of each to screen, and what must not vanish."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from dicom_writing import PRIVATE, damaged, ramp_volume, write_nifti, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian

from vfscreen.discover import discover, index, manifest
from vfscreen.errors import (
    InconsistentGeometry,
    InputError,
    MissingGeometry,
    NoSuitableSeries,
    UnreadableFile,
)
from vfscreen.readers import nifti, read_study
from vfscreen.settings import ReadSettings
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


def test_a_copy_of_a_series_in_several_folders_is_left_out(tmp_path):
    files = write_series(tmp_path / "s" / "a", volume())
    (tmp_path / "s" / "b").mkdir()
    shutil.move(files[3], tmp_path / "s" / "b")
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    assert names(only(discover(tmp_path))) == ["0000.dcm", "0001.dcm", "0002.dcm", "0003.dcm"]


def test_other_images_with_the_same_uids_and_positions_are_no_copy(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, volume(), StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    first, second = discover(tmp_path)
    assert (first.source, first.study_id, first.error) == ("a", "1.2", None)
    assert (second.source, second.study_id, second.patient_id) == ("b", "b", "P-17")
    assert isinstance(second.error, InconsistentGeometry)
    assert "those in a," in str(second.error)


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
    first, second = discover(tmp_path)
    assert (first.patient_id, second.patient_id) == ("A", "B")
    assert first.study_id != second.study_id


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


def test_a_file_without_modality_is_named_and_not_called_cut_off(tmp_path):
    write_series(tmp_path / "a", volume(), Modality=None)
    assert "0000.dcm has no Modality" in str(only(discover(tmp_path)).error)


@pytest.mark.parametrize(("content", "word"), [(b"", "empty"), (bytes(5000), "blank")])
def test_a_slice_that_was_not_written_spoils_its_study(tmp_path, content, word):
    files = write_series(tmp_path / "a", volume(), names=["I1", "I2", "I3", "1.2.840.4"])
    files[3].write_bytes(content)
    study = only(discover(tmp_path))
    assert isinstance(study.error, UnreadableFile)
    assert f"1.2.840.4 is {word}" in str(study.error)


def test_a_folder_of_empty_files_is_a_row(tmp_path):
    write_series(tmp_path / "good", volume())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "IM0001").touch()
    bad, good = discover(tmp_path)
    assert (bad.source, type(bad.error), good.error) == ("bad", UnreadableFile, None)


@pytest.mark.parametrize("name", ["IM0040", "IM40"])
def test_a_file_that_bears_the_name_of_a_slice_but_is_none_spoils_its_study(tmp_path, name):
    write_series(tmp_path / "a", volume(), names=[f"IM{k:04d}" for k in range(4)])
    (tmp_path / "a" / name).write_bytes(bytes(128) + b"DIXM" + b"junk" * 50)
    (tmp_path / "a" / "README").write_text("no slice")
    error = only(discover(tmp_path)).error
    assert isinstance(error, UnreadableFile)
    assert f"1; {name} is named like" in str(error)


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID", "PatientID"])
def test_a_tag_that_every_second_slice_lost_makes_no_halves(tmp_path, tag):
    for path in write_series(tmp_path, volume(40))[::2]:
        dataset = pydicom.dcmread(path)
        del dataset[tag]
        dataset.save_as(path)
    study = only(discover(tmp_path))
    assert (len(study.files), study.patient_id, study.error) == (40, "P-17", None)


def test_an_empty_file_that_is_no_slice_is_ignored(tmp_path):
    write_series(tmp_path / "a", volume())
    write_nifti(tmp_path / "b" / "ct.nii", volume())
    for name in ("a/export.log", "a/notes.TXT", "b/DONE"):
        (tmp_path / name).touch()
    assert [study.error for study in discover(tmp_path)] == [None, None]


@pytest.mark.parametrize("position", [[0, 0], [np.nan, 0, np.nan], [0, 0, np.inf], None])
def test_a_series_without_valid_positions_lacks_geometry(tmp_path, position):
    write_series(tmp_path, volume(), ImagePositionPatient=position)
    with pytest.raises(MissingGeometry, match="ImagePositionPatient"):
        read_study(only(discover(tmp_path)), ReadSettings())


def sound_file(folder: Path, kind: str) -> Path:
    if kind == "NIfTI":
        return write_nifti(folder / "0.nii", volume())
    (path,) = write_series(folder, volume(1))
    if kind == "deflated DICOM":
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["NIfTI", "DICOM", "deflated DICOM"])
def test_no_damaged_byte_ends_the_run(tmp_path, kind):
    write_nifti(tmp_path / "good.nii", volume())
    path = sound_file(tmp_path / "bad", kind)
    for content in damaged(path.read_bytes(), 80, 348 if kind == "NIfTI" else 1000):
        path.write_bytes(content)
        good = discover(tmp_path)[-1]
        assert (good.source, good.error) == ("good.nii", None)


def test_what_no_one_foresaw_in_a_file_is_its_own_fault(tmp_path, monkeypatch):
    def fail(path: Path, *_: object) -> None:
        raise ZeroDivisionError("Jane Doe")

    write_series(tmp_path / "a", volume())
    write_nifti(tmp_path / "b.nii", volume())
    monkeypatch.setattr(index, "read_images", fail)
    monkeypatch.setattr(nifti, "read_geometry", fail)
    for study in discover(tmp_path):
        assert isinstance(study.error, UnreadableFile)
        assert str(study.error).endswith("(ZeroDivisionError)")


def test_no_text_of_a_header_stands_in_a_reason(tmp_path):
    write_series(tmp_path / "a", volume(), Modality="JANE DOE")
    for path in write_series(tmp_path / "b", volume()):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"-300.", b"-JANE").replace(b"-304.", b"-JANE"))
    reasons = " ".join(str(study.error) for study in discover(tmp_path))
    assert "4 another modality" in reasons
    with pytest.raises(MissingGeometry, match="no valid ImagePositionPatient") as caught:
        read_study(discover(tmp_path / "b")[0], ReadSettings())
    assert "JANE" not in reasons + str(caught.value)


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


def test_an_id_does_not_go_over_to_another_study_when_the_archive_grows(tmp_path):
    for name in ["b 1.nii", "b_1.nii"]:
        write_nifti(tmp_path / name, volume())
    before = {study.source: study.study_id for study in discover(tmp_path)}
    write_nifti(tmp_path / "b!1.nii", volume())
    after = {study.source: study.study_id for study in discover(tmp_path)}
    assert len(set(after.values())) == 3
    assert after.items() > before.items()


def test_a_name_that_is_not_utf8_can_be_written_to_a_table(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    write_nifti(Path(folder) / "ct.nii", volume())
    study = only(discover(tmp_path))
    assert study.error is None
    assert study.source.encode() == rb"caf\xe9/ct.nii"


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
    table = write_manifest(
        archive / f"list{suffix}",
        path=["data/p2.nii.gz", "data/p1"],
        study_id=["second", "first"],
        patient_id=["002", "001"],
    )
    found = [(s.source, s.study_id, s.patient_id, s.error) for s in discover(table)]
    assert found == [("data/p1", "first", "001", None), ("data/p2.nii.gz", "second", "002", None)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_needs_only_paths(archive, suffix):
    table = write_manifest(
        archive / f"list{suffix}", path=["data/p1/0001.dcm", str(archive / "data/p2.nii.gz")]
    )
    found = [(s.source, s.study_id, s.patient_id, len(s.files)) for s in discover(table)]
    assert found == [("data/p1", "1.2.1", "P-17", 4), ("data/p2.nii.gz", "data__p2", None, 1)]


def test_numbers_in_a_parquet_manifest_become_text(archive):
    table = write_manifest(archive / "list.parquet", path=["data/p1"], study_id=[17], patient_id=[4])
    study = only(discover(table))
    assert (study.study_id, study.patient_id) == ("17", "4")


def test_numbers_with_gaps_in_a_parquet_manifest_name_no_patient_nan(archive):
    columns = {
        "path": ["data/p1", "data/p2.nii.gz"],
        "study_id": [7.0, float("nan")],
        "patient_id": [float("nan"), 12.0],
    }
    table = archive / "list.parquet"
    pq.write_table(pa.table(columns), table)
    found = [(s.study_id, s.patient_id) for s in discover(table)]
    assert found == [("7", "P-17"), ("data__p2", "12")]


def test_an_id_given_by_a_manifest_is_kept_and_the_other_gives_way(archive):
    table = write_manifest(archive / "list.csv", path=["data/p1", "data/p2.nii.gz"], study_id=[None, "1.2.1"])
    made, given = discover(table)
    assert given.study_id == "1.2.1"
    assert made.study_id.startswith("1.2.1-")


def test_rows_of_the_same_file_have_ids_of_their_own(archive):
    table = write_manifest(archive / "list.csv", path=["data/p2.nii.gz", "data/p2.nii.gz"])
    assert len({study.study_id for study in discover(table)}) == 2


def test_a_path_that_does_not_exist_is_a_row(archive):
    table = write_manifest(
        archive / "list.csv", path=["data/p1", "data/gone", "gone.nii"], study_id=["a", "b", "c"]
    )
    found = {s.study_id: s.error for s in discover(table)}
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
    assert (study.error.code, study.error.status) == ("unreadable_file", "failed")
    assert "2 studies" in str(study.error)


def test_a_packed_archive_beside_the_study_of_a_row_does_not_count(archive):
    (archive / "data" / "p1" / "p1.zip").write_bytes(b"PK")
    study = only(discover(write_manifest(archive / "list.csv", path=["data/p1"])))
    assert (study.study_id, study.error) == ("1.2.1", None)


def test_rows_may_name_files_of_studies_that_share_a_folder(tmp_path, monkeypatch):
    for name in "ab":
        write_series(
            tmp_path / "all", volume(), names=[f"{name}{k}.dcm" for k in range(4)], StudyInstanceUID=name
        )
    listings: list[Path] = []
    listed = manifest.listed
    monkeypatch.setattr(manifest, "listed", lambda path: listings.append(path) or listed(path))
    paths = ["all/b2.dcm", "all/a0.dcm"]
    found = discover(write_manifest(tmp_path / "list.csv", path=paths, patient_id=["B", "A"]))
    assert {(study.study_id, study.patient_id, study.error) for study in found} == {
        ("a", "A", None),
        ("b", "B", None),
    }
    assert listings == [tmp_path / "all"]


def test_a_row_that_names_a_slice_means_its_series(tmp_path):
    uids = {"StudyInstanceUID": "1.2"}
    kernels = {"soft": "B30f", "sharp": "B70f"}
    for name, kernel in kernels.items():
        names_ = [f"{name}{k}.dcm" for k in range(4)]
        write_series(
            tmp_path / "s", volume(), names=names_, SeriesInstanceUID=name, ConvolutionKernel=kernel, **uids
        )
    for name in kernels:
        study = only(discover(write_manifest(tmp_path / "list.csv", path=[f"s/{name}1.dcm"])))
        assert {path.stem[:-1] for path in study.files} == {name}


def test_a_corrected_patient_changes_the_stamp(archive):
    stamps = {
        only(discover(write_manifest(archive / "list.csv", path=["data/p1"], patient_id=[patient]))).stamp
        for patient in ("1", "1", "2")
    }
    assert len(stamps) == 2


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,patient_id\n", "has no rows"),
        ("path,patient_id\ndata/p1,Doe, Jane\n", "row 1 has more cells than columns"),
        ("", "its columns are none"),
    ],
)
def test_a_csv_that_is_not_what_was_meant_is_an_input_error(archive, text, reason):
    (archive / "list.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        discover(archive / "list.csv")


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
    monkeypatch.setattr(index, "PARALLEL_FROM_FILES", 1)
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
