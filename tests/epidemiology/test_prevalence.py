import json
import math

import numpy as np
import pandas as pd
import pytest

from vfscreen.epidemiology import Accuracy, accuracy_of_metrics
from vfscreen.epidemiology.prevalence import prevalence_table, rogan_gladen, wilson
from vfscreen.errors import InputError

GOOD = Accuracy(0.84, 0.86, 58, 42)
MANY = 10**9


def cohort(is_case, **columns):
    n = len(is_case)
    usual = {"age_group": pd.Categorical(["60-69"] * n), "sex": ["female"] * n, "excluded": [None] * n}
    cases = {f"fracture_{name}": pd.array(is_case, "Int8") for name in ("mild", "moderate")}
    return pd.DataFrame({**usual, **cases, **columns})


@pytest.mark.parametrize(("cases", "n"), [(3, 17), (15, 148), (147, 148)])
def test_the_ends_of_wilsons_interval_lie_196_of_their_standard_errors_from_the_share(cases, n):
    for end in wilson(cases, n):
        assert abs(cases / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)


def test_wilsons_interval_of_no_case_begins_at_0_and_is_no_point():
    assert wilson(0, 10) == pytest.approx((0, 1.959964**2 / (10 + 1.959964**2)))


def test_wilsons_interval_of_a_published_example():
    """81 of 263: 0.2553 to 0.3662 (Newcombe, Stat Med 1998, table I, method 3)."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_nobody_has_no_prevalence():
    assert all(math.isnan(end) for end in wilson(0, 0))
    assert rogan_gladen(0, 0, GOOD) is None


def test_published_corrections_come_out():
    """Brucellosis in cows, and Moujaber et al. 2008: the examples of epi.prev in the R package epiR."""
    assert rogan_gladen(23, 150, Accuracy(0.96, 0.89, MANY, MANY)).value == pytest.approx(0.051, abs=5e-4)
    helicobacter = rogan_gladen(6, 151, Accuracy(0.964, 0.927, MANY, MANY))
    assert helicobacter.value == 0
    assert helicobacter.truncated


def test_an_interval_computed_by_hand():
    """30 of 100, Se 0.9 of 50, Sp 0.8 of 80, step by step with z = 1.96.

    p' = (30 + 1.9207) / 103.8415 = 0.307398; Se' = 46 / 52 = 0.884615; Sp' = 65 / 82 = 0.792683;
    P' = 0.100081 / 0.677298 = 0.147764; Se'(1 - Se')/52 = 0.0019629; Sp'(1 - Sp')/82 = 0.0020041;
    shift = 7.6829 (0.147764 x 0.0019629 - 0.852236 x 0.0020041) = -0.010894;
    variance = (0.0020503 + 0.00004286 + 0.0014556) / 0.458733 = 0.0077360, its root 0.087955.
    """
    corrected = rogan_gladen(30, 100, Accuracy(0.9, 0.8, 50, 80))
    assert corrected.value == pytest.approx(0.1 / 0.7)
    assert corrected.low == 0  # 0.147764 - 0.010894 - 0.172391 = -0.035521
    assert corrected.high == pytest.approx(0.147764 - 0.010894 + 0.172391, abs=2e-5)
    assert corrected.truncated


def test_a_perfect_reader_needs_no_correction():
    """The interval is then that of Agresti and Coull (Am Stat 1998)."""
    corrected = rogan_gladen(30, 100, Accuracy(1, 1, MANY, MANY))
    z = 1.959964
    share = (30 + z**2 / 2) / (100 + z**2)
    reach = z * math.sqrt(share * (1 - share) / (100 + z**2))
    assert corrected.value == pytest.approx(0.3)
    assert (corrected.low, corrected.high) == pytest.approx((share - reach, share + reach), abs=1e-6)
    assert not corrected.truncated


@pytest.mark.parametrize("accuracy", [Accuracy(0.5, 0.5, 50, 50), Accuracy(0.3, 0.75, 100, 4)])
def test_a_reader_who_tells_nothing_gives_no_corrected_prevalence(accuracy):
    assert rogan_gladen(30, 100, accuracy) is None
    row = prevalence_table(cohort([1, 0, 0]), (), {"mild": accuracy}).iloc[0]
    assert row[["corrected", "corrected_low", "corrected_high", "truncated"]].isna().all()
    assert row.sensitivity == accuracy.sensitivity


def test_fewer_cases_than_the_reader_takes_for_cases_contradict_it():
    """Of 1,000 without a fracture a specificity of 0.7 calls 300; 50 do not fit."""
    assert rogan_gladen(50, 1000, Accuracy(0.9, 0.7, 100, 100)) is None
    assert rogan_gladen(290, 1000, Accuracy(0.9, 0.7, 100, 100)).value == 0


def test_a_cohort_of_known_prevalence_is_corrected_back():
    """Also the uncertainty of sensitivity and specificity is in the interval: it holds 95 of 100 truths."""
    rng = np.random.default_rng(0)
    truth, se, sp, repeats = 0.2, 0.84, 0.86, 2000
    cases = rng.binomial(500, truth * se + (1 - truth) * (1 - sp), repeats)
    found_se, found_sp = rng.binomial(60, se, repeats) / 60, rng.binomial(90, sp, repeats) / 90
    corrected = [
        rogan_gladen(int(k), 500, Accuracy(a, b, 60, 90))
        for k, a, b in zip(cases, found_se, found_sp, strict=True)
    ]
    assert np.mean([each.value for each in corrected]) == pytest.approx(truth, abs=0.02)
    assert np.mean([each.low <= truth <= each.high for each in corrected]) == pytest.approx(0.95, abs=0.025)


def test_prevalence_is_given_of_all_and_by_every_group():
    table = prevalence_table(
        cohort(
            [1, 0, 1, 0],
            age_group=pd.Categorical(["60-69", "60-69", "80-89", "80-89"], ["60-69", "70-79", "80-89"]),
            sex=["female", "male", "female", "female"],
            centre=["a", "a", "b", None],
        ),
        ["centre"],
    )
    mild = table[table.threshold == "mild"].set_index(["grouping", "age_group", "sex", "value"])
    counts = {key: (row.n, row.cases) for key, row in mild.iterrows()}
    assert counts == {
        ("all", "all", "all", "all"): (4, 2),
        ("age_group", "60-69", "all", "all"): (2, 1),
        ("age_group", "70-79", "all", "all"): (0, 0),
        ("age_group", "80-89", "all", "all"): (2, 1),
        ("sex", "all", "female", "all"): (3, 2),
        ("sex", "all", "male", "all"): (1, 0),
        ("age_group_sex", "60-69", "female", "all"): (1, 1),
        ("age_group_sex", "60-69", "male", "all"): (1, 0),
        ("age_group_sex", "70-79", "female", "all"): (0, 0),
        ("age_group_sex", "70-79", "male", "all"): (0, 0),
        ("age_group_sex", "80-89", "female", "all"): (2, 1),
        ("age_group_sex", "80-89", "male", "all"): (0, 0),
        ("centre", "all", "all", "a"): (2, 1),
        ("centre", "all", "all", "b"): (1, 1),
        ("centre", "all", "all", "missing"): (1, 0),
    }
    assert math.isnan(mild.prevalence["age_group", "70-79", "all", "all"])
    assert table.corrected.isna().all()


def metrics(folder, *rows):
    columns = ("table", "group", "figure", "value", "patients")
    path = folder / "metrics.json"
    path.write_text(json.dumps({"figures": [dict(zip(columns, row, strict=True)) for row in rows]}))
    return path


def test_accuracy_is_read_from_an_evaluation(tmp_path):
    path = metrics(
        tmp_path,
        ("table 2", "all", "sensitivity by patient, moderate", 0.84, 58),
        ("table 2", "all", "specificity by patient, moderate", 0.86, 42),
        ("table 2", "dose: low", "specificity by patient, moderate", 0.1, 10),
        ("table 2", "all", "sensitivity by patient, mild", 0.9, 60),
        ("table 2", "all", "specificity by patient, mild", None, 0),
    )
    assert accuracy_of_metrics(path) == {"moderate": GOOD}


NO_VALUE = '{"figures": [{"table": "table 2", "group": "all", "figure": "sensitivity by patient, mild"}]}'


@pytest.mark.parametrize(
    "text", ["{}", "[]", "no json", '{"figures": []}', '{"figures": [{"x": 1}]}', NO_VALUE]
)
def test_a_file_without_accuracy_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        accuracy_of_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize("name", ["name", "figure"])
def test_figures_of_experts_are_no_accuracy_of_a_run(tmp_path, name):
    row = {"table": "table 2", name: "sensitivity by patient, mild", "value": 0.9, "patients": 12}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"studies": 12, "readings": 24, "figures": [{**row, "group": "all"}, row]}))
    with pytest.raises(InputError, match=r"of `vfscreen evaluate experts`.*`vfscreen evaluate RESULTS"):
        accuracy_of_metrics(path)


def test_an_accuracy_that_is_none_is_refused():
    with pytest.raises(InputError, match="specificity is 86"):
        Accuracy(0.84, 86, 58, 42)
    with pytest.raises(InputError, match="number of patients"):
        Accuracy(0.84, 0.86, 0, 42)
