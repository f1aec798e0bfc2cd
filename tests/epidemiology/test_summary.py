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


@settings(max_examples=60, deadline=None)
@given(STUDIES, st.sets(st.integers(0, 11), min_size=1))
def test_covariates_by_study_lack_a_patient_only_where_they_lack_all_studies(drawn, listed):
    studies = table_of_studies(drawn)
    names = [f"s{i}" for i in sorted(listed)]
    assume(studies.study_id.isin(names).any())
    known = pd.DataFrame({"study_id": names, "age": 60.0, "sex": "female"})
    analysis = analysis_table(studies, Covariates("c.csv", "study_id", (), known))
    is_listed = studies.study_id.isin(names)
    patients = set(studies.patient_id[is_listed].dropna())
    for row in analysis[analysis.study_status == "ok"].itertuples():
        has_row = row.study_id in names or row.patient_id in patients
        assert (row.excluded == "no_covariates") == (not has_row)
    assert analysis.study_id.is_unique


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
    with pytest.raises(InputError, match="does not exist"):
        summarize(results, tmp_path / "none.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id,age,sex\na,60,f,\n", "more cells than its header"),
        ("patient_id,age,age ,sex\na,60,61,f\n", "two of its columns are called age"),
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


def test_a_status_that_no_study_has_is_refused(covariates, tmp_path):
    results = write_results(tmp_path / "r", study("a1", "a", 0.9), study("b1", "b", 0.9, status="done"))
    with pytest.raises(
        InputError, match="status 'done' of study_id b1 is none of ok, partial, failed, skipped"
    ):
        summarize(results, covariates, tmp_path / "out")


def by_centre(tmp_path, *centres):
    """How many patients of each centre the prevalence is of, by the cell that tells the centre."""
    patients = [f"p{i}" for i in range(len(centres))]
    results = write_results(tmp_path / "r", *(study(f"s{name}", name, 0.9) for name in patients))
    columns = {"patient_id": patients, "age": 60, "sex": "f", "centre": centres}
    path = write_covariates(tmp_path / "c.csv", **columns)
    table = summarize(results, path, tmp_path / "out", Options(by=["centre"])).prevalence
    rows = table[(table.grouping == "centre") & (table.threshold == "mild")]
    return dict(zip(rows.value, rows.n, strict=True))


def test_only_an_empty_cell_has_no_group(tmp_path):
    words = ["NA", "None", "nan", "null", "."]
    assert by_centre(tmp_path, *words, None, None) == {**dict.fromkeys(words, 1), "missing": 2}


def test_the_group_of_empty_cells_has_a_name_of_its_own(tmp_path):
    assert by_centre(tmp_path, "missing", None, None, "missing_") == {
        "missing": 1,
        "missing_": 1,
        "missing__": 2,
    }


@pytest.mark.parametrize("word", ["NA", ".", "NaN", "None", "null", "N/A", " "])
def test_what_r_stata_and_python_write_for_unknown_is_no_age_and_no_sex(word, results, tmp_path):
    columns = {"patient_id": ["a", "b", "c"], "age": [word, "60", "61"], "sex": ["f", word, "f"]}
    table = by_patient(summarize(results, write_covariates(tmp_path / "c.csv", **columns), tmp_path / "out"))
    assert table.excluded[["a", "b"]].tolist() == ["no_age", "no_sex"]
    assert pd.isna(table.excluded["c"])


def test_studies_whose_patient_is_na_are_no_single_patient(tmp_path):
    results = write_results(tmp_path / "r", study("s1", None, 0.9), study("s2", None, 0.7))
    columns = {"study_id": ["s1", "s2"], "patient_id": ["NA", "NA"], "age": [60, 70], "sex": ["f", "m"]}
    summary = summarize(results, write_covariates(tmp_path / "c.csv", **columns), tmp_path / "out")
    assert (len(summary.analysis), summary.n_without_patient) == (2, 2)


TWO_SCANS = (
    study("a1", "a", 0.9, date="2018-03-01"),
    study("a2", "a", 0.7, date="2020-03-01"),
    study("a3", "a", 0.6, date=None),
    study("b1", "b", 0.9, date="2020-01-01"),
)


def listed(tmp_path, *studies, **columns):
    """The analysis by patient, of two scans of a and one of b, with these columns of a CSV by study."""
    results = write_results(tmp_path / "r", *(studies or TWO_SCANS))
    path = write_covariates(tmp_path / "c.csv", **columns)
    return by_patient(summarize(results, path, tmp_path / "out", Options(by=["site"])))


def test_a_patient_whose_other_study_is_listed_is_as_much_older_as_lies_between(tmp_path):
    columns = {"study_id": ["a1", "b1"], "age": [68, 50], "sex": ["f", "m"], "site": ["x", "y"]}
    table = listed(tmp_path, **columns)
    a = table.loc["a"]
    assert (a.study_id, a.age, a.age_group, a.sex, a.site) == ("a2", 70, "70-79", "female", "x")
    assert table.loc["b", ["age", "sex", "site"]].tolist() == [50, "male", "y"]


def test_the_nearest_of_the_listed_studies_tells_the_age(tmp_path):
    early, late = (
        study("a0", "a", 0.9, date="2008-03-01"),
        study("a9", "a", status="failed", date="2021-03-01"),
    )
    columns = {"study_id": ["a0", "a3", "a9"], "age": [50, 51, 73], "sex": "f", "site": ["x", "y", "z"]}
    a = listed(tmp_path, early, *TWO_SCANS, late, **columns).loc["a"]
    assert (a.study_id, a.age, a.site) == ("a2", 72, "z")


def test_the_study_itself_goes_before_every_other_one(tmp_path):
    same_day = study("a0", "a", 0.5, status="partial", date="2020-03-01")
    columns = {"study_id": ["a0", "a1", "a2"], "age": [1, 2, 72], "sex": "f", "site": "x"}
    assert listed(tmp_path, same_day, *TWO_SCANS, **columns).age["a"] == 72


def test_an_age_at_a_day_unknown_is_no_age_but_a_year_of_birth_is(tmp_path):
    columns = {"study_id": ["a3", "b1"], "sex": "f", "site": "x"}
    table = listed(tmp_path, **columns, age=[60, 60])
    assert (table.excluded["a"], table.sex["a"]) == ("no_age", "female")
    assert listed(tmp_path, **columns, birth_year=[1950, 1950]).age["a"] == 70


def test_a_study_that_the_results_lack_still_tells_of_its_patient(tmp_path):
    columns = {
        "study_id": ["other", "b1"],
        "patient_id": ["a", "b"],
        "birth_year": 1950,
        "sex": "f",
        "site": 1,
    }
    assert listed(tmp_path, **columns).age["a"] == 70


def test_two_sexes_of_one_patient_are_refused(tmp_path):
    with pytest.raises(InputError, match="rows 2 and 4: studies a1 and a2 are of one patient"):
        listed(tmp_path, study_id=["a1", "b1", "a2"], age=60, sex=["f", "m", "m"], site=1)


def test_an_age_before_birth_is_refused_where_another_study_tells_it(tmp_path):
    late = study("a9", "a", status="failed", date="2031-03-01")
    with pytest.raises(InputError, match="at another study of the patient of study_id a2 gives an age of -5"):
        listed(tmp_path, *TWO_SCANS, late, study_id=["a9", "b1"], age=[6, 60], sex="f", site=1)


def test_a_study_of_two_patients_is_refused(tmp_path):
    columns = {"study_id": ["a1", "b1"], "patient_id": ["a", "x"], "age": 60, "sex": "f", "site": 1}
    with pytest.raises(InputError, match="study_id b1 is of patient_id x, but of b in the results") as raised:
        listed(tmp_path, **columns)
    assert "1 of 2 studies" in str(raised.value)
    assert "--pseudonymise" in str(raised.value)


@pytest.mark.parametrize("others", [[], ["a"]])
@pytest.mark.parametrize(("ours", "theirs"), [("007", "7"), ("7", "007")])
def test_ids_that_lost_their_leading_zeros_are_refused(ours, theirs, others, tmp_path):
    results = write_results(tmp_path / "r", *(study(f"s{name}", name, 0.9) for name in (ours, "a")))
    columns = {"patient_id": [theirs, *others], "age": 60, "sex": "f"}
    path = write_covariates(tmp_path / "c.csv", **columns)
    with pytest.raises(InputError, match=f"{theirs} is not in the results, but {ours} is.*leading zeros"):
        summarize(results, path, tmp_path / "out")


def test_patients_who_differ_in_zeros_alone_may_both_be_there(tmp_path):
    results = write_results(tmp_path / "r", study("s1", "7", 0.9), study("s2", "007", 0.7))
    path = write_covariates(tmp_path / "c.csv", patient_id=["007", "7"], age=[60, 61], sex="f")
    assert by_patient(summarize(results, path, tmp_path / "out")).age[["007", "7"]].tolist() == [60, 61]


def test_rows_that_fit_nobody_are_counted(summary, tmp_path):
    assert summary.n_rows_of_nobody == 1  # z
    results = write_results(tmp_path / "r", *TWO_SCANS)
    columns = {"study_id": ["a1", "c1", "d1"], "patient_id": ["a", "a", "d"], "age": 60, "sex": "f"}
    path = write_covariates(tmp_path / "c.csv", **columns)
    assert summarize(results, path, tmp_path / "out").n_rows_of_nobody == 1  # d1; c1 is of a


def test_groups_between_bounds_that_are_no_whole_years_are_named_by_both():
    groups = age_group(pd.Series([50.5, 59.9, 60, 64.9, 65, 70]), [50.5, 60, 65, 70])
    ends = ["50.5 to under 60"] * 2 + ["60-64"] * 2 + ["65-69", "70 and over"]
    assert groups.astype(object).tolist() == ends


@pytest.mark.parametrize(
    ("ages", "is_warned"), [([0.6, 0.7, 0.8], True), ([0, 0, 0], True), ([61, 70, 5], False)]
)
def test_a_cohort_of_children_is_doubted(ages, is_warned, results, tmp_path, caplog):
    path = write_covariates(tmp_path / "c.csv", patient_id=["a", "b", "c"], age=ages, sex="f")
    summarize(results, path, tmp_path / "out")
    assert ("ages are in years" in caplog.text) == is_warned


def test_an_age_with_a_comma_is_refused_with_what_to_write(results, tmp_path):
    (tmp_path / "c.csv").write_text("patient_id;age;sex\na;63,5;f\n")
    with pytest.raises(InputError, match=r"row 2: age is '63,5'.*write 63\.5, not 63,5"):
        summarize(results, tmp_path / "c.csv", tmp_path / "out")


@pytest.mark.parametrize("hidden", ["0001-01-01", "9999-12-31"])
def test_a_date_by_which_an_archive_hides_the_true_one_is_unknown(hidden, tmp_path):
    folder = write_results(tmp_path / "results", study("1", "a", 0.9, date=hidden), study("2", "b", 0.7))
    path = write_covariates(tmp_path / "c.csv", patient_id=["a", "b"], birth_year=1950, sex="f")
    table = by_patient(summarize(folder, path, tmp_path / "out"))
    assert table.excluded.dropna().to_dict() == {"a": "no_age"}
    assert (tmp_path / "out" / "analysis.dta").exists()


@pytest.mark.parametrize("name", ["c.CSV", "c.tsv", "c.TSV", "c.PARQUET"])
def test_the_end_of_a_name_may_be_in_capitals(name, results, tmp_path):
    table = pd.DataFrame({"patient_id": ["a", "b"], "age": [60, 61], "sex": "f"})
    if name.lower().endswith("parquet"):
        table.to_parquet(tmp_path / name)
    else:
        table.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name.lower() else ",")
    assert by_patient(summarize(results, tmp_path / name, tmp_path / "out")).age["b"] == 61
