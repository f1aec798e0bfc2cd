"""run.json: how the results of a folder were made, and by which calls; they must share one method."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfscreen import provenance
from vfscreen.errors import InputError
from vfscreen.results import read_run_json, write_run_json
from vfscreen.settings import Settings
from vfscreen.shards import Shard

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

logger = logging.getLogger(__name__)

METHOD = ("input", "settings", "weights", "series", "pseudonyms", "shard")
"""The names in run.json of what all calls that share a folder have in common."""

_MAX_DIFFERENCES = 3  # named in a message


def method(
    source: Path,
    settings: Settings,
    models: Models,
    series: Collection[str] = (),
    pseudonyms: str | None = None,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """What must be the same in all calls that share one result folder, as JSON holds it.

    `series` are those asked for by UID, `pseudonyms` is the digest of the key.
    """
    made_with = {
        "input": str(source.resolve()),
        "settings": asdict(settings),
        "weights": dict(models.provenance),
        "series": sorted(series),
        "pseudonyms": pseudonyms,
        "shard": None if shard is None else str(shard),
    }
    return dict(json.loads(json.dumps(made_with)))


def earlier_calls(out: Path, method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls whose results `out` holds. Raises InputError unless they used the same method."""
    earlier = read_run_json(out)
    if earlier is None:
        return []
    differences = provenance.differences({name: earlier.get(name) for name in method}, method)
    if differences:
        more = len(differences) - _MAX_DIFFERENCES
        named = "; ".join(differences[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{out} holds results made in another way: {named}. One table must not mix the two, so "
            "choose another folder, or start afresh with --fresh"
        )
    return list(earlier.get("calls", []))


def check_without_names(out: Path) -> None:
    """Raise InputError where `out` holds pseudonyms, beside which no name may stand."""
    try:
        earlier = read_run_json(out)
    except InputError:
        return  # nobody knows
    if earlier and earlier.get("pseudonyms"):
        raise InputError(
            f"{out} holds pseudonyms; names of patients or files beside them would tell whose they are. "
            "Choose another folder"
        )


@dataclass(frozen=True)
class Journal:
    """The calls that made one result folder: the earlier ones and this `call`, as far as it is known."""

    out: Path
    method: Mapping[str, Any]
    earlier: Sequence[Mapping[str, Any]]
    call: Mapping[str, Any]

    @classmethod
    def begin(
        cls,
        out: Path,
        method: Mapping[str, Any],
        device: str,
        options: Mapping[str, Any],
        earlier: Sequence[Mapping[str, Any]],
    ) -> Journal:
        """Write down that a call begins, so that parts never stand without their run.json.

        `earlier` are the calls whose results `out` holds. Raises OSError when the disk refuses.
        """
        call = {
            "started": _now().isoformat(timespec="milliseconds"),
            "command": sys.argv
            if method["pseudonyms"] is None
            else None,  # it may name a series or a patient
            "versions": provenance.versions(*["highdicom"] * bool(options["dicom_sr"])),
            "options": dict(options),
            "machine": {**provenance.machine(), "device": device},
        }
        journal = cls(out, method, earlier, call)
        journal._warn_of_pictures_not_drawn()
        journal._warn_of_reports_not_made()
        journal._write(call)
        return journal

    def end(
        self,
        new: int,
        counts: Mapping[str, int],
        seconds_by_stage: Mapping[str, float],
        busy: Mapping[str, float],
        unscreened: int,
    ) -> None:
        """Add what this call took for its `new` studies; `counts` and stages are of all in the tables.

        `busy` is the share of its time for which readers, device and writer worked; `unscreened` studies
        of its input have no row yet.
        """
        ended = {
            "ended": _now().isoformat(timespec="milliseconds"),
            "seconds": self.seconds(),
            "new": new,
            "busy": dict(busy),
            "peak_memory_mib": provenance.peak_memory_mib(),
        }
        seconds = sum(call.get("seconds", 0.0) for call in self.earlier) + ended["seconds"]
        totals = {
            "seconds": seconds,
            "seconds_by_stage": dict(seconds_by_stage),
            "counts": dict(counts),
            "unscreened": unscreened,
        }
        self._write({**self.call, **ended}, totals)

    def seconds(self) -> float:
        """Since the call began."""
        return (_now() - datetime.fromisoformat(self.call["started"])).total_seconds()

    def _write(self, call: Mapping[str, Any], totals: Mapping[str, Any] | None = None) -> None:
        latest = {name: call[name] for name in ("versions", "options", "machine")}
        content = {**self.method, **latest, **(totals or {}), "calls": [*self.earlier, call]}
        write_run_json(self.out, content)

    def _warn_of_pictures_not_drawn(self) -> None:
        wanted = self.call["options"]["thumbnails"]
        before = self.earlier[-1]["options"]["thumbnails"] if self.earlier else wanted
        if wanted not in (before, "none"):
            logger.warning(
                "Only new studies get pictures (%s): those that are finished keep what they have (%s).",
                wanted,
                before,
            )

    def _warn_of_reports_not_made(self) -> None:
        before = self.earlier[-1]["options"].get("dicom_sr") if self.earlier else True
        if self.call["options"]["dicom_sr"] and not before:
            logger.warning("Only new studies get a DICOM SR; with --fresh those that are finished do too.")


def _now() -> datetime:
    return datetime.now(timezone.utc)
