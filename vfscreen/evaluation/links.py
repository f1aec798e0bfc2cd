"""Which study of a result folder each study of a reference is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vfscreen.errors import InputError
from vfscreen.evaluation.reference.model import Reference
from vfscreen.evaluation.reference.names import tails, without_endings

KEYS = ("series_uid", "study_id", "source", "name", "patient_id")
"""By what a study of the reference is found in the results: the first of these that is alike."""
NAMES = ("source", "study_id")

Studies = Iterable[Mapping[Any, Any]]


@dataclass(frozen=True)
class Links:
    """The row of the results that each study of the reference has, (n,), -1 for none.

    `by_name` are the studies of the reference whose name is only the end of that in the results, or the
    reverse: other folders stand in front.
    """

    rows: NDArray[np.integer]
    by_name: tuple[int, ...]


def linked(studies: pd.DataFrame, reference: Reference, results: Path) -> Links:
    """Find the studies of the reference in `studies.parquet`.

    Raises InputError where none is found, or where one may be of several.
    """
    rows = np.full(len(reference.studies), -1)
    known = studies[["study_id", "source", "series_uid", "patient_id"]].astype(object)
    records = known.where(known.notna(), None).to_dict("records")
    keys = [study.keys() for study in reference.studies]
    by_name = []
    for link in KEYS:
        ours, theirs = _holders(link, keys), _holders(link, records)
        shared = ours.keys() & theirs.keys()
        if link == "name":  # the same last folder in two archives is not the same study
            shared &= _names(keys) | _names(records)
        for key in sorted(shared, key=len, reverse=True):
            if len(ours[key]) == len(theirs[key]) == 1:
                study, row = ours[key][0], theirs[key][0]
                if rows[study] < 0 and row not in rows:
                    rows[study] = row
                    by_name += [study] if link == "name" else []
        _check_ambiguous(link, {key: (ours[key], theirs[key]) for key in shared}, rows, reference)
    _check_contradictions(keys, records, rows, reference)
    if (rows < 0).all():
        _refuse([study.name for study in reference.studies], list(studies["source"]), reference, results)
    return Links(rows, tuple(by_name))


def _holders(link: str, studies: Studies) -> dict[str, list[int]]:
    """Which studies a key is of. A name is the end of a path, so that other folders may be in front."""
    holders = defaultdict(list)
    for i, study in enumerate(studies):
        if link == "name":
            keys = {tail for of in NAMES if study.get(of) for tail in tails(study[of])}
        else:
            keys = {study[link]} if study.get(link) else set()
        for key in keys:
            holders[key].append(i)
    return holders


def _names(studies: Studies) -> set[str]:
    """The whole names of studies, without endings of files."""
    return {without_endings(study[of]) for study in studies for of in NAMES if study.get(of)}


def _check_ambiguous(
    link: str,
    shared: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    rows: NDArray[np.integer],
    reference: Reference,
) -> None:
    """Raises InputError for a key of several studies that nothing else tells apart."""
    for key, (ours, theirs) in shared.items():
        names = ", ".join(reference.studies[i].name for i in ours[:3])
        if link == "name" and len(theirs) == 1 and theirs[0] not in rows and (rows[ours] < 0).all():
            raise InputError(
                f"{reference.path} holds more than one truth that may be of study {key}: {names}; leave one, "
                "or name them as the results do"
            )
        if link == "patient_id" and len(theirs) > 1 and (rows[ours] < 0).any():
            raise InputError(
                f"{reference.path} names a study by its patient {key} alone, of whom the results hold "
                f"{len(theirs)} studies; add the column study_id"
            )


def _check_contradictions(
    ours: Sequence[Mapping[Any, Any]],
    theirs: Sequence[Mapping[Any, Any]],
    rows: NDArray[np.integer],
    reference: Reference,
) -> None:
    """Raises InputError where a key names another study than the one found, or one but for leading zeros."""
    for link in ("series_uid", "study_id", "source"):
        row_of = {key: rows[0] for key, rows in _holders(link, theirs).items() if len(rows) == 1}
        bare = {key.lstrip("0"): key for key in row_of}
        for i, study in enumerate(ours):
            key, row = study.get(link) or "", rows[i]
            if row >= 0 and row_of.get(key, row) != row:
                raise InputError(
                    f"{reference.path}: {link} {key} is of another study of the results than the other keys "
                    f"of {reference.studies[i].name}; mend the rows"
                )
            like = bare.get(key.lstrip("0"), key)
            if like != key and (row < 0 or row == row_of[like]):
                raise InputError(
                    f"{reference.path}: {link} {key} differs from {like} of the results in leading zeros "
                    "alone; write it as the results do, in a column of text"
                )


def _refuse(ours: Sequence[str], theirs: Sequence[str], reference: Reference, results: Path) -> None:
    raise InputError(
        f"No study of the reference {reference.path} (such as {', '.join(ours[:2])}) is one of the results "
        f"{results} (such as {', '.join(theirs[:2]) or 'none at all'}); name them alike, by series_uid, "
        "study_id, source or patient_id"
    )
