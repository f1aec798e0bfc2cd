import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from made_pairs import cohort, missing, noisy, perfect
from rich.console import Console

from vfscreen.evaluation.evaluation import evaluate
from vfscreen.evaluation.outputs import write_evaluation
from vfscreen.evaluation.paper import EXPERTS, PROPOSED, PUBLISHED
from vfscreen.evaluation.plots import MOST_POINTS, cloud
from vfscreen.evaluation.terminal import terminal_tables

PICTURES = {"roc", "free_response", "bland_altman", "scatter", "reliability"}
ABOUT = {"versions": {"vfscreen": "0.1.0"}, "weights": {"refiner": "3f9a<b>"}}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "evaluation"
    table = cohort()
    evaluation = evaluate(noisy(table), perfect(table), repeats=20)
    write_evaluation(evaluation, folder, ABOUT)
    return folder


def figures_of_all(folder):
    rows = json.loads((folder / "metrics.json").read_text())["figures"]
    return {(row["table"], row["figure"]): row for row in rows if row["group"] == "all"}


def page(folder):
    return (folder / "evaluation.html").read_text("utf-8")


def test_all_files_are_written(out):
    files = {"metrics.json", "metrics.csv", "differences.csv", "evaluation.html"}
    assert {path.name for path in out.iterdir()} == files | {f"{name}.svg" for name in PICTURES}


def test_a_second_call_writes_the_same_bytes(out, tmp_path):
    table = cohort()
    write_evaluation(evaluate(noisy(table), perfect(table), repeats=20), tmp_path, ABOUT)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_metrics_have_sensitivity_and_specificity_with_their_numbers(out):
    figures, scans = figures_of_all(out), noisy(cohort()).groupby("scan")
    for grade, threshold in (("mild", 0.8), ("moderate", 0.74)):
        deformed, called = scans.true_ratio.min() <= threshold, scans.ratio.min() <= threshold
        sensitivity = figures["table 2", f"sensitivity by patient, {grade}"]
        specificity = figures["table 2", f"specificity by patient, {grade}"]
        assert (sensitivity["n"], specificity["n"]) == (deformed.sum(), (~deformed).sum())
        patient = scans.patient.first()  # each has two scans
        assert sensitivity["patients"] == patient[deformed].nunique() < sensitivity["n"]
        assert specificity["patients"] == patient[~deformed].nunique()
        assert sensitivity["value"] == pytest.approx(called[deformed].mean())
        assert specificity["value"] == pytest.approx((~called[~deformed]).mean())


def test_the_csv_holds_the_figures_of_the_json(out):
    with (out / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    figures = json.loads((out / "metrics.json").read_text())["figures"]
    assert len(rows) == len(figures)
    assert list(rows[0]) == ["table", "group", "figure", "value", "low", "high", "n", "patients"]


def test_what_cannot_be_computed_is_null_with_its_number(tmp_path):
    pairs = perfect(cohort(patients=6)).assign(true_ratio=0.9)
    write_evaluation(evaluate(missing(pairs, pairs.index), repeats=10), tmp_path, {})
    figures = figures_of_all(tmp_path)
    sensitivity = figures["table 2", "sensitivity by patient, moderate"]
    assert [sensitivity[name] for name in ("value", "low", "high", "n")] == [None, None, None, 0]
    assert figures["table 2", "specificity by patient, moderate"]["n"] == 12
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert "– (n 0)" in page(tmp_path)


def test_no_figure_is_drawn_that_the_pairs_cannot_give(tmp_path):
    pairs = perfect(cohort(patients=6)).assign(probability_moderate=np.nan, true_ratio=0.9)
    write_evaluation(evaluate(pairs, repeats=10), tmp_path, {})
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"bland_altman", "scatter"}


def test_files_of_an_earlier_evaluation_do_not_stay_beside_those_of_a_later_one(tmp_path):
    pairs = noisy(cohort(patients=6))
    write_evaluation(evaluate(pairs, pairs, repeats=10), tmp_path, {})
    write_evaluation(evaluate(pairs.assign(probability_moderate=np.nan), repeats=10), tmp_path, {})
    names = {path.name for path in tmp_path.iterdir()}
    assert names & {"reliability.svg", "differences.csv"} == set()
    assert "roc.svg" in names


def test_figures_are_vectors_with_text_as_text(out):
    for name in PICTURES:
        tree = ElementTree.parse(out / f"{name}.svg")
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert "text" in tags, name
        assert "image" not in tags, name


def test_the_page_needs_nothing_from_outside(out):
    html = page(out)
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)|\bsrc=", html)
    assert not re.search(r"href=[\"'](?!#)", html)


def test_the_page_is_well_formed_and_holds_every_figure_and_the_papers_numbers(out):
    html = page(out)
    checker = Balanced()
    checker.feed(html)
    assert checker.open == []
    assert html.count("<svg") == len(PICTURES)
    assert all(who in html for who in PUBLISHED)
    assert "3f9a&lt;b&gt;" in html
    assert "currentColor" in html


def test_the_papers_figures_are_all_shown_beside_ours(out):
    ours = {name for table, name in figures_of_all(out) if table in ("table 1", "table 2")}
    assert set(PROPOSED) == set(EXPERTS) == ours
    cells = re.findall(r"<td>([^<]*)</td>", page(out))
    for name in ("localization error, mm", "recall, G <= 0.74", "precision"):
        assert f"{EXPERTS[name]:.3f}" in cells
    assert f"{PROPOSED['specificity by patient, mild']:.2f}" in cells


def test_references_within_the_page_lead_to_one_place_each(out):
    html = page(out)
    targets = re.findall(r'\bid="([^"]+)"', html)
    for name in set(re.findall(r'(?:href="|url\()#([^")]+)', html)):
        assert targets.count(name) == 1, name


def test_of_many_vertebrae_some_are_drawn_deformed_ones_preferred():
    pairs = noisy(cohort(patients=400))
    drawn = cloud(pairs)
    assert len(drawn) == MOST_POINTS
    assert (drawn.true_ratio <= 0.8).sum() == MOST_POINTS // 2


def test_the_terminal_shows_a_row_each_figure_beside_the_papers_and_the_agreement():
    console = Console(width=120, file=io.StringIO(), record=True)
    evaluation = evaluate(noisy(cohort(patients=8)), repeats=20)
    for table in terminal_tables(evaluation):
        console.print(table)
    shown = console.export_text()
    for name in PUBLISHED["paper, experts"]:
        assert name in shown
    assert "0.983" in shown
    assert "limits of agreement" in shown
    assert [row for row in shown.splitlines() if row.lstrip("│ ").startswith("recall ")]


class Balanced(HTMLParser):
    """Which elements are open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
