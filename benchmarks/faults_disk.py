"""A disk that gets full in the middle of a run, and one that is read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import faults
import typer

NO_MOUNT = 3
INSIDE = "VFSCREEN_FAULTS_UNSHARED"
ENLARGED = "256m"


def main(
    studies: Annotated[int, typer.Option(min=1, help="Studies in the archive.")] = 60,
    sizes: Annotated[str, typer.Option(help="Sizes of the disks, KiB, with commas.")] = "64,400,1000,2000",
    seed: Annotated[int, typer.Option(help="Seed of the simulated studies.")] = 7,
    workers: Annotated[int, typer.Option(min=1, help="Reader processes.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Studies the device takes at once.")] = 8,
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """Small tmpfs as result folders: exit code 2, nothing corrupted, and the same command goes on."""
    _enter_own_mounts()
    options = ("--workers", workers, "--batch-size", batch_size, "--weights", weights, "--thumbnails", "all")
    with tempfile.TemporaryDirectory(prefix="vfscreen-disk-") as temporary:
        folder = Path(temporary)
        source = faults.small_archive(folder / "archive", studies, seed)
        expected = folder / "undisturbed"
        whole = faults.finish(faults.vfscreen_run(source, expected, *options))
        if whole.code != 0:
            raise RuntimeError(f"the undisturbed run ended with {whole.code}: {whole.last_words}")
        needed = sum(path.stat().st_size for path in expected.rglob("*") if path.is_file()) // 1024
        full = [_full(folder, source, expected, options, int(size)) for size in sizes.split(",")]
        read_only = [_read_only(folder, source, options, fill) for fill in (None, expected)]
    figures = {
        "needed_kib": needed,
        "full": full,
        "read_only": read_only,
        "passed": all(case["passed"] for case in (*full, *read_only)),
    }
    faults.report(_lines(figures, studies, seed), {"studies": studies, "seed": seed, **figures}, out)
    raise typer.Exit(0 if figures["passed"] else 1)


def _enter_own_mounts() -> None:
    """Go on in a mount namespace of its own (`unshare -rm`), as root without it, or end with 3."""
    if os.environ.get(INSIDE):
        return
    for words in (["unshare", "-rm"], ["unshare", "-m"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            environment = {**os.environ, INSIDE: "1"}
            os.execvpe("unshare", [*words, sys.executable, *sys.argv], environment)
    if os.geteuid() != 0 or not _can_mount():
        typer.echo("Disks cannot be mounted here: run as root, or where `unshare -rm true` works", err=True)
        raise typer.Exit(NO_MOUNT)


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if _mount(Path(folder), "size=64k").returncode != 0:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def _mount(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)


@contextmanager
def _disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own; the result folder lies in it."""
    folder.mkdir()
    if _mount(folder, f"size={size}").returncode != 0:
        typer.echo("Disks cannot be mounted here", err=True)
        raise typer.Exit(NO_MOUNT)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _full(
    folder: Path, source: Path, expected: Path, options: Sequence[object], size_kib: int
) -> dict[str, Any]:
    with _disk(folder / f"disk{size_kib}", f"{size_kib}k") as disk:
        command = faults.vfscreen_run(source, disk / "results", *options)
        first = faults.finish(command)
        state = {
            "finished": faults.finished_count(disk / "results", {}),
            "unreadable_parts": faults.unreadable_parts(disk / "results"),
            "temporary": len(faults.temporary_files(disk / "results")),
        }
        again = faults.finish(command)
        _remount(disk, f"size={ENLARGED}")
        enlarged = faults.finish(command)
        compared = faults.compare(expected, disk / "results") if enlarged.code == 0 else None
    codes = [first.code, again.code, enlarged.code]
    equal = compared is not None and compared.is_equal
    return {
        "size_kib": size_kib,
        "codes": codes,
        "message": first.last_words,
        "message_again": again.last_words,
        **state,
        "compared": asdict(compared) if compared else None,
        "passed": codes == [2, 2, 0] and equal and not state["unreadable_parts"] and not state["temporary"],
    }


def _read_only(folder: Path, source: Path, options: Sequence[object], fill: Path | None) -> dict[str, Any]:
    """A read-only result folder: empty, or with the results of an earlier call."""
    name = "with results" if fill else "empty"
    with _disk(folder / f"read only {name}", ENLARGED) as disk:
        if fill:
            shutil.copytree(fill, disk / "results")
        _remount(disk, "ro")
        ended = faults.finish(faults.vfscreen_run(source, disk / "results", *options))
    passed = ended.code == 2 and "Traceback" not in ended.stderr
    return {"folder": name, "code": ended.code, "message": ended.last_words, "passed": passed}


def _lines(figures: Mapping[str, Any], studies: int, seed: int) -> list[str]:
    lines = [f"{studies} studies, seed {seed}: their results need {figures['needed_kib']} KiB"]
    for case in figures["full"]:
        compared = case["compared"]
        equal = "no tables" if not compared else "equal" if not compared["differences"] else "tables differ"
        lines += [
            f"disk of {case['size_kib']} KiB: exit codes full, full again, enlarged: {case['codes']}; "
            f"{case['finished']} studies in parts when full, {len(case['unreadable_parts'])} parts "
            f"unreadable, {case['temporary']} temporary files; then {equal}",
            f"  {case['message']}",
            *(f"  {difference}" for difference in (compared or {}).get("differences", ())[:3]),
        ]
    for case in figures["read_only"]:
        lines += [f"read-only, {case['folder']}: exit code {case['code']}", f"  {case['message']}"]
    return lines


if __name__ == "__main__":
    typer.run(main)
