"""REDCap's rules for a data dictionary hold, and the page in docs/ is the one made from the code."""

import csv
import io
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

from vfscreen.redcap import HEADER, IDENTIFIERS, data_dictionary
from vfscreen.results import STUDIES, VERTEBRAE

DOCS = Path(__file__).parents[1] / "docs"
ROWS = list(csv.DictReader(io.StringIO(data_dictionary())))
NAMES = [row["Variable / Field Name"] for row in ROWS]


def test_the_page_is_the_one_made_from_the_code():
    assert (DOCS / "redcap.csv").read_text(encoding="utf-8") == data_dictionary()


def test_it_has_the_columns_of_redcap():
    assert len(HEADER) == 18
    assert tuple(ROWS[0]) == HEADER


def test_the_first_field_is_the_record_and_forms_stand_together():
    assert NAMES[0] == "study_id"
    forms = [row["Form Name"] for row in ROWS]
    assert [form for form, _ in groupby(forms)] == ["study", "vertebrae", "verdicts"]


def test_variables_are_unique_short_and_in_small_letters():
    assert [name for name, n in Counter(NAMES).items() if n > 1] == []
    assert [name for name in NAMES if not re.fullmatch(r"[a-z][a-z0-9_]{0,25}", name)] == []


def test_every_column_of_the_tables_has_its_variable():
    assert set(STUDIES.names) <= set(NAMES)
    assert {f"v_{name}" for name in VERTEBRAE.names} - set(NAMES) == {"v_patient_id", "v_study_id"}


def test_types_and_validations_are_those_that_redcap_knows():
    assert {row["Field Type"] for row in ROWS} == {"text", "notes", "radio", "yesno"}
    validated = [row for row in ROWS if row["Text Validation Type OR Show Slider Number"]]
    assert {row["Text Validation Type OR Show Slider Number"] for row in validated} == {
        "integer",
        "number",
        "date_ymd",
    }
    assert {row["Field Type"] for row in validated} == {"text"}


def test_what_is_chosen_from_has_codes_and_labels_and_nothing_else_has():
    for row in ROWS:
        choices = row["Choices, Calculations, OR Slider Labels"]
        assert bool(choices) == (row["Field Type"] == "radio")
        for choice in filter(None, choices.split(" | ")):
            assert re.fullmatch(r"[a-z0-9_]+, [^|]+", choice)


def test_no_label_has_what_would_be_taken_for_html():
    assert all(row["Field Label"] for row in ROWS)
    assert [row["Field Label"] for row in ROWS if re.search(r"<\S", row["Field Label"])] == []


def test_what_may_identify_is_marked():
    marked = {row["Variable / Field Name"] for row in ROWS if row["Identifier?"] == "y"}
    assert marked == set(IDENTIFIERS)
    assert {"patient_id", "study_id", "series_uid", "source", "study_date"} <= marked
