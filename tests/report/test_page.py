import base64
import hashlib
import json
import re
import shutil
from html import unescape
from pathlib import Path

import pydicom
import pytest
from made_run import RUN, study, write_run

import vfscreen
from vfscreen.adjudication.verdicts import COLUMNS, VERDICTS
from vfscreen.errors import InconsistentGeometry, NoSuitableSeries, UnreadableFile
from vfscreen.pages import study_errors
from vfscreen.report.page import DOUBTS, page, write_page
from vfscreen.study import Doubt

SAMPLE = Path(__file__).parents[2] / "sample_data"
EDGE = Doubt("spine_at_edge", "the image ends in the spine", partial=True)
THICK = Doubt("thick_slices", "slices stand 4.0 mm apart")
ARCHIVE = (
    study("severe", 0.9, 0.55, 0.7, patient="P1"),
    study("moderate", 0.9, 0.74, 0.8, patient="P1", doubts=(THICK,)),
    study("cut", 0.6, patient="P2", status="partial", doubts=(EDGE, THICK)),
    study("normal", 0.9, 0.95, patient="P3"),
    study("short", 0.9, status="partial", doubts=(EDGE,)),
    study("unseen", status="partial", doubts=(EDGE,)),
    study("gap", error=InconsistentGeometry("a gap of 6 mm")),
    study("torn", error=UnreadableFile(f"{RUN['input']}/torn/IM7 is truncated")),
    study("scout", error=NoSuitableSeries("only localizers")),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), *ARCHIVE)


@pytest.fixture(scope="module")
def html(out):
    return page(out)


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1])


def words_of(html):
    """The text of the page before its data, in single spaces."""
    body = html[html.index("<body>") : html.index('<script type="application/json"')]
    return " ".join(unescape(re.sub("<[^>]+>", " ", body)).split())


def test_the_flow_tells_what_is_left_at_each_step_and_what_is_not(html):
    words = words_of(html)
    steps = [
        "Studies found: 9 8 patients",
        "With a series to screen: 8",
        "Screened: 6",
        "Measured: 5",
        "Flagged: 3",
    ]
    assert [step for step in steps if step not in words] == []
    assert "2 patients; 2 ok, 1 partial" in words
    left = ["1 skipped: no suitable series", "1 failed: unreadable file", "1 no whole vertebra"]
    assert [reason for reason in left if reason not in words] == []
    assert "1 measured, no vertebra with G ≤ 0.74 1 partial: too little measured to say" in words


def test_failures_stand_with_what_to_do(html):
    words = words_of(html)
    assert "inconsistent_geometry failed 1 Slices are missing" in words
    assert "send it again" in words
    assert "<code>vfscreen info</code> lists the decoders" in html


def test_doubts_are_counted_in_all_studies_and_in_the_flagged_ones(html):
    assert "thick slices 2 2 slices stand far apart" in words_of(html)
    assert "spine at edge 3 1 the image ends" in words_of(html)


def test_every_doubt_that_the_package_has_is_put_in_words():
    package = Path(vfscreen.__file__).parent
    named = {
        name for path in package.rglob("*.py") for name in re.findall(r'Doubt\(\s*"(\w+)"', path.read_text())
    }
    assert "spine_at_edge" in named
    assert named <= set(DOUBTS)


def test_every_error_is_known_to_the_page(tmp_path):
    errors = [kind(f"reason {i}") for i, kind in enumerate(study_errors())]
    html = page(write_run(tmp_path, *(study(f"s{i}", error=error) for i, error in enumerate(errors))))
    assert [error.code for error in errors if f"<code>{error.code}</code>" not in html] == []


def test_a_bar_of_the_histogram_holds_the_limit_of_its_grade(tmp_path):
    html = page(write_run(tmp_path, study("a", 0.74), study("b", 0.8), study("c", 0.6), study("d", 0.7401)))
    bars = re.findall(r'<rect class="(\w+)".*?<title>(.*?)</title>', html)
    assert bars == [
        ("severe", "G 0.58 to 0.60: 1"),
        ("moderate", "G 0.72 to 0.74: 1"),
        ("mild", "G 0.74 to 0.76: 1"),
        ("mild", "G 0.78 to 0.80: 1"),
    ]


def test_flagged_studies_come_worst_first_with_their_deformed_vertebrae(html):
    cases = data_of(html)["cases"]
    assert [case["study"] for case in cases] == ["severe", "cut", "moderate"]
    assert [vertebra["number"] for vertebra in cases[0]["found"]] == [2, 3]
    assert cases[0]["found"][0]["heights"] == [11.0, 19.5, 20.0]
    low, high = cases[0]["found"][0]["interval"]
    assert low < 0.55 < high
    assert (cases[2]["deformed"], cases[2]["vertebrae"], cases[2]["doubts"]) == (1, 3, ["thick_slices"])


def test_what_has_no_result_is_listed_and_nothing_else(html):
    rows = {row["study"]: row for row in data_of(html)["unmeasured"]}
    assert set(rows) == {"short", "unseen", "gap", "torn", "scout"}
    assert (rows["short"]["cause"], rows["gap"]["cause"]) == ("spine at edge", "inconsistent geometry")
    assert rows["torn"]["reason"] == "torn/IM7 is truncated"


def test_verdicts_and_their_columns_are_those_of_the_contract(html):
    data = data_of(html)
    assert (data["verdicts"], data["columns"]) == (list(VERDICTS), list(COLUMNS))


def test_a_run_without_a_second_look_has_no_intervals(tmp_path):
    html = page(write_run(tmp_path, study("a", 0.5, sd=None)))
    assert data_of(html)["cases"][0]["found"][0]["interval"] is None


def test_a_run_that_flags_more_lists_vertebrae_up_to_its_threshold(tmp_path):
    data = data_of(page(write_run(tmp_path, study("a", 0.84, 0.95), threshold=0.85)))
    assert [vertebra["number"] for vertebra in data["cases"][0]["found"]] == [1]


def test_a_run_without_a_flag_has_a_page(tmp_path):
    html = page(write_run(tmp_path, study("a", 0.9)))
    assert data_of(html)["cases"] == []
    assert "Flagged: 0" in words_of(html)


def test_text_of_an_archive_stays_text(tmp_path):
    evil = '</script><script>alert("1")</script><!--'
    html = page(
        write_run(
            tmp_path, study(f"{evil} 100%?#", 0.5, patient=evil), study("b", error=UnreadableFile(evil))
        )
    )
    assert "alert(" not in html.replace(json.dumps(evil)[1:-1].replace("<", "\\u003c"), "")
    case = data_of(html)["cases"][0]
    assert case["patient"] == evil
    assert case["picture"].endswith("%20100%2525%253F%2523.png")


def test_nothing_is_asked_for_but_the_pictures(html):
    assert not re.search(r"(https?:)?//\w+\.\w", re.sub(r"// .*", "", html))
    assert set(re.findall(r'(?:href|src)="([^#"][^"]*)"', html)) == set()
    assert [case["picture"] for case in data_of(html)["cases"]] == [
        f"thumbnails/{name}.png" for name in ("severe", "cut", "moderate")
    ]


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_page_allows_its_own_code_and_no_other(html, tag):
    policy = re.search('Content-Security-Policy" content="(.*?)"', html)[1]
    content = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}'" in unescape(policy)
    assert "default-src 'none'" in unescape(policy)


def test_a_second_call_keeps_the_key_of_the_verdicts_and_another_run_has_its_own(tmp_path):
    first = write_run(tmp_path / "a", study("s", 0.5))
    again = write_run(
        tmp_path / "b", study("s", 0.5), calls=[*RUN["calls"], {"started": "2026-03-02T20:00:00+00:00"}]
    )
    other = write_run(tmp_path / "c", study("s", 0.5), calls=[{"started": "2026-03-02T20:00:00+00:00"}])
    keys = [data_of(page(out))["key"] for out in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]


def test_the_page_replaces_an_earlier_one_and_leaves_nothing_else(out):
    before = {path.name for path in out.iterdir()}
    (out / "report.html").write_text("earlier")
    write_page(out)
    assert (out / "report.html").read_text("utf-8") == page(out)
    assert {path.name for path in out.iterdir()} == before | {"report.html"}


def test_neither_the_place_of_the_archive_nor_the_command_is_told(html):
    assert "jane" not in html.lower()
    assert not re.search(r"/(home|tmp|mnt)/", html)


def test_a_name_in_the_headers_is_nowhere_in_the_page(tmp_path, shipped_models):
    archive, out = tmp_path / "archive", tmp_path / "results"
    shutil.copytree(SAMPLE / "severe_biconcave", archive / "one")
    for path in (archive / "one").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientName = dataset.ReferringPhysicianName = dataset.StudyDescription = "DOE^JANE"
        dataset.PatientBirthDate = "19500101"
        dataset.save_as(path)
    vfscreen.run(archive, out, models=shipped_models, workers=1)
    write_page(out)
    html = (out / "report.html").read_text("utf-8")
    assert len(data_of(html)["cases"]) == 1
    assert not re.search(r"doe(?!s)|jane|1950-?01-?01", html, re.IGNORECASE)
