"""From readings to one verdict a reader and study, and to the consensus of a study."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from vfscreen.adjudication.reading import Reading
from vfscreen.errors import InputError
from vfscreen.results import Row

Value = TypeVar("Value", bound=Hashable)

_FRACTURE = {"fracture": True, "no fracture": False}


def one_a_reader(readings: Iterable[Reading]) -> tuple[list[Reading], list[Reading]]:
    """The verdict of each reader and study that counts, and those that it supersedes.

    Of different ones of the same reader the later `read_at` counts; names are compared without case. Raises
    InputError where nothing tells which is later.
    """
    counting, superseded = [], []
    spelling: dict[str, str] = {}
    of = sorted(readings, key=lambda reading: (reading.study_id, reading.reader.casefold()))
    for (_, who), same in groupby(of, key=lambda reading: (reading.study_id, reading.reader.casefold())):
        of_one = list(same)
        last = _latest(of_one)
        counting.append(last)
        spelling.setdefault(who, last.reader)
        superseded += [each for each in of_one if _said(each) != _said(last)]
    named = [[_named(each, spelling) for each in some] for some in (counting, superseded)]
    return named[0], named[1]


def fracture(verdict: str | None) -> bool | None:
    """Whether a verdict says that there is a fracture; None where it leaves that open."""
    return _FRACTURE.get(verdict or "")


def study_row(study: Row, readings: Sequence[Reading], arbiter: str = "") -> Row:
    """A row of `STUDIES_READ`: the automatic result of a study, and what its readers say together.

    There is a consensus where all give the same verdict, or where the arbiter, a reader, gave one.
    """
    decided = [reading for reading in readings if reading.reader.casefold() == arbiter.casefold()]
    deciding = decided or readings
    verdict = _common(reading.verdict for reading in deciding)
    is_fracture = fracture(verdict)
    return {
        **{name: study[name] for name in ("patient_id", "study_id", "study_date")},
        **automatic(study),
        "n_readers": len(readings),
        "readers": [reading.reader for reading in readings],
        "basis": _basis(len(readings), bool(decided), verdict),
        "consensus": verdict,
        "fracture": is_fracture,
        "consensus_grade": _given(reading.grade for reading in deciding) if is_fracture else None,
        "consensus_vertebra": _given(reading.vertebra for reading in deciding) if is_fracture else None,
        "change": _change(study["flagged"], is_fracture),
    }


def conflict_row(study: Row, readings: Sequence[Reading]) -> Row:
    """A row of `CONFLICTS`."""
    return {
        **{name: study[name] for name in ("patient_id", "study_id", "thumbnail", "source")},
        **automatic(study),
        "verdicts": "; ".join(f"{reading.reader}: {_sentence(reading)}" for reading in readings),
    }


def automatic(study: Mapping[str, object]) -> Row:
    """What the machine said, under the names of these tables."""
    return {f"auto_{name}": study[name] for name in ("status", "flagged", "grade", "min_genant_ratio")}


def _common(values: Iterable[Value]) -> Value | None:
    """The value that all have, None where they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _given(values: Iterable[Value | None]) -> Value | None:
    """The value of all who give one."""
    return _common(value for value in values if value is not None)


def _latest(readings: Sequence[Reading]) -> Reading:
    for reading in reversed(readings):
        if all(_outlives(reading, other) for other in readings):
            return reading
    one, other = next(
        (one, other)
        for one in readings
        for other in readings
        if not _outlives(one, other) and not _outlives(other, one)
    )
    raise InputError(
        f"{one.place}: {one.reader} says {one.verdict!r}, but {_sentence(other)!r} in {other.file}, row "
        f"{other.row}, and read_at does not tell which is later; fill it in, or empty one of the two"
    )


def _outlives(one: Reading, other: Reading) -> bool:
    if one.decision == other.decision:
        return not _is_later(other, one)
    return _is_later(one, other)


def _is_later(one: Reading, other: Reading) -> bool:
    """Days are compared where one of the two has no time of day."""
    a, b = one.moment, other.moment
    if a is None or b is None:
        return False
    if isinstance(a, datetime.datetime) and isinstance(b, datetime.datetime):
        return a > b
    return _day(a) > _day(b)


def _day(moment: datetime.date) -> datetime.date:
    return moment.date() if isinstance(moment, datetime.datetime) else moment


def _said(reading: Reading) -> tuple[object, ...]:
    return *reading.decision, reading.comment


def _named(reading: Reading, spelling: Mapping[str, str]) -> Reading:
    return replace(reading, reader=spelling[reading.reader.casefold()])


def _sentence(reading: Reading) -> str:
    vertebra = None if reading.vertebra is None else f"vertebra {reading.vertebra}"
    return ", ".join(part for part in (reading.verdict, reading.grade, vertebra, reading.comment) if part)


def _basis(n_readers: int, has_arbiter: bool, verdict: str | None) -> str:
    if has_arbiter:
        return "arbiter"
    if n_readers == 1:
        return "single reader"
    return "all agree" if verdict else "conflict"


def _change(flagged: bool | None, is_fracture: bool | None) -> str:
    if is_fracture is None:
        return "open"
    if is_fracture:
        return "confirmed" if flagged else "added"
    return {True: "rejected", False: "confirmed", None: "ruled out"}[flagged]
