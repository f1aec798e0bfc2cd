"""The pairs table: the vertebrae of a reference beside what a run measured of them.

One row a true vertebra and scan, then one row for each false detection:

| column | meaning |
| --- | --- |
| `patient`, `scan` | whose rows a bootstrap draws together; the study, as the reference names it |
| `level`, `slice_mm`, `dose` | level of the truth; slice spacing and dose group of the scan, where known |
| `status` | of the study in the results: ok, partial, failed, skipped; missing where it has no row |
| `found`, `is_false` | a true vertebra that has a detection; a detection without a true vertebra |
| `true_ratio`, `true_anterior_mm` ... | of the truth; heights are NaN where it has only G |
| `ratio`, `anterior_mm` ..., `score`, and with `_sd`, `_low`, `_high` | measured; NaN where not found |
| `probability_moderate` | that the true G is <= 0.74, as the results say it |
| `center_error_mm` | from the detection to the truth; NaN where not found or without positions |
| `scan_ratio` | smallest G measured anywhere in the scan; NaN where nothing was measured |

What is found and what is false is said in `matching`; a study that failed or has no row has all its true
vertebrae not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from vfscreen.errors import InputError
from vfscreen.evaluation.matching import match
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy
from vfscreen.evaluation.reference.names import tails
from vfscreen.study import HEIGHTS
from vfscreen.volume import Floats

CENTER = [f"center_{axis}_mm" for axis in "xyz"]
MEASURED = {
    **{f"height_{name}_mm": f"{name}_mm" for name in HEIGHTS},
    **{f"height_{name}_sd_mm": f"{name}_sd_mm" for name in HEIGHTS},
    "genant_ratio": "ratio",
    "genant_ratio_sd": "ratio_sd",
    "genant_ratio_low": "ratio_low",
    "genant_ratio_high": "ratio_high",
    "probability_moderate": "probability_moderate",
    "score": "score",
}
"""Columns of `vertebrae.parquet` and what the pairs table calls them."""
OF_STUDY = ["study_id", "source", "series_uid", "patient_id", "status", "slice_spacing_mm"]
OF_VERTEBRA = ["study_id", "vertebra", "level", *CENTER, *MEASURED]

COLUMNS = [
    *("patient", "scan", "level", "slice_mm", "dose", "status", "is_false", "found"),
    *("true_ratio", *(f"true_{name}_mm" for name in HEIGHTS)),
    *(*MEASURED.values(), "center_error_mm", "scan_ratio"),
]
LINKS = ("series_uid", "study_id", "source", "name", "patient_id")
"""By what a study of the reference is found in the results: the first of these that is alike."""

Indices = NDArray[np.integer]


@dataclass(frozen=True)
class Unmatched:
    """Studies that only one side knows, by name: of the reference without results, and the reverse."""

    without_results: tuple[str, ...]
    without_reference: tuple[str, ...]


@dataclass(frozen=True)
class _Paired:
    """One study: the detection of each true vertebra (n,), -1 for none, how far off, and the false ones."""

    detections: Indices
    center_error_mm: Floats
    false: Indices


def pair(results: Path, reference: Reference) -> pd.DataFrame:
    """The pairs table of a result folder: `COLUMNS`, as above.

    Raises InputError where the folder is no result folder, where no study is in both, or where the
    reference places its vertebrae by levels that the results do not know.
    """
    studies = _read(results, "studies.parquet", OF_STUDY)
    vertebrae = _read(results, "vertebrae.parquet", OF_VERTEBRA)
    rows = _linked(studies, reference, results)
    if reference.joined_by == "level" and vertebrae["level"].isna().all():
        raise InputError(
            f"{reference.path} places its vertebrae by level alone, and {results} knows no levels; add the "
            f"columns {', '.join(CENTER)} to the reference"
        )
    scans = _scans(studies, vertebrae, reference, rows)
    of_scan = vertebrae.groupby("study_id").indices
    found = [np.asarray(of_scan.get(study_id, []), int) for study_id in scans["study_id"]]
    if reference.joined_by == "position":
        paired = _all_by_position(reference, found, vertebrae[CENTER].to_numpy())
    else:
        labels = vertebrae[reference.joined_by]
        paired = [
            _by_label(study, rows, labels.iloc[rows])
            for study, rows in zip(reference.studies, found, strict=True)
        ]
    return _table(reference, scans, paired, vertebrae)


def _all_by_position(reference: Reference, found: Sequence[Indices], centers_mm: Floats) -> Sequence[_Paired]:
    """Raises InputError where nothing is found, but would be with x and y turned: that is RAS, not LPS."""

    def in_axes(signs: Sequence[int]) -> list[_Paired]:
        return [
            _by_position(study, rows, centers_mm[rows] * signs)
            for study, rows in zip(reference.studies, found, strict=True)
        ]

    paired = in_axes((1, 1, 1))
    if any((each.detections >= 0).any() for each in paired):
        return paired
    turned = np.concatenate([each.detections >= 0 for each in in_axes((-1, -1, 1))])
    if turned.size and turned.mean() > 0.5:
        raise InputError(
            f"{reference.path}: its vertebrae lie where those of the results would with x and y turned; "
            "positions are LPS, x to the patient's left and y to posterior, so turn their signs"
        )
    return paired


def unmatched(results: Path, reference: Reference) -> Unmatched:
    """The studies that only the reference or only the results hold. Raises InputError as `pair`."""
    studies = _read(results, "studies.parquet", OF_STUDY)
    rows = _linked(studies, reference, results)
    return Unmatched(
        tuple(study.name for study, row in zip(reference.studies, rows, strict=True) if row < 0),
        tuple(studies["source"].drop(rows[rows >= 0])),
    )


def _read(results: Path, name: str, needed: Sequence[str]) -> pd.DataFrame:
    """A table of a result folder, with the columns that are needed of it."""
    path = results / name
    if not path.is_file():
        raise InputError(f"{results} is no result folder of `vfscreen run`: it holds no {name}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in needed if column not in table]
    if missing:
        raise InputError(f"{path} lacks columns: {', '.join(missing)}; it is of another version")
    return table


# --- studies -------------------------------------------------------------------------------------


def _linked(studies: pd.DataFrame, reference: Reference, results: Path) -> Indices:
    """The row of the results of each study of the reference, (n,); -1 where there is none."""
    rows = np.full(len(reference.studies), -1)
    known = studies[OF_STUDY].astype(object)
    records = known.where(known.notna(), None).to_dict("records")
    for link in LINKS:
        ours = _holders(link, [study.keys() for study in reference.studies])
        theirs = _holders(link, records)
        for key in sorted(ours.keys() & theirs.keys(), key=len, reverse=True):
            if len(ours[key]) == len(theirs[key]) == 1:
                study, row = ours[key][0], theirs[key][0]
                if rows[study] < 0 and row not in rows:
                    rows[study] = row
        if link == "name":
            _check_ambiguous(ours, theirs, rows, reference)
    if (rows < 0).all():
        _refuse([study.name for study in reference.studies], list(studies["source"]), reference, results)
    return rows


def _holders(link: str, studies: Iterable[Mapping[Any, Any]]) -> dict[str, list[int]]:
    """Which studies a key is of. A name is the end of a path, so that other folders may be in front."""
    holders = defaultdict(list)
    for i, study in enumerate(studies):
        if link == "name":
            keys = {tail for of in ("source", "study_id") if study.get(of) for tail in tails(study[of])}
        else:
            keys = {study[link]} if study.get(link) else set()
        for key in keys:
            holders[key].append(i)
    return holders


def _check_ambiguous(
    ours: Mapping[str, list[int]], theirs: Mapping[str, list[int]], rows: Indices, reference: Reference
) -> None:
    for key in ours.keys() & theirs.keys():
        lost = len(theirs[key]) == 1 and theirs[key][0] not in rows
        if lost and (rows[ours[key]] < 0).all():
            names = ", ".join(reference.studies[i].name for i in ours[key][:3])
            raise InputError(
                f"{reference.path} holds more than one truth that may be of study {key}: {names}; leave one, "
                "or name them as the results do"
            )


def _refuse(ours: Sequence[str], theirs: Sequence[str], reference: Reference, results: Path) -> None:
    raise InputError(
        f"No study of the reference {reference.path} (such as {', '.join(ours[:2])}) is one of the results "
        f"{results} (such as {', '.join(theirs[:2]) or 'none at all'}); name them alike, by series_uid, "
        "study_id, source or patient_id"
    )


def _scans(
    studies: pd.DataFrame, vertebrae: pd.DataFrame, reference: Reference, rows: Indices
) -> pd.DataFrame:
    """One row a study of the reference: what its rows of the pairs table have in common."""
    smallest = vertebrae.groupby("study_id")["genant_ratio"].min()
    screened = studies[OF_STUDY].reindex(rows).reset_index(drop=True)
    known = pd.DataFrame(
        [(s.name, s.patient_id, s.dose, s.slice_mm) for s in reference.studies],
        columns=["scan", "patient", "dose", "slice_mm"],
    ).astype({"slice_mm": float})
    return known.assign(
        patient=known["patient"].fillna(screened["patient_id"]).fillna(known["scan"]),
        slice_mm=known["slice_mm"].fillna(screened["slice_spacing_mm"]),
        status=screened["status"].fillna("missing"),
        scan_ratio=screened["study_id"].map(smallest).astype(float),
        study_id=screened["study_id"],
    )


# --- vertebrae -----------------------------------------------------------------------------------


def _by_position(study: ReferenceStudy, found: Indices, centers_mm: Floats) -> _Paired:
    """By the rules of `matching`; `found` (k,) are the rows of the study's detections."""
    n = len(study.centers_mm)
    true = np.concatenate([study.centers_mm, study.others_mm])
    pairs, false = match(centers_mm, true, np.arange(len(true)) < n)
    detections, errors = np.full(n, -1), np.full(n, np.nan)
    for i, j in pairs:
        detections[j], errors[j] = found[i], np.linalg.norm(centers_mm[i] - true[j])
    return _Paired(detections, errors, found[sorted(false)])


def _by_label(study: ReferenceStudy, found: Indices, labels: pd.Series) -> _Paired:
    """By level or number in the results; a detection without one counts as false."""
    row_of = dict(zip(labels.map(str, na_action="ignore"), found, strict=True))
    detections = np.array([row_of.get(label, -1) for label in study.labels], int)
    others = [row_of[label] for label in study.other_labels if label in row_of]
    return _Paired(detections, np.full(len(detections), np.nan), np.setdiff1d(found, [*detections, *others]))


def _table(
    reference: Reference, scans: pd.DataFrame, paired: Sequence[_Paired], vertebrae: pd.DataFrame
) -> pd.DataFrame:
    heights = np.concatenate([study.heights_mm for study in reference.studies])
    true = pd.DataFrame(
        {
            "study": np.repeat(np.arange(len(scans)), [len(each.detections) for each in paired]),
            "level": pd.Series(
                [level for study in reference.studies for level in study.levels], dtype=object
            ),
            "is_false": False,
            "true_ratio": np.concatenate([study.genant_ratios for study in reference.studies]),
            **{f"true_{name}_mm": heights[:, i] for i, name in enumerate(HEIGHTS)},
            "center_error_mm": np.concatenate([each.center_error_mm for each in paired]),
            "detection": np.concatenate([each.detections for each in paired]),
        }
    )
    false = pd.DataFrame(
        {
            "study": np.repeat(np.arange(len(scans)), [len(each.false) for each in paired]),
            "is_false": True,
            "detection": np.concatenate([each.false for each in paired]),
        }
    )
    table = pd.concat([true, false], ignore_index=True).astype({"is_false": bool})
    table = table.assign(found=(table["detection"] >= 0) & ~table["is_false"]).join(scans, on="study")
    measured = vertebrae[list(MEASURED)].rename(columns=MEASURED).astype(float)
    return table.join(measured, on="detection")[COLUMNS]
