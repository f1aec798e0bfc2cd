"""A reference as a table, and the truth of a simulated cohort."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vfscreen.errors import InputError
from vfscreen.evaluation.matching import CUT_MM
from vfscreen.evaluation.reference import read_reference
from vfscreen.evaluation.reference.table import LOWEST_MEDIAN
from vfscreen.simulation.cohort import Field, simulate_study
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import Scanner
from vfscreen.study import KEYPOINTS

SAMPLE = Path(__file__).parents[2] / "sample_data"
CENTERS = {"center_x_mm": 1.0, "center_y_mm": 2.0, "center_z_mm": 3.0}
HEIGHTS = {"height_anterior_mm": 14.0, "height_middle_mm": 17.0, "height_posterior_mm": 20.0}


def written(path, *rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def keypoints(**heights):
    """The keypoint columns of one vertebra round the origin, heights along z."""
    halves = [heights[f"height_{name.split('_')[0]}_mm"] / 2 for name in KEYPOINTS]
    up = [1 if name.endswith("superior") else -1 for name in KEYPOINTS]
    z = {f"{name}_z_mm": u * h for name, u, h in zip(KEYPOINTS, up, halves, strict=True)}
    depth = {"anterior": -15.0, "middle": 0.0, "posterior": 15.0}
    y = {f"{name}_y_mm": depth[name.split("_")[0]] for name in KEYPOINTS}
    return {**{f"{name}_x_mm": 0.0 for name in KEYPOINTS}, **y, **z}


def test_heights_and_centres_give_g_and_a_place(tmp_path):
    path = written(
        tmp_path / "ref.csv",
        {"study_id": "007", "level": "T5", "patient_id": "01", "dose": "low", **CENTERS, **HEIGHTS},
    )
    (study,) = read_reference(path).studies
    assert (study.study_id, study.patient_id, study.dose, study.levels) == ("007", "01", "low", ("T5",))
    assert study.heights_mm.tolist() == [[14, 17, 20]]
    assert study.genant_ratios.tolist() == [0.7]
    assert study.centers_mm.tolist() == [[1, 2, 3]]


def test_keypoints_give_heights_g_and_centre(tmp_path):
    path = written(tmp_path / "ref.csv", {"source": "a/b", **keypoints(**HEIGHTS)})
    (study,) = read_reference(path).studies
    assert study.source == "a/b"
    assert study.heights_mm.tolist() == [[14, 17, 20]]
    assert study.centers_mm.tolist() == [[0, 0, 0]]


def test_a_row_without_measurement_is_there_but_does_not_count(tmp_path):
    nothing = dict.fromkeys(HEIGHTS)
    below = {**CENTERS, "center_z_mm": -30.0}
    path = written(
        tmp_path / "ref.csv",
        {"study_id": "a", **CENTERS, **HEIGHTS},
        {"study_id": "a", **below, **nothing},
    )
    (study,) = read_reference(path).studies
    assert study.centers_mm.tolist() == [[1, 2, 3]]
    assert study.others_mm.tolist() == [[1, 2, -30]]


def test_g_alone_needs_a_level_or_a_number(tmp_path):
    rows = [{"study_id": "a", "level": f"T{i}", "genant_ratio": 0.8} for i in (5, 6)]
    by_level = read_reference(written(tmp_path / "levels.csv", *rows))
    assert by_level.joined_by == "level"
    assert by_level.studies[0].labels == ("T5", "T6")
    assert np.isnan(by_level.studies[0].heights_mm).all()
    numbered = [{"study_id": "a", "vertebra": i, "genant_ratio": 0.8} for i in (1, 2)]
    assert read_reference(written(tmp_path / "numbers.csv", *numbered)).studies[0].labels == ("1", "2")
    with pytest.raises(InputError, match="does not say where its vertebrae are"):
        read_reference(written(tmp_path / "neither.csv", {"study_id": "a", "genant_ratio": 0.8}))


def test_the_vertebrae_of_another_run_are_a_reference(tmp_path):
    row = {"study_id": "a", "patient_id": "p", "vertebra": 1, "level": None, "genant_ratio": 0.7}
    pd.DataFrame([{**row, **HEIGHTS, **dict.fromkeys(CENTERS, 0.0), **keypoints(**HEIGHTS)}]).to_parquet(
        tmp_path / "vertebrae.parquet"
    )
    for path in (tmp_path, tmp_path / "vertebrae.parquet"):
        reference = read_reference(path)
        assert reference.joined_by == "position"
        assert reference.studies[0].levels == (None,)
        assert reference.studies[0].genant_ratios.tolist() == [0.7]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**CENTERS, **HEIGHTS}, "no column that names the study.*it has center_x_mm"),
        ({"study_id": None, **CENTERS, **HEIGHTS}, "1 rows have no study_id"),
        ({"study_id": "a", "center_x_mm": 1, **HEIGHTS}, "lacks columns: center_y_mm, center_z_mm"),
        (
            {"study_id": "a", **CENTERS, "height_anterior_mm": 1},
            "lacks columns: height_middle_mm, height_post",
        ),
        ({"study_id": "a", **CENTERS}, "no measurement: neither height_anterior_mm.*genant_ratio"),
        (
            {"study_id": "a", **CENTERS, **HEIGHTS, "height_middle_mm": "tall"},
            "height_middle_mm is 'tall' in a row, which is no number",
        ),
        (
            {"study_id": "a", **CENTERS, **HEIGHTS, "height_middle_mm": "11,27"},
            r"'11,27' in a row, .* write 11\.27",
        ),
        ({"study_id": "a", **CENTERS, **HEIGHTS, "center_x_mm": "inf"}, "center_x_mm is 'inf'"),
        ({"study_id": "a", **CENTERS, **HEIGHTS, "level": "T14"}, "level 'T14' is none of C1 to L6"),
        (
            {"study_id": "a", **CENTERS, **HEIGHTS, "genant_ratio": 0.5},
            r"genant_ratio 0\.500 of a vertebra of study a is not that of its heights, 0\.",
        ),
        ({"study_id": "a", **CENTERS, **HEIGHTS, "height_middle_mm": None}, "study a has some of height"),
        ({"study_id": "a", **CENTERS, **HEIGHTS, "height_middle_mm": -3}, "study a has a height or a G"),
        ({"study_id": "a", **CENTERS, "genant_ratio": 80}, "study a has a height or a G that cannot be"),
        ({"study_id": "a", **dict.fromkeys(CENTERS), **HEIGHTS}, "study a has no position"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"ref\.csv.*{message}"):
        read_reference(written(tmp_path / "ref.csv", row))


def test_levels_and_numbers_are_read_as_spreadsheets_write_them(tmp_path):
    levels = [{"study_id": "a", "level": text, "genant_ratio": 0.8} for text in ("t7", "Th8", "D9", " L1 ")]
    assert read_reference(written(tmp_path / "levels.csv", *levels)).studies[0].labels == (
        *("T7", "T8", "T9", "L1"),
    )
    numbers = [{"study_id": "a", "vertebra": text, "genant_ratio": 0.8} for text in ("1.0", "02", "10")]
    assert read_reference(written(tmp_path / "numbers.CSV", *numbers)).studies[0].labels == ("1", "2", "10")
    pd.DataFrame({"study_id": "a", "vertebra": [1.0, 2.0], "genant_ratio": 0.8}).to_parquet(
        tmp_path / "floats.parquet"
    )
    assert read_reference(tmp_path / "floats.parquet").studies[0].labels == ("1", "2")


def test_empty_rows_below_the_last_are_passed_over(tmp_path):
    path = written(tmp_path / "ref.csv", {"study_id": "a", **CENTERS, **HEIGHTS})
    path.write_text(path.read_text() + ",,,,,,\n,,,,,,\n")
    assert len(read_reference(path).studies[0].centers_mm) == 1


def test_heights_of_one_study_in_centimetres_are_told(tmp_path):
    small = {name: value / 10 for name, value in HEIGHTS.items()}
    rows = [{"study_id": name, **CENTERS, **(small if name == "c" else HEIGHTS)} for name in "abcde"]
    with pytest.raises(InputError, match=r"study c are .* mm high or more, as those of nobody"):
        read_reference(written(tmp_path / "ref.csv", *rows))


def test_heights_that_a_reader_corrected_beside_old_keypoints_are_an_error(tmp_path):
    corrected = {**keypoints(**HEIGHTS), **HEIGHTS, "height_anterior_mm": 12.0}
    with pytest.raises(InputError, match=r"row 1 height_anterior_mm .* are 12\.0, 17\.0, 20\.0 mm, and the"):
        read_reference(written(tmp_path / "ref.csv", {"study_id": "a", **corrected}))
    moved = {**keypoints(**HEIGHTS), "center_x_mm": 3.0, "center_y_mm": 0.0, "center_z_mm": 0.0}
    with pytest.raises(InputError, match=r"center_x_mm .* are 3\.0, 0\.0, 0\.0 mm"):
        read_reference(written(tmp_path / "ref.csv", {"study_id": "a", **moved}))


def test_a_vertebra_that_a_reader_added_without_keypoints_counts(tmp_path):
    seen = {**keypoints(**HEIGHTS), **HEIGHTS, "center_x_mm": 0.0, "center_y_mm": 0.0, "center_z_mm": 0.0}
    added = {**dict.fromkeys(keypoints(**HEIGHTS)), **HEIGHTS, **CENTERS, "center_z_mm": -30.0}
    (study,) = read_reference(
        written(tmp_path / "ref.csv", {"study_id": "a", **seen}, {"study_id": "a", **added})
    ).studies
    assert study.heights_mm.tolist() == [[14, 17, 20]] * 2
    assert study.centers_mm.tolist() == [[0, 0, 0], [1, 2, -30]]


@given(st.tuples(*[st.floats(6, 30)] * 3), st.integers(0, 3), st.integers(2, 3))
def test_rounding_of_heights_and_g_is_no_contradiction(heights, decimals, of_ratio):
    ratio = round(min(heights) / max(heights), of_ratio)
    assume(ratio > LOWEST_MEDIAN)
    row = {name: round(value, decimals) for name, value in zip(HEIGHTS, heights, strict=True)}
    with TemporaryDirectory() as folder:
        path = written(Path(folder) / "ref.csv", {"study_id": "a", **CENTERS, **row, "genant_ratio": ratio})
        assert len(read_reference(path).studies[0].genant_ratios) == 1


def test_the_vertebra_plana_of_a_child_is_a_vertebra(tmp_path):
    flat = dict(zip(HEIGHTS, (5.0, 6.0, 7.0), strict=True))
    path = written(tmp_path / "ref.csv", {"study_id": "a", **CENTERS, **flat})
    assert read_reference(path).studies[0].genant_ratios.tolist() == [pytest.approx(5 / 7)]


def test_losses_of_height_in_place_of_g_are_told(tmp_path):
    rows = [{"study_id": "a", "vertebra": i, "genant_ratio": loss} for i, loss in enumerate((0.2, 0.3, 0.16))]
    with pytest.raises(InputError, match="not the loss of height"):
        read_reference(written(tmp_path / "ref.csv", *rows))


def test_two_columns_of_one_name_are_an_error(tmp_path):
    path = tmp_path / "ref.csv"
    path.write_text("study_id,level,genant_ratio,genant_ratio\na,T7,0.8,0.7\n")
    with pytest.raises(InputError, match="two of its columns are called genant_ratio"):
        read_reference(path)


def test_spaces_round_names_of_columns_are_left_out(tmp_path):
    path = tmp_path / "ref.csv"
    path.write_text("study_id , patient_id ,level,genant_ratio\na,p,T7,0.8\n")
    assert read_reference(path).studies[0].patient_id == "p"


def test_a_row_with_too_many_cells_is_told_in_one_line(tmp_path):
    path = tmp_path / "ref.csv"
    path.write_text("study_id,level,genant_ratio\na,T7,0.8\nb,T7,0.8,0.9\n")
    with pytest.raises(InputError) as told:
        read_reference(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"), [("slice_mm", "thin"), ("slice_mm", [1]), ("vertebrae", [{"keypoints_mm": 1}])]
)
def test_a_truth_with_odd_values_is_an_error(tmp_path, field, value):
    truth = json.loads((SAMPLE / "truth.json").read_text())
    first = next(iter(truth))
    truth[first][field] = value
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(InputError, match="not the truth of a simulated cohort"):
        read_reference(tmp_path)


def test_front_and_back_exchanged_are_told(tmp_path):
    points = keypoints(**HEIGHTS)
    other = {"anterior": "posterior", "posterior": "anterior"}
    turned = {
        re.sub("anterior|posterior", lambda m: other[m[0]], name): value for name, value in points.items()
    }
    with pytest.raises(InputError, match="study a lie behind the posterior ones"):
        read_reference(written(tmp_path / "ref.csv", {"study_id": "a", **turned}))


def test_a_vertebra_twice_is_an_error_that_names_its_study(tmp_path):
    row = {"study_id": "a", **CENTERS, **HEIGHTS}
    with pytest.raises(InputError, match="study a lie less than 5 mm apart"):
        read_reference(written(tmp_path / "ref.csv", row, row))
    row = {"study_id": "a", "level": "T5", "genant_ratio": 0.8}
    with pytest.raises(InputError, match="vertebra T5 of study a stands in it twice"):
        read_reference(written(tmp_path / "ref.csv", row, row))


def test_a_study_of_two_patients_is_an_error(tmp_path):
    rows = [{"study_id": "a", "level": f"T{i}", "patient_id": i, "genant_ratio": 0.8} for i in (1, 2)]
    with pytest.raises(InputError, match=r"study a has more than one patient_id \(1, 2\)"):
        read_reference(written(tmp_path / "ref.csv", *rows))


@pytest.mark.parametrize(
    ("name", "content"), [("ref.csv", b""), ("ref.csv", b"\xff\xfe"), ("ref.parquet", b"x")]
)
def test_a_file_that_is_no_table_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_reference(tmp_path / name)


def test_what_is_no_reference_is_told_what_is_expected(tmp_path):
    (tmp_path / "ref.xlsx").touch()
    for path in (tmp_path, tmp_path / "ref.xlsx", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="expected is"):
            read_reference(path)


def test_the_sample_data_s_truth_is_read_as_it_stands():
    truth = json.loads((SAMPLE / "truth.json").read_text())
    for path in (SAMPLE, SAMPLE / "truth.json"):
        reference = read_reference(path)
        assert [study.source for study in reference.studies] == list(truth)
        for study, content in zip(reference.studies, truth.values(), strict=True):
            heights = [v["heights_mm"] for v in content["vertebrae"]]
            assert study.heights_mm == pytest.approx(np.array(heights), abs=2e-3)
            assert study.levels == tuple(v["level"] for v in content["vertebrae"])
            assert len(study.others_mm) == len(content["cut_levels"])


def test_cut_vertebrae_are_placed_near_enough_to_excuse_their_detections(tmp_path):
    person = draw_person(np.random.default_rng(3))
    scanner = Scanner(2.5, 2.5, 2.0, 0.5, 0.0, 10.0, 0.5, 0.0)
    scan = simulate_study(np.random.default_rng(3), person, scanner, Field("T5", "T9", 104, 110, 2.0))
    truth = scan.truth()
    (tmp_path / "truth.json").write_text(json.dumps({"a": truth}))
    (study,) = read_reference(tmp_path).studies
    levels = [body.level for body in person.spine.bodies]
    cut = scan.keypoints_mm()[[levels.index(level) for level in truth["cut_levels"]]].mean(1)
    assert len(cut) >= 1
    assert np.linalg.norm(study.others_mm - cut, axis=1).max() < CUT_MM / 2


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"vertebrae": [{}], "cut_levels": []}}'])
def test_a_truth_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(InputError, match="not the truth of a simulated cohort"):
        read_reference(tmp_path)
