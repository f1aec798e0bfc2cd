"""`vfscreen evaluate` and `vfscreen summarize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vfscreen.cli.options import Out
from vfscreen.errors import InputError

if TYPE_CHECKING:
    from vfscreen.epidemiology import Accuracy
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

    vfscreen evaluate results --reference cohort --out evaluation
    """
    if subject == EXPERTS:
        if annotation is None or reference or dicom or against:
            raise InputError(
                "`vfscreen evaluate experts` takes --annotation FOLDER, and of the others only --out"
            )
        _evaluate_experts(annotation, out)
    elif reference is None or annotation:
        raise InputError(
            "`vfscreen evaluate RESULTS` takes --reference; --annotation goes with the word experts"
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

    truth = read_reference(reference, dicom)
    other = None if against is None else pair(against, truth)
    evaluation = evaluated(pair(results, truth), other)
    console = Console()
    for table in terminal_tables(evaluation):
        console.print(table)
    for line in _left_out(unmatched(results, truth)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if out:
        about = {"reference": {"kind": truth.kind, "path": str(truth.path)}, **about_run(results)}
        write_evaluation(evaluation, out, about)
        typer.echo(f"All figures, with the page evaluation.html, are in {out}")


def _left_out(unmatched: Unmatched) -> list[str]:
    sides = {
        "of the reference have no results": unmatched.without_results,
        "have results that the reference does not know": unmatched.without_reference,
    }
    return [f"{len(names)} studies {what}: {_listed(names)}" for what, names in sides.items() if names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED_NAMES]) + (", ..." if len(names) > LISTED_NAMES else "")


def _evaluate_experts(annotation: Path, out: Path | None) -> None:
    from vfscreen.evaluation.experts import evaluate_experts
    from vfscreen.evaluation.outputs import write_experts
    from vfscreen.evaluation.terminal import experts_table

    report = evaluate_experts(annotation)
    console = Console()
    console.print(experts_table(report))
    if report.one_reader:
        console.print(f"{report.one_reader} studies with one reader are not compared.")
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

    vfscreen summarize results --covariates cohort.csv --out summary
    """
    from vfscreen.epidemiology import Options, accuracy_of_metrics
    from vfscreen.epidemiology import summarize as summarized
    from vfscreen.epidemiology.terminal import summary_tables

    known = accuracy_of_metrics(accuracy) if accuracy else {}
    given = {"mild": accuracy_mild, "moderate": accuracy_moderate}
    known |= {name: _accuracy(name, text) for name, text in given.items() if text}
    options = Options(_numbers("--age-groups", age_groups), by or (), known)
    summary, console = summarized(results, covariates, out, options), Console()
    for table in summary_tables(summary):
        console.print(table)
    if summary.n_without_patient:
        typer.echo(f"{summary.n_without_patient} studies without a patient count as patients of their own.")
    typer.echo(f"Tables, flow chart and data dictionary are in {out}")


def _accuracy(name: str, text: str) -> Accuracy:
    from vfscreen.epidemiology import Accuracy

    numbers = _numbers(f"--accuracy-{name}", text)
    if len(numbers) != ACCURACY_NUMBERS:
        raise InputError(f"--accuracy-{name} takes four numbers, as 0.84,0.86,58,42")
    sensitivity, specificity, n_positive, n_negative = numbers
    return Accuracy(sensitivity, specificity, int(n_positive), int(n_negative))


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise InputError(f"{option} takes numbers with commas between them, not {text!r}") from error
