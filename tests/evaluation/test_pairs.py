"""Results beside a reference: what is found, what is false, and which studies are the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vfscreen.errors import InputError, ReaderDied
from vfscreen.evaluation.figures import figures_of
from vfscreen.evaluation.pairs import COLUMNS, Unmatched, nothing_found, pair, unmatched
from vfscreen.evaluation.reference import read_reference
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy
from vfscreen.measure import genant_ratio, grade, heights_mm, shape
from vfscreen.results import ResultWriter, StudyRecord, consolidate
from vfscreen.study import KEYPOINTS, StudyHeader, StudyResult, Vertebra

SAMPLE = Path(__file__).parents[2] / "sample_data"
NOTHING = np.empty((0, 3))


def measured(points, sd=None):
    heights = heights_mm(points)
    ratio = float(genant_ratio(heights))
    height_sd = None if sd is None else np.full(3, 10 * sd)
    return Vertebra(points, heights, ratio, grade(ratio), shape(heights), 0.9, height_sd, sd)


def record(study_id, keypoints, *, source=None, error=None, patient=None, series_uid=None, sd=None):
    header = StudyHeader(patient, None, series_uid, 200, 1.5, 0.7)
    result = None if error else StudyResult(header, "ok", tuple(measured(points, sd) for points in keypoints))
    return StudyRecord(study_id, source or study_id, None, result, error, header, {})


def results(out, *records):
    with ResultWriter(out, 0.74) as writer:
        for each in records:
            writer.add(each)
    consolidate(out)
    return out


def column(*heights, gap=30.0):
    """Vertebrae (n, 6, 3) one below the other; each of a height, or of three."""
    points = np.zeros((len(heights), 6, 3))
    for i, height in enumerate(heights):
        points[i, :, 1] = np.repeat([-15, 0, 15], 2)
        points[i, ::2, 2] = -gap * i + np.asarray(height) / 2
        points[i, 1::2, 2] = -gap * i - np.asarray(height) / 2
    return points


def study(keypoints, others=NOTHING, **keys):
    heights = heights_mm(keypoints)
    levels = tuple(f"T{i + 1}" for i in range(len(keypoints)))
    return ReferenceStudy(heights, genant_ratio(heights), keypoints.mean(1), others, levels, **keys)


def reference(*studies, **options):
    return Reference("table", Path("ref.csv"), studies, **options)


def test_a_perfect_run_finds_every_vertebra_without_error(tmp_path):
    points = column(20, (14, 20, 20), 21)
    table = pair(
        results(tmp_path, record("a", points, patient="p", sd=0.02)), reference(study(points, study_id="a"))
    )
    assert list(table.columns) == COLUMNS
    assert table.found.all()
    assert not table.is_false.any()
    assert table.center_error_mm.tolist() == pytest.approx([0, 0, 0])
    assert table.ratio.tolist() == pytest.approx([1, 0.7, 1]) == table.true_ratio.tolist()
    assert table.anterior_mm.tolist() == pytest.approx([20, 14, 21]) == table.true_anterior_mm.tolist()
    assert table.scan_ratio.tolist() == pytest.approx([0.7] * 3)
    assert (table.ratio_sd == 0.02).all()
    assert (table.anterior_sd_mm == 0.2).all()
    assert (table.ratio_low < table.ratio).all()
    assert table.probability_moderate[1] > 0.9
    assert table.iloc[0][["patient", "scan", "level", "slice_mm", "status", "score"]].tolist() == [
        *("p", "a", "T1", 1.5, "ok", 0.9)
    ]


def test_a_run_without_a_second_look_has_no_spreads(tmp_path):
    points = column(20, 20)
    table = pair(results(tmp_path, record("a", points)), reference(study(points, study_id="a")))
    spreads = ["ratio_sd", "anterior_sd_mm", "ratio_low", "ratio_high", "probability_moderate"]
    assert table[spreads].isna().all(axis=None)


def test_a_shifted_detection_is_found_as_far_off_as_it_is(tmp_path):
    points = column(20, 20)
    out = results(tmp_path, record("a", points + np.array([0, 3, 0])))
    assert pair(out, reference(study(points, study_id="a"))).center_error_mm.tolist() == pytest.approx([3, 3])


def test_a_detection_beyond_5_mm_is_false_and_the_vertebra_not_found(tmp_path):
    points = column(20, 20)
    seen = points + np.array([[[0, 6, 0]], [[0, 0, 0]]])
    table = pair(results(tmp_path, record("a", seen)), reference(study(points, study_id="a")))
    assert table.found.tolist() == [False, True, False]
    assert table.is_false.tolist() == [False, False, True]
    assert table.ratio.isna().tolist() == [True, False, False]
    assert table.true_ratio.isna().tolist() == [False, False, True]


def test_a_false_detection_keeps_its_own_columns_and_counts_for_the_scan(tmp_path):
    seen = np.concatenate([column(20), column((10, 20, 20)) + np.array([80, 0, 0])])
    table = pair(
        results(tmp_path, record("a", seen, patient="p")), reference(study(column(20), study_id="a"))
    )
    false = table[table.is_false].iloc[0]
    assert (false.anterior_mm, false.ratio, false.score, false.patient) == (10, 0.5, 0.9, "p")
    assert false[["true_ratio", "true_middle_mm", "center_error_mm"]].isna().all()
    assert table.scan_ratio.tolist() == [0.5, 0.5]


def test_a_detection_on_a_vertebra_that_does_not_count_is_neither_found_nor_false(tmp_path):
    points = column(20, 20)
    out = results(tmp_path, record("a", points + np.array([0, 0, 2])))
    cut = points[1:].mean(1) - np.array([0, 0, 8])
    table = pair(out, reference(study(points[:1], cut, study_id="a")))
    assert table.found.tolist() == [True]
    assert len(table) == 1


def test_where_no_vertebra_is_true_every_detection_is_false(tmp_path):
    out = results(tmp_path, record("a", column(20, 20)))
    table = pair(out, reference(study(column(), study_id="a")))
    assert table.is_false.tolist() == [True, True]


def test_failed_and_missing_studies_have_all_their_vertebrae_missed(tmp_path):
    points = column(20, 20)
    out = results(tmp_path, record("a", points), record("b", points, error=ReaderDied("x"), patient="p"))
    table = pair(out, reference(*(study(points, study_id=name) for name in "abc")))
    assert table.groupby("scan").found.sum().to_dict() == {"a": 2, "b": 0, "c": 0}
    assert table.groupby("scan").status.first().to_dict() == {"a": "ok", "b": "failed", "c": "missing"}
    assert table.groupby("scan").patient.first().to_dict() == {"a": None, "b": "p", "c": None}
    assert table[table.scan != "a"].scan_ratio.isna().all()


def test_the_table_is_what_the_figures_take(tmp_path):
    points = column(20, (14, 20, 20), 21)
    out = results(tmp_path, record("a", points[:2]))
    figures = figures_of(pair(out, reference(study(points, study_id="a"))))
    assert (figures["recall"], figures["precision"]) == (pytest.approx(2 / 3), 1)
    assert figures["height error, mm"] == figures["G error"] == 0


def test_what_only_one_side_knows_is_named(tmp_path):
    points = column(20)
    out = results(tmp_path, record("a", points), record("b", points))
    truth = reference(study(points, study_id="a"), study(points, study_id="c"))
    assert unmatched(out, truth) == Unmatched(("c",), ("b",))


@pytest.mark.parametrize(
    "keys",
    [
        {"series_uid": "1.2.3"},
        {"source": "archive/x/CT_1"},
        {"source": "x/CT_1"},
        {"source": "CT_1"},
        {"source": "disk/archive/x/CT_1"},
        {"study_id": "CT_1.nii.gz"},
        {"source": "x/CT_1_seg.nii.gz"},
        {"patient_id": "p"},
    ],
)
def test_a_study_is_known_by_any_of_its_keys(tmp_path, keys):
    points = column(20)
    seen = record("2.25.1", points, source="archive/x/CT_1", series_uid="1.2.3", patient="p")
    out = results(tmp_path, seen, record("other", points, source="archive/y/CT_2", patient="q"))
    assert pair(out, reference(study(points, **keys))).found.all()


def test_a_name_that_many_studies_share_needs_its_folder(tmp_path):
    one, two = column(20), column(15)
    out = results(tmp_path, record("1", one, source="in/a/CT"), record("2", two, source="in/b/CT"))
    truth = reference(study(two, source="b/CT"), study(one, source="a/CT"))
    assert pair(out, truth).center_error_mm.tolist() == pytest.approx([0, 0])
    assert pair(out, truth).anterior_mm.tolist() == [15, 20]
    with pytest.raises(InputError, match="No study of the reference"):
        pair(out, reference(study(one, source="CT")))


def test_the_same_last_folder_in_two_archives_is_not_the_same_study(tmp_path):
    out = results(tmp_path, record("1", column(20), source="siteB/003"), record("x", column(20)))
    truth = reference(study(column(20), source="arch/003"), study(column(20), study_id="x"))
    assert unmatched(out, truth) == Unmatched(("arch/003",), ("siteB/003",))


def test_tables_that_were_sorted_or_filtered_keep_their_rows(tmp_path):
    heights = (20, (14, 20, 20), 21)
    points = {name: column(*heights) + np.array([0, i, 0]) for i, name in enumerate("abc")}
    out = results(tmp_path, *(record(name, each) for name, each in points.items()))
    truth = reference(*(study(each, study_id=name) for name, each in points.items()))
    expected = pair(out, truth)
    for name in ("studies.parquet", "vertebrae.parquet"):
        pd.read_parquet(out / name).sort_values("study_id", ascending=False).to_parquet(out / name)
    pd.testing.assert_frame_equal(pair(out, truth), expected)
    vertebrae = pd.read_parquet(out / "vertebrae.parquet")
    vertebrae[vertebrae.study_id != "c"].to_parquet(out / "vertebrae.parquet")
    again = pair(out, truth)
    assert again.groupby("scan").found.sum().to_dict() == {"a": 3, "b": 3, "c": 0}
    assert (again.ratio.dropna() == again.true_ratio[again.found]).all()


@pytest.mark.parametrize("name", ["studies.parquet", "vertebrae.parquet"])
def test_what_stands_twice_in_the_results_is_an_error(tmp_path, name):
    out = results(tmp_path, record("a", column(20)))
    table = pd.read_parquet(out / name)
    pd.concat([table, table]).to_parquet(out / name)
    with pytest.raises(InputError, match=f"{name}: a.* stands in it twice"):
        pair(out, reference(study(column(20), study_id="a")))


def test_keys_that_name_two_studies_are_an_error(tmp_path):
    out = results(tmp_path, *(record(name, column(20), series_uid=f"1.{name}") for name in "ab"))
    exchanged = [study(column(20), study_id=name, series_uid=f"1.{other}") for name, other in ("ab", "ba")]
    with pytest.raises(InputError, match="study_id a is of another study of the results"):
        pair(out, reference(*exchanged))
    unknown = study(column(20), study_id="a", series_uid="9.9")
    assert pair(out, reference(unknown)).found.all()


def test_ids_without_their_leading_zeros_are_an_error(tmp_path):
    out = results(tmp_path, *(record(name, column(20)) for name in ("007", "100")))
    with pytest.raises(InputError, match="study_id 7 differs from 007 of the results in leading zeros"):
        pair(out, reference(study(column(20), study_id="7"), study(column(20), study_id="100")))


def test_two_studies_of_one_name_are_an_error():
    with pytest.raises(InputError, match="calls two studies b"):
        reference(study(column(20), source="b"), study(column(20), study_id="b"))


def test_a_run_that_finds_only_what_does_not_count_has_figures(tmp_path):
    points = column(20, 20, 20)
    out = results(tmp_path, record("a", points[1:]))
    table = pair(out, reference(study(points[:1], points[1:].mean(1), study_id="a")))
    assert table.found.tolist() == [False]
    assert not table.is_false.any()


def test_a_study_known_by_the_end_of_its_name_alone_is_told(tmp_path):
    out = results(tmp_path, record("1", column(20), source="siteB/003"))
    assert unmatched(out, reference(study(column(20), source="003"))) == Unmatched(
        (), (), (("003", "siteB/003"),)
    )


def test_a_patient_with_two_studies_needs_a_study_id(tmp_path):
    out = results(tmp_path, *(record(name, column(20), patient="p") for name in "ab"))
    with pytest.raises(InputError, match="patient p alone, of whom the results hold 2 studies"):
        pair(out, reference(study(column(20), patient_id="p")))


def test_where_not_one_vertebra_is_the_same_there_are_no_figures(tmp_path):
    out = results(tmp_path, record("a", column(20, 20)), record("b", column(20, 20)))
    far = column(20, 20) + np.array([9, 0, 0])
    with pytest.raises(InputError, match=r"share studies, such as a, but not one vertebra \(paired by pos"):
        pair(out, reference(study(far, study_id="a"), study(far, study_id="b")))
    numbers = reference(by_label(("8", "9"), study_id="a"), joined_by="vertebra")
    with pytest.raises(InputError, match="paired by vertebra"):
        pair(out, numbers)
    half = reference(study(far, study_id="a"), study(column(20, 20), study_id="b"))
    assert nothing_found(pair(out, half)) == ["a"]


@pytest.mark.parametrize(
    ("axes", "signs"), [("x and y", (-1, -1, 1)), ("x", (-1, 1, 1)), ("y", (1, -1, 1)), ("z", (1, 1, -1))]
)
def test_one_study_in_other_axes_among_many_is_told(tmp_path, axes, signs):
    points = column(20, 19, 18, 17) + np.array([40, 50, 200])
    names = [f"s{i}" for i in range(5)]
    out = results(tmp_path, *(record(name, points) for name in names))
    right = [study(points, study_id=name) for name in names[:-1]]
    turned = study(points * np.array(signs), study_id=names[-1])
    assert pair(out, reference(*right, study(points, study_id=names[-1]))).found.all()
    with pytest.raises(InputError, match=f"study s4 lie where those of the results would with {axes} turned"):
        pair(out, reference(*right, turned))


def test_a_spine_near_the_middle_is_not_taken_for_one_in_other_axes(tmp_path):
    truth = column(20, 20, 20) + np.array([4, 3, 0])
    out = results(tmp_path, record("a", truth * np.array([-1, 1, 1])), record("b", truth))
    table = pair(out, reference(study(truth, study_id="a"), study(truth, study_id="b")))
    assert table.groupby("scan").found.sum().to_dict() == {"a": 0, "b": 3}


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_keypoint_that_is_no_finite_number_is_an_error(wrong):
    points = column(20, 20)
    points[1, 2, 0] = wrong
    with pytest.raises(InputError, match="study a has a position, height or G that is no finite number"):
        reference(study(points, study_id="a"))


def test_a_slice_thickness_that_cannot_be_is_an_error():
    with pytest.raises(InputError, match=r"slice_mm of study a is -1\.0"):
        reference(study(column(20), study_id="a", slice_mm=-1.0))


def test_positions_in_centimetres_are_an_error():
    heights, centers = np.full((4, 3), 20.0), column(20, 20, 20, 20).mean(1) / 10
    one = ReferenceStudy(heights, genant_ratio(heights), centers, NOTHING, (None,) * 4, study_id="a")
    with pytest.raises(
        InputError, match=r"study a lie 3\.0 mm apart, nearer than any do; positions are in mm"
    ):
        reference(one)


def test_an_interrupted_run_is_told(tmp_path):
    with ResultWriter(tmp_path, 0.74) as writer:
        writer.add(record("a", column(20)))
    with pytest.raises(InputError, match="interrupted"):
        pair(tmp_path, reference(study(column(20), study_id="a")))


def test_another_study_of_the_same_patient_is_not_taken_for_it(tmp_path):
    out = results(tmp_path, record("2021", column(20), patient="p"), record("x", column(20), patient="q"))
    truth = reference(study(column(20), study_id="2019", patient_id="p"), study(column(20), study_id="x"))
    assert unmatched(out, truth).without_results == ("2019",)


def test_two_truths_that_fit_one_study_are_an_error(tmp_path):
    out = results(tmp_path, record("1", column(20), source="sub-1_ct.nii.gz"))
    truth = reference(study(column(20), source="a/sub-1"), study(column(20), source="b/sub-1"))
    with pytest.raises(InputError, match="a/sub-1, b/sub-1"):
        pair(out, truth)


def test_a_reference_that_matches_nothing_shows_names_of_both_sides(tmp_path):
    out = results(tmp_path, *(record(f"seen{i}", column(20)) for i in range(3)))
    truth = reference(*(study(column(20), study_id=f"true{i}") for i in range(3)))
    for call in (pair, unmatched):
        with pytest.raises(InputError, match=r"true0, true1\).*seen0, seen1\)"):
            call(out, truth)


@pytest.mark.parametrize("key", ["study_id", "series_uid", "source"])
def test_a_study_twice_in_the_reference_is_an_error(key):
    with pytest.raises(InputError, match=f"same {key}: twice"):
        reference(study(column(20), **{key: "twice"}), study(column(20), **{key: "twice"}))


def test_two_readings_of_a_vertebra_in_the_reference_are_an_error():
    with pytest.raises(InputError, match="study a lie less than 5 mm apart"):
        reference(study(column(20, 20, gap=4), study_id="a"))


def test_a_reference_without_studies_is_an_error():
    with pytest.raises(InputError, match="no study"):
        reference()


def by_label(labels, other_labels=(), **keys):
    n = len(labels)
    nowhere = np.full((n, 3), np.nan)
    levels = (None,) * n
    ratios = np.linspace(0.7, 0.9, n)
    return ReferenceStudy(nowhere, ratios, nowhere, NOTHING, levels, labels, other_labels, **keys)


def test_without_positions_vertebrae_are_paired_by_their_number(tmp_path):
    out = results(tmp_path, record("a", column(20, 19, 18, 17)))
    truth = reference(by_label(("2", "9"), ("1",), study_id="a"), joined_by="vertebra")
    table = pair(out, truth)
    assert table.found.tolist() == [True, False, False, False]
    assert table.is_false.tolist() == [False, False, True, True]
    assert table.anterior_mm.tolist()[0] == 19
    assert table.center_error_mm.isna().all()


def test_levels_pair_nothing_where_the_results_know_none(tmp_path):
    out = results(tmp_path, record("a", column(20)))
    with pytest.raises(InputError, match=r"knows no levels.*center_x_mm"):
        pair(out, reference(by_label(("T5",), study_id="a"), joined_by="level"))


def test_levels_pair_where_the_results_know_them(tmp_path):
    out = results(tmp_path, record("a", column(20, 19)))
    path = out / "vertebrae.parquet"
    pd.read_parquet(path).assign(level=["T5", "T6"]).to_parquet(path)
    table = pair(out, reference(by_label(("T6",), study_id="a"), joined_by="level"))
    assert table.anterior_mm.tolist() == [19, 20]
    assert table.found.tolist() == [True, False]


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no studies\.parquet"):
        pair(tmp_path, reference(study(column(20), study_id="a")))


def test_tables_of_another_version_are_an_error_that_names_the_column(tmp_path):
    out = results(tmp_path, record("a", column(20)))
    pd.read_parquet(out / "vertebrae.parquet").drop(columns="genant_ratio_low").to_parquet(
        out / "vertebrae.parquet"
    )
    with pytest.raises(InputError, match=r"vertebrae\.parquet lacks columns: genant_ratio_low"):
        pair(out, reference(study(column(20), study_id="a")))


def test_the_sample_data_s_truth_beside_results_made_of_it(tmp_path):
    truth = json.loads((SAMPLE / "truth.json").read_text())
    records = [
        record(name, [np.array([v["keypoints_mm"][k] for k in KEYPOINTS]) for v in content["vertebrae"]])
        for name, content in truth.items()
    ]
    table = pair(results(tmp_path, *records), read_reference(SAMPLE))
    assert len(table) == sum(len(content["vertebrae"]) for content in truth.values())
    assert table.found.all()
    assert table.center_error_mm.max() < 0.01
    assert np.abs(table.ratio - table.true_ratio).max() == 0
    smallest = table.groupby("scan").scan_ratio.first()
    assert smallest.to_dict() == pytest.approx({n: c["min_genant_ratio"] for n, c in truth.items()}, abs=1e-4)
