import numpy as np
import pandas as pd
import pytest
from made_pairs import cohort, missing, noisy, perfect, read_as, true_heights, with_false

from vfscreen.errors import InputError
from vfscreen.evaluation.evaluation import evaluate, p_value
from vfscreen.evaluation.figures import figures_of, with_intervals
from vfscreen.evaluation.intervals import draw_patients, mean


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(with_false(missing(noisy(cohort()), range(7, 90, 9)), ["p0003/a"], 0.7), repeats=200)


def test_no_true_vertebra_is_no_figure_but_an_error():
    pairs = perfect(cohort())
    for nothing in (pairs.iloc[:0], pairs.assign(is_false=True)):
        with pytest.raises(InputError, match="no true vertebra"):
            evaluate(nothing)


def test_intervals_are_those_of_tables_drawn_and_figured_again():
    pairs = noisy(cohort())
    slow = with_intervals(pairs, lambda part: {"auc": figures_of(part)["AUC by vertebra, mild"]}, 300).loc[
        "auc"
    ]
    fast = evaluate(pairs, repeats=300).figure("table 2", "AUC by vertebra, mild")
    assert fast.value == pytest.approx(slow.value)
    assert fast.high - fast.low == pytest.approx(slow.high - slow.low, rel=0.2)


def test_the_same_pairs_give_the_same_figures(evaluation):
    again = evaluate(evaluation.pairs.sample(frac=1, random_state=0), repeats=200)
    pd.testing.assert_frame_equal(again.figures, evaluation.figures)


def test_numbers_tell_what_was_compared(evaluation):
    assert evaluation.counts["patients"] == 60
    assert evaluation.counts["scans"] == 120
    assert evaluation.counts["true vertebrae"] == 1200
    assert evaluation.counts["true vertebrae found"] == 1200 - len(range(7, 90, 9))
    assert evaluation.counts["false detections"] == 1
    assert evaluation.counts["scans by status"] == {"ok": 120}
    assert sum(evaluation.counts["true vertebrae by grade"].values()) == 1200


def test_groups_are_given_by_level_grade_slices_and_dose(evaluation):
    groups = set(evaluation.figures.group)
    assert {"all", "dose: low", "dose: standard", "slices: to 1.5 mm", "slices: 2.5 to 4 mm"} <= groups
    assert {"level: T1", "level: T10", "true grade: normal", "true grade: severe"} <= groups


def test_a_figure_of_a_group_is_that_of_its_rows_alone(evaluation):
    alone = evaluate(evaluation.pairs[evaluation.pairs.dose == "low"], repeats=20)
    for table, name in (("table 2", "AUC by patient, mild"), ("agreement", "middle: ICC(2,1)")):
        assert evaluation.figure(table, name, "dose: low").value == pytest.approx(
            alone.figure(table, name).value
        )


def test_a_group_of_too_few_has_its_number_and_no_figure():
    pairs = perfect(cohort(patients=20))
    pairs.loc[:5, "dose"] = "ultra low"
    figure = evaluate(pairs, repeats=20).figure("agreement", "G: mean error", "dose: ultra low")
    assert np.isnan(figure.value)
    assert figure.n == 6


def test_a_false_detection_belongs_to_no_level(evaluation):
    rows = evaluation.figures[evaluation.figures.group.str.startswith("level")]
    assert "precision" not in set(rows.figure)


def test_where_nothing_was_measured_recall_is_0_and_the_rest_has_no_figure():
    pairs = perfect(cohort(patients=10))
    evaluation = evaluate(missing(pairs, pairs.index), repeats=20)
    assert evaluation.figure("table 1", "recall").value == 0
    assert evaluation.figure("table 2", "sensitivity by vertebra, mild").value == 0
    for table, name in (("table 1", "precision"), ("agreement", "G: ICC(2,1)"), ("grades", "same grade")):
        assert np.isnan(evaluation.figure(table, name).value)


def test_a_run_against_itself_differs_in_nothing():
    pairs = noisy(cohort(patients=20))
    differences = evaluate(pairs, pairs, repeats=50).differences.dropna(subset="difference")
    assert len(differences) > 100
    assert (differences.difference == 0).all()
    assert (differences.p.dropna() == 1).all()


def test_a_better_run_is_told_from_a_worse_one_and_from_its_like():
    table = cohort()
    good, bad = noisy(table, 0.3), noisy(table, 2.0)
    shown = evaluate(good, bad, repeats=100).differences.set_index(["table", "group", "figure"])
    auc = shown.loc[("table 2", "all", "AUC by vertebra, mild")]
    assert auc.difference == pytest.approx(auc.value - auc.other)
    assert 0 < auc.low < auc.difference < auc.high
    assert auc.p == pytest.approx(2 / 101)
    like = evaluate(good, noisy(table, 0.3, seed=5), repeats=100).differences
    like = like.set_index(["table", "group", "figure"])
    assert like.loc[("table 2", "all", "AUC by vertebra, mild"), "p"] > 0.05


def test_a_paired_difference_is_surer_than_the_two_intervals():
    table = cohort()
    heights = true_heights(table) + np.random.default_rng(1).normal(0, 2, (len(table), 3))
    one, other = read_as(table, heights), read_as(table, heights + 0.1)
    evaluation = evaluate(one, other, repeats=200)
    rows = evaluation.differences.set_index(["table", "group", "figure"])
    row = rows.loc[("agreement", "all", "anterior: mean error, mm")]
    figure = evaluation.figure("agreement", "anterior: mean error, mm")
    assert row.difference == pytest.approx(-0.1)
    assert row.high - row.low < 0.01 * (figure.high - figure.low)


def test_two_runs_are_compared_on_the_scans_that_both_have():
    pairs = noisy(cohort(patients=30))
    other = perfect(cohort(patients=30))
    other = other[other.patient >= "p0010"]
    rows = evaluate(pairs, other, repeats=20).differences.set_index(["table", "group", "figure"])
    assert rows.loc[("table 1", "all", "recall"), "n"] == 20 * 20


def test_two_runs_without_a_scan_in_common_are_an_error():
    pairs = perfect(cohort(patients=10))
    with pytest.raises(InputError, match="share no scan"):
        evaluate(pairs, pairs.assign(scan="x" + pairs.scan))


def test_scans_that_one_run_lost_count_as_missed_there_and_belong_to_their_patients():
    pairs = perfect(cohort(patients=20))
    lost = missing(pairs, pairs.scan.str.endswith("b"))
    lost = lost.assign(patient=lost.patient.where(lost.found, None))
    evaluation = evaluate(lost, pairs, repeats=20)
    rows = evaluation.differences.set_index(["table", "group", "figure"])
    assert rows.loc[("table 1", "all", "recall"), ["value", "other"]].tolist() == [0.5, 1.0]
    assert evaluation.counts["patients"] == 20
    alone = evaluate(lost, repeats=20).counts
    unknown = alone["scans of unknown patients, each counted as one"]
    assert (alone["patients"], unknown) == (40, 20)


def test_pseudonyms_in_one_run_do_not_part_it_from_the_other():
    pairs = noisy(cohort(patients=20))
    rows = evaluate(pairs, pairs.assign(patient="x" + pairs.patient), repeats=50).differences
    assert (rows.difference.dropna() == 0).all()
    assert (rows.low.dropna() == 0).all()


def test_two_runs_with_another_truth_are_an_error():
    pairs = perfect(cohort(patients=10))
    with pytest.raises(InputError, match="same reference"):
        evaluate(pairs, pairs.assign(true_ratio=pairs.true_ratio - 0.01))


def test_p_values_of_hand_computed_draws():
    assert p_value(np.array([1.0] * 95 + [-1.0] * 4)) == pytest.approx(2 * 5 / 100)
    assert p_value(np.zeros(99)) == 1


def test_p_values_of_runs_that_are_alike_are_below_5_percent_about_that_often():
    rng = np.random.default_rng(0)
    draws, who = draw_patients(50, 199), np.repeat(np.arange(50), 4)
    small = 0
    for _ in range(300):
        one, other = (mean(draws, who, rng.normal(size=200)).values for _ in range(2))
        small += p_value((one - other)[1:]) < 0.05
    assert 0.02 < small / 300 < 0.10
