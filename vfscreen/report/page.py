"""report.html: a run on one page, from the archive to the flagged studies, which are read on it by keyboard.

Python gives the numbers, and the studies as JSON; page.js makes cards and rows of them as they are looked at.
Nothing comes from a network, and of files only the pictures beside the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from math import ceil
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment
from markupsafe import Markup, escape

from vfscreen.adjudication.verdicts import COLUMNS, GRADES, VERDICTS
from vfscreen.errors import StudyError
from vfscreen.measure import MILD, THRESHOLDS, grade
from vfscreen.pages import meaning, study_errors
from vfscreen.quality import VERTEBRA_DOUBTS
from vfscreen.report.picture import LEFT, SHEET_WIDTH
from vfscreen.study import HEIGHTS
from vfscreen.whole_files import write_whole

DOUBTS = {
    "spine_at_edge": "the image ends in or beside the spine",
    "few_vertebrae": "too few whole vertebrae could be measured",
    "vertebra_missed": "a vertebra may have been missed between two others",
    "spine_end_missed": "an end of the spine in the image holds no vertebra that could be measured",
    "thick_slices": "slices stand far apart: heights are coarse",
    "slices_missing": "slices are missing or unevenly spaced, and were resampled from where they are",
    "second_look_disagrees": "a vertebra that was detected was not confirmed, and is left out",
    **VERTEBRA_DOUBTS,
}
"""What the names in `studies.quality` mean, for a reader."""

Row = dict[str, Any]

_OF_STUDIES = [
    *("patient_id", "study_id", "study_date", "source", "status", "error", "reason", "n_vertebrae"),
    *("min_genant_ratio", "grade", "n_moderate", "flagged", "quality", "thumbnail"),
]
_OF_VERTEBRAE = [
    *("study_id", "vertebra", "level", "genant_ratio", "genant_ratio_low", "genant_ratio_high", "grade"),
    *(f"height_{name}_mm" for name in HEIGHTS),
    *("shape", "quality"),
]
_BIN, _FIRST_BIN = 0.02, 0.4  # of the histogram: its limits are those of the grades too
_PLOT = {"left": 46, "top": 26, "width": 580, "height": 170}  # px of the drawing


def write_page(out: Path) -> None:
    """Write `out`/report.html, whole or not at all, from the tables and run.json of a finished run.

    Raises OSError where these cannot be read or the disk refuses.
    """
    write_whole(out / "report.html", page(out).encode())


def page(out: Path) -> str:
    """The page as HTML. Raises OSError where tables or run.json cannot be read."""
    run = json.loads((out / "run.json").read_text("utf-8"))
    studies = pq.read_table(out / "studies.parquet", columns=_OF_STUDIES)
    threshold = run["settings"]["measure"]["threshold"]
    flagged = studies.filter(studies["flagged"])
    unmeasured = _unmeasured(studies, run["input"])
    style, script = _beside("page.css"), _beside("page.js")
    data = {
        "key": f"vfscreen:{_run_key(run)}",
        "verdicts": list(VERDICTS),
        "grades": list(GRADES),
        "columns": list(COLUMNS),
        "doubts": DOUBTS,
        "spine": LEFT + SHEET_WIDTH,  # px of a picture, from its left
        "cases": _cases(flagged, out / "vertebrae.parquet", max(threshold, MILD)),
        "unmeasured": unmeasured,
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_beside("page.html.j2")).render(
        facts=_facts(run),
        threshold=threshold,
        steps=_flow(studies, threshold),
        causes=_causes(studies),
        doubts=_doubts(studies, flagged),
        histogram=_histogram(studies, threshold),
        grades=_grades(studies),
        verdicts=VERDICTS,
        verdict_grades=GRADES,
        flagged_grades=_grades(flagged),
        n_flagged=flagged.num_rows,
        n_unmeasured=len(unmeasured),
        style=Markup(style),
        script=Markup(script),
        hashes={"style": _csp_hash(style), "script": _csp_hash(script)},
        data=_json(data),
    )


def _beside(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _csp_hash(text: str) -> str:
    """What the Content-Security-Policy allows to run: this text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: Mapping[str, Any]) -> Markup:
    """JSON for a script element, which no text in it can end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _run_key(run: Mapping[str, Any]) -> str:
    """The same for all calls that made one folder, and another for any other folder."""
    made = [run["calls"][0]["started"], run["settings"], run["weights"]]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    """What the run was, without the place of the archive."""
    calls = run["calls"]
    limit = run["options"].get("limit")
    days = dict.fromkeys(call["started"][:10] for call in (calls[0], calls[-1]))
    hashes = {name: of["sha256"][:8] for name, of in run["weights"].items()}
    return {
        "vfscreen": run["versions"]["vfscreen"],
        "Screened": " to ".join(days),
        "Flagged at": f"G ≤ {run['settings']['measure']['threshold']:g}",
        "Measured by": "second look" if run["settings"]["refine"]["enabled"] else "the paper's keypoints",
        "Weights": ", ".join(f"{name} {digest}" for name, digest in hashes.items()),
        **({"Only": f"the first {limit} studies of the archive"} if limit else {}),
        **({"Names": "pseudonyms; dates are shifted"} if run.get("pseudonyms") else {}),
    }


# --- from archive to result ----------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What is left at a step of the flow, and what does not go on from it, by reason."""

    name: str
    n_studies: int
    n_patients: int
    about: str
    leaving: Mapping[str, int]


def _flow(studies: pa.Table, threshold: float) -> list[Step]:
    status = studies["status"]
    with_series = studies.filter(pc.not_equal(status, "skipped"))
    screened = studies.filter(pc.is_in(status, pa.array(["ok", "partial"])))
    measured = screened.filter(pc.greater(screened["n_vertebrae"], 0))
    flagged = measured.filter(measured["flagged"])
    others = measured.filter(pc.invert(pc.fill_null(measured["flagged"], False)))
    unflagged = Counter(others["status"].to_pylist())
    left = {
        f"measured, no vertebra with G ≤ {threshold:g}": unflagged["ok"],
        "partial: too little measured to say": unflagged["partial"],
    }
    return [
        _step("Studies found", studies, "", _by_cause(studies, "skipped")),
        _step("With a series to screen", with_series, "", _by_cause(studies, "failed")),
        _step("Screened", screened, "", {"no whole vertebra": screened.num_rows - measured.num_rows}),
        _step("Measured", measured, _by_status(measured), left),
        _step("Flagged", flagged, _by_status(flagged), {}),
    ]


def _step(name: str, studies: pa.Table, about: str, leaving: Mapping[str, int]) -> Step:
    who = pc.coalesce(studies["patient_id"], studies["study_id"])
    return Step(name, studies.num_rows, len(pc.unique(who)), about, {k: n for k, n in leaving.items() if n})


def _by_cause(studies: pa.Table, status: str) -> dict[str, int]:
    codes = Counter(studies.filter(pc.equal(studies["status"], status))["error"].to_pylist())
    return {f"{status}: {_words(code)}": n for code, n in codes.most_common()}


def _by_status(studies: pa.Table) -> str:
    counts = Counter(studies["status"].to_pylist())
    return ", ".join(f"{counts[status]:,} {status}" for status in ("ok", "partial") if counts[status])


def _words(name: str) -> str:
    return name.replace("_", " ")


# --- quality and failures ------------------------------------------------------------------------


@dataclass(frozen=True)
class Cause:
    """Why studies were not measured, and what to do about it."""

    code: str
    kind: type[StudyError]
    n_studies: int

    @property
    def meaning(self) -> str:
        """One sentence."""
        return meaning(self.kind)

    @property
    def advice(self) -> Markup:
        """What to do, with what is to be typed as code."""
        return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(self.kind.advice))))


def _causes(studies: pa.Table) -> list[Cause]:
    kinds = {kind.code: kind for kind in study_errors()}
    counts = Counter(studies["error"].drop_null().to_pylist())
    return [Cause(code, kinds.get(code, StudyError), n) for code, n in counts.most_common()]


def _doubts(studies: pa.Table, flagged: pa.Table) -> list[tuple[str, str, int, int]]:
    """Each doubt with its meaning, and in how many studies and flagged studies it is."""
    of_all, of_flagged = (Counter(pc.list_flatten(t["quality"]).to_pylist()) for t in (studies, flagged))
    return [(_words(name), DOUBTS.get(name, ""), n, of_flagged[name]) for name, n in of_all.most_common()]


# --- the smallest G of the studies ---------------------------------------------------------------


def _grades(studies: pa.Table) -> dict[str, int]:
    counts = Counter(studies["grade"].drop_null().to_pylist())
    return {name: counts[name] for name in ("severe", "moderate", "mild", "normal") if counts[name]}


def _histogram(studies: pa.Table, threshold: float) -> dict[str, Any]:
    """Bars, ticks and thresholds in pixels of the drawing. A bar holds what is over its lower limit."""
    ratios = studies["min_genant_ratio"].drop_null().to_pylist()
    first = min([_FIRST_BIN, *(int(g * 10) / 10 for g in ratios)])
    bins = Counter(ceil(round(g / _BIN, 6)) for g in ratios)
    highest = max(bins.values(), default=1)

    def x(ratio: float) -> float:
        return round(_PLOT["left"] + _PLOT["width"] * (ratio - first) / (1 - first), 1)

    def bar(number: int, n: int) -> Row:
        low, high = (number - 1) * _BIN, number * _BIN
        height = max(1.0, round(_PLOT["height"] * n / highest, 1))
        place = {"x": x(low), "width": round(x(high) - x(low), 1), "height": height}
        return {**place, "grade": grade(high), "label": f"G {low:.2f} to {high:.2f}: {n:,}"}

    limits = sorted({*THRESHOLDS.values(), threshold})
    return {
        **_PLOT,
        "n": len(ratios),
        "highest": highest,
        "bars": [bar(number, n) for number, n in sorted(bins.items())],
        "limits": [(x(limit), f"{limit:g}") for limit in limits],
        "ticks": [(x(tick / 10), f"{tick / 10:.1f}") for tick in range(round(first * 10), 11)],
    }


# --- the studies, as page.js has them ------------------------------------------------------------


def _cases(flagged: pa.Table, vertebrae: Path, limit: float) -> list[Row]:
    """The flagged studies, worst first, each with its vertebrae of G <= `limit`."""
    deformed = _deformed(vertebrae, flagged["study_id"], limit)
    ordered = flagged.sort_by([("min_genant_ratio", "ascending"), ("study_id", "ascending")])
    return [
        {
            **_named(row),
            "date": row["study_date"] and row["study_date"].isoformat(),
            "ratio": round(row["min_genant_ratio"], 6),
            "grade": row["grade"],
            "deformed": row["n_moderate"],
            "vertebrae": row["n_vertebrae"],
            "doubts": row["quality"],
            "picture": row["thumbnail"] and quote(row["thumbnail"]),
            "found": deformed[row["study_id"]],
        }
        for row in ordered.to_pylist()
    ]


def _named(row: Row) -> Row:
    return {
        "patient": row["patient_id"],
        "study": row["study_id"],
        "source": row["source"],
        "status": row["status"],
    }


def _deformed(path: Path, study_ids: pa.ChunkedArray, limit: float) -> dict[str, list[Row]]:
    """Of each of these studies the vertebrae with G <= `limit`, cranial first."""
    of_studies = groupby(_vertebrae(path, study_ids, limit), itemgetter("study_id"))
    return {study_id: [_vertebra(row) for row in rows] for study_id, rows in of_studies}


def _vertebrae(path: Path, study_ids: pa.ChunkedArray, limit: float) -> Iterator[Row]:
    """A group of rows is in memory at a time: most of them are of studies that are not flagged."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, _OF_VERTEBRAE)
            is_low = pc.less_equal(table["genant_ratio"], limit)
            yield from table.filter(pc.and_(is_low, pc.is_in(table["study_id"], study_ids))).to_pylist()


def _vertebra(row: Row) -> Row:
    return {
        "number": row["vertebra"],
        "level": row["level"],
        "ratio": round(row["genant_ratio"], 6),
        "interval": _rounded([row["genant_ratio_low"], row["genant_ratio_high"]], 2),
        "grade": row["grade"],
        "heights": _rounded([row[f"height_{name}_mm"] for name in HEIGHTS], 1),
        "shape": row["shape"],
        "doubts": row["quality"],
    }


def _rounded(values: Iterable[float | None], digits: int) -> list[float] | None:
    known = [round(value, digits) for value in values if value is not None]
    return known or None


def _unmeasured(studies: pa.Table, archive: str) -> list[Row]:
    """What failed, was skipped, or is partial without a flag: none of it may count as negative."""
    unknown = studies.filter(studies["flagged"].is_null()).sort_by("source")
    return [
        {**_named(row), "cause": _cause(row), "reason": (row["reason"] or "").replace(f"{archive}/", "")}
        for row in unknown.to_pylist()
    ]


def _cause(row: Row) -> str:
    return _words(row["error"]) if row["error"] else ", ".join(map(_words, row["quality"]))
