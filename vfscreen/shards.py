"""A share of an archive: the studies of one job of several that need not know of each other."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from vfscreen.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Shard `number` (1 is the first) of `count`; every study is in exactly one of them.

    Which one depends on the study's id alone: not on the order of discovery, on other studies, or on
    where the study lies. Shards differ in size by chance, some square roots of their size.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `2/4`. Raises InputError for anything else."""
        given = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(given[1]), int(given[2])) if given else None
        if shard is None or not 1 <= shard.number <= shard.count:
            raise InputError(f"--shard {text} is none: give it as 2/4, for the second of four")
        return shard

    def __str__(self) -> str:
        """As it is given: `2/4`."""
        return f"{self.number}/{self.count}"

    def has(self, study_id: str) -> bool:
        """Whether the study is in this shard."""
        digest = hashlib.sha256(study_id.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1
