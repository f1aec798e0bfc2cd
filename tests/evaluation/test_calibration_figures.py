import numpy as np
import pandas as pd
import pytest
from made_pairs import cohort, noisy, numbered, perfect
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from vfscreen.evaluation.calibration import (
    calibration_figures,
    coverage_figures,
    expected_calibration_error,
    logistic_line,
    reliability_figures,
)
from vfscreen.evaluation.intervals import Draws, draw_patients
from vfscreen.measure import FREEDOM, SPREAD_TO_SD

ONCE = Draws(np.ones((1, 20000)))


def forecast(n=20000, seed=0, sharpness=1.0):
    """Probabilities, and what happened; true ones where `sharpness` is 1."""
    rng = np.random.default_rng(seed)
    score = rng.normal(-1, 2, n)
    return expit(sharpness * score), rng.random(n) < expit(score)


def test_the_line_is_that_of_sklearn():
    predicted, happened = forecast(2000)
    slope, intercept = logistic_line(ONCE, np.arange(2000), predicted, happened)
    fit = LogisticRegression(C=np.inf, tol=1e-9).fit(logit(predicted)[:, None], happened)
    assert slope.value == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    assert intercept.value == pytest.approx(fit.intercept_[0], rel=1e-4)


def test_the_line_of_a_draw_is_that_of_its_rows_written_out():
    predicted, happened = forecast(300)
    who, draws = np.repeat(np.arange(30), 10), draw_patients(30, 10)
    slope, _ = logistic_line(draws, who, predicted, happened)
    for weights, value in zip(draws.weights, slope.values, strict=True):
        rows = np.repeat(np.arange(300), weights[who].astype(int))
        alone, _ = logistic_line(ONCE, np.arange(len(rows)), predicted[rows], happened[rows])
        assert value == pytest.approx(alone.value)


def test_true_probabilities_have_slope_1_and_too_sure_ones_less():
    assert logistic_line(ONCE, np.arange(20000), *forecast())[0].value == pytest.approx(1, abs=0.05)
    too_sure = logistic_line(ONCE, np.arange(20000), *forecast(sharpness=2.0))[0].value
    assert too_sure == pytest.approx(0.5, abs=0.03)


def test_probabilities_that_part_without_overlap_have_no_line():
    predicted = np.r_[np.full(20, 0.1), np.full(20, 0.9)]
    slope, _ = logistic_line(ONCE, np.arange(40), predicted, predicted > 0.5)
    assert np.isnan(slope.value)


def test_the_calibration_error_of_a_hand_computed_case():
    """Of four, two in the bin at 0.1 (none happened: 0.1 off) and two in that at 0.85 (half: 0.35 off)."""
    predicted, happened = np.array([0.1, 0.1, 0.85, 0.85]), np.array([False, False, True, False])
    assert expected_calibration_error(ONCE, np.arange(4), predicted, happened).value == pytest.approx(
        0.5 * 0.1 + 0.5 * 0.35
    )


def test_the_brier_score_as_sklearn_has_it():
    pairs = noisy(cohort())
    expected = brier_score_loss(pairs.true_ratio <= 0.74, pairs.probability_moderate)
    assert calibration_figures(ONCE, numbered(pairs))["Brier score"].value == pytest.approx(expected)


def test_the_observed_shares_are_those_of_the_tenths():
    pairs = noisy(cohort())
    inside = pairs[(pairs.probability_moderate >= 0.3) & (pairs.probability_moderate < 0.4)]
    figures = reliability_figures(ONCE, numbered(pairs))
    assert figures["observed, 0.3 to 0.4"].value == pytest.approx((inside.true_ratio <= 0.74).mean())
    assert figures["predicted, 0.3 to 0.4"].value == pytest.approx(inside.probability_moderate.mean())
    assert sum(each.n for name, each in figures.items() if name.startswith("observed")) == len(pairs)


def test_intervals_cover_what_they_promise_and_narrow_ones_less():
    truth = perfect(cohort(patients=500))
    errors = t.rvs(FREEDOM, size=(len(truth), 1), random_state=0) / SPREAD_TO_SD * 0.5
    right = truth.assign(anterior_mm=truth.true_anterior_mm + errors[:, 0])
    figures = coverage_figures(ONCE, numbered(right))
    assert figures["coverage of anterior height"].value == pytest.approx(0.9, abs=0.01)
    assert figures["coverage of middle height"].value == 1
    narrow = coverage_figures(ONCE, numbered(right.assign(anterior_sd_mm=0.25)))
    assert narrow["coverage of anterior height"].value < 0.75


def test_the_coverage_of_g_is_by_the_interval_that_the_results_give():
    pairs = perfect(cohort(patients=1, levels=2)).assign(
        true_ratio=[0.7, 0.7, 0.7, 0.7],
        ratio_low=[0.6, 0.71, 0.7, np.nan],
        ratio_high=[0.8, 0.9, 0.7, np.nan],
    )
    figure = coverage_figures(ONCE, numbered(pairs))["coverage of G"]
    assert (figure.value, figure.n) == (pytest.approx(2 / 3), 3)


def test_results_without_a_second_look_have_no_calibration():
    none = [
        "probability_moderate",
        "ratio_low",
        "ratio_high",
        *(f"{h}_sd_mm" for h in ("anterior", "middle")),
    ]
    pairs = numbered(perfect(cohort()).assign(**dict.fromkeys(none, np.nan)))
    figures = pd.Series(
        {k: v.value for k, v in (calibration_figures(ONCE, pairs) | coverage_figures(ONCE, pairs)).items()}
    )
    assert figures.drop("coverage of posterior height").isna().all()
    assert reliability_figures(ONCE, pairs) == {}
