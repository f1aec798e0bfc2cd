"""An adjudication for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from vfscreen.adjudication.adjudicate import Adjudication
from vfscreen.adjudication.agreement import Flag, Pair


def adjudication_table(made: Adjudication) -> Table:
    """Agreement of every reader with the machine, and of the readers with each other."""
    table = Table("who", "with", "studies", "same", "kappa", title="Agreement")
    for pair in (*made.agreement.machine, *made.agreement.readers):
        table.add_row(*_cells(pair))
    return table


def adjudication_lines(made: Adjudication) -> list[str]:
    """What was read, what that changes, and how often the flag is confirmed."""
    changes, conflicts = made.agreement.studies["change"], len(made.conflicts)
    counted = ", ".join(f"{n} {change}" for change, n in sorted(changes.items()))
    lines = [f"Studies read: {len(made.studies)}, readers: {len(made.agreement.machine)}; {counted}."]
    if conflicts:
        lines.append(f"In {conflicts} the readers contradict each other: {made.out / 'conflicts.csv'}")
    if made.superseded:
        lines.append(f"{len(made.superseded)} verdicts are superseded: {made.out / 'superseded.csv'}")
    return [*lines, _confirmed(made.agreement.flag)]


def _cells(pair: Pair) -> tuple[str, ...]:
    return escape(pair.one), escape(pair.other), str(pair.n), _number(pair.share), _number(pair.kappa)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _confirmed(flag: Flag) -> str:
    read = f"{flag.read} of {flag.flagged} flagged studies are read"
    if flag.value is None:
        return f"{read}, and of none is it decided whether there is a fracture."
    return (
        f"{read}; there is a fracture in {flag.confirmed} of {flag.decided} decided ones: "
        f"{flag.value:.3f} ({flag.low:.3f} to {flag.high:.3f})."
    )
