"""The pages say what the code does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import vfscreen
from vfscreen.cli import app
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.refiner import Refiner

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL_CARD = (ROOT / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("weights/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]
CHECKSUMS = ROOT / "weights" / "SHA256SUMS"


def commands(command: Any, path: str = "vfscreen") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_command_line_page_is_the_one_made_from_the_app(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    make = [sys.executable, "-m", "typer", "vfscreen.cli", "utils", "docs", "--name", "vfscreen", "--output"]
    subprocess.run([*make, page], check=True, capture_output=True)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


def examples(name: str) -> list[str]:
    return re.findall(r"^    (vfscreen .*)$", COMMANDS[name].help, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_that_parse_and_fit_a_terminal(name: str) -> None:
    assert examples(name)
    for example in examples(name):
        assert len(example) <= 78
        _, command, *arguments = shlex.split(example, comments=True)
        COMMANDS[f"vfscreen {command}"].make_context(command, arguments)
        assert name in ("vfscreen", f"vfscreen {command}")


@pytest.mark.parametrize("name", ["vfscreen check", "vfscreen info"])
def test_the_first_example_runs_where_the_repository_lies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    COMMANDS["vfscreen"].main(shlex.split(examples(name)[0])[1:], standalone_mode=False)


def test_the_help_lists_the_commands_in_the_order_of_the_work() -> None:
    order = ("check", "run", "adjudicate", "evaluate", "summarize", "simulate", "train", "info")
    assert [name for name in COMMANDS["vfscreen"].commands if name in order] == list(order)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\[[^\]]*\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("https://") and not (page.parent / t).exists()]
    assert missing == []


def test_the_continuous_integration_finds_the_one_test_command_of_the_readme() -> None:
    (pattern,) = re.findall(r"grep -x '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    found = [line for line in README.splitlines() if re.fullmatch(pattern, line)]
    assert len(found) == 1
    assert f"```sh\n{found[0]}\n```" in README


def test_both_commands_of_the_readme_install_the_pinned_versions() -> None:
    found = [line for line in README.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(found) == 2
    assert all("pip install -q -c constraints.txt " in line for line in found)


def test_python_examples_of_the_readme_use_public_names() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {name for example in examples for name in re.findall(r"\bvfscreen\.(\w+)", example)}
    assert names
    assert names <= set(vfscreen.__all__)
    for example in examples:
        compile(example, "README.md", "exec")


def test_every_declared_package_is_pinned() -> None:
    tomllib = pytest.importorskip("tomllib", reason="pyproject.toml is read with Python 3.11 or newer")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if not line.startswith("#")}
    assert {re.split(r"[><=\[; ]", name)[0].lower() for name in declared} <= pinned


def test_constraints_are_pins_and_bring_no_cuda() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [
        pin for pin in pins if not re.match(r"[\w.-]+==[\w.]+(; python_version [<>]=? \"3\.\d+\")?$", pin)
    ] == []
    assert [pin for pin in pins if re.match(r"nvidia|cuda|triton", pin)] == []


def test_the_changelog_names_this_version() -> None:
    assert f"## [{vfscreen.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_model_card_tells_the_size_of_the_networks() -> None:
    for network in (Localizer(), Detector(), Refiner()):
        assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in MODEL_CARD


@pytest.mark.skipif(not CHECKSUMS.exists(), reason="no weights are shipped")
def test_the_model_card_tells_the_hashes_of_the_weights() -> None:
    digests = [line.split()[0] for line in CHECKSUMS.read_text().splitlines()]
    assert digests
    assert [digest for digest in digests if digest not in MODEL_CARD] == []
