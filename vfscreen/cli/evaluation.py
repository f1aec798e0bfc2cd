"""`vfscreen evaluate` and `vfscreen summarize`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import Out
from vfscreen.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from vfscreen.epidemiology import Accuracy, Summary
    from vfscreen.evaluation.pairs import Unmatched

EXPERTS = "experts"
LISTED_NAMES = 3
"""Of studies that only one side knows so many are named."""
METRICS = "metrics.json"
ACCURACY_NUMBERS = 4

OptionalOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for metrics.json and the other files.",
        file_okay=False,
        rich_help_panel="Output",
    ),
]


def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS|experts", help="Result folder of a run; or the word experts, with --annotation."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The truth: simulated cohort, table, vertebra masks, another run, or annotation.",
            rich_help_panel="Input",
        ),
    ] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(help="The CT of an experts' annotation: folder of studies.", rich_help_panel="Input"),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Result folder of another run, compared in pairs.", rich_help_panel="Input"),
    ] = None,
    annotation: Annotated[
        Path | None,
        typer.Option(help="With experts: their annotation, a .json a study.", rich_help_panel="Input"),
    ] = None,
    out: OptionalOut = None,
) -> None:
    """How good results are beside the truth, or experts beside each other: the paper's tables, and more.

    Examples:

        vfscreen evaluate results --reference sample_data --out evaluation
        vfscreen evaluate experts --annotation annotation --out experts
    """
    if subject == EXPERTS:
        if annotation is None or reference or dicom or against:
            raise InputError(
                "`vfscreen evaluate experts` takes --annotation FOLDER, and of the others only --out, as in: "
                "vfscreen evaluate experts --annotation annotation"
            )
        _evaluate_experts(annotation, out)
    elif reference is None or annotation:
        raise InputError(
            f"`vfscreen evaluate {subject}` takes --reference, the truth, as in: vfscreen evaluate {subject} "
            "--reference sample_data; --annotation goes with the word experts"
        )
    else:
        _evaluate_results(Path(subject), reference, dicom, against, out)


def _evaluate_results(
    results: Path, reference: Path, dicom: Path | None, against: Path | None, out: Path | None
) -> None:
    from vfscreen.evaluation.evaluation import evaluate as evaluated
    from vfscreen.evaluation.outputs import about_run, write_evaluation
    from vfscreen.evaluation.pairs import pair, unmatched
    from vfscreen.evaluation.reference import read_reference
    from vfscreen.evaluation.terminal import terminal_tables

    if out:
        _check_writable(out)
    truth = read_reference(reference, dicom)
    if against is not None and truth.joined_by == "vertebra":
        raise InputError(
            f"{reference} names vertebrae by their number, which is that of one run, so that two runs cannot "
            "be compared; add center_x_mm, center_y_mm and center_z_mm, or the level in every row"
        )
    pairs = pair(results, truth)
    other = None if against is None else pair(against, truth)
    evaluation = evaluated(pairs, other)
    console = Console()
    for table in terminal_tables(evaluation):
        console.print(table)
    remarks = _remarks(unmatched(results, truth), pairs)
    if truth.joined_by == "vertebra":
        remarks.append("Paired by number: right only for the run that gave the numbers.")
    if against is not None and other is not None:
        remarks += [f"The other run: {line}" for line in _remarks(unmatched(against, truth), other)]
    for line in remarks:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if out:
        about = {"reference": {"kind": truth.kind, "name": truth.path.name}, **about_run(results)}
        if against is not None:
            about["against"] = about_run(against)
        write_evaluation(evaluation, out, about)
        typer.echo(f"All figures, with the page evaluation.html, are in {out}")


def _check_writable(out: Path) -> None:
    """Before all is computed in vain."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(
            f"nothing can be written to {out}: {there} is no folder, or not yours to write to; choose another"
        )


def _remarks(unmatched: Unmatched, pairs: pd.DataFrame) -> list[str]:
    """What a reader of the figures must know of the studies that they are of."""
    from vfscreen.evaluation.pairs import nothing_found

    scans = pairs.drop_duplicates("scan")
    unmeasured = list(scans.scan[scans.scan_ratio.isna()])
    studies = {
        "of the reference without results: their vertebrae count as missed": unmatched.without_results,
        "with results that the reference does not know: left out": unmatched.without_reference,
        "without a measurement: by patient they count as not called": unmeasured,
        "measured without one true vertebra found; do positions and numbers fit?": nothing_found(pairs),
        "known by the end of the name alone": [f"{ours} = {theirs}" for ours, theirs in unmatched.by_name],
    }
    return [f"{_counted(names)} {what}: {_listed(names)}" for what, names in studies.items() if names]


def _counted(studies: Sequence[str]) -> str:
    return f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED_NAMES]) + (", ..." if len(names) > LISTED_NAMES else "")


def _evaluate_experts(annotation: Path, out: Path | None) -> None:
    from vfscreen.evaluation.experts import evaluate_experts
    from vfscreen.evaluation.outputs import write_experts
    from vfscreen.evaluation.terminal import experts_table

    if out:
        _check_writable(out)
    report = evaluate_experts(annotation)
    console = Console()
    console.print(experts_table(report))
    if report.one_reader:
        console.print(f"Not compared, since they have one reader: {report.one_reader} of the studies.")
    if out:
        write_experts(report, out)
        typer.echo(f"The figures are in {out / METRICS}")


def summarize(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Result folder of a run.")],
    covariates: Annotated[
        Path,
        typer.Option(
            help="CSV or Parquet with patient_id or study_id, age or birth_year, and sex.",
            rich_help_panel="Input",
        ),
    ],
    out: Out,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="A further column of the covariates to group by.", rich_help_panel="Input"),
    ] = None,
    age_groups: Annotated[
        str, typer.Option(help="Bounds in years, as 50,55,60; ten years unless set.", rich_help_panel="Input")
    ] = "",
    accuracy: Annotated[
        Path | None,
        typer.Option(
            help="metrics.json of `vfscreen evaluate`: corrects prevalence.", rich_help_panel="Method"
        ),
    ] = None,
    accuracy_mild: Annotated[
        str,
        typer.Option(
            metavar="SE,SP,N+,N-",
            help="Sensitivity and specificity by patient at G <= 0.8, and the patients they are of.",
            rich_help_panel="Method",
        ),
    ] = "",
    accuracy_moderate: Annotated[
        str, typer.Option(metavar="SE,SP,N+,N-", help="The same at G <= 0.74.", rich_help_panel="Method")
    ] = "",
) -> None:
    """Prevalence of fractures by age, sex and level, with a flow chart and tables for R and Stata.

    Examples:

        vfscreen summarize results --covariates cohort.csv --out summary
        vfscreen summarize results --covariates cohort.csv --by site --out summary
    """
    from vfscreen.epidemiology import Options, accuracy_of_metrics
    from vfscreen.epidemiology import summarize as summarized
    from vfscreen.epidemiology.terminal import summary_tables

    _check_writable(out)
    known = accuracy_of_metrics(accuracy) if accuracy else {}
    given = {"mild": accuracy_mild, "moderate": accuracy_moderate}
    known |= {name: _accuracy(name, text) for name, text in given.items() if text}
    options = Options(_numbers("--age-groups", age_groups), by or (), known)
    summary, console = summarized(results, covariates, out, options), Console()
    for table in summary_tables(summary):
        console.print(table)
    for line in _unfitting(summary):
        typer.echo(line)
    typer.echo(f"Tables, flow chart and data dictionary are in {out}")


def _unfitting(summary: Summary) -> list[str]:
    """What of the results has no patient, and what of the covariates fits none."""
    lone, unused = summary.n_without_patient, summary.n_rows_of_nobody
    lines = {
        f"{lone} studies without a patient count as patients of their own.": lone > 1,
        "1 study without a patient counts as a patient of its own.": lone == 1,
        f"{unused} rows of the covariates fit nobody in the results.": unused > 1,
        "1 row of the covariates fits nobody in the results.": unused == 1,
    }
    return [line for line, holds in lines.items() if holds]


def _accuracy(name: str, text: str) -> Accuracy:
    from vfscreen.epidemiology import Accuracy

    numbers = _numbers(f"--accuracy-{name}", text)
    if len(numbers) != ACCURACY_NUMBERS or not all(number.is_integer() for number in numbers[2:]):
        raise InputError(
            f"--accuracy-{name} takes two shares and two whole numbers of patients, as 0.84,0.86,58,42, "
            f"not {text!r}"
        )
    sensitivity, specificity, n_positive, n_negative = numbers
    return Accuracy(sensitivity, specificity, int(n_positive), int(n_negative))


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise InputError(f"{option} takes numbers with commas between them, not {text!r}") from error
