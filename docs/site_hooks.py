"""MkDocs: pages that lie outside docs/ join the site where they are, and links to them lead there.

In the repository a link goes from docs/method.md to ../weights/MODEL_CARD.md; in the site docs/ is the top.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = ("weights/MODEL_CARD.md", "benchmarks/README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages outside docs/ under the paths that they have in the repository."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as they are from a place one level up: docs/ is left out, and so is ../ before the others."""
    inside = page.file.src_uri not in OUTSIDE
    return re.sub(r"\]\(\.\./", "](", markdown) if inside else re.sub(r"\]\((\.\./)?docs/", r"](\1", markdown)
