"""Who may import whom: readers start without torch, and data flow one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vfscreen

PACKAGE = Path(vfscreen.__file__).parent
MODULES = {
    ".".join(("vfscreen", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ABOVE = (
    *("pipeline", "merge", "cluster", "streaming", "cli"),
    *("simulation", "training", "evaluation", "epidemiology"),
)
"""What stands above the stages, by the first name below vfscreen."""
BESIDE_ABOVE = ("reader_process", "threads", "progress", "provenance", "screening", "__init__")


def top(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


STAGES = [m for m in MODULES if top(m) not in (*ABOVE, *BESIDE_ABOVE)]


@pytest.mark.parametrize("module", ["vfscreen", "vfscreen.cli", "vfscreen.reader_process", "vfscreen.detect"])
def test_a_module_that_must_start_fast_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", STAGES)
def test_a_stage_imports_nothing_that_stands_above_it(module):
    ours = {name for name in imported(MODULES[module]) if name.startswith("vfscreen.")}
    assert not {name for name in ours if top(name) in ABOVE}


def test_the_stages_are_found():
    assert {"vfscreen.volume", "vfscreen.localize", "vfscreen.measure", "vfscreen.readers.dicom"} < set(
        STAGES
    )


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_known_only_to_networks_and_training(module):
    if top(module) not in ("networks", "training"):
        names = {name.split(".")[0] for name in imported(MODULES[module])}
        assert "torch" not in names


@pytest.mark.parametrize("module", MODULES)
def test_dask_is_known_only_to_the_cluster(module):
    if top(module) != "cluster":
        names = {name.split(".")[0] for name in imported(MODULES[module])}
        assert not names & {"dask", "distributed", "dask_jobqueue"}


@pytest.mark.parametrize("module", MODULES)
def test_the_library_does_not_print(module):
    calls = (n for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Call))
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
