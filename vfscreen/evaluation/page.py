"""evaluation.html: one page without anything outside it, for a paper's supplement."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from vfscreen.evaluation.evaluation import Evaluation
from vfscreen.evaluation.groups import FEWEST
from vfscreen.evaluation.intervals import FEWEST_PATIENTS
from vfscreen.evaluation.plots import INK, MOST_POINTS
from vfscreen.evaluation.sheets import (
    Sheet,
    agreement_sheet,
    counts_sheet,
    differences_sheet,
    grades_sheet,
    group_sheet,
    other_sheet,
    table_1_sheet,
    table_2_sheet,
)

CAPTIONS = {
    "roc": "ROC of the measured G, with the operating points at 0.8 and 0.74 and their 95 % intervals. A "
    "true vertebra that was missed counts as called normal at the operating point, but is not in the curve: "
    "the point may lie below it.",
    "free_response": "Free response: the share of the vertebrae with a true G <= 0.74 that were found with a "
    "G at or below a threshold, against the false detections and vertebrae with a true G > 0.74 that were. "
    "The dot is the threshold 0.74.",
    "bland_altman": "Errors against the mean of measured and true (Bland and Altman). Solid: mean error; "
    "dashed: limits of agreement.",
    "scatter": "Measured against true G, with the thresholds 0.8 and 0.74.",
    "reliability": "Reliability: the share with a true G <= 0.74 among vertebrae of like "
    "probability_moderate, with 95 % intervals and the number of vertebrae.",
}
_CLOUD = (
    f"Grey: true G > 0.8; blue: to 0.8; orange: to 0.74. Of more than {MOST_POINTS} vertebrae so many are "
    "drawn at random, deformed ones preferred."
)


def page(evaluation: Evaluation, pictures: Mapping[str, bytes], about: Mapping[str, Any]) -> str:
    """The page as HTML. `about` tells of versions, weights and settings, nested as in run.json."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        counts=counts_sheet(evaluation.counts),
        about=_flat(about),
        main=[table_1_sheet(evaluation), table_2_sheet(evaluation)],
        sheets=_further(evaluation),
        pictures=[(name, inline(svg), _caption(name)) for name, svg in pictures.items()],
        repeats=evaluation.repeats,
        fewest=FEWEST,
        fewest_patients=FEWEST_PATIENTS,
    )


def inline(svg: bytes) -> Markup:
    """The drawing without the prologue of a file, in the colour of the page's text."""
    text = svg.decode("utf-8")
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))


def _further(evaluation: Evaluation) -> list[Sheet]:
    sheets = [agreement_sheet(evaluation), grades_sheet(evaluation), other_sheet(evaluation)]
    if evaluation.differences is not None:
        sheets.append(differences_sheet(evaluation.differences))
    return [*sheets, group_sheet(evaluation)]


def _caption(name: str) -> str:
    return f"{CAPTIONS[name]} {_CLOUD}" if name in ("bland_altman", "scatter") else CAPTIONS[name]


def _flat(about: Mapping[str, Any]) -> dict[str, str]:
    if not about:
        return {}
    return {str(name): str(value) for name, value in pd.json_normalize(dict(about), sep=": ").iloc[0].items()}
