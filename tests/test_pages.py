from pathlib import Path

import pytest

from vfscreen.pages import data_dictionary, errors_page, study_errors
from vfscreen.results import STUDIES

DOCS = Path(__file__).parents[1] / "docs"


def test_the_pages_are_those_made_from_the_code():
    assert (DOCS / "data-dictionary.md").read_text(encoding="utf-8") == data_dictionary()
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == errors_page()


def test_the_dictionary_names_every_column():
    page = data_dictionary()
    assert all(f"| `{name}` |" in page for name in STUDIES.names)


@pytest.mark.parametrize("kind", study_errors(), ids=lambda kind: kind.code)
def test_each_error_has_a_meaning_and_says_what_to_do(kind):
    assert kind.code != "study_error"
    assert kind.__doc__
    assert len(kind.advice) > 40
    assert f"\n## {kind.code}\n" in errors_page()


def test_no_two_errors_have_one_code():
    codes = [kind.code for kind in study_errors()]
    assert len(set(codes)) == len(codes)
