"""Archive and results on an S3 server of this machine beside disk: the same tables? And after kills?"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import faults
import numpy as np
import s3fs
import typer

PORT = 18787
PAUSES_S = (5.0, 20.0)  # from a start to the kill
BUCKET = "s3://vfscreen-benchmark"
STAMP = "files_digest"  # it comes from the objects' tags, on disk from the files' times


def main(
    studies: Annotated[int, typer.Option(min=1, help="Small simulated studies.")] = 100,
    kills: Annotated[int, typer.Option(min=0, help="Runs that are killed, one after the other.")] = 10,
    seed: Annotated[int, typer.Option()] = 7,
    work: Annotated[Path | None, typer.Option(help="Folder for all files, which then stay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    """One run on disk, one on storage, one on storage that is killed at random moments."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-storage-") as temporary, _server():
        folder = work or Path(temporary)
        archive = folder / "archive"
        if not archive.exists():
            faults.small_archive(archive, studies, seed)
        storage = s3fs.S3FileSystem(use_listings_cache=False)
        storage.mkdir(BUCKET)
        storage.put(f"{archive}/", f"{BUCKET}/archive/", recursive=True)
        on_disk = _timed(archive, folder / "disk")
        remote = _timed(f"{BUCKET}/archive", f"{BUCKET}/results")
        kept = _fetched(storage, "results", folder)
        rounds = _kill(f"{BUCKET}/killed", kills, np.random.default_rng(seed))
        figures = {
            "studies": studies,
            "disk": on_disk,
            "storage": remote,
            "differences from disk": _differences(folder / "disk", kept),
            "killed": rounds,
            "differences after kills": faults.compare(kept, _fetched(storage, "killed", folder)).differences,
        }
    faults.report([f"{name}: {value}" for name, value in figures.items()], figures, out)
    raise typer.Exit(1 if figures["differences from disk"] or figures["differences after kills"] else 0)


@contextmanager
def _server() -> Iterator[None]:
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(5)
    try:
        yield
    finally:
        process.kill()


def _command(source: str | Path, out: str | Path) -> list[str]:
    return faults.vfscreen_run(source, out, "--workers", 1, "--device", "cpu")


def _timed(source: str | Path, out: str | Path) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = faults.finish(_command(source, out))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.code:
        typer.echo(ended.stderr)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"code": ended.code, "seconds": round(ended.seconds, 1), "cpu_s": round(cpu_s, 1)}


def _kill(out: str, kills: int, rng: np.random.Generator) -> dict[str, int]:
    """SIGKILL at random moments; then calls until nothing is left."""
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen(
            _command(f"{BUCKET}/archive", out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(float(rng.uniform(*PAUSES_S)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    calls = 1
    while (code := faults.finish(_command(f"{BUCKET}/archive", out)).code) and calls < 4:
        calls += 1
    return {"killed": killed, "calls to the end": calls, "code": code}


def _fetched(storage: Any, name: str, folder: Path) -> Path:
    storage.get(f"{BUCKET}/{name}/", f"{folder / name}/", recursive=True)
    return folder / name


def _differences(expected: Path, got: Path) -> tuple[str, ...]:
    """As `faults.compare`, but for the digests of the files, which depend on where they lie."""
    found = []
    for name in faults.TABLES:
        tables = [faults.timeless(folder, name) for folder in (expected, got)]
        one, other = (t.drop_columns([c for c in t.column_names if c == STAMP]) for t in tables)
        found += [] if one.equals(other) else [f"{name} differs"]
    return tuple(found)


if __name__ == "__main__":
    typer.run(main)
