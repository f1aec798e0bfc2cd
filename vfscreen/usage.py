"""What limits a run: the share of its time for which readers, device and writer were busy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

READER_STAGES = ("read", "straighten")
LIMIT = 0.6  # a part that is busy for less of the time limits nothing


@dataclass(frozen=True)
class Usage:
    """Shares, 0 to 1, of the `seconds` in which studies were screened; of several readers the mean."""

    seconds: float
    readers: float
    device: float
    writer: float

    def sentence(self) -> str:
        """For the end of a run: the shares, and which part is the limit."""
        shares = {"readers": self.readers, "networks": self.device, "writer": self.writer}
        busiest = max(shares, key=lambda part: shares[part])
        listed = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
        limit = f"the limit: {busiest}" if shares[busiest] >= LIMIT else "too short a run to name a limit"
        return f"Busy: {listed}; {limit}"


@dataclass
class BusySeconds:
    """Adds up what the stages of the studies took, and in the end what the writer took."""

    readers: float = 0.0
    device: float = 0.0
    writer: float = 0.0

    def add(self, stage_seconds: Mapping[str, float]) -> None:
        """The stages of one study."""
        reading = sum(stage_seconds.get(stage, 0.0) for stage in READER_STAGES)
        self.readers += reading
        self.device += sum(stage_seconds.values()) - reading

    def of(self, seconds: float, workers: int, devices: int) -> Usage:
        """The shares of so many seconds with so many readers and threads of the device."""
        whole = max(seconds, 1e-3)
        shares = (self.readers / workers, self.device / devices, self.writer)
        return Usage(seconds, *(share / whole for share in shares))


def mean(usages: Sequence[Usage]) -> Usage | None:
    """The shares of several spans of time together, those of workers side by side too; None without one."""
    seconds = sum(usage.seconds for usage in usages)
    if not usages or not seconds:
        return None
    parts = [(usage.readers, usage.device, usage.writer) for usage in usages]
    weights = [usage.seconds / seconds for usage in usages]
    return Usage(seconds, *(sum(map(float.__mul__, weights, part)) for part in zip(*parts, strict=True)))
