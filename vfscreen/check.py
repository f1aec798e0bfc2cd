"""What a run would do with an archive, from headers alone: every series, and what becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vfscreen.discover import FoundStudy, survey
from vfscreen.discover.index import INDEX_NAME
from vfscreen.discover.series import Series, verdicts
from vfscreen.errors import NoSuitableSeries, StudyError
from vfscreen.journal import check_without_names
from vfscreen.readers import read_geometry
from vfscreen.results import column, working_copy, write_csv, write_parquet
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles, StudyHeader

Row = dict[str, Any]

SERIES = pa.schema(
    [
        column("patient_id", pa.string(), "Patient, from the manifest or else the header"),
        column("study_id", pa.string(), "Study: the key that joins it to the tables of a run"),
        column("source", pa.string(), "Where the study was found, relative to the input"),
        column("series_uid", pa.string(), "Series; null for NIfTI and for what is no series"),
        column("phase", pa.int32(), "Number of the part, where a series shows its places several times"),
        column(
            "verdict",
            pa.string(),
            "`screened`; `not_chosen`: another series of the study is; `unsuitable`: no axial original CT; "
            "`refused`: an error",
        ),
        column("error", pa.string(), "Code of the error of what is refused: docs/errors.md"),
        column("reason", pa.string(), "Why, in one line"),
        column("n_images", pa.int32(), "Images of the series"),
        column("extent_mm", pa.float64(), "Length of the body that it covers", "mm"),
        column("slice_spacing_mm", pa.float64(), "Distance between slices, the usual one", "mm"),
        column("widest_step_mm", pa.float64(), "Largest distance; null where they are evenly spaced", "mm"),
        column("pixel_spacing_mm", pa.float64(), "Pixel size in the slice", "mm"),
        column("kernel", pa.string(), "`soft` or `sharp`; null for NIfTI"),
    ]
)


def check(
    source: Path, settings: ReadSettings, out: Path | None = None, series: Collection[str] = ()
) -> list[Row]:
    """The rows of `SERIES`, in the order of the studies; the best series of a study first.

    Into `out`, where given, goes series.parquet and series.csv, and the index that `run` finds there.
    Raises InputError as `discover.survey` and where `out` holds pseudonyms, and OSError where `out` cannot be
    written.
    """
    if not out:
        return _surveyed(source, settings, None, series)
    with working_copy(out) as copy:
        copy.bring()
        check_without_names(copy.folder)  # refuse before the walk through an archive, which may take long
        copy.folder.mkdir(parents=True, exist_ok=True)
        rows = _surveyed(source, settings, copy.folder / INDEX_NAME, series)
        write_parquet(rows, SERIES, copy.folder / "series.parquet")
        write_csv(rows, SERIES, copy.folder / "series.csv")
        copy.keep()
    return rows


def _surveyed(source: Path, settings: ReadSettings, index: Path | None, series: Collection[str]) -> list[Row]:
    studies = survey(source, settings, index=index, series=series)
    return [row for found in studies for row in _rows(found, settings, series)]


def _rows(found: FoundStudy, settings: ReadSettings, series: Collection[str]) -> Iterator[Row]:
    study, of_study = found.study, _keys(found)
    if not found.series:
        yield {**_EMPTY, **of_study, **(_failed(study.error) if study.error else _volume(study, settings))}
        return
    if study.error and found.chosen is None and not isinstance(study.error, NoSuitableSeries):
        yield {**_EMPTY, **of_study, **_failed(study.error)}
    for one, verdict in zip(found.series, verdicts(found.series, found.chosen, series), strict=True):
        row = {**_EMPTY, **of_study, **_described(one), "verdict": verdict.name, "reason": verdict.reason}
        yield {**row, **(_failed(study.error) if study.error and one is found.chosen else {})}


_EMPTY: Row = dict.fromkeys(SERIES.names)


def _keys(found: FoundStudy) -> Row:
    study = found.study
    return {"patient_id": study.patient_id, "study_id": study.study_id, "source": study.source}


def _failed(error: StudyError) -> Row:
    return {"verdict": "refused", "error": error.code, "reason": str(error)}


def _described(one: Series) -> Row:
    return {
        "series_uid": one.kind.series_uid or None,
        "phase": one.phase or None,
        "error": one.error.code if one.error else None,
        "n_images": one.n_images,
        "extent_mm": one.extent_mm or None,
        "kernel": "sharp" if one.kind.sharp else "soft",
        **_spacings(one.header),
    }


def _volume(study: StudyFiles, settings: ReadSettings) -> Row:
    """A NIfTI file, by its header."""
    try:
        _, header = read_geometry(study, settings)
    except StudyError as error:
        return _failed(error)
    size = header.slice_spacing_mm or 0.0
    return {
        "verdict": "screened",
        "reason": "a volume of its own",
        "n_images": header.n_slices,
        "extent_mm": size * (header.n_slices or 0),
        **_spacings(header),
    }


def _spacings(header: StudyHeader) -> Row:
    names: Sequence[str] = ("slice_spacing_mm", "widest_step_mm", "pixel_spacing_mm")
    return {name: getattr(header, name) for name in names}
