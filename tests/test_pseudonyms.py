"""Pseudonyms are the same under one key and tell nothing without it; intervals within a patient stay."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfscreen import errors
from vfscreen.errors import InputError, StudyError, UnreadableFile
from vfscreen.pseudonyms import LONGEST_SHIFT, MAKE_KEY, Pseudonyms, general
from vfscreen.results import StudyRecord, study_row, vertebra_rows
from vfscreen.study import Doubt, StudyHeader, StudyResult, Vertebra

KEY, OTHER = Pseudonyms(b"sixteen bytes or more"), Pseudonyms(b"sixteen bytes or mora")
KINDS = ("patient", "study", "series", "source", "stamp")
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StudyError)]

names = st.text(st.characters(codec=None))  # with surrogates, as paths that are no UTF-8 have them
marked = names.map(lambda name: f"§{name}")  # what stands in no record by chance
dates = st.dates(date(1900, 1, 1), date(2100, 1, 1))


def as_iso(day: date) -> str:
    return day.isoformat()


# --- names ---------------------------------------------------------------------------------------


@given(names)
def test_a_pseudonym_depends_on_the_key_and_the_kind_of_name_alone(name):
    made = [getattr(KEY, kind)(name) for kind in KINDS]
    assert made == [getattr(Pseudonyms(KEY.key), kind)(name) for kind in KINDS]
    others = [getattr(OTHER, kind)(name) for kind in KINDS]
    assert len({*made, *others}) == 2 * len(KINDS)
    assert all(len(pseudonym) == 16 and int(pseudonym, 16) >= 0 for pseudonym in made)


def test_a_hundred_thousand_ids_have_as_many_pseudonyms():
    assert len({KEY.patient(f"P-{number}") for number in range(100_000)}) == 100_000


def test_the_pseudonym_is_the_one_that_is_documented():
    """Whoever has the key finds a patient again with any tool."""
    import hashlib
    import hmac

    assert KEY.patient("P-17") == hmac.new(KEY.key, b"patient:P-17", hashlib.sha256).hexdigest()[:16]
    assert KEY.study("1.2.3") == hmac.new(KEY.key, b"study:1.2.3", hashlib.sha256).hexdigest()[:16]
    assert KEY.key_digest == hashlib.sha256(b"key:" + KEY.key).hexdigest()[:16]


def test_another_key_has_another_digest_and_no_repr_shows_it():
    assert KEY.key_digest != OTHER.key_digest
    assert "sixteen" not in repr(KEY)


# --- dates ---------------------------------------------------------------------------------------


@given(dates, dates, names)
def test_days_between_the_dates_of_a_patient_stay(first, second, owner):
    shifted = [date.fromisoformat(KEY.date(as_iso(day), owner)) for day in (first, second)]
    assert shifted[1] - shifted[0] == second - first
    assert 1 <= (first - shifted[0]).days <= LONGEST_SHIFT


def test_the_shift_differs_from_patient_to_patient_and_from_key_to_key():
    shifted = [KEY.date("2020-01-31", f"P-{number}") for number in range(5000)]
    assert len(set(shifted)) == LONGEST_SHIFT
    others = [OTHER.date("2020-01-31", f"P-{number}") for number in range(5000)]
    assert sum(a == b for a, b in zip(shifted, others, strict=True)) < 50


def test_the_calendar_ends_at_its_first_day_and_what_is_no_date_is_refused():
    assert KEY.date("0001-01-01", "P") == "0001-01-01"
    with pytest.raises(ValueError, match="isoformat"):
        KEY.date("DOE^JANE", "P")


# --- records -------------------------------------------------------------------------------------

headers = st.builds(
    StudyHeader,
    patient_id=st.none() | marked,
    study_date=st.none() | dates.map(as_iso) | marked,
    series_uid=st.none() | marked,
    n_slices=st.none() | st.integers(1, 999),
)


def result_of(header: StudyHeader) -> StudyResult:
    vertebra = Vertebra(np.arange(18.0).reshape(6, 3), np.array([20.0, 19, 21]), 0.9, "normal", "normal", 0.8)
    return StudyResult(header, "partial", (vertebra,), doubts=(Doubt("few_vertebrae", "only 1", True),))


@st.composite
def records(draw: st.DrawFn) -> StudyRecord:
    header, error = draw(headers), draw(st.none() | st.sampled_from(ERRORS))
    ids = [draw(marked) for _ in range(3)]
    failure = error and error(f"{ids[0]} in {ids[1]} is damaged")
    result = None if failure else result_of(header)
    patient_id = ids[2] if draw(st.booleans()) else None
    return StudyRecord(ids[0], ids[1], patient_id, result, failure, header, {"read": 1.0}, stamp=draw(marked))


def raw_texts(record: StudyRecord) -> list[str]:
    header = record.header
    texts = (record.study_id, record.source, record.patient_id, header.patient_id, header.study_date)
    return [text for text in (*texts, header.series_uid, record.stamp) if text]


@given(records())
def test_nothing_of_a_record_links_it_to_the_archive(record):
    hidden = KEY.record(record)
    shown = repr(hidden) + str(hidden.error)
    if hidden.error is None:
        shown += repr(study_row(hidden, 0.74)) + repr(vertebra_rows(hidden))
    for text in raw_texts(record):
        assert text not in shown
        assert repr(text)[1:-1] not in shown
    assert "§" not in shown


@given(records())
def test_what_was_measured_stays_and_so_does_the_kind_of_error(record):
    hidden = KEY.record(record)
    assert type(hidden.error) is type(record.error)
    assert hidden.stage_seconds == record.stage_seconds
    assert hidden.header.n_slices == record.header.n_slices
    if record.result and hidden.result:
        assert hidden.result.vertebrae is record.result.vertebrae
        assert hidden.result.doubts == record.result.doubts
        assert hidden.result.header == hidden.header


@given(records(), dates, dates)
def test_records_of_a_patient_share_pseudonym_and_shift(record, first, second):
    patient = {"patient_id": "§P-17", "result": None, "error": UnreadableFile("x")}
    hidden = [
        KEY.record(StudyRecord(**{**vars(record), **patient, "header": StudyHeader(None, as_iso(day))}))
        for day in (first, second)
    ]
    assert hidden[0].patient_id == hidden[1].patient_id == KEY.patient("§P-17")
    days = [date.fromisoformat(str(one.header.study_date)) for one in hidden]
    assert days[1] - days[0] == second - first


def test_the_manifests_patient_goes_before_the_headers():
    header = StudyHeader(patient_id="of the header", study_date="2020-01-31")
    hidden = KEY.record(StudyRecord("s", "s", "of the manifest", result_of(header), None, header, {}))
    assert hidden.patient_id == KEY.patient("of the manifest")
    assert hidden.header.study_date == KEY.date("2020-01-31", "of the manifest")
    hidden = KEY.record(StudyRecord("s", "s", None, result_of(header), None, header, {}))
    assert hidden.patient_id == hidden.header.patient_id == KEY.patient("of the header")


def test_a_study_without_patient_has_none_and_a_shift_of_its_own():
    header = StudyHeader(study_date="2020-01-31")
    hidden = KEY.record(StudyRecord("s", "f", None, result_of(header), None, header, {}))
    assert hidden.patient_id is None
    assert hidden.header.study_date == KEY.date("2020-01-31", "s")


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_an_error_becomes_the_sentence_of_its_class(kind):
    try:
        raise kind("DOE^JANE.dcm is damaged") from ValueError("DOE")
    except StudyError as error:
        hidden = general(error)
    assert type(hidden) is kind
    assert str(hidden) == kind.__doc__.splitlines()[0]
    assert hidden.__cause__ is None


def test_a_new_field_of_a_record_is_thought_of():
    """A field added to these has to be replaced in `Pseudonyms.record`, or to hold nothing that links."""
    known = {
        StudyRecord: {
            *("study_id", "source", "patient_id", "result", "error", "header", "stage_seconds"),
            *("choice", "stamp"),
        },
        StudyHeader: {
            *("patient_id", "study_date", "series_uid"),
            *("n_slices", "slice_spacing_mm", "pixel_spacing_mm", "widest_step_mm"),
        },
        StudyResult: {"header", "status", "vertebrae", "curve_mm", "doubts"},
    }
    for kind, names_of_fields in known.items():
        assert {field.name for field in fields(kind)} <= names_of_fields


# --- the key -------------------------------------------------------------------------------------


def test_a_newline_at_the_end_of_the_file_is_no_part_of_the_key(tmp_path):
    keys = []
    for name, end in (("none", b""), ("unix", b"\n"), ("windows", b"\r\n")):
        (tmp_path / name).write_bytes(KEY.key + end)
        keys.append(Pseudonyms.from_file(tmp_path / name))
    assert keys == [KEY] * 3


@pytest.mark.parametrize("content", [b"", b"\n", b"fifteen bytes..", b"fifteen bytes..\n\n"])
def test_a_short_key_is_refused_with_a_way_to_make_one(tmp_path, content):
    (tmp_path / "key.txt").write_bytes(content)
    with pytest.raises(
        InputError, match=r"bytes of 16 needed; make one with: python -c .*token_hex"
    ) as caught:
        Pseudonyms.from_file(tmp_path / "key.txt")
    assert "fifteen" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_key_that_is_not_there_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        Pseudonyms.from_file(tmp_path / name)


def test_the_way_to_make_a_key_works(tmp_path):
    command = MAKE_KEY.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert len(Pseudonyms.from_file(tmp_path / "key.txt").key) == 64
