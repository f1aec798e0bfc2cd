import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from vfscreen.evaluation.intervals import Draws, Estimate, auc, draw_patients, mean, sd


def of_patients(per_patient, values):
    """Who, and values, of patients with this many rows each."""
    return np.repeat(np.arange(len(values) // per_patient), per_patient), values


def weighted(draws, who):
    """The rows of each draw written out, as often as its patients were drawn."""
    return [np.repeat(np.arange(len(who)), weights[who].astype(int)) for weights in draws.weights]


def test_each_draw_has_as_many_patients_as_there_are_and_the_first_each_once():
    draws = draw_patients(30, repeats=50)
    assert draws.weights.shape == (51, 30)
    assert (draws.weights.sum(1) == 30).all()
    assert (draws.weights[0] == 1).all()


def test_the_same_seed_gives_the_same_draws():
    assert (draw_patients(20, 10).weights == draw_patients(20, 10).weights).all()


def test_figures_of_a_draw_are_those_of_its_rows_written_out():
    rng = np.random.default_rng(0)
    who, values = of_patients(4, rng.normal(size=80))
    scores, positive = rng.integers(0, 6, 80), rng.random(80) < 0.4  # with ties
    draws = draw_patients(20, repeats=70)
    rows = weighted(draws, who)
    assert mean(draws, who, values).values == pytest.approx([values[i].mean() for i in rows])
    assert sd(draws, who, values).values == pytest.approx([values[i].std(ddof=1) for i in rows])
    expected = [roc_auc_score(positive[i], scores[i]) for i in rows]
    assert auc(draws, who, scores, positive).values == pytest.approx(expected)


def test_the_interval_of_a_mean_is_that_of_the_theory():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = mean(draw_patients(400, 4000), np.arange(400), values).interval
    half = norm.ppf(0.975) * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_intervals_hold_the_truth_in_about_95_of_100_cohorts():
    rng = np.random.default_rng(2)
    draws = draw_patients(40, 400)
    held = 0
    for _ in range(400):
        of_patient = rng.normal(size=40)
        who, values = of_patients(5, np.repeat(of_patient, 5) + rng.normal(size=200))
        low, high = mean(draws, who, values).interval
        held += low <= 0 <= high
    assert 0.90 < held / 400 < 0.98


def test_patients_are_drawn_and_not_their_vertebrae():
    of_patient = np.repeat(np.random.default_rng(3).normal(size=50), 20)
    by_patient = mean(draw_patients(50), np.repeat(np.arange(50), 20), of_patient)
    by_vertebra = mean(draw_patients(1000), np.arange(1000), of_patient)
    assert np.ptp(by_patient.interval) > 3.5 * np.ptp(by_vertebra.interval)  # sqrt(20) times


def test_what_is_not_known_is_left_out_of_mean_and_number():
    figure = mean(draw_patients(6, 10), np.arange(6), np.array([1, np.nan, 3, np.nan, 5, np.nan]))
    assert (figure.value, figure.n, figure.patients) == (3, 3, 3)


def test_a_figure_of_nothing_is_not_a_number():
    draws, none = draw_patients(5, 10), np.array([], int)
    for figure in (mean(draws, none, []), sd(draws, none, []), auc(draws, none, np.array([]), none > 0)):
        assert np.isnan([figure.value, *figure.interval]).all()
        assert figure.n == 0


def test_too_few_patients_have_a_figure_and_no_interval():
    figure = mean(draw_patients(30), np.repeat([0, 1, 2, 3], 10), np.arange(40))
    assert figure.value == pytest.approx(19.5)
    assert np.isnan(figure.interval).all()


def test_draws_that_lack_the_figure_are_left_out_and_many_of_them_leave_no_interval():
    few, many = np.arange(101.0), np.arange(101.0)
    few[1:3], many[1:50] = np.nan, np.nan
    assert Estimate(few, 10, 10).interval == pytest.approx(np.percentile(few[3:], [2.5, 97.5]))
    assert np.isnan(Estimate(many, 10, 10).interval).all()


def test_the_area_under_the_curve_of_a_hand_computed_case():
    """Positives 2, 4; negatives 1, 2: three pairs are won, and one is a tie."""
    draws = Draws(np.ones((1, 4)))
    figure = auc(draws, np.arange(4), np.array([1, 2, 2, 4]), np.array([False, True, False, True]))
    assert figure.value == pytest.approx(3.5 / 4)
