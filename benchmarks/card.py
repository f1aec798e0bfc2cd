"""The tables of weights/MODEL_CARD.md and of the README, made of what `held_out.py` found.

    python benchmarks/card.py held_out/figures.json

A line of a table joins figures that belong together; 95 % intervals stand where there is room.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

Figure = Sequence[float | None]  # value, and the ends of its interval
Group = Mapping[str, Figure]
Line = tuple[str, int, tuple[str, ...]]  # what the card calls it, decimals, names of the figures

SCREENING: tuple[Line, ...] = (
    (
        "localization error, all; G <= 0.74, mm",
        2,
        ("localization error, mm", "localization error, G <= 0.74, mm"),
    ),
    ("recall, all; G <= 0.74", 3, ("recall", "recall, G <= 0.74")),
    ("precision", 3, ("precision",)),
    ("ROC AUC by vertebra, mild; moderate", 3, ("AUC by vertebra, mild", "AUC by vertebra, moderate")),
    ("ROC AUC by patient, mild; moderate", 3, ("AUC by patient, mild", "AUC by patient, moderate")),
    (
        "sensitivity; specificity at 0.74, vertebra",
        3,
        ("sensitivity at 0.74", "specificity at 0.74"),
    ),
    (
        "sensitivity; specificity at 0.74, patient",
        3,
        ("patient sensitivity at 0.74", "patient specificity at 0.74"),
    ),
    ("mean absolute error of a height, mm", 2, ("height error, mm",)),
    ("the same, G <= 0.74", 2, ("height error, G <= 0.74, mm",)),
    ("mean absolute error of G; its correlation", 3, ("G error", "G correlation")),
    ("coverage of 90 % intervals, G; heights", 3, ("coverage of G", "coverage of heights")),
)
KNOWN = {  # the paper's figures on real CT (Table 1 and section 4), and what is aimed at
    "localization error, all; G <= 0.74, mm": ("0.97; 1.14", "0.7; 0.8"),
    "recall, all; G <= 0.74": ("0.997; 1.000", "0.998; 1.000"),
    "precision": ("0.993", "0.998"),
    "ROC AUC by vertebra, mild; moderate": ("0.87; 0.94", "0.95; 0.985"),
    "ROC AUC by patient, mild; moderate": ("0.93; 0.93", "0.95; 0.97"),
    "sensitivity; specificity at 0.74, vertebra": ("0.75; 0.98", "-"),
    "sensitivity; specificity at 0.74, patient": ("0.84; 0.86", "-"),
    "mean absolute error of a height, mm": ("not given", "0.5"),
    "the same, G <= 0.74": ("not given", "-"),
    "mean absolute error of G; its correlation": ("not given", "0.03"),
    "coverage of 90 % intervals, G; heights": ("none", "0.88 to 0.92"),
}
BY_COBB: tuple[Line, ...] = (
    ("vertebrae", 0, ("vertebrae",)),
    ("recall", 3, ("recall",)),
    ("recall, G <= 0.74", 3, ("recall, G <= 0.74",)),
    ("localization error, mm", 2, ("localization error, mm",)),
    ("height error, mm", 2, ("height error, mm",)),
    ("G error", 3, ("G error",)),
    ("AUC by vertebra, moderate", 3, ("AUC by vertebra, moderate",)),
    ("coverage of G", 3, ("coverage of G",)),
)
BY_DEFORMITY: tuple[Line, ...] = (
    ("vertebrae", 0, ("vertebrae",)),
    ("recall", 3, ("recall",)),
    ("height error, mm", 2, ("height error, mm",)),
    ("height bias, mm", 2, ("height bias, mm",)),
    ("G error", 3, ("G error",)),
    ("G bias", 3, ("G bias",)),
    ("sensitivity at 0.74", 3, ("sensitivity at 0.74",)),
    ("coverage of G", 3, ("coverage of G",)),
)
BY_FINDING: tuple[Line, ...] = (
    ("vertebrae", 0, ("vertebrae",)),
    ("recall", 3, ("recall",)),
    ("height error, mm", 2, ("height error, mm",)),
    ("G error", 3, ("G error",)),
    ("G bias", 3, ("G bias",)),
    ("specificity at 0.74", 3, ("specificity at 0.74",)),
    ("coverage of G", 3, ("coverage of G",)),
)
DOSES = ("standard", "low dose")


def main(figures: Annotated[Path, typer.Argument(help="figures.json of `held_out.py`.")]) -> None:
    found = json.loads(figures.read_text())["figures"]
    second, paper = found["second look"], found["paper's keypoints"]
    thin = {dose: second[f"1 mm, {dose}"] for dose in DOSES}
    columns = {**thin, "paper's keypoints (`--paper`), standard dose": paper["1 mm, standard"]}
    thick = {f"{mm} mm, {dose}": second[f"{mm} mm, {dose}"] for mm in (2, 3, 5) for dose in DOSES}
    readme = {name: second[name] for name in ("1 mm, standard", "3 mm, standard")}
    tables = (
        with_known(table("1 to 1.5 mm slices", SCREENING, columns, interval=True)),
        table("second look", SCREENING, thick),
        table("", BY_COBB, found["second look, 1 mm, by Cobb's angle"]),
        table("", BY_DEFORMITY, found["second look, 1 mm, by deformity"]),
        table("", BY_FINDING, found["second look, 1 mm, by finding"]),
        table("for the README", SCREENING, readme, interval=True),
    )
    print("\n\n".join("\n".join(lines) for lines in tables))


def table(head: str, lines: Sequence[Line], groups: Mapping[str, Group], interval: bool = False) -> list[str]:
    """Lines of a Markdown table with a column for each group."""
    rows = [f"| {head} | {' | '.join(groups)} |", f"| --- {'| --- ' * len(groups)}|"]
    for name, decimals, figures in lines:
        cells = ("; ".join(_cells(group, figures, decimals, interval)) for group in groups.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def with_known(lines: list[str]) -> list[str]:
    """The same table with the paper's figures and the aims in front."""
    head, rule, *rows = (line.split(" | ", 1) for line in lines)
    known = [[f"{first} | {' | '.join(KNOWN[first.removeprefix('| ')])}", rest] for first, rest in rows]
    head = [f"{head[0]} | paper (real CT) | aim", head[1]]
    return [" | ".join(each) for each in (head, [f"{rule[0]} | --- | ---", rule[1]], *known)]


def _cells(group: Group, names: Sequence[str], decimals: int, interval: bool) -> Iterator[str]:
    for name in names:
        value, low, high = group[name]
        if value is None:
            yield "-"
        elif interval and low is not None and high is not None:
            yield f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"
        else:
            yield f"{value:.{decimals}f}"


if __name__ == "__main__":
    typer.run(main)
