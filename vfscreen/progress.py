"""How far a run has come: a bar where stderr is a terminal, a log line now and then where it is not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 30.0


Count = Literal["measured", "unmeasured", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """How one study ended: the count of a `Tally` that it adds to, and whether it is flagged."""

    study_id: str
    count: Count
    flagged: bool = False


@dataclass(frozen=True)
class Tally:
    """Studies of a run so far: `before` were finished by earlier calls, the other counts are of this call.

    `unmeasured` are those that were screened, but had no vertebra that could be measured.
    """

    total: int
    before: int = 0
    measured: int = 0
    unmeasured: int = 0
    failed: int = 0
    skipped: int = 0
    flagged: int = 0

    @property
    def new(self) -> int:
        """Studies finished by this call."""
        return self.measured + self.unmeasured + self.failed + self.skipped

    @property
    def done(self) -> int:
        """Studies that need no more work."""
        return self.before + self.new

    def plus(self, outcome: Outcome) -> Tally:
        """With one more study."""
        counted = {outcome.count: getattr(self, outcome.count) + 1}
        return replace(self, flagged=self.flagged + outcome.flagged, **counted)


OnProgress = Callable[[Tally], None]
"""Called with the first tally before the first study, then after each study."""


def silent(_: Tally) -> None:
    """Show nothing."""


@contextmanager
def shown(console: Console) -> Iterator[OnProgress]:
    """Progress on this console: a bar on a terminal, log lines otherwise."""
    if not console.is_terminal:
        yield _LogLines()
        return
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, refresh_per_second=2) as bar:
        task = bar.add_task("looking for studies", total=None)
        start = time.monotonic()

        def update(tally: Tally) -> None:
            text = describe(tally, time.monotonic() - start)
            bar.update(task, description=text, total=tally.total, completed=tally.done)

        yield update


def describe(tally: Tally, seconds: float) -> str:
    """One line: done of total, rate and time left as of this call's `seconds`, and the counts."""
    counts = (
        f"{tally.measured} measured, {tally.flagged} flagged, {tally.unmeasured} without a vertebra, "
        f"{tally.failed} failed, {tally.skipped} skipped"
    )
    done = f"{tally.done}/{tally.total} studies"
    if not tally.new:
        return f"{done}; {counts}"
    rate = tally.new / seconds
    left = _duration((tally.total - tally.done) / rate)
    return f"{done}, {60 * rate:.1f}/min, {left} left; {counts}"


class _LogLines:
    """A line at the start, each half minute, and at the end."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next = self._start

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now >= self._next or tally.done == tally.total:
            self._next = now + _LOG_EVERY_S
            logger.info("%s", describe(tally, now - self._start))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
