"""A reference as a table: one row a vertebra, in the columns of our own `vertebrae.parquet`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from vfscreen.errors import InputError
from vfscreen.evaluation.reference.model import JoinedBy, Reference, ReferenceStudy
from vfscreen.measure import genant_ratio, heights_mm
from vfscreen.spreadsheets import read_csv
from vfscreen.study import HEIGHTS, KEYPOINTS, LEVELS
from vfscreen.volume import Floats

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
KEYS = ["study_id", "series_uid", "source", "patient_id"]  # the first that it has tells its studies apart
OF_STUDY = [*KEYS, "dose", "slice_mm"]
TEXTS = [*KEYS, "level", "vertebra", "dose"]
POINT_COLUMNS = [f"{name}_{axis}_mm" for name in KEYPOINTS for axis in "xyz"]
CENTER_COLUMNS = [f"center_{axis}_mm" for axis in "xyz"]
HEIGHT_COLUMNS = [f"height_{name}_mm" for name in HEIGHTS]
RATIO = "genant_ratio"
LOWEST_MM, HIGHEST_MM = 4.0, 50.0  # between which the largest height of a study's median vertebra lies
TALLEST_MM, LOWEST_RATIO = 60.0, 0.15  # of one vertebra: what lies beyond is a slip of the pen
LOWEST_MEDIAN = 0.5  # G of half of the vertebrae
SAME_MM = 0.1  # a centre or height that the keypoints give too
MOST_DECIMALS = 6
VERTEBRA = re.compile(r"0*(\d+)(\.0*)?")
NUMBERS = [*POINT_COLUMNS, *CENTER_COLUMNS, *HEIGHT_COLUMNS, RATIO, "slice_mm"]


def read_table(path: Path) -> Reference:
    """The studies of a CSV or Parquet file. Raises InputError naming what is missing or no number.

    Of each vertebra it needs the six keypoints; or the centre, the level or the number in the results,
    and with it the three heights or G. A row with none of heights, keypoints and G is a vertebra that
    is there but does not count.
    """
    table = _read(path)
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        raise InputError(f"{path} has no column that names the study ({', '.join(KEYS)}){_has(table)}")
    if table[key].isna().any():
        raise InputError(f"{path}: {int(table[key].isna().sum())} rows have no {key}; fill it in")
    joined_by = _joined_by(table, path)
    for group in (POINT_COLUMNS, CENTER_COLUMNS, HEIGHT_COLUMNS):
        _check_filled(table, group, key, path)
    heights, ratios, centers = _measures(table, path)
    _check_values(table[key], heights, ratios, path)
    _check_ratios(table, key, heights, path)
    lost = np.isnan(centers).any(1) if joined_by == "position" else table[joined_by].isna().to_numpy()
    if lost.any():
        raise InputError(
            f"{path}: a vertebra of study {table[key].to_numpy()[lost][0]} has no {joined_by}; fill it in"
        )
    studies = []
    for name, indices in table.groupby(key, sort=False).indices.items():
        rows = np.asarray(indices)
        keys = _keys(table.iloc[rows], str(name), path)
        study = _study(table.iloc[rows], joined_by, heights[rows], ratios[rows], centers[rows])
        studies.append(replace(study, **keys))
    return Reference("table", path, tuple(studies), joined_by)


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = read_csv(path, dict.fromkeys(TEXTS, str), skipinitialspace=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read as a table: {error}; give a CSV in UTF-8 or Parquet"
        ) from error
    table = table.dropna(how="all")  # a spreadsheet's empty rows below the last
    for name in table.columns.intersection(NUMBERS):
        table[name] = _numbers(table[name], path)
    for name in table.columns.intersection(TEXTS):
        table[name] = table[name].map(_text, na_action="ignore").astype(object)
    if "vertebra" in table:
        table["vertebra"] = table["vertebra"].map(_number_in_results, na_action="ignore")
    if "level" in table:
        table["level"] = _levels(table["level"], path)
    return table


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = column.notna() & ~np.isfinite(numbers)
    if wrong.any():
        value = str(column[wrong].iloc[0])
        hint = f"; write {value.replace(',', '.')}" if re.fullmatch(r"\s*-?\d+,\d+\s*", value) else ""
        raise InputError(f"{path}: {column.name} is {value!r} in a row, which is no number as 21.4{hint}")
    return numbers


def _text(value: object) -> str | None:
    return str(value).strip() or None


def _number_in_results(text: str) -> str:
    """`1` for `01` and `1.0`, as spreadsheets and columns with a null write it."""
    number = VERTEBRA.fullmatch(text)
    return number[1] if number else text


def _level(text: str) -> str:
    parts = re.fullmatch(r"(C|TH|T|D|L)[ 0]*(\d+)", text.upper())
    return ("T" if parts[1] in ("TH", "D") else parts[1]) + parts[2] if parts else text


def _levels(column: pd.Series, path: Path) -> pd.Series:
    """`T7` for `t7`, `Th 07` and `D7`."""
    levels = column.map(_level, na_action="ignore")
    unknown = levels.notna() & ~levels.isin(LEVELS)
    if unknown.any():
        raise InputError(
            f"{path}: level {column[unknown].iloc[0]!r} is none of {LEVELS[0]} to {LEVELS[-1]}; write T7"
        )
    return levels


def _joined_by(table: pd.DataFrame, path: Path) -> JoinedBy:
    """By what its vertebrae can be found in the results."""
    if _whole_group(table, POINT_COLUMNS, path) or _whole_group(table, CENTER_COLUMNS, path):
        return "position"
    if "level" in table and table["level"].notna().all():
        return "level"
    if "vertebra" in table:
        return "vertebra"
    raise InputError(
        f"{path} does not say where its vertebrae are: it has neither {CENTER_COLUMNS[0]} (and y, z), nor "
        f"six keypoints ({POINT_COLUMNS[0]} ...), nor a level in every row, nor vertebra, the number in the "
        f"results{_has(table)}"
    )


def _whole_group(table: pd.DataFrame, names: Sequence[str], path: Path) -> bool:
    """Whether a table has these columns, which go together."""
    missing = [name for name in names if name not in table]
    if missing and len(missing) < len(names):
        raise InputError(f"{path} lacks columns: {', '.join(missing)}")
    return not missing


def _check_filled(table: pd.DataFrame, group: Sequence[str], key: str, path: Path) -> None:
    empty = table[table.columns.intersection(list(group))].isna().to_numpy()
    torn = empty.any(1) & ~empty.all(1)
    if torn.any():
        raise InputError(
            f"{path}: a vertebra of study {table[key].to_numpy()[torn][0]} has some of {group[0]} ... "
            f"{group[-1]} and not the others; fill in all or none"
        )


def _measures(table: pd.DataFrame, path: Path) -> tuple[Floats, Floats, Floats]:
    """Heights (n, 3), G (n,) and centres (n, 3): by the keypoints, else by the heights, else G as it is."""
    nothing = np.full((len(table), 3), np.nan)
    if _whole_group(table, POINT_COLUMNS, path):
        points = table[POINT_COLUMNS].to_numpy().reshape(-1, 6, 3)
        heights, centers = heights_mm(points), points.mean(1)
    else:
        heights, centers = nothing, nothing
    centers = _filled(centers, table, CENTER_COLUMNS, path)
    if _whole_group(table, HEIGHT_COLUMNS, path):
        heights = _filled(heights, table, HEIGHT_COLUMNS, path)
    ratios = genant_ratio(heights)
    if RATIO in table:
        return heights, np.where(np.isnan(ratios), table[RATIO], ratios), centers
    if heights is not nothing:
        return heights, ratios, centers
    raise InputError(
        f"{path} has no measurement: neither {', '.join(HEIGHT_COLUMNS)} nor {RATIO}{_has(table)}"
    )


def _filled(of_points: Floats, table: pd.DataFrame, names: Sequence[str], path: Path) -> Floats:
    """What the keypoints give, and where there are none, what the columns say. Both must be the same."""
    if names[0] not in table:
        return of_points
    told = table[list(names)].to_numpy()
    apart = np.abs(told - of_points).max(1)
    if (apart > SAME_MM).any():
        row = int(np.argmax(apart > SAME_MM))
        raise InputError(
            f"{path}: in row {row + 1} {names[0]} ... {names[-1]} are {_listed(told[row])} mm, and "
            f"the keypoints give {_listed(of_points[row])} mm; correct both, or drop the columns of one"
        )
    return np.where(np.isnan(of_points), told, of_points)


def _listed(numbers: Floats) -> str:
    return ", ".join(f"{number:.1f}" for number in numbers)


def _check_values(studies: pd.Series, heights: Floats, ratios: Floats, path: Path) -> None:
    wrong = (heights <= 0).any(1) | (heights > TALLEST_MM).any(1) | (ratios < LOWEST_RATIO) | (ratios > 1)
    if wrong.any():
        raise InputError(
            f"{path}: a vertebra of study {studies.to_numpy()[wrong][0]} has a height or a G that cannot be; "
            f"heights are in mm and {TALLEST_MM:.0f} at most, and {RATIO} lies between {LOWEST_RATIO} and 1"
        )
    if np.nanmedian(ratios) < LOWEST_MEDIAN:
        raise InputError(
            f"{path}: half of its vertebrae have a G below {LOWEST_MEDIAN}, as no cohort has; G is the "
            "smallest height by the largest, not the loss of height"
        )
    tallest = pd.Series(heights.max(1)).groupby(studies.to_numpy()).median()
    odd = tallest[tallest.notna() & ~tallest.between(LOWEST_MM, HIGHEST_MM)]
    if len(odd):
        raise InputError(
            f"{path}: half of the vertebrae of study {odd.index[0]} are {odd.iloc[0]:.1f} mm high or more, "
            "as those of nobody; heights are in mm"
        )


def _check_ratios(table: pd.DataFrame, key: str, heights: Floats, path: Path) -> None:
    """A G that is not that of its heights, and keypoints whose front lies behind, tell of a mistake."""
    if RATIO in table:
        ratios, largest = genant_ratio(heights), heights.max(1)
        rounded = _step(heights) * (1 + ratios) / largest / 2 + _step(table[RATIO].to_numpy()) / 2
        apart = np.abs(table[RATIO].to_numpy() - ratios) > rounded + 1e-6
        if apart.any():
            row = table[apart].iloc[0]
            raise InputError(
                f"{path}: {RATIO} {row[RATIO]:.3f} of a vertebra of study {row[key]} is not that of its "
                f"heights, {genant_ratio(heights)[apart][0]:.3f}; give one of the two"
            )
    if POINT_COLUMNS[0] in table:
        front, back = ("anterior_superior_y_mm", "posterior_superior_y_mm")
        behind = (table[front] > table[back]).groupby(table[key]).mean()
        if (behind > 0.5).any():
            raise InputError(
                f"{path}: the anterior keypoints of study {behind.idxmax()} lie behind the posterior ones; "
                "in LPS y grows to posterior, so turn its sign or give the columns their right names"
            )


def _step(numbers: Floats) -> float:
    """To what numbers are rounded: 0.01 for two decimals."""
    known = numbers[~np.isnan(numbers)]
    shown = (d for d in range(MOST_DECIMALS) if np.allclose(known, known.round(d), rtol=0, atol=1e-9))
    return float(10.0 ** -next(shown, MOST_DECIMALS))


def _study(
    part: pd.DataFrame, joined_by: JoinedBy, heights: Floats, ratios: Floats, centers: Floats
) -> ReferenceStudy:
    counted = ~np.isnan(ratios)
    levels = part["level"] if "level" in part else pd.Series(None, part.index, dtype=object)
    labels = part[part.columns.intersection([joined_by])].to_numpy().ravel()  # none for a position
    return ReferenceStudy(
        heights[counted],
        ratios[counted],
        centers[counted],
        centers[~counted],
        tuple(None if pd.isna(level) else level for level in levels[counted]),
        tuple(labels[counted]) if len(labels) else (),
        tuple(labels[~counted]) if len(labels) else (),
    )


def _keys(part: pd.DataFrame, study: str, path: Path) -> dict[str, Any]:
    """What all rows of a study have in common; None where nothing is told."""
    keys: dict[str, Any] = {}
    for name in OF_STUDY:
        values = list(part[name].dropna().unique()) if name in part else []
        if len(values) > 1:
            raise InputError(
                f"{path}: study {study} has more than one {name} ({values[0]}, {values[1]}); these are alike "
                "in all rows of a study, and a vertebra has one row"
            )
        keys[name] = values[0] if len(values) else None
    return keys


def _has(table: pd.DataFrame) -> str:
    return f"; it has {', '.join(map(str, table.columns[:20]))}"
