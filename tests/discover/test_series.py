"""Which series of a study is screened, and how images that are mixed in one series are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_writing import ramp_volume, write_series

from vfscreen.discover import FoundStudy, survey
from vfscreen.discover.series import verdicts
from vfscreen.errors import InconsistentGeometry, InputError, NoSuitableSeries
from vfscreen.volume import Volume

UIDS = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"}


def volume(slices: int = 40, step_mm: float = 3.0) -> Volume:
    return ramp_volume(np.column_stack([[0, 0, step_mm], [0, 2, 0], [2, 0, 0]]), (slices, 4, 5))


def write(folder: Path, name: str, grid: Volume | None = None, **tags: object) -> list[Path]:
    grid = grid or volume()
    names = [f"{name}{k:03d}" for k in range(len(grid.hu))]
    return write_series(folder, grid, names=names, **{**UIDS, **tags})


def found_in(folder: Path, **options: object) -> FoundStudy:
    (study,) = survey(folder, **options)
    return study


def prefixes(found: FoundStudy) -> set[str]:
    return {path.name[:-3] for path in found.study.files}


MIXED = {
    "temporal positions": ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
    "heart phases": ({"NominalPercentageOfCardiacPhase": 40}, {"NominalPercentageOfCardiacPhase": 75}),
    "trigger times": ({"TriggerTime": 300}, {"TriggerTime": 700}),
    "acquisitions": ({"AcquisitionNumber": 2}, {"AcquisitionNumber": 10}),
    "acquisition times": ({"AcquisitionTime": "101010"}, {"AcquisitionTime": "101020"}),
    "further words of the image type": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "TUBE B"]},
    ),
}


@pytest.mark.parametrize("what", MIXED)
def test_of_images_mixed_in_one_series_one_part_is_screened(tmp_path, what):
    first, second = MIXED[what]
    write(tmp_path, "second", **second)
    write(tmp_path, "first", **first)
    found = found_in(tmp_path)
    assert found.study.error is None
    assert prefixes(found) == {"first"}
    assert [one.phase for one in found.series] == [1, 2]
    assert "another phase" in found.study.choice


SPLIT = {
    "a sharp kernel": ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
    "another matrix": ({}, {"grid": ramp_volume(np.diag([3.0, 2.0, 2.0])[::-1], (30, 6, 7))}),
    "another orientation": ({}, {"ImageOrientationPatient": [0, 1, 0, -1, 0, 0], "slices": 20}),
    "a scout": ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "slices": 2}),
    "a projection": ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "MIP"]}),
}


@pytest.mark.parametrize("what", SPLIT)
def test_what_does_not_belong_to_the_series_is_left_out(tmp_path, what):
    wanted, other = SPLIT[what]
    other = dict(other)
    grid = other.pop("grid", None) or volume(other.pop("slices", 40))
    write(tmp_path, "other", grid, **other)
    write(tmp_path, "wanted", **wanted)
    found = found_in(tmp_path)
    assert found.study.error is None
    assert prefixes(found) == {"wanted"}


def test_directions_that_differ_by_rounding_are_one_series(tmp_path):
    files = write(tmp_path, "a")
    for k, path in enumerate(files):
        path.write_bytes(path.read_bytes().replace(b"1.00000000", b"0.9999999%d" % (k % 3)))
    assert len(found_in(tmp_path).study.files) == 40


def test_images_at_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    found = found_in(tmp_path)
    assert isinstance(found.chosen.error, InconsistentGeometry)
    assert [v.name for v in verdicts(found.series, found.chosen)] == ["refused"]


def test_crumbs_are_no_phases(tmp_path):
    write(tmp_path, "a", AcquisitionNumber=1)
    for path in write(tmp_path, "b", AcquisitionNumber=2)[3:]:
        path.unlink()
    assert isinstance(found_in(tmp_path).chosen.error, InconsistentGeometry)


def test_acquisitions_that_cover_one_place_each_are_one_series(tmp_path):
    for k, path in enumerate(write(tmp_path, "a")):
        path.write_bytes(path.read_bytes())
        write_series(
            tmp_path / "s",
            _one(k),
            names=[f"{k:03d}"],
            StudyInstanceUID="1.3",
            SeriesInstanceUID="1.3.1",
            AcquisitionNumber=k,
        )
    assert len(found_in(tmp_path / "s").study.files) == 40


def _one(k: int) -> Volume:
    whole = volume()
    affine = whole.geometry.affine.copy()
    affine[:3, 3] += k * affine[:3, 0]
    return ramp_volume(affine[:3, :3], (1, 4, 5), affine[:3, 3] + affine[:3, :3] @ [0, 1.5, 2])


def test_a_broken_series_gives_way_to_a_sound_one(tmp_path):
    for path in write(tmp_path, "thin", volume(120, 1.0))[40:47]:
        path.unlink()
    write(tmp_path, "thick", volume(24, 5.0), SeriesInstanceUID="1.2.2")
    found = found_in(tmp_path)
    assert prefixes(found) == {"thick"}
    assert "1 x inconsistent_geometry" in found.study.choice


def test_an_even_series_goes_before_one_with_a_slice_missing(tmp_path):
    write(tmp_path, "gap", volume(60, 2.0))[30].unlink()
    write(tmp_path, "even", volume(60, 2.0), SeriesInstanceUID="1.2.2")
    found = found_in(tmp_path)
    assert prefixes(found) == {"even"}
    assert [v.reason for v in verdicts(found.series, found.chosen)][1] == "unevenly spaced"


def test_the_choice_tells_what_was_taken_and_why_the_others_were_not(tmp_path):
    write(tmp_path, "soft", volume(160, 1.0))
    write(tmp_path, "bone", volume(160, 1.0), SeriesInstanceUID="1.2.2", ConvolutionKernel="BONE")
    write(tmp_path, "thick", volume(32, 5.0), SeriesInstanceUID="1.2.3")
    write(tmp_path, "scout", volume(1), SeriesInstanceUID="1.2.4", ImageType=["ORIGINAL", "PRIMARY", "SCOUT"])
    assert found_in(tmp_path).study.choice == (
        "of 3 axial original series: 160 mm, slices 1.00 mm apart, soft kernel; "
        "others: 1 x localizer, 1 x sharper kernel, 1 x thicker steps (5.0 mm)"
    )


def test_a_series_named_is_screened_even_if_derived(tmp_path):
    write(tmp_path, "rule")
    write(tmp_path, "named", SeriesInstanceUID="1.2.2", ImageType=["DERIVED", "SECONDARY", "MPR"])
    found = found_in(tmp_path, series=["1.2.2"])
    assert prefixes(found) == {"named"}
    assert found.study.choice.startswith("named by --series")


def test_a_series_named_that_is_nowhere_is_told(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(InputError, match=r"no series 1\.9"):
        survey(tmp_path, series=["1.9"])


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "MIP"]},
        {"RescaleType": "OD"},
        {"Modality": "SR"},
        {"Modality": "DOE"},
    ],
)
def test_what_is_no_axial_original_ct_is_unsuitable(tmp_path, tags):
    write(tmp_path, "a", **tags)
    error = found_in(tmp_path).study.error
    assert isinstance(error, NoSuitableSeries)
    assert "DOE" not in str(error)


@pytest.mark.parametrize("kernel", ["B50s", "I50f", "J70h", "D60f", "Hr68", "SHARP", "Bl57d"])
def test_a_sharp_kernel_is_known_by_its_name(tmp_path, kernel):
    write(tmp_path, "a", ConvolutionKernel=kernel)
    assert found_in(tmp_path).chosen.kind.sharp


@pytest.mark.parametrize("kernel", ["B30f", "Br40d", "STANDARD", "SOFT", "FC08", "C", "I31f"])
def test_a_soft_kernel_is_known_by_its_name(tmp_path, kernel):
    write(tmp_path, "a", ConvolutionKernel=kernel)
    assert not found_in(tmp_path).chosen.kind.sharp


def test_a_derived_series_asked_for_has_its_geometry(tmp_path):
    write(tmp_path, "a", ImageType=["DERIVED", "SECONDARY"])
    assert isinstance(found_in(tmp_path).study.error, NoSuitableSeries)
    chosen = found_in(tmp_path, series=["1.2.1"]).chosen
    assert (chosen.error, chosen.step_mm, chosen.extent_mm) == (None, 3.0, 120.0)


def test_a_derived_series_asked_for_that_is_no_volume_is_refused_at_once(tmp_path):
    for path in write(tmp_path, "a", ImageType=["DERIVED", "SECONDARY"])[10:20]:
        path.unlink()
    assert isinstance(found_in(tmp_path, series=["1.2.1"]).chosen.error, InconsistentGeometry)
