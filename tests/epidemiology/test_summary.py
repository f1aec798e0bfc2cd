import io
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_results import study, write_covariates, write_results
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vfscreen.epidemiology import Accuracy, Options, flow_chart, summarize
from vfscreen.epidemiology.cohort import age_group, analysis_table
from vfscreen.epidemiology.covariates import Covariates
from vfscreen.epidemiology.flow import flow_table
from vfscreen.errors import InputError

ARCHIVE = (
    study("a1", "a", 0.5, 0.9, date="2018-01-01"),  # the worst study of a is not the latest one
    study("a2", "a", 0.78, 0.95, date="2020-01-01"),
    study("a3", "a", date="2021-01-01", status="failed", error="unreadable_file"),
    study("b1", "b", 0.7, 0.7, 0.9),
    study("c1", "c", 0.9),
    study("d1", "d", 0.6, status="partial"),
    study("e1", "e", status="failed", error="spine_not_found"),
    study("f1", "f", status="skipped", error="no_suitable_series"),
    study("g1", "g", 0.5),
    study("h1", "h", 0.5),
    study("i1", "i", 0.5),
)
COVARIATES = {
    "patient_id": list("abcdefghz"),
    "age": [61, 75.5, 59.9, 70, 70, 70, None, 66, 66],
    "sex": ["F", "m", "Male", "f", "f", "f", "f", None, "f"],
    "centre": [1, 1, 2, 2, 2, 2, 2, 2, 2],
}


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", *ARCHIVE)


@pytest.fixture
def covariates(tmp_path):
    return write_covariates(tmp_path / "covariates.csv", **COVARIATES)


@pytest.fixture
def summary(results, covariates, tmp_path):
    accuracy = {"moderate": Accuracy(0.84, 0.86, 58, 42)}
    return summarize(results, covariates, tmp_path / "out", Options(by=["centre"], accuracy=accuracy))


def by_patient(summary):
    return summary.analysis.set_index("patient_id")


def test_a_patient_is_the_latest_study_that_was_measured(summary):
    a = by_patient(summary).loc["a"]
    assert (a.study_id, a.n_studies, a.min_genant_ratio, a.grade, a.n_moderate) == ("a2", 3, 0.78, "mild", 0)
    assert (a.fracture_mild, a.fracture_moderate) == (1, 0)


def test_a_patient_without_a_measured_study_is_counted_apart_and_never_negative(summary):
    table = by_patient(summary)
    assert table.excluded.dropna().to_dict() == {
        "d": "partial",
        "e": "failed",
        "f": "skipped",
        "g": "no_age",
        "h": "no_sex",
        "i": "no_covariates",
    }
    measured = ["min_genant_ratio", "grade", "fracture_mild", "fracture_moderate", "n_moderate"]
    assert table.loc[["d", "e", "f"], measured].isna().all(axis=None)
    everyone = summary.prevalence.iloc[0]
    assert (everyone.grouping, everyone.n, everyone.cases) == ("all", 3, 2)


def test_ages_and_sexes_are_read(summary):
    table = by_patient(summary)
    assert table.age_group[["a", "b", "c"]].tolist() == ["60-69", "70-79", "50-59"]
    assert table.sex[["a", "b", "c"]].tolist() == ["female", "male", "male"]
    assert table.centre[["a", "b", "c"]].tolist() == ["1", "1", "2"]


def test_a_study_called_ok_without_a_measurement_is_no_negative(tmp_path, covariates):
    results = write_results(tmp_path / "r", study("a1", "a"), study("b1", "b", 0.9))
    table = by_patient(summarize(results, covariates, tmp_path / "out"))
    assert table.excluded["a"] == "partial"
    assert pd.isna(table.fracture_mild["a"])


def test_studies_without_patient_are_patients_of_their_own(tmp_path):
    results = write_results(tmp_path / "r", study("s1", None, 0.9), study("s2", None, 0.7))
    columns = {"study_id": ["s1", "s2"], "age": [60, 61], "sex": ["f", "f"]}
    summary = summarize(results, write_covariates(tmp_path / "c.csv", **columns), tmp_path / "out")
    assert (len(summary.analysis), summary.n_without_patient) == (2, 2)


def test_covariates_that_know_the_patient_join_their_studies(tmp_path):
    results = write_results(
        tmp_path / "r", study("s1", None, 0.9, date="2020-01-01"), study("s2", None, 0.7, date="2021-01-01")
    )
    columns = {"study_id": ["s1", "s2"], "patient_id": ["p", "p"], "age": [60, 61], "sex": ["f", "f"]}
    summary = summarize(results, write_covariates(tmp_path / "c.csv", **columns), tmp_path / "out")
    assert summary.analysis[["patient_id", "study_id", "age"]].to_numpy().tolist() == [["p", "s2", 61.0]]


def test_age_is_that_of_the_study_where_the_year_of_birth_is_known(tmp_path):
    results = write_results(
        tmp_path / "r", study("s1", "1", 0.9, date="2020-07-01"), study("s2", "2", 0.9, date=None)
    )
    columns = pd.DataFrame({"patient_id": [1, 2], "birth_year": [1950, 1950], "sex": ["f", "f"]})
    columns.to_parquet(tmp_path / "c.parquet")
    table = by_patient(summarize(results, tmp_path / "c.parquet", tmp_path / "out"))
    assert table.age["1"] == 70
    assert table.excluded["2"] == "no_age"


def test_bounds_of_age_groups_are_kept_to():
    ages = pd.Series([49.9, 50, 54.9, 55, 81, np.nan])
    groups = age_group(ages, [50, 55, 60])
    assert groups.astype(object).tolist()[:5] == ["under 50", "50-54", "50-54", "55-59", "60 and over"]
    assert groups.isna().tolist() == [False] * 5 + [True]
    assert age_group(pd.Series([51.0]), [50, 55, 60]).cat.categories.tolist() == ["50-54", "55-59"]
    assert age_group(pd.Series([40.0, 60.0])).cat.categories.tolist() == ["40-49", "50-59", "60-69"]


def test_levels_are_those_of_the_analysed_studies(summary):
    table = summary.levels.set_index("level")
    assert table.index.tolist() == ["all", "unknown"]
    assert table.loc["unknown", ["n_patients", "n_vertebrae", "n_wedge"]].tolist() == [3, 6, 3]
    assert table.loc["all", ["n_normal", "n_mild", "n_moderate", "n_severe"]].tolist() == [3, 1, 2, 0]
    assert table.loc["all", ["share_mild", "share_moderate"]].tolist() == [3 / 6, 2 / 6]


def test_the_flow_tells_who_left_and_why(summary):
    rows = summary.flow.astype(object).where(summary.flow.notna(), None).to_numpy().tolist()
    assert rows == [
        [1, "kept", "found", None, 11, 9],
        [2, "excluded", "skipped", "no_suitable_series", 1, 1],
        [2, "excluded", "failed", "spine_not_found", 1, 1],
        [2, "excluded", "failed", "unreadable_file", 1, 0],
        [2, "excluded", "partial", None, 1, 1],
        [2, "kept", "measured", None, 7, 6],
        [3, "excluded", "other_study", None, 1, 0],
        [3, "kept", "one_study", None, 6, 6],
        [4, "excluded", "no_covariates", None, 1, 1],
        [4, "excluded", "no_age", None, 1, 1],
        [4, "excluded", "no_sex", None, 1, 1],
        [4, "kept", "analysed", None, 3, 3],
    ]


STUDIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", None]),
        st.sampled_from(
            [("ok", None), ("partial", None), ("failed", "too_large"), ("failed", "x"), ("skipped", "y")]
        ),
        st.sampled_from([None, "2020-01-01", "2021-01-01"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STUDIES, st.sets(st.sampled_from("abcd"), min_size=1))
def test_the_numbers_of_a_flow_add_up(drawn, listed):
    studies = table_of_studies(drawn)
    assume(studies.patient_id.isin(listed).any())
    known = pd.DataFrame({"patient_id": sorted(listed), "age": 60.0, "sex": "female"})
    analysis = analysis_table(studies, Covariates("c.csv", "patient_id", (), known))
    flow = flow_table(studies, analysis)
    kept = flow[flow.kind == "kept"].set_index("step")[["n_studies", "n_patients"]]
    left = flow[flow.kind == "excluded"].groupby("step")[["n_studies", "n_patients"]].sum()
    assert kept.loc[1].tolist() == [len(studies), len(analysis)]
    for step in (2, 3, 4):
        gone = left.loc[step] if step in left.index else 0
        assert (kept.loc[step - 1] - gone).tolist() == kept.loc[step].tolist()
    assert kept.n_patients[4] == analysis.excluded.isna().sum()
    assert analysis.fracture_mild.notna().sum() == kept.n_patients[2]


def ratios(status):
    return [0.7] if status in ("ok", "partial") else []


def table_of_studies(drawn):
    rows = [
        study(f"s{i}", patient, *ratios(status), status=status, date=date, error=error)[0]
        for i, (patient, (status, error), date) in enumerate(drawn)
    ]
    table = pd.DataFrame(rows).astype({"n_vertebrae": "Int64", "n_moderate": "Int64"})
    return table.assign(study_date=pd.to_datetime(table.study_date), min_genant_ratio=0.7)


def test_the_chart_shows_every_number_as_text(summary):
    chart = ElementTree.fromstring(summary.chart)
    texts = [text.text.strip() for text in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == sorted(
        [
            "Studies found",
            "11 studies of 9 patients",
            "Studies measured",
            "7 studies of 6 patients",
            "Excluded: 4 studies (3 patients)",
            "skipped, no_suitable_series: 1 (1)",
            "failed, spine_not_found: 1 (1)",
            "failed, unreadable_file: 1 (0)",
            "partial, too little of the spine measured: 1 (1)",
            "(in brackets: patients of whom no study was measured)",
            "Patients, latest measured study",
            "n = 6",
            "Excluded: 1 study",
            "other studies of the same patients: 1",
            "Patients analysed",
            "n = 3",
            "G ≤ 0.8: 2",
            "G ≤ 0.74: 1",
            "Excluded: 3 patients",
            "age unknown: 1",
            "not in the covariates: 1",
            "sex unknown: 1",
        ]
    )


def test_no_text_of_the_chart_leaves_its_box():
    long = [
        "Excluded: 10,000 studies (10,000 patients)",
        flow_chart._IN_BRACKETS,
        "failed, inconsistent_geometry: 1,000 (10)",
    ]
    main = ["Patients, latest measured study", "100,000 studies of 100,000 patients"]
    with mpl.rc_context(flow_chart._STYLE):
        figure = flow_chart._figure([main, main], [long])
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in axes.patches]
    for text in (each for each in axes.texts if each.get_text()):
        extent = text.get_window_extent(renderer)
        assert any(b.x0 < extent.x0 < extent.x1 < b.x1 and b.y0 < extent.y0 < extent.y1 < b.y1 for b in boxes)


def test_stata_and_parquet_hold_what_the_csv_holds(summary, tmp_path):
    out = tmp_path / "out"
    csv = pd.read_csv(out / "analysis.csv", dtype={"centre": str}, parse_dates=["study_date"])
    stata, parquet = pd.read_stata(out / "analysis.dta"), pd.read_parquet(out / "analysis.parquet")
    for other in (stata, parquet):
        other = other.assign(age_group=other.age_group.astype(object)).replace("", None)
        pd.testing.assert_frame_equal(
            csv.astype(object).where(csv.notna(), None),
            other.astype(object).where(other.notna(), None),
            check_dtype=False,
        )
    labels = pd.io.stata.StataReader(io.BytesIO((out / "analysis.dta").read_bytes())).variable_labels()
    assert labels["fracture_moderate"] == "Smallest G <= 0.74"


def test_every_column_of_every_table_is_in_the_data_dictionary(summary, tmp_path):
    for table, rows in summary.data_dictionary.groupby("table"):
        written = pd.read_csv(tmp_path / "out" / f"{table}.csv")
        assert written.columns.tolist() == rows["name"].tolist()
        assert all(len(name) <= 32 and name == name.lower() for name in written)
        for name, missing in zip(rows["name"], rows.missing, strict=True):
            assert missing != "never" or written[name].notna().all(), f"{table}.{name}"


def test_moderate_fractures_alone_are_corrected_where_only_their_accuracy_is_known(summary):
    table = summary.prevalence.set_index("threshold")
    assert table.corrected["mild"].isna().all()
    assert table.corrected["moderate"].notna().any()


BAD = {
    "no column patient_id or study_id": {"name": ["a"], "age": [1], "sex": ["f"]},
    "no column age": {"patient_id": ["a"], "sex": ["f"]},
    "no column sex": {"patient_id": ["a"], "age": [60]},
    "row 3: age is 'sixty'": {"patient_id": ["a", "b"], "age": ["60", "sixty"], "sex": ["f", "f"]},
    "row 2: age is '600'": {"patient_id": ["a"], "age": [600], "sex": ["f"]},
    "row 3: patient_id is empty": {"patient_id": ["a", None], "age": [60, 61], "sex": ["f", "f"]},
    "rows 2 and 4: patient_id a is there twice, with different age": {
        "patient_id": ["a", "b", "a"],
        "age": [60, 61, 62],
        "sex": ["f", "f", "f"],
    },
    "no patient_id is one of the results": {"patient_id": ["A", "B"], "age": [60, 61], "sex": ["f", "f"]},
    "no patient can be analysed": {"patient_id": ["a"], "age": [None], "sex": ["f"]},
    "has no rows": {"patient_id": [], "age": [], "sex": []},
}


@pytest.mark.parametrize("message", BAD)
def test_covariates_that_are_wrong_are_refused_with_a_sentence(message, results, tmp_path):
    path = write_covariates(tmp_path / "bad.csv", **BAD[message])
    with pytest.raises(InputError, match=message) as raised:
        summarize(results, path, tmp_path / "out")
    assert "bad.csv" in str(raised.value) or "analysed" in message
    assert not (tmp_path / "out").exists()


def test_a_birth_after_the_study_is_refused(results, tmp_path):
    path = write_covariates(tmp_path / "c.csv", patient_id=["a"], birth_year=[2024], sex=["f"])
    with pytest.raises(InputError, match="birth_year 2024 of patient_id a gives an age of -4"):
        summarize(results, path, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(by=["smoker"]), "no column smoker"),
        (Options(by=["grade"]), "to group by grade, rename it"),
        (Options(by=["body mass"]), "to group by 'body mass', rename it"),
        (Options(by=["case"]), "of case, one is a word of Stata"),
        (Options(by=["status"]), "to group by status, rename it"),
        (Options(age_groups=[60, 50]), "do not rise"),
        (Options(age_groups=[50, float("nan")]), "do not rise"),
        (Options(age_groups=[-1, 50]), "do not rise"),
    ],
)
def test_options_that_are_wrong_are_refused(options, message, results, tmp_path):
    columns = {**COVARIATES, "grade": 1, "body mass": 1, "case": 1, "status": 1}
    path = write_covariates(tmp_path / "c.csv", **columns)
    with pytest.raises(InputError, match=message):
        summarize(results, path, tmp_path / "out", options)


def test_a_file_that_is_no_table_is_refused(results, tmp_path):
    (tmp_path / "c.csv").write_bytes(b"patient_id,age,sex\nM\xfcller,60,f\n")
    with pytest.raises(InputError, match="UTF-8"):
        summarize(results, tmp_path / "c.csv", tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        summarize(results, tmp_path / "none.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id,age,sex\na,60,f,\n", "more cells than its header"),
        ("patient_id,age,age ,sex\na,60,61,f\n", "two columns age"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_whose_columns_are_not_clear_is_refused(text, message, results, tmp_path):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        summarize(results, tmp_path / "c.csv", tmp_path / "out")


def test_a_column_named_twice_to_group_by_is_one(results, covariates, tmp_path):
    summary = summarize(results, covariates, tmp_path / "out", Options(by=["centre", "centre"]))
    assert summary.analysis.columns.tolist().count("centre") == 1


def test_a_folder_without_tables_is_refused(covariates, tmp_path):
    with pytest.raises(InputError, match=r"studies\.parquet is not there"):
        summarize(tmp_path, covariates, tmp_path / "out")


def test_rows_that_say_the_same_twice_and_empty_lines_do_no_harm(results, tmp_path):
    (tmp_path / "c.csv").write_text(
        "\ufeffpatient_id;age;sex\na;60;f\n\na;60;f\nb;61; M \n", encoding="utf-8"
    )
    table = by_patient(summarize(results, tmp_path / "c.csv", tmp_path / "out"))
    assert table.sex[["a", "b"]].tolist() == ["female", "male"]
    assert table.age[["a", "b"]].tolist() == [60, 61]
