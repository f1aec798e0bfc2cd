from pathlib import Path

from vfscreen.results import STUDIES, data_dictionary

PAGE = Path(__file__).parents[1] / "docs" / "data-dictionary.md"


def test_the_page_is_the_one_made_from_the_schemas():
    assert PAGE.read_text(encoding="utf-8") == data_dictionary()


def test_the_dictionary_names_every_column_and_every_error():
    page = data_dictionary()
    assert all(f"| `{name}` |" in page for name in (*STUDIES.names, "unreadable_file", "reader_died"))
