"""The pairs table: the vertebrae of a reference beside what a run measured of them.

One row a true vertebra and scan, then one row for each false detection:

| column | meaning |
| --- | --- |
| `patient`, `scan` | whom a bootstrap draws, None where unknown; the study, as the reference names it |
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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from vfscreen.errors import InputError
from vfscreen.evaluation.axes import check_axes
from vfscreen.evaluation.links import linked
from vfscreen.evaluation.matching import match
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy
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
Indices = NDArray[np.integer]


@dataclass(frozen=True)
class Unmatched:
    """Studies that only one side knows, by name: of the reference without results, and the reverse.

    `by_name` are pairs of names of which one is the end of the other: the same study, as far as that tells.
    """

    without_results: tuple[str, ...]
    without_reference: tuple[str, ...]
    by_name: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Paired:
    """One study: the detection of each true vertebra (n,), -1 for none, how far off, and the false ones."""

    detections: Indices
    center_error_mm: Floats
    false: Indices

    n_known: int
    """Detections that are on a vertebra, whether it counts or not."""


def pair(results: Path, reference: Reference) -> pd.DataFrame:
    """The pairs table of a result folder: `COLUMNS`, as above.

    Raises InputError where the folder is no result folder, where no study is in both, where no detection
    has a true vertebra, or where the reference's positions are of other axes or its levels unknown.
    """
    studies = _read(results, "studies.parquet", OF_STUDY, ["study_id"])
    vertebrae = _read(results, "vertebrae.parquet", OF_VERTEBRA, ["study_id", "vertebra"])
    rows = linked(studies, reference, results).rows
    if reference.joined_by == "level" and vertebrae["level"].isna().all():
        raise InputError(
            f"{reference.path} places its vertebrae by level alone, and {results} knows no levels; add the "
            f"columns {', '.join(CENTER)} to the reference"
        )
    scans = _scans(studies, vertebrae, reference, rows)
    of_scan = vertebrae.groupby("study_id").indices
    found = [np.asarray(of_scan.get(study_id, []), int) for study_id in scans["study_id"]]
    if reference.joined_by == "position":
        centers_mm = vertebrae[CENTER].to_numpy()
        paired = [
            _by_position(study, rows, centers_mm[rows])
            for study, rows in zip(reference.studies, found, strict=True)
        ]
        check_axes(reference, [centers_mm[rows] for rows in found], [each.n_known for each in paired])
    else:
        labels = vertebrae[reference.joined_by]
        paired = [
            _by_label(study, rows, labels.iloc[rows])
            for study, rows in zip(reference.studies, found, strict=True)
        ]
    table = _table(reference, scans, paired, vertebrae)
    if not any(each.n_known for each in paired):
        _refuse_where_nothing_fits(table, reference, results)
    return table


def nothing_found(pairs: pd.DataFrame) -> list[str]:
    """The scans that have true vertebrae and detections, and none of these on one of those."""
    of_scan = pairs.groupby("scan", sort=False)
    n_true, n_found = of_scan.size() - of_scan.is_false.sum(), of_scan.found.sum()
    measured = of_scan.scan_ratio.first().notna()
    return list(n_true.index[(n_true > 0) & (n_found == 0) & measured])


def _refuse_where_nothing_fits(pairs: pd.DataFrame, reference: Reference, results: Path) -> None:
    lost = nothing_found(pairs)
    if lost:
        raise InputError(
            f"{reference.path} and {results} share studies, such as {lost[0]}, but not one vertebra (paired "
            f"by {reference.joined_by}), so no figure can be given; see whether positions are LPS mm of "
            "the same image, and numbers or levels those of these results"
        )


def unmatched(results: Path, reference: Reference) -> Unmatched:
    """The studies that only the reference or only the results hold. Raises InputError as `pair`."""
    studies = _read(results, "studies.parquet", OF_STUDY, ["study_id"])
    links = linked(studies, reference, results)
    names = [study.name for study in reference.studies]
    return Unmatched(
        tuple(name for name, row in zip(names, links.rows, strict=True) if row < 0),
        tuple(studies["source"].drop(links.rows[links.rows >= 0])),
        tuple((names[i], str(studies["source"].iloc[links.rows[i]])) for i in links.by_name),
    )


def _read(results: Path, name: str, needed: Sequence[str], key: Sequence[str]) -> pd.DataFrame:
    """A table of a result folder with the columns that are needed of it, and one row a key."""
    path = results / name
    if not path.is_file() and (results / "parts").is_dir():
        raise InputError(f"{results} is of a run that was interrupted; run its command again to finish it")
    if not path.is_file():
        raise InputError(
            f"{results} is no result folder of `vfscreen run`: it holds no {name}; give the folder of --out"
        )
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in needed if column not in table]
    if missing:
        raise InputError(
            f"{path} lacks columns: {', '.join(missing)}; it is of another version: screen again"
        )
    again = table[table.duplicated(list(key))]
    if len(again):
        raise InputError(
            f"{path}: {' '.join(map(str, again[list(key)].iloc[0]))} stands in it twice; leave one"
        )
    return table.reset_index(drop=True)  # rows are found by their number, and pandas stores other ones


# --- studies -------------------------------------------------------------------------------------


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
        patient=known["patient"].fillna(screened["patient_id"]),
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
    return _Paired(detections, errors, found[sorted(false)], len(found) - len(false))


def _by_label(study: ReferenceStudy, found: Indices, labels: pd.Series) -> _Paired:
    """By level or number in the results; a detection without one counts as false."""
    row_of = dict(zip(labels.map(str, na_action="ignore"), found, strict=True))
    detections = np.array([row_of.get(label, -1) for label in study.labels], int)
    others = [row_of[label] for label in study.other_labels if label in row_of]
    false = np.setdiff1d(found, [*detections, *others])
    return _Paired(detections, np.full(len(detections), np.nan), false, len(found) - len(false))


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
