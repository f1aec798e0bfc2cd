"""A name planted wherever headers have room for text is in no result, whatever becomes of the study.

What results show by design is not planted: PatientID, StudyInstanceUID, SeriesInstanceUID, and the names
of files and folders.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
from dicom_writing import axial, ramp_volume, write_series
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from vfscreen.discover import discover
from vfscreen.pseudonyms import Pseudonyms

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, of what is planted
SAMPLE = Path(__file__).parents[1] / "sample_data"
GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040)
PLANTED = {
    **dict.fromkeys(("PN", "LO", "LT", "SH", "ST", "UC", "UT", "UR"), "DOE^JANE 19500101"),
    **dict.fromkeys(("AE", "CS"), "DOE_JANE"),
    **{"AS": "JANE", "DA": "19500101", "DT": "19500101120000", "TM": "195001.01"},
}
"""By VR, in its own form as far as a name can have it."""
NEEDED = (
    *("Modality", "ImageType", "PhotometricInterpretation"),
    *("RescaleType", "PatientID", "StudyDate", "SpecificCharacterSet"),
)
"""Text without which a study is not read, or which results show."""
ONE_BY_ONE = (
    *("Modality", "ImageType", "PhotometricInterpretation", "SpecificCharacterSet", "StudyDate", "StudyTime"),
    *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "ConvolutionKernel", "PatientPosition"),
    *("NumberOfFrames", "InstanceNumber", "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt"),
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "SliceLocation", "PixelAspectRatio", "RescaleType"),
    *("TransferSyntaxUID", "MediaStorageSOPClassUID", "ImplementationClassUID"),
)
SAID = re.compile(r"DOE(?!S)|JANE|19500101|1950-01-01", re.IGNORECASE)
"""In texts."""
HELD = re.compile(rb"DOE\W?JANE|JANE\W?DOE|19500101|1950-01-01", re.IGNORECASE)
"""In bytes, in which three letters stand by chance."""


def vfscreen(command: str, archive: Path, out: Path, *options: object, codes: tuple[int, ...] = (0,)) -> str:
    """What the installed command says on the terminal."""
    call = [Path(sys.executable).parent / "vfscreen", command, archive, "--out", out, *options]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stderr
    return f"{done.stdout}\n{done.stderr}"


# --- planting ------------------------------------------------------------------------------------


def raw(tag: int, text: str, vr: str | None = None) -> RawDataElement:
    """An element with this text whatever its VR, as nobody's library would write it."""
    value = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(Tag(tag), vr or dictionary_VR(tag), len(value), value, 0, False, True)


@cache
def everywhere(valid: bool) -> tuple[RawDataElement, ...]:
    """A name in each text element of the standard's dictionary: in its own form, or as plain text."""
    return tuple(
        raw(tag, PLANTED[vr] if valid else "JANE DOE", vr)
        for tag, (vr, *_, keyword) in DicomDictionary.items()
        if tag >> 16 in GROUPS and vr in PLANTED and keyword not in NEEDED
    )


def plant(dataset: pydicom.FileDataset, valid: bool) -> None:
    for element in everywhere(valid):
        dataset[element.tag] = element
    item = Dataset()
    item.PatientName, item.PatientBirthDate, item.PatientComments = "DOE^JANE", "19500101", "JANE DOE"
    for keyword in ("ReferencedPatientSequence", "RequestAttributesSequence", "OtherPatientIDsSequence"):
        setattr(dataset, keyword, [item])
    private = dataset.private_block(0x0009, "JANE DOE", create=True)
    private.add_new(0x01, "LO", "DOE^JANE")
    private.add_new(0x02, "UN", b"DOE^JANE")
    private.add_new(0x03, "SQ", [item])
    dataset[0x60000022] = raw(0x60000022, "DOE^JANE", "LO")
    dataset[0xFFFCFFFC] = raw(0xFFFCFFFC, "DOE^JANE", "OB")
    dataset.preamble = b"DOE^JANE".ljust(128, b" ")
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = meta.ImplementationVersionName = "DOE^JANE"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3", b"DOE^JANE"


def planted_copy(source: Path, folder: Path, *, valid: bool, n_slices: int | None = None) -> list[Path]:
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    for path in sorted(source.iterdir())[:n_slices]:
        dataset = pydicom.dcmread(path)
        plant(dataset, valid)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.save_as(folder / path.name)
    return sorted(folder.iterdir())


def with_text(path: Path, keyword: str, text: str) -> None:
    """The file with a text in one element, which may be one of numbers or of the file meta group."""
    dataset = pydicom.dcmread(path)
    tag = tag_for_keyword(keyword)
    assert tag is not None
    if tag >> 16 != 2:
        dataset[tag] = raw(tag, text)
        dataset.save_as(path)
        return
    setattr(dataset.file_meta, keyword, "1.2.3.4.5.6")  # as long as the text
    dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"1.2.3.4.5.6", text.encode().ljust(11), 1))


def small_study(folder: Path, **tags: object) -> list[Path]:
    return write_series(folder, ramp_volume(axial()), StudyDescription="DOE^JANE", **tags)


def studies_with_one_text(archive: Path) -> None:
    """Of each element a study that has a text there in all its files, and one that has it in one file."""
    for keyword in ONE_BY_ONE:
        for name, where in (("all", slice(None)), ("one", slice(5, 6))):
            for path in small_study(archive / f"{keyword}_{name}")[where]:
                with_text(path, keyword, "DOE^JANE")


def broken_studies(archive: Path) -> None:
    small_study(archive / "gap")[9].unlink()
    short = small_study(archive / "short")[5]
    short.write_bytes(short.read_bytes()[:-50])
    cut = small_study(archive / "cut")[5]
    cut.write_bytes(cut.read_bytes()[:3000])
    shutil.copy(small_study(archive / "doubled")[5], archive / "doubled" / "again.dcm")
    pixels = planted_copy(SAMPLE / "normal", archive / "pixels", valid=True, n_slices=40)[20]
    dataset = pydicom.dcmread(pixels)
    dataset.PixelData = encapsulate([b"DOE^JANE" * 50])
    dataset.save_as(pixels)
    small_study(archive / "report", Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    small_study(archive / "frames", NumberOfFrames="2")
    small_study(archive / "coloured", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    small_study(archive / "unscaled", RescaleIntercept=None)
    small_study(archive / "unplaced", ImagePositionPatient=None)
    texts = archive / "texts"
    texts.mkdir()
    for name in ("a.dcm", "b", "c.txt", "d.zip", "e.nii", "f.nii.gz", "DICOMDIR"):
        (texts / name).write_bytes(b"DOE^JANE 19500101 " * 20)


def nifti_files(folder: Path) -> None:
    """An image that is read, and others with a fault in their header; each names a person."""
    folder.mkdir()
    image = nibabel.load(SAMPLE / "nifti.nii.gz")
    header = image.header
    header["descrip"] = b"DOE^JANE 19500101"
    for field in ("aux_file", "intent_name", "db_name", "data_type"):
        header[field] = b"DOE^JANE"
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE 19500101"))
    image.to_filename(folder / "whole.nii.gz")
    content = gzip.decompress((folder / "whole.nii.gz").read_bytes())
    (folder / "truncated.nii").write_bytes(content[:5000])
    faults = {"magic": b"DOE", "dim": 7, "scl_slope": np.nan, "datatype": 77, "sform_code": 0}
    for field, value in faults.items():
        fields = nibabel.Nifti1Header(content[:348], check=False)
        fields[field] = value
        (folder / f"{field}.nii").write_bytes(fields.binaryblock + content[348:9000])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted") / "archive"
    planted_copy(SAMPLE / "normal", root / "in_form", valid=True)
    planted_copy(SAMPLE / "severe_biconcave", root / "plain_text", valid=False)
    studies_with_one_text(root)
    broken_studies(root)
    nifti_files(root / "nifti")
    return root


# --- looking -------------------------------------------------------------------------------------


def texts_of(path: Path) -> Iterator[str]:
    """Everything that a file says, unpacked."""
    start = path.read_bytes()[:16]
    if path.suffix == ".parquet":
        yield str(pq.read_table(path).to_pylist())
        yield f"{pq.read_metadata(path).to_dict()} {pq.read_metadata(path).metadata} {pq.read_schema(path)}"
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
            yield f"{picture.info} {dict(picture.getexif())}"
    elif path.suffix == ".dcm":
        yield str(pydicom.dcmread(path))
    elif path.suffix == ".xlsx":
        with zipfile.ZipFile(path) as book:
            yield from (unpacked(book.read(name)) for name in book.namelist() if not name.endswith(".png"))
    elif start.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(path)) as database:
            yield "\n".join(database.iterdump())
            for (table,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall():
                yield from (
                    unpacked(cell) for row in database.execute(f"SELECT * FROM {table}") for cell in row
                )
    else:
        yield path.read_text(encoding="utf-8", errors="backslashreplace")


def unpacked(cell: object) -> str:
    """A cell of a database as text; the index keeps its rows compressed."""
    if isinstance(cell, bytes):
        with suppress(zlib.error):
            cell = zlib.decompress(cell)
        return cell.decode("utf-8", "backslashreplace")
    return str(cell)


def files_that_say(out: Path, said: re.Pattern[str], held: re.Pattern[bytes]) -> list[str]:
    """Where in a folder something is found: names, contents, unpacked contents."""
    found = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        places = {"name": name, **{f"text {n}": text for n, text in enumerate(texts_of(path))}}
        for place, text in places.items():
            found += [f"{name}, {place}: {around(hit)}" for hit in said.finditer(text)]
        found += [f"{name}: {hit.group()!r}" for hit in held.finditer(path.read_bytes())]
    return found


def around(hit: re.Match[str]) -> str:
    return hit.string[max(0, hit.start() - 80) : hit.end() + 20]


@pytest.fixture(scope="module")
def run(archive: Path, tmp_path_factory: pytest.TempPathFactory, shipped_models: Any) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out") / "results"
    return out, vfscreen("run", archive, out, "--workers", "1", "--thumbnails", "all", "--dicom-sr")


def test_what_is_planted_is_in_the_archive_and_does_not_keep_it_from_being_read(archive, run):
    for name, word in (("in_form", b"DOE"), ("plain_text", b"JANE DOE")):
        assert next((archive / name).iterdir()).read_bytes().count(word) > 500
    studies = pd.read_parquet(run[0] / "studies.parquet").set_index("source")
    assert list(studies.status[["in_form", "plain_text", "nifti/whole.nii.gz"]]) == ["ok"] * 3
    assert len(list((run[0] / "thumbnails").iterdir())) >= 3
    assert len(list((run[0] / "dicom_sr").iterdir())) >= 2
    assert {"unreadable_file", "inconsistent_geometry", "missing_geometry", "no_suitable_series"} <= set(
        studies.error.dropna()
    )


def test_no_file_of_the_results_says_a_name_or_a_birth_date(run):
    assert files_that_say(run[0], SAID, HELD) == []


def test_a_dicom_sr_has_no_more_of_the_person_than_the_tables(run):
    empty = (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
    )
    for path in (run[0] / "dicom_sr").iterdir():
        report = pydicom.dcmread(path)
        assert [keyword for keyword in empty if report[keyword].value] == []
        assert "InstitutionName" not in report


def test_the_terminal_says_no_name_and_no_birth_date(run):
    assert [around(hit) for hit in SAID.finditer(run[1])] == []


def test_what_check_lists_says_no_name_and_no_birth_date(archive, tmp_path):
    said = vfscreen("check", archive, tmp_path / "listed")
    assert files_that_say(tmp_path / "listed", SAID, HELD) == []
    assert [around(hit) for hit in SAID.finditer(said)] == []


# --- pseudonyms ----------------------------------------------------------------------------------

UIDS = {"StudyInstanceUID": "1.2.826.4711.8", "SeriesInstanceUID": "1.2.826.4711.9"}
RAW = ("PAT-4711", *UIDS.values(), "2020-01-31", "20200131", "ward_seven", "bed_twelve", "scan_of_p4711")
"""Patient, UIDs, date, and names of folders and files in the archive below."""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that is flagged, one that is broken, and one in NIfTI."""
    root = tmp_path_factory.mktemp("named") / "archive"
    folder = root / "ward_seven" / "bed_twelve"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted((SAMPLE / "severe_biconcave").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.StudyDate = "PAT-4711", "20200131"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UIDS.values()
        dataset.save_as(folder / f"scan_of_p4711_{number}")
    broken = write_series(root / "ward_seven" / "bed_twelve_gap", ramp_volume(axial()), PatientID="PAT-4711")
    broken[9].unlink()
    broken[5].write_bytes(broken[5].read_bytes()[:-50])
    shutil.copy(SAMPLE / "nifti.nii.gz", root / "ward_seven" / "scan_of_p4711.nii.gz")
    return root


@pytest.fixture(scope="module")
def pseudonymous(hospital: Path, tmp_path_factory: pytest.TempPathFactory, shipped_models: Any) -> list[Any]:
    """The result folder, and what two calls of the same command said."""
    folder = tmp_path_factory.mktemp("pseudonymous")
    (folder / "key.txt").write_text("0123456789abcdef0123456789abcdef\n")
    options = ("--pseudonymise", folder / "key.txt", "--thumbnails", "all", "--workers", "1")
    return [folder / "results", *(vfscreen("run", hospital, folder / "results", *options) for _ in range(2))]


RAW_SAID = re.compile("|".join(map(re.escape, RAW)), re.IGNORECASE)
RAW_HELD = re.compile(RAW_SAID.pattern.encode(), re.IGNORECASE)


def test_pseudonymised_results_hold_no_name_of_the_archive(pseudonymous):
    assert files_that_say(pseudonymous[0], RAW_SAID, RAW_HELD) == []
    assert [around(hit) for text in pseudonymous[1:] for hit in RAW_SAID.finditer(text)] == []


def test_pseudonymised_results_do_not_lie_beside_names(hospital, pseudonymous, tmp_path):
    """What `check` and a run without pseudonyms left in the folder is away, or the run is refused."""
    small, out = hospital / "ward_seven" / "bed_twelve_gap", tmp_path / "results"
    vfscreen("check", small, out, codes=(0, 1))
    vfscreen("run", small, out, "--workers", "1", codes=(1,))
    options = ("--fresh", "--pseudonymise", pseudonymous[0].parent / "key.txt")
    said = vfscreen("run", small, out, "--workers", "1", *options, codes=(1, 2))
    if "another folder" not in said:
        assert files_that_say(out, re.compile("PAT-4711|20200131|2020-01-31"), re.compile(b"PAT-4711")) == []


def test_pseudonymised_results_hold_no_digest_that_the_archive_gives_without_the_key(pseudonymous, hospital):
    stamps = [study.stamp for study in discover(hospital)]
    said = re.compile("|".join(stamp for stamp in stamps if stamp))
    assert files_that_say(pseudonymous[0], said, re.compile(said.pattern.encode())) == []


def test_pseudonymised_results_are_the_key_holders(pseudonymous):
    pseudonyms = Pseudonyms.from_file(pseudonymous[0].parent / "key.txt")
    studies = pd.read_parquet(pseudonymous[0] / "studies.parquet").set_index("study_id")
    assert len(studies) == 3
    row = studies.loc[pseudonyms.study("1.2.826.4711.8")]
    assert row.flagged is True
    assert row.patient_id == pseudonyms.patient("PAT-4711")
    assert str(row.study_date) == pseudonyms.date("2020-01-31", "PAT-4711")
    assert row.source == pseudonyms.source("ward_seven/bed_twelve")
    assert pseudonyms.key_digest in (pseudonymous[0] / "run.json").read_text()


def test_a_second_call_with_the_same_key_screens_nothing_again(pseudonymous):
    assert "3 new" in pseudonymous[1]
    assert "0 new" in pseudonymous[2]
