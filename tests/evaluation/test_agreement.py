import numpy as np
import pytest
from made_pairs import cohort, numbered, perfect, random, read_as, true_heights
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score

from vfscreen.evaluation.agreement import agreement, agreement_figures, correlation, icc
from vfscreen.evaluation.grades import confusion, grade_figures, grade_numbers
from vfscreen.evaluation.intervals import Draws, draw_patients
from vfscreen.measure import grade

ONCE = Draws(np.ones((1, 2000)))

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
"""Table 2 of Shrout and Fleiss 1979: six targets, four judges."""


def anova_icc(ratings):
    """ICC(2,1) from the table of a two-way analysis of variance, written out."""
    n, k = ratings.shape
    rest = ratings - ratings.mean(1, keepdims=True) - ratings.mean(0) + ratings.mean()
    bms = k * ratings.mean(1).var(ddof=1)
    jms = n * ratings.mean(0).var(ddof=1)
    ems = (rest**2).sum() / ((n - 1) * (k - 1))
    return (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)


def test_the_icc_of_the_published_example():
    assert icc(ONCE, np.arange(6), SHROUT_FLEISS).value == pytest.approx(0.29, abs=0.005)


def test_icc_and_correlation_of_a_draw_are_those_of_its_rows_written_out():
    ratings = np.random.default_rng(0).normal(20, 2, (90, 1)) + np.random.default_rng(1).normal(0, 1, (90, 2))
    who = np.repeat(np.arange(30), 3)
    draws = draw_patients(30, repeats=20)
    rows = [np.repeat(np.arange(90), weights[who].astype(int)) for weights in draws.weights]
    assert icc(draws, who, ratings).values == pytest.approx([anova_icc(ratings[i]) for i in rows])
    expected = [pearsonr(*ratings[i].T).statistic for i in rows]
    assert correlation(draws, who, ratings).values == pytest.approx(expected)


def test_limits_of_agreement_are_mean_and_1_96_standard_deviations():
    truth = np.random.default_rng(0).normal(20, 2, 2000)
    measured = truth + np.random.default_rng(1).normal(0.3, 0.5, 2000)
    figures = agreement(ONCE, np.arange(2000), np.column_stack([truth, measured]))
    error = measured - truth
    assert figures["mean error"].value == pytest.approx(error.mean())
    assert figures["SD of errors"].value == pytest.approx(error.std(ddof=1))
    assert figures["upper limit of agreement"].value == pytest.approx(error.mean() + 1.96 * error.std(ddof=1))
    assert figures["mean absolute error"].value == pytest.approx(np.abs(error).mean())


def values(family, pairs):
    return {name: each.value for name, each in family(ONCE, numbered(pairs)).items()}


def test_a_perfect_reader_agrees_in_all():
    figures = values(agreement_figures, perfect(cohort())) | values(grade_figures, perfect(cohort()))
    assert figures["G: mean absolute error"] == figures["anterior: SD of errors, mm"] == 0
    for name in ("G: ICC(2,1)", "middle: ICC(2,1)", "posterior: correlation", "kappa, linear weights"):
        assert figures[name] == pytest.approx(1)


def test_a_random_reader_agrees_in_nothing():
    pairs = random(cohort(patients=400))
    figures = values(agreement_figures, pairs) | values(grade_figures, pairs)
    for name in ("G: ICC(2,1)", "anterior: ICC(2,1)", "G: correlation", "kappa, quadratic weights"):
        assert figures[name] == pytest.approx(0, abs=0.03)


def test_a_shift_costs_agreement_and_no_correlation():
    table = cohort()
    figures = values(agreement_figures, read_as(table, true_heights(table) + 1.5))
    assert figures["anterior: mean error, mm"] == pytest.approx(1.5)
    assert figures["anterior: correlation"] == pytest.approx(1)
    assert figures["anterior: ICC(2,1)"] < 0.95
    assert figures["anterior: SD of errors, mm"] == pytest.approx(0, abs=1e-6)


def test_what_is_constant_has_no_correlation():
    assert np.isnan(correlation(ONCE, np.arange(9), np.column_stack([np.arange(9.0), np.full(9, 0.3)])).value)


def test_heights_that_the_truth_does_not_know_have_no_figure():
    pairs = perfect(cohort()).assign(true_middle_mm=np.nan)
    figures = agreement_figures(ONCE, numbered(pairs))
    assert np.isnan(figures["middle: ICC(2,1)"].value)
    assert figures["middle: ICC(2,1)"].n == 0
    assert figures["anterior: ICC(2,1)"].value == pytest.approx(1)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
def test_kappa_as_sklearn_has_it(weights):
    table = cohort()
    pairs = read_as(table, true_heights(table) + np.random.default_rng(0).normal(0, 2, (len(table), 3)))
    expected = cohen_kappa_score(pairs.true_ratio.map(rank), pairs.ratio.map(rank), weights=weights)
    assert values(grade_figures, pairs)[f"kappa, {weights} weights"] == pytest.approx(expected)


def rank(ratio):
    return ["normal", "mild", "moderate", "severe"].index(grade(ratio))


def test_grades_are_those_of_the_results():
    ratios = cohort().true_ratio
    assert grade_numbers(ratios).tolist() == ratios.map(rank).tolist()


def test_the_confusion_of_grades_counts_those_not_found_too():
    pairs = perfect(cohort(patients=1, levels=3)).assign(
        true_ratio=[0.9, 0.77, 0.7, 0.5, 0.9, 0.9],
        ratio=[0.9, 0.85, 0.7, 0.7, np.nan, 0.55],
        found=[True, True, True, True, False, True],
    )
    table = confusion(pairs)
    assert table.loc["normal"].tolist() == [1, 0, 0, 1, 1]
    assert table.loc["mild"].tolist() == [1, 0, 0, 0, 0]
    assert table.loc["severe", "moderate"] == 1
    assert table.to_numpy().sum() == len(pairs)
