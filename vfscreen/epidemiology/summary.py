"""From a result folder and covariates to the tables of a cohort and their files."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pandas as pd
from pandas.errors import InvalidColumnName

from vfscreen.epidemiology.cohort import analysis_table, identified, read_results, whose_rows
from vfscreen.epidemiology.covariates import read_covariates
from vfscreen.epidemiology.dictionary import ANALYSIS, data_dictionary
from vfscreen.epidemiology.flow import flow_table
from vfscreen.epidemiology.flow_chart import flow_chart
from vfscreen.epidemiology.levels import levels_table
from vfscreen.epidemiology.prevalence import Accuracy, prevalence_table
from vfscreen.errors import InputError
from vfscreen.whole_files import write_whole

log = logging.getLogger(__name__)

ADULT = 18  # years
_LONGEST_LABEL = 80  # letters of a variable's label in Stata


@dataclass(frozen=True)
class Options:
    """How to summarize: bounds of age groups in years (none: ten years), covariates to group by, accuracy.

    `accuracy` is by threshold, `mild` or `moderate`; without one, its prevalence is not corrected.
    """

    age_groups: Sequence[float] = ()
    by: Sequence[str] = ()
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """The tables of a cohort, in the columns of `dictionary.TABLES`, and the flow chart as SVG.

    `n_without_patient` studies have no known patient, and each is counted as a patient of its own.
    `n_rows_of_nobody` rows of the covariates fit no patient of the results.
    """

    analysis: pd.DataFrame
    prevalence: pd.DataFrame
    levels: pd.DataFrame
    flow: pd.DataFrame
    data_dictionary: pd.DataFrame
    chart: bytes
    n_without_patient: int
    n_rows_of_nobody: int


def summarize(results: Path, covariates: Path, out: Path, options: Options | None = None) -> Summary:
    """Make the tables of a cohort and write them into `out`, each file whole or not at all.

    Raises InputError for results without tables, covariates that are wrong or fit no patient, bounds of age
    groups that do not rise, a cohort of which nobody can be analysed, or a folder that cannot be written.
    """
    options = options or Options()
    _check_bounds(options.age_groups)
    studies, vertebrae = read_results(results)
    read = read_covariates(covariates, options.by)
    analysis = analysis_table(studies, read, options.age_groups)
    if analysis.excluded.notna().all():
        counts = ", ".join(f"{why}: {n}" for why, n in analysis.excluded.value_counts().items())
        raise InputError(f"no patient can be analysed, of {len(analysis)} in {results} ({counts})")
    if analysis.age.median() < ADULT:
        log.warning("%s: the median age is %.3g; ages are in years", covariates, analysis.age.median())
    flow = flow_table(studies, analysis)
    summary = Summary(
        analysis=analysis,
        prevalence=prevalence_table(analysis, read.by, options.accuracy),
        levels=levels_table(vertebrae, analysis),
        flow=flow,
        data_dictionary=data_dictionary(read.by),
        chart=flow_chart(flow, analysis),
        n_without_patient=int(analysis.patient_id.isna().sum()),
        n_rows_of_nobody=int(whose_rows(identified(studies, read), read).isna().sum()),
    )
    _write(summary, out)
    return summary


def _check_bounds(bounds: Sequence[float]) -> None:
    if not all(0 <= low < high for low, high in pairwise([*bounds, math.inf])):
        raise InputError(
            f"age groups {', '.join(f'{age:g}' for age in bounds)} do not rise from 0 on; give e.g. 50,60,70"
        )


def _write(summary: Summary, out: Path) -> None:
    names = ("analysis", "prevalence", "levels", "flow", "data_dictionary")
    files = {f"{name}.csv": getattr(summary, name).to_csv(index=False).encode() for name in names}
    files["analysis.parquet"] = _parquet(summary.analysis)
    files["analysis.dta"] = stata(summary.analysis)
    files["flow.svg"] = summary.chart
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise InputError(
            f"the tables cannot be written to {out}: {error}; make room, or choose another --out"
        ) from error


def _parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    table.to_parquet(stream, index=False)
    return stream.getvalue()


def stata(analysis: pd.DataFrame) -> bytes:
    """The analysis table as Stata 14 and later read it: `age_group` is a number with value labels.

    An unknown text is empty there, as Stata has no other; every column is labelled by its meaning.
    Raises InputError for a name that Stata does not take.
    """
    texts = {str(name): analysis[name].fillna("") for name in analysis if _is_text(analysis[name])}
    labels = {column.name: column.meaning[:_LONGEST_LABEL] for column in ANALYSIS}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error", InvalidColumnName)  # else the file would have other names than the CSV
        try:
            analysis.assign(**texts).to_stata(
                stream,
                write_index=False,
                version=118,
                convert_dates={"study_date": "td"},
                variable_labels=labels,
            )
        except InvalidColumnName as error:
            further = ", ".join(str(name) for name in analysis if name not in labels)
            raise InputError(
                f"of {further}, one is a word of Stata's own; rename it to group by it"
            ) from error
    return stream.getvalue()


def _is_text(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.StringDtype) or column.dtype == object
