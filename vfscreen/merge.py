"""The folders of all shards of an archive -> one folder, as if one run had made it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfscreen import provenance
from vfscreen.errors import InputError
from vfscreen.journal import METHOD, Journal
from vfscreen.pipeline import RunSummary, bring, make_tables, put_aside
from vfscreen.results import StudyKey, copy_parts, finished_studies, locked, working_copy
from vfscreen.shards import Shard
from vfscreen.storage import path_of

_GO_ON = "run its command again, which goes on where it stopped"


def merge(folders: Sequence[str | Path], out: str | Path, *, fresh: bool = False) -> RunSummary:
    """Put the results of all shards into `out`, with the tables and pages of a run.

    With `fresh` what `out` holds is set aside first. Raises InputError where a folder is no shard, one is
    missing, given twice or unfinished, where they were made in different ways or share a study, and for an
    `out` that holds results already or is unwritable.
    """
    shards = [_shard(path_of(folder)) for folder in folders]
    _check_made_alike(shards)
    _check_all_there(shards)
    keys = _studies(shards)
    with working_copy(path_of(out)) as copy, locked(copy.folder):
        out = copy.folder
        bring(copy)
        if fresh:
            put_aside(copy)
        if (out / "parts").exists():
            raise InputError(f"{out} holds results already: choose another folder, or merge with --fresh")
        call = _begin(shards, out)
        try:
            for shard in shards:
                copy_parts(shard.folder, out)
        except OSError as error:
            raise InputError(f"The shards cannot be copied to {out}: {error}") from error
        return make_tables(call, 0, None, keys, copy)


@dataclass(frozen=True)
class _Finished:
    """The folder of one shard, and what its run.json tells."""

    folder: Path
    run: Mapping[str, Any]

    @property
    def shard(self) -> Shard:
        return Shard.parse(self.run["shard"])

    @property
    def method(self) -> dict[str, Any]:
        return {name: self.run.get(name) for name in METHOD if name != "shard"}


def _shard(folder: Path) -> _Finished:
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): give folders of vfscreen run --shard") from error
    if not run.get("shard"):
        raise InputError(f"{folder} holds no shard: give folders of vfscreen run --shard")
    unscreened = run.get("unscreened")
    if unscreened is None:
        raise InputError(f"{folder} is not finished: {_GO_ON}")
    if unscreened:
        raise InputError(f"{folder} is not finished, {unscreened} of its studies have no row: {_GO_ON}")
    return _Finished(folder, run)


def _check_made_alike(shards: Sequence[_Finished]) -> None:
    first = shards[0]
    for other in shards[1:]:
        differences = provenance.differences(first.method, other.method)
        if differences:
            raise InputError(
                f"{first.folder} and {other.folder} were made in different ways: from the one to the other "
                f"{differences[0]}. Screen one of them again with --fresh"
            )
        if other.shard.count != first.shard.count:
            raise InputError(
                f"{first.folder} holds shard {first.shard} and {other.folder} shard {other.shard}: all must "
                "be of one division"
            )
        if other.run["options"]["limit"] != first.run["options"]["limit"]:
            raise InputError(
                f"{first.folder} and {other.folder} were made with different --limit: run one command again"
            )


def _check_all_there(shards: Sequence[_Finished]) -> None:
    folders: dict[int, Path] = {}
    for one in shards:
        if one.shard.number in folders:
            raise InputError(
                f"{folders[one.shard.number]} and {one.folder} both hold shard {one.shard}: give one of them"
            )
        folders[one.shard.number] = one.folder
    count = shards[0].shard.count
    missing = [str(Shard(number, count)) for number in range(1, count + 1) if number not in folders]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise InputError(
            f"Shards are missing: {', '.join(missing[:10])}{more}. Run them, or give their folders"
        )


def _studies(shards: Sequence[_Finished]) -> set[StudyKey]:
    """All studies. Raises InputError where a folder lost some of its own, or two share one."""
    folders: dict[str, Path] = {}
    keys: set[StudyKey] = set()
    for one in shards:
        found = finished_studies(one.folder)
        if len(found) < one.run["counts"]["studies"]:
            raise InputError(f"{one.folder} lost results that it had: {_GO_ON}")
        for study_id, source in found:
            if study_id in folders:
                raise InputError(
                    f"{folders[study_id]} and {one.folder} both have the study {study_id} ({source}): screen "
                    "one of them again with --fresh"
                )
            folders[study_id] = one.folder
        keys.update(found)
    return keys


def _begin(shards: Sequence[_Finished], out: Path) -> Journal:
    """run.json of `out`, with the calls of all shards as earlier ones."""
    calls = sorted((call for one in shards for call in one.run["calls"]), key=lambda call: call["started"])
    method = {**shards[0].method, "shard": None}
    options = {**shards[0].run["options"], "merged": len(shards)}
    try:
        for name in ("parts", "thumbnails"):
            (out / name).mkdir()
        return Journal.begin(out, method, "none", options, calls)
    except OSError as error:
        raise InputError(f"Results cannot be written to {out}: {error}") from error
