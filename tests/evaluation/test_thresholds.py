import numpy as np
import pandas as pd
import pytest
from made_pairs import cohort, missing, noisy, numbered, perfect, random, with_false
from sklearn.metrics import auc, recall_score, roc_auc_score

from vfscreen.evaluation.detection import table_1
from vfscreen.evaluation.figures import figures_of
from vfscreen.evaluation.free_response import free_response, free_response_figures
from vfscreen.evaluation.intervals import draw_patients
from vfscreen.evaluation.thresholds import by_scan, roc, table_2


def values(family, pairs):
    pairs = numbered(pairs)
    return {name: each.value for name, each in family(draw_patients(pairs.who.max() + 1, 2), pairs).items()}


def test_a_perfect_reader_has_nothing_but_ones():
    assert set(values(table_2, perfect(cohort())).values()) == {1.0}
    assert values(table_1, perfect(cohort()))["recall, G <= 0.74"] == 1


def test_a_random_reader_has_half_the_area():
    figures = values(table_2, random(cohort(patients=400)))
    assert figures["AUC by vertebra, mild"] == pytest.approx(0.5, abs=0.02)
    assert figures["AUC by vertebra, moderate"] == pytest.approx(0.5, abs=0.02)


def test_a_reader_who_is_always_wrong_has_no_area():
    pairs = perfect(cohort())
    assert values(table_2, pairs.assign(ratio=1.5 - pairs.ratio))["AUC by vertebra, mild"] == 0


@pytest.mark.parametrize(("grade", "threshold"), [("mild", 0.8), ("moderate", 0.74)])
def test_by_vertebra_as_sklearn_has_it(grade, threshold):
    pairs = noisy(cohort())
    figures = values(table_2, pairs)
    deformed, called = pairs.true_ratio <= threshold, pairs.ratio <= threshold
    assert figures[f"AUC by vertebra, {grade}"] == pytest.approx(roc_auc_score(deformed, -pairs.ratio))
    assert figures[f"sensitivity by vertebra, {grade}"] == pytest.approx(recall_score(deformed, called))
    assert figures[f"specificity by vertebra, {grade}"] == pytest.approx(recall_score(~deformed, ~called))


def test_the_figures_of_all_scans_are_those_of_the_benchmark():
    pairs = with_false(missing(noisy(cohort()), range(7, 90, 9)), ["p0003/a", "p0008/b"], 0.7)
    ours, theirs = values(table_1, pairs) | values(table_2, pairs), figures_of(pairs)
    same = {
        "recall": "recall",
        "precision": "precision",
        "localization error, G <= 0.74, mm": "localization error, G <= 0.74, mm",
        "AUC by vertebra, mild": "AUC by vertebra, mild",
        "AUC by patient, moderate": "AUC by patient, moderate",
        "sensitivity by vertebra, moderate": "sensitivity at 0.74",
        "specificity by vertebra, moderate": "specificity at 0.74",
        "sensitivity by patient, moderate": "patient sensitivity at 0.74",
        "specificity by patient, moderate": "patient specificity at 0.74",
    }
    for name, theirs_name in same.items():
        assert ours[name] == pytest.approx(theirs[theirs_name]), name


def test_a_deformed_vertebra_that_was_missed_counts_as_called_normal():
    pairs = perfect(cohort())
    deformed = pairs.index[pairs.true_ratio <= 0.74]
    figures = values(table_2, missing(pairs, deformed[::4]))
    share_missed = len(deformed[::4]) / len(deformed)
    assert figures["sensitivity by vertebra, moderate"] == pytest.approx(1 - share_missed)
    assert figures["specificity by vertebra, moderate"] == figures["AUC by vertebra, moderate"] == 1


def test_a_scan_without_a_measurement_counts_as_not_called():
    pairs = perfect(cohort(patients=10))
    pairs = missing(pairs, pairs.index[pairs.scan == "p0004/a"])
    scan = by_scan(numbered(pairs)).set_index("scan").loc["p0004/a"]
    assert scan.ratio == 1
    assert scan.true_ratio == pairs[pairs.scan == "p0004/a"].true_ratio.min()


def test_a_false_detection_counts_for_the_patient_and_for_precision():
    pairs = perfect(cohort(patients=10)).assign(true_ratio=0.9, ratio=0.9, scan_ratio=0.9)
    figures = values(table_2, with_false(pairs, ["p0001/a"], 0.5))
    assert figures["specificity by patient, moderate"] == pytest.approx(19 / 20)
    assert values(table_1, with_false(pairs, ["p0001/a"], 0.5))["precision"] == pytest.approx(200 / 201)


def test_the_curve_has_the_area_of_the_figure_and_goes_through_the_operating_point():
    pairs = noisy(cohort())
    curve, figures = roc(numbered(pairs)), values(table_2, pairs)
    mild = curve[(curve.unit == "vertebra") & (curve.grade == "mild")]
    assert auc(mild.false_positive_rate, mild.sensitivity) == pytest.approx(figures["AUC by vertebra, mild"])
    point = mild[mild.threshold <= 0.8].iloc[-1]
    assert point.sensitivity == pytest.approx(figures["sensitivity by vertebra, mild"], abs=0.01)


def test_a_cohort_without_deformed_vertebrae_has_no_curve_and_no_area():
    pairs = perfect(cohort()).assign(true_ratio=0.9)
    assert roc(numbered(pairs)).empty
    figures = values(table_2, pairs)
    assert np.isnan(figures["AUC by patient, mild"])
    assert np.isnan(figures["sensitivity by vertebra, moderate"])
    assert np.isnan(values(free_response_figures, pairs)["sensitivity at 1 false alarms a scan"])


def test_the_free_response_of_a_hand_computed_case():
    """Four scans, three deformed vertebrae, one of them missed; in order of G: hit, alarm, alarm, hit."""
    pairs = perfect(cohort(patients=2, levels=2))
    pairs = pairs.assign(
        true_ratio=[0.6, 0.9, 0.9, 0.7, 0.7, 0.9, 0.9, 0.9],
        ratio=[0.5, 0.55, 0.95, 0.65, np.nan, 0.99, 0.98, 0.97],
    )
    pairs = with_false(missing(pairs, [4]), ["p0001/a"], 0.6)
    curve = free_response(numbered(pairs))
    steps = list(zip(curve.false_alarms, curve.sensitivity.round(3), strict=True))
    assert steps == [(0, 0.333), (0.5, 0.667), (1.5, 0.667)]
    figures = values(free_response_figures, pairs)
    assert figures["sensitivity at 0.25 false alarms a scan"] == pytest.approx(1 / 3)
    assert figures["sensitivity at 0.5 false alarms a scan"] == pytest.approx(2 / 3)


def test_the_free_response_of_a_draw_is_that_of_its_patients_written_out():
    pairs = with_false(missing(noisy(cohort(patients=12)), range(5, 90, 7)), ["p0003/a", "p0008/b"], 0.7)
    pairs = numbered(pairs)
    draws = draw_patients(12, repeats=5)
    name = "sensitivity at 0.5 false alarms a scan"
    for weights, value in zip(draws.weights, free_response_figures(draws, pairs)[name].values, strict=True):
        drawn = [
            pairs[pairs.who == who].assign(who=100 * who + i, patient=f"{who}-{i}")
            for who, times in enumerate(weights)
            for i in range(int(times))
        ]
        assert value == pytest.approx(
            values(free_response_figures, pd.concat(drawn, ignore_index=True))[name]
        )
