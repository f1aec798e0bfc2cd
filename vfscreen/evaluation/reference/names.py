"""Names of files and folders that mean the same study."""

from __future__ import annotations

import re

ENDINGS = re.compile(r"(_seg-vert_msk|_seg-vb|_msk|_mask|_seg|_ct|_0000)$", re.IGNORECASE)


def without_endings(path: str) -> str:
    """A path without `.nii.gz`, and without what tells an image from its mask (`_ct`, `_seg-vert_msk`)."""
    return ENDINGS.sub("", re.sub(r"\.nii(\.gz)?$", "", path, flags=re.IGNORECASE))


def tails(path: str) -> set[str]:
    """The path and what is left of it when folders in front are dropped: `a/b/c`, `b/c`, `c`."""
    parts = without_endings(path).split("/")
    return {"/".join(parts[i:]) for i in range(len(parts))}
