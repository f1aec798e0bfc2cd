"""The pages of docs/ as a site: all are in it, their links resolve, and it asks nothing of a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed, so no site is built")
    pytest.importorskip("material", reason="mkdocs-material is not installed, so no site is built")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_builds_strictly_with_the_pages_outside_docs(site: Path) -> None:
    assert (site / "index.html").exists()
    assert (site / "weights" / "MODEL_CARD.html").exists()
    assert 'href="weights/MODEL_CARD.html"' in (site / "method.html").read_text(encoding="utf-8")
    assert 'href="../evaluation.html"' in (site / "benchmarks" / "index.html").read_text(encoding="utf-8")
    assert list(site.glob("*.py")) == []


def test_the_site_loads_nothing_from_a_network(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+href="(?:https?:)?//')
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text("utf-8"))] == []


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.name for path in DOCS.glob("*.md")} <= set(listed)
    assert [name for name in listed if not ((DOCS / name).exists() or (ROOT / name).exists())] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, as a forge and the site both make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_links_to_a_place_in_a_page_find_it(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    targets = [(page.parent / name if name else page, anchor) for name, anchor in links if "://" not in name]
    assert [anchor for target, anchor in targets if anchor not in headings(target)] == []
