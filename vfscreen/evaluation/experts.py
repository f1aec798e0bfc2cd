"""Experts against each other: the experts' rows of the paper's Tables 1 and 2, from the annotation alone.

Each expert of a study is compared with the others, as a run is with its truth:

- Vertebrae of two experts are the same where their centres, the means of six keypoints, lie within 10 mm in
  the sagittal plane, paired so that the distances are small in sum. Which sagittal slice shows a vertebra is
  the expert's choice, so it does not part them.
- A vertebra that all the others annotated is true, with the mean of their heights and the G of these. One
  that only this expert has is false. One that some of the others have counts neither way.

The annotation is in voxels. `in_plane_mm` finds their size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from vfscreen.errors import InconsistentGeometry, InputError
from vfscreen.evaluation.detection import table_1
from vfscreen.evaluation.intervals import REPEATS, Estimate, draw_patients
from vfscreen.evaluation.paper import EXPERTS, PATIENTS, VERTEBRAE
from vfscreen.evaluation.thresholds import table_2
from vfscreen.measure import genant_ratio, grade, heights_mm
from vfscreen.study import HEIGHTS
from vfscreen.training.annotation import (
    MATCH_MM,
    MIN_VERTEBRAE,
    Annotation,
    annotation_files,
    keypoints_mm,
    read_annotation,
)
from vfscreen.volume import Floats, VolumeGeometry

GROUP = "experts"
SLICE_MM = 0.8  # of the whole data set MoscowRadiology CTLungCa-500
IN_PLANE_MM = 0.7  # where the annotation does not tell: the mean of the public studies that do

_CHEST_MM = (0.5, 1.05)  # in-plane spacing of 512 pixels that show a chest
_FEWEST_CLICKS = 20  # different coordinates that show a raster
_CLICKS_APART = 1e-4  # voxels: closer ones are the same, but for rounding
_SAME_MM = 0.005  # spacings that agree


@dataclass(frozen=True)
class ExpertsReport:
    """What the experts agree on.

    `figures` are the tables' by the name of the table, then of the figure; `pairs` is what they are computed
    from, a scan being one expert's reading. `consensus` has a row a vertebra that any expert annotated:
    `patient`, and `ratio`, the G of the mean heights of all who did. `one_reader` studies are not compared;
    of `spacing_found` studies the in-plane spacing is known.
    """

    studies: int
    readings: int
    one_reader: int
    spacing_found: int
    repeats: int
    figures: Mapping[str, Mapping[str, Estimate]]
    pairs: pd.DataFrame
    consensus: pd.DataFrame

    def rows(self) -> list[dict[str, Any]]:
        """Each figure in a flat row, the columns of a run's and `paper`, `difference`.

        They are `table`, `group`, `figure`, `value`, `low` and `high` (the 95 % interval), `n`, `patients`;
        `difference` is value - paper; None where there is none. The group is `experts`.
        """
        ratios = self.consensus.ratio
        worst = self.consensus.groupby("patient").ratio.min()
        return [
            *_count_rows("vertebrae", ratios, VERTEBRAE),
            *_count_rows("patients", worst, PATIENTS),
            *(
                _row(table, name, figure, EXPERTS.get(name))
                for table, figures in self.figures.items()
                for name, figure in figures.items()
            ),
        ]


def evaluate_experts(folder: Path, repeats: int = REPEATS) -> ExpertsReport:
    """Compare the experts of every annotated study in `folder`, a .json a study, with each other.

    Intervals are by bootstrap over patients, each study being one. Raises InputError where a file is no
    annotation, two are of one series, or no study has two readers.
    """
    annotations = _read(folder)
    compared = [each for each in annotations if len(each.readings) > 1]
    if not compared:
        raise InputError(
            f"{folder}: no study was read by two experts, so there is nothing to compare. Put all readings "
            f"of a study into one file, under the experts' names; a reading needs {MIN_VERTEBRAE} vertebrae"
        )
    spacings = {each.name: in_plane_mm(list(each.readings.values())) for each in compared}
    studies = {each.name: _keypoints(each, spacings[each.name] or IN_PLANE_MM) for each in compared}
    pairs = pd.concat(
        [_against_others(name, who, *study) for who, (name, study) in enumerate(studies.items())],
        ignore_index=True,
    )
    draws = draw_patients(len(studies), repeats)
    return ExpertsReport(
        studies=len(studies),
        readings=sum(len(each.readings) for each in compared),
        one_reader=len(annotations) - len(compared),
        spacing_found=sum(spacing is not None for spacing in spacings.values()),
        repeats=repeats,
        figures={"table 1": table_1(draws, pairs), "table 2": table_2(draws, pairs)},
        pairs=pairs,
        consensus=pd.concat([_consensus(name, joined) for name, (_, joined) in studies.items()]),
    )


def in_plane_mm(readings: Sequence[Floats]) -> float | None:
    """In-plane voxel size (mm) that the clicks betray; None where they do not. Readings are (n, 3, 2, 3).

    An expert clicks on pixels of a screen that shows a sagittal slice true to scale. So y and z, in voxels,
    are multiples of steps that are of one length in mm: spacing = slice spacing * step of z / step of y.
    A step may be taken for its half; then the spacing is off by a factor 2, and that of no chest CT.
    """
    found = []
    for reading in readings:
        across, along = (_raster_step(reading[..., axis]) for axis in (0, 2))
        if across and along and _CHEST_MM[0] <= SLICE_MM * along / across <= _CHEST_MM[1]:
            found.append(SLICE_MM * along / across)
    if not found or max(found) - min(found) > _SAME_MM:
        return None
    return float(np.median(found))


def _raster_step(values: Floats) -> float | None:
    """The largest step of which all differences of the values are multiples; None where there is none.

    Values that were rounded have the raster of their rounding, which tells nothing.
    """
    known = np.unique(values)
    known = known[np.diff(known, prepend=-np.inf) > _CLICKS_APART]
    if len(known) < _FEWEST_CLICKS or (known == known.round(3)).all():
        return None
    for parts in range(1, 9):
        step = np.diff(known).min() / parts
        multiples = (known - known[0]) / step
        if np.abs(multiples - multiples.round()).max() < 0.02:
            return float(step)
    return None


def join(readings: Sequence[Floats]) -> Floats:
    """The same vertebra of each expert, (vertebrae, experts, 6, 3); NaN where one did not annotate it.

    Readings are keypoints (n, 6, 3) in LPS mm.
    """
    joined = np.empty((0, len(readings), 6, 3))
    for expert, reading in enumerate(readings):
        known, same = _same(np.nanmean(joined, (1, 2)), reading.mean(1))
        joined[known, expert] = reading[same]
        new = np.delete(reading, same, 0)
        added = np.full((len(new), *joined.shape[1:]), np.nan)
        added[:, expert] = new
        joined = np.concatenate([joined, added])
    return joined


def _same(a: Floats, b: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the centres (n, 3) and (m, 3) are of one vertebra: indices into both, in pairs."""
    distances = np.linalg.norm(a[:, None, 1:] - b[None, :, 1:], axis=-1)
    i, j = linear_sum_assignment(np.minimum(distances, MATCH_MM))
    near = distances[i, j] < MATCH_MM
    return i[near], j[near]


def _read(folder: Path) -> list[Annotation]:
    files = annotation_files(folder)
    annotations = [read_annotation(path) for path in files]
    file_of: dict[str, Path] = {}
    for path, annotation in zip(files, annotations, strict=True):
        other = file_of.setdefault(annotation.series_uid, path)
        if other != path:
            raise InputError(
                f"{path} and {other.name} have the same SeriesInstanceUID, {annotation.series_uid}: a study "
                "would count twice. Take one of them away, or put its experts into the other"
            )
    return annotations


def _keypoints(annotation: Annotation, spacing_mm: float) -> tuple[list[str], Floats]:
    """The experts' names, and the vertebrae as by `join`."""
    most = np.max([reading.max((0, 1, 2)) for reading in annotation.readings.values()], 0)
    n_rows, n_columns, n_slices = (int(size) for size in np.ceil(most) + 1)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -SLICE_MM, spacing_mm, spacing_mm, 1
    geometry = VolumeGeometry((n_slices, n_rows, n_columns), affine)
    try:
        readings = [keypoints_mm(reading, geometry) for reading in annotation.readings.values()]
    except InconsistentGeometry as error:
        raise InputError(
            f"{annotation.name}.json has points with negative coordinates, outside any image; expected voxel "
            "indices [y, x, z]"
        ) from error
    return list(annotation.readings), join(readings)


def _against_others(study: str, who: int, experts: Sequence[str], joined: Floats) -> pd.DataFrame:
    """The pairs table of a study: every expert against the others."""
    tables = [_reading(joined, i).assign(scan=f"{study}, {name}") for i, name in enumerate(experts)]
    return pd.concat(tables).assign(patient=study, who=who, slice_mm=SLICE_MM, status="ok")


def _reading(joined: Floats, expert: int) -> pd.DataFrame:
    own, others = joined[:, expert], np.delete(joined, expert, 1)
    is_read, by_others = _is_read(own), _is_read(others).mean(1)
    is_true, is_false = by_others == 1, is_read & (by_others == 0)
    heights, true_heights = heights_mm(own), heights_mm(others).mean(1)
    table: pd.DataFrame = pd.DataFrame(
        {
            "is_false": is_false,
            "found": is_true & is_read,
            "true_ratio": genant_ratio(true_heights),
            "ratio": genant_ratio(heights),
            "center_error_mm": np.linalg.norm(own.mean(1) - others.mean((1, 2)), axis=-1),
            **{f"true_{name}_mm": true_heights[:, i] for i, name in enumerate(HEIGHTS)},
            **{f"{name}_mm": heights[:, i] for i, name in enumerate(HEIGHTS)},
        }
    )[is_true | is_false]
    return table.assign(scan_ratio=table.ratio.min())


def _is_read(keypoints: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(keypoints).all((-2, -1)))


def _consensus(study: str, joined: Floats) -> pd.DataFrame:
    heights = np.nanmean(heights_mm(joined), 1)
    return pd.DataFrame({"patient": study, "ratio": genant_ratio(heights)})


def _count_rows(what: str, ratios: pd.Series, published: Mapping[str, int]) -> Iterable[dict[str, Any]]:
    counts = Counter(map(grade, ratios))
    for name, paper in published.items():
        known = {"value": counts[name], "low": None, "high": None, "n": len(ratios), "patients": None}
        yield {
            **_key("numbers", f"{what}, {name}"),
            **known,
            "paper": paper,
            "difference": counts[name] - paper,
        }


def _row(table: str, name: str, figure: Estimate, paper: float | None) -> dict[str, Any]:
    low, high = figure.interval
    known = {"value": figure.value, "low": low, "high": high, "n": figure.n, "patients": figure.patients}
    difference = None if paper is None else figure.value - paper
    numbers = {**known, "paper": paper, "difference": difference}
    return {**_key(table, name), **{key: _finite(number) for key, number in numbers.items()}}


def _key(table: str, name: str) -> dict[str, str]:
    return {"table": table, "group": GROUP, "figure": name}


def _finite(number: float | None) -> float | None:
    return None if number is None or not np.isfinite(number) else number
