"""`vfscreen check`: what a run would do, from headers alone."""

from __future__ import annotations

from pathlib import Path

import fakes
import numpy as np
import pandas as pd
import pytest
from dicom_writing import PRIVATE, ramp_volume, write_nifti, write_series

from vfscreen.check import SERIES, check
from vfscreen.discover import index
from vfscreen.errors import InputError
from vfscreen.pipeline import run
from vfscreen.pseudonyms import Pseudonyms
from vfscreen.readers import dicom
from vfscreen.settings import ReadSettings

SHARED = Path(__file__).parents[2] / "shared"
AXES = np.column_stack([[0, 0, 3.0], [0, 2, 0], [2, 0, 0]])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    uids = {"StudyInstanceUID": "1.2.1"}
    write_series(folder / "a" / "soft", ramp_volume(AXES), SeriesInstanceUID="1.1", **uids)
    write_series(
        folder / "a" / "bone", ramp_volume(AXES), SeriesInstanceUID="1.2", ConvolutionKernel="BONE", **uids
    )
    write_series(
        folder / "b", ramp_volume(AXES, (5, 10, 12)), StudyInstanceUID="1.2.2", SeriesInstanceUID="2.1"
    )
    write_nifti(folder / "c.nii.gz", ramp_volume(AXES))
    (folder / "d.zip").write_bytes(b"PK")
    return folder


def test_every_series_has_a_row_with_its_verdict_and_reason(archive, tmp_path):
    rows = check(archive, ReadSettings(), tmp_path / "out")
    found = [(row["source"], row["series_uid"], row["verdict"], row["error"]) for row in rows]
    assert found == [
        ("a/soft", "1.1", "screened", None),
        ("a/soft", "1.2", "not_chosen", None),
        ("b", "2.1", "refused", "too_short"),
        ("c.nii.gz", None, "screened", None),
        ("d.zip", None, "refused", "packed_archive"),
    ]
    assert all(row["reason"] for row in rows)
    assert rows[1]["reason"] == "sharper kernel"


def test_the_tables_hold_what_is_returned_and_no_name(archive, tmp_path):
    rows = check(archive, ReadSettings(), tmp_path / "out")
    parquet = pd.read_parquet(tmp_path / "out" / "series.parquet")
    csv = pd.read_csv(tmp_path / "out" / "series.csv")
    assert list(parquet.columns) == list(csv.columns) == SERIES.names
    assert parquet["source"].tolist() == csv["source"].tolist() == [row["source"] for row in rows]
    text = (tmp_path / "out" / "series.csv").read_text()
    assert not [word for word in PRIVATE if word in text]


def test_no_pixel_is_read_and_a_second_time_no_header(archive, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr(dicom, "dcmread", fail)
    first = check(archive, ReadSettings(), tmp_path / "out")
    monkeypatch.setattr(index, "read_images", fail)
    assert check(archive, ReadSettings(), tmp_path / "out") == first


def test_a_series_named_changes_the_verdict(archive):
    rows = check(archive, ReadSettings(), series=["1.2"])
    verdicts = {row["series_uid"]: (row["verdict"], row["reason"]) for row in rows}
    assert verdicts["1.2"][0] == "screened"
    assert verdicts["1.1"] == ("not_chosen", "another is named by --series")


def test_a_study_without_a_suitable_series_shows_what_is_unreadable_too(tmp_path):
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    write_series(tmp_path, ramp_volume(AXES), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **uids)
    (tmp_path / "cut.dcm").write_bytes(b"")
    found = [(row["verdict"], row["error"]) for row in check(tmp_path, ReadSettings())]
    assert found == [("refused", "unreadable_file"), ("unsuitable", None)]


@pytest.mark.parametrize(
    "call", [lambda a, o: check(a, ReadSettings(), o), lambda a, o: run(a, o, fresh=True)]
)
def test_no_name_is_written_beside_pseudonyms(archive, tmp_path, call):
    out = tmp_path / "out"
    run(archive, out, models=fakes.fake_models(), workers=1, pseudonyms=Pseudonyms(b"0123456789abcdef"))
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(InputError, match="pseudonyms"):
        call(archive, out)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_the_real_archive_is_told_series_by_series():
    folder = SHARED / "dicom" / "real_archive"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    rows = check(folder, ReadSettings())
    found = sorted((row["source"], row["verdict"], row["error"] or "") for row in rows)
    assert found == [
        ("GE", "refused", "inconsistent_geometry"),
        ("Philips/S21570/S2010", "refused", "too_short"),
        ("Philips/S21570/S2010", "refused", "too_short"),
        ("Philips/S21570/S2010", "screened", ""),
        ("Philips/S21570/S2010", "unsuitable", ""),
        ("Philips/S21570/S2010", "unsuitable", ""),
        ("Philips/S21610/S3010", "not_chosen", ""),
        ("Philips/S21610/S3010", "screened", ""),
        ("Philips/S21610/S3010", "unsuitable", ""),
        ("Philips/S21610/S3010", "unsuitable", ""),
    ]
