"""Agreement of readers with each other and with the machine, and how often a flag is confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from vfscreen.adjudication.consensus import fracture
from vfscreen.adjudication.reading import Reading
from vfscreen.results import Row


@dataclass(frozen=True)
class Pair:
    """Two who read the same studies; one of them may be the machine.

    `n` studies are compared. `share` of them got the same from both; null where there are none. `kappa` is
    Cohen's; null where one of the two says the same of all, as the machine does where only flagged studies
    are read.
    """

    one: str
    other: str
    n: int
    share: float | None
    kappa: float | None


@dataclass(frozen=True)
class Flag:
    """How often a flag is confirmed: positive predictive value by study, with its 95 % interval (Wilson).

    Of `flagged` studies `read` were read, and of `decided` ones the consensus says whether there is a
    fracture; in `confirmed` ones there is. It is that of all flagged studies only where all of them are read.
    """

    flagged: int
    read: int
    decided: int
    confirmed: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """`studies` counts those read by basis and by change.

    `machine` compares flag and fracture, of studies of which the reader and the machine are sure; `readers`
    compares the four verdicts.
    """

    studies: dict[str, dict[str, int]]
    flag: Flag
    machine: tuple[Pair, ...]
    readers: tuple[Pair, ...]


def agreement(studies: Sequence[Row], readings: Sequence[Reading], n_flagged: int) -> Agreement:
    """The figures of studies read, rows of `STUDIES_READ`, of which the results have `n_flagged` flagged."""
    verdicts: dict[str, dict[str, str]] = {}
    for reading in readings:
        verdicts.setdefault(reading.reader, {})[reading.study_id] = reading.verdict
    flags = {row["study_id"]: row["auto_flagged"] for row in studies if row["auto_flagged"] is not None}
    return Agreement(
        studies={name: dict(Counter(row[name] for row in studies)) for name in ("basis", "change")},
        flag=_flag(studies, n_flagged),
        machine=tuple(pair(reader, "machine", _sure(said), flags) for reader, said in verdicts.items()),
        readers=tuple(
            pair(one, other, verdicts[one], verdicts[other]) for one, other in combinations(verdicts, 2)
        ),
    )


def pair(one: str, other: str, of_one: Mapping[str, Hashable], of_other: Mapping[str, Hashable]) -> Pair:
    """Compare what two say of the studies, given by their ids, that both know."""
    both = [study for study in of_one if study in of_other]
    ours, theirs = [of_one[study] for study in both], [of_other[study] for study in both]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    varied = min(len(set(ours)), len(set(theirs))) > 1
    return Pair(
        one,
        other,
        n=len(both),
        share=same / len(both) if both else None,
        kappa=float(cohen_kappa_score(ours, theirs)) if varied else None,
    )


def _sure(verdicts: Mapping[str, str]) -> dict[str, bool]:
    found = {study: fracture(verdict) for study, verdict in verdicts.items()}
    return {study: is_fracture for study, is_fracture in found.items() if is_fracture is not None}


def _flag(studies: Sequence[Row], n_flagged: int) -> Flag:
    read = [row for row in studies if row["auto_flagged"]]
    decided = [row["fracture"] for row in read if row["fracture"] is not None]
    counts = (n_flagged, len(read), len(decided), sum(decided))
    if not decided:
        return Flag(*counts, None, None, None)
    interval = binomtest(sum(decided), len(decided)).proportion_ci(method="wilson")
    return Flag(*counts, sum(decided) / len(decided), float(interval.low), float(interval.high))
