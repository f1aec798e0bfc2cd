import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from vfscreen.evaluation.figures import coverage, figures_of, roc_auc, with_intervals
from vfscreen.evaluation.matching import match
from vfscreen.measure import FREEDOM
from vfscreen.study import HEIGHTS


def cohort(patients=40, levels=10, seed=0):
    """True vertebrae of patients, none of them found yet."""
    rng = np.random.default_rng(seed)
    n = patients * levels
    heights = {f"true_{h}_mm": rng.uniform(15, 25, n) for h in HEIGHTS}
    table = pd.DataFrame({"patient": np.repeat(np.arange(patients), levels), **heights})
    true = table[[f"true_{h}_mm" for h in HEIGHTS]]
    return table.assign(scan=table.patient, is_false=False, true_ratio=true.min(axis=1) / true.max(axis=1))


def read_by(table, heights_mm, sd=0.5):
    """The table as a reader of these heights (n, 3) leaves it."""
    measured = {f"{h}_mm": heights_mm[:, i] for i, h in enumerate(HEIGHTS)}
    spreads = {f"{h}_sd_mm": sd for h in HEIGHTS}
    ratio = heights_mm.min(1) / heights_mm.max(1)
    table = table.assign(found=True, center_error_mm=1.0, ratio=ratio, ratio_sd=0.02, **measured, **spreads)
    return table.assign(scan_ratio=table.groupby("scan").ratio.transform("min"))


def true_heights(table):
    return table[[f"true_{h}_mm" for h in HEIGHTS]].to_numpy()


def test_a_perfect_reader():
    table = cohort()
    figures = figures_of(read_by(table, true_heights(table)))
    for name in ("recall", "precision", "AUC by vertebra, mild", "AUC by patient, moderate"):
        assert figures[name] == 1
    for name in ("sensitivity at 0.74", "specificity at 0.74", "G correlation", "coverage of G"):
        assert figures[name] == pytest.approx(1)
    assert figures["height error, mm"] == figures["G error"] == 0


def test_a_reader_who_guesses():
    table = cohort(patients=300)
    guessed = np.random.default_rng(1).uniform(15, 25, (len(table), 3))
    figures = figures_of(read_by(table, guessed))
    assert figures["AUC by vertebra, moderate"] == pytest.approx(0.5, abs=0.03)
    assert figures["G correlation"] == pytest.approx(0, abs=0.05)
    assert figures["height error, mm"] == pytest.approx(10 / 3, rel=0.05)  # of two uniform numbers


def test_a_reader_who_is_always_one_millimetre_high():
    table = cohort()
    figures = figures_of(read_by(table, true_heights(table) + 1.0))
    assert figures["height error, mm"] == pytest.approx(1)
    assert figures["height bias, mm"] == pytest.approx(1)
    assert figures["AUC by vertebra, moderate"] > 0.99


def test_a_reader_who_calls_every_vertebra_normal():
    table = cohort()
    figures = figures_of(read_by(table, np.full((len(table), 3), 20.0)))
    assert (figures["sensitivity at 0.74"], figures["specificity at 0.74"]) == (0, 1)
    assert figures["AUC by vertebra, moderate"] == 0.5


def test_what_is_missed_lowers_recall_and_what_is_false_precision():
    table = cohort(patients=10, levels=10)
    read = read_by(table, true_heights(table))
    read.loc[:9, "found"] = False
    false = pd.DataFrame({"patient": [3] * 10, "scan": 3, "is_false": True, "found": False})
    figures = figures_of(
        pd.concat([read, false], ignore_index=True).astype({"is_false": bool, "found": bool})
    )
    assert figures["recall"] == pytest.approx(0.9)
    assert figures["precision"] == pytest.approx(0.9)


def test_a_patient_is_graded_by_the_smallest_ratio():
    table = cohort(patients=2, levels=2).assign(true_ratio=[0.9, 0.7, 0.9, 0.85])
    read = read_by(table, true_heights(table)).assign(scan_ratio=[0.73, 0.73, 0.75, 0.75])
    figures = figures_of(read)
    assert (figures["patient sensitivity at 0.74"], figures["patient specificity at 0.74"]) == (1, 1)


def test_the_area_under_the_curve_of_a_hand_computed_case():
    assert roc_auc([1, 2, 3, 4], [False, True, False, True]) == pytest.approx(0.75)
    assert np.isnan(roc_auc([1, 2], [True, True]))


def test_intervals_of_students_t_hold_nine_tenths_of_its_errors():
    sd = np.full(40_000, 0.7)
    errors = t.rvs(FREEDOM, size=len(sd), random_state=0) * sd * np.sqrt((FREEDOM - 2) / FREEDOM)
    assert coverage(errors, sd) == pytest.approx(0.9, abs=0.005)
    assert coverage(2 * errors, sd) < 0.75


def test_intervals_by_patient_are_wider_than_by_vertebra():
    table = cohort(patients=30, levels=10)
    of_patient = np.repeat(np.random.default_rng(2).normal(0, 1, 30), 10)[:, None]
    read = read_by(table, true_heights(table) + of_patient)
    bias = lambda part: {"bias": float((part.anterior_mm - part.true_anterior_mm).mean())}  # noqa: E731
    by_patient = with_intervals(read, bias, repeats=300)
    alone = with_intervals(read.assign(patient=np.arange(len(read))), bias, repeats=300)
    width = by_patient.high - by_patient.low
    assert width.bias > 2 * (alone.high - alone.low).bias
    assert by_patient.low.bias < by_patient.value.bias < by_patient.high.bias


def test_matching_takes_the_nearest_and_counts_what_is_left():
    true = np.array([[0, 0, 0], [0, 0, 20], [0, 0, 40.0]])
    whole = np.array([True, True, False])
    centers = np.array([[0, 0, 1.0], [0, 0, 3.0], [0, 0, 41.0], [60, 0, 20]])
    pairs, false = match(centers, true, whole)
    assert pairs == [(0, 0)]
    assert len(false) == 2  # one beside the first, one far away; the cut vertebra counts neither way
