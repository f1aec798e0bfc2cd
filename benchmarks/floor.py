"""How near are our stages to what no code can beat: the pixels' decoding and the networks' arithmetic?

    python benchmarks/floor.py --out floor.json
    python benchmarks/floor.py --studies 1mm --stored jpeg2000 --copies 8

A simulated chest of 512 x 512 x 160 voxels at 2 mm and one of 512 x 512 x 320 at 1 mm, each stored
uncompressed, as JPEG 2000 lossless and as JPEG lossless (process 14, selection value 1). For each:

- floor: seconds to decode all slices, by a process on each core, with the fastest of pydicom's plugins that
  gives the values that were stored, headers being parsed and bytes in memory; plus the multiplications and
  additions of the three networks on this study, at the faster of two rates of torch on all cores: products of
  large float32 matrices, or 3 x 3 convolutions, which some processors do in fewer steps than are counted;
- loop: our stages in one process, one study at a time, with all cores for torch;
- run: `vfscreen run` with that many readers. Seconds a study are the slope between a short and a long run,
  so that start-up does not count; utilisation is the slope of the processors' time by that of the clock.

Seconds of the processors (CPU) are given beside those of the clock: they hold, nearly, on a machine that does
something else meanwhile. Memory and the processors' time are of the command and its children.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing.pool import Pool
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import bench_night
import bench_stages
import chest_archive
import faults
import gdcm
import numpy as np
import psutil
import torch
import typer
from peer import flop_counter
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEG2000Lossless
from rich.console import Console
from rich.table import Table
from torch.nn.functional import conv2d

from vfscreen import load_models, provenance
from vfscreen.networks.weights import Models
from vfscreen.simulation.files import write_dicom

STUDIES = {"2mm": (160, 2.0), "1mm": (320, 1.0)}
"""Slices and their distance, mm."""
STORED = ("uncompressed", "jpeg2000", "jpeg_lossless")
MATRIX = 2048
FEW = 4
"""Studies of the short run: every reader is past its first."""


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock, and of all processors together, which other work on the machine leaves alone."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True)
class Floor:
    """What all cores together need at least, and of what it is made."""

    decoder: str
    decoders: dict[str, Spent | None]  # None: other values than those stored
    decode: Spent
    arithmetic: Spent
    matrices: Spent  # the same arithmetic at the rate of matrix products alone
    gigaflop: dict[str, float]
    gigaflop_a_second: dict[str, float]  # of one core

    @property
    def all(self) -> Spent:
        return Spent(self.decode.seconds + self.arithmetic.seconds, self.decode.cpu_s + self.arithmetic.cpu_s)


class FlopCount(bench_stages.Stopwatch):
    """Multiplications and additions of each stage, in thousand millions, in place of its seconds."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with flop_counter() as counter:
            yield
        self.seconds[name].append(counter.get_total_flops() / 1e9)


def main(
    studies: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STUDIES)}; all.")] = None,
    stored: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STORED)}; all.")] = None,
    copies: Annotated[int, typer.Option(min=FEW + 1, help="Studies of the long run.")] = 24,
    repeats: Annotated[int, typer.Option(min=1, help="Passes of the loop, and of decoding.")] = 3,
    cores: Annotated[int, typer.Option(help="Readers, and threads of torch.")] = provenance.usable_cpus(),
    weights: Annotated[Path | None, typer.Option(help="Instead of the shipped ones.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for the studies, which then stay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    if unknown := {*(studies or ()), *(stored or ())} - {*STUDIES, *STORED}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose of {', '.join((*STUDIES, *STORED))}")
    torch.set_num_threads(cores)
    models = load_models(weights, "cpu")
    console, figures = Console(), []
    with tempfile.TemporaryDirectory(prefix="vfscreen-floor-") as temporary:
        for name, way in product(studies or STUDIES, stored or STORED):
            study = written(work or Path(temporary), name, way)
            result = compared(study, models, copies, repeats, cores, weights)
            figures.append({"study": name, "stored": way, **result})
            _show_stages(console, figures[-1], cores)
    if out:
        machine = {
            **provenance.machine(),
            **provenance.versions(),
            "cores": cores,
            "load": psutil.getloadavg(),
        }
        out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    _show(console, figures)


def compared(
    study: Path, models: Models, copies: int, repeats: int, cores: int, weights: Path | None
) -> dict[str, Any]:
    """Floor, loop and run of one study."""
    floor = measured_floor(study, models, repeats, cores)
    loop = plain_loop(study, models, repeats)
    run = whole_run(study, copies, cores, weights)
    seconds = {"floor": floor.all.seconds, "loop": sum(loop.values()), "run": run["seconds_each"]}
    return {
        "seconds": seconds,
        "ratio_to_floor": {name: each / floor.all.seconds for name, each in seconds.items()},
        "ratio_to_matrix_floor": seconds["run"] / (floor.decode.seconds + floor.matrices.seconds),
        "cpu_ratio_to_floor": run["cpu_s_each"] / floor.all.cpu_s,
        "floor": {**asdict(floor), "all": asdict(floor.all)},
        "loop_stages": loop,
        "run": run,
    }


# --- the studies ---------------------------------------------------------------------------------


def written(folder: Path, name: str, stored: str) -> Path:
    """The folder of a study, made where it is not there yet."""
    plain, study = folder / f"{name}_uncompressed", folder / f"{name}_{stored}"
    if not plain.exists():
        slices, spacing_mm = STUDIES[name]
        chest = chest_archive.simulate_chest(slices, spacing_mm, last="L2")
        write_dicom(plain, chest, f"SIM-{name}", "20200101", compress=False)
    if not study.exists():
        study.mkdir()
        for path in sorted(plain.iterdir()):
            {"jpeg2000": _as_jpeg_2000, "jpeg_lossless": _as_jpeg_lossless}[stored](path, study / path.name)
    return study


def _as_jpeg_2000(source: Path, target: Path) -> None:
    dataset = dcmread(source)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(target, enforce_file_format=True)


def _as_jpeg_lossless(source: Path, target: Path) -> None:
    """By GDCM: pydicom cannot write it."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    if not reader.Read():
        raise OSError(f"GDCM cannot read {source}")
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError(f"GDCM cannot compress {source}")
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise OSError(f"GDCM cannot write {target}")


# --- the floor -----------------------------------------------------------------------------------


def measured_floor(study: Path, models: Models, repeats: int, cores: int) -> Floor:
    decoders = decoding(study, repeats, cores)
    exact = {name: spent for name, spent in decoders.items() if spent}
    fastest = min(exact, key=lambda name: exact[name].cpu_s)
    count = FlopCount()
    bench_stages.one_pass(study, models, count)
    gigaflop = {name: values[0] for name, values in count.seconds.items() if values[0]}
    rates = {"matrix product": matrix_rate(1), "convolution": convolution_rate(1)}
    of_all = {"matrix product": matrix_rate(cores), "convolution": convolution_rate(cores)}
    spent = {
        name: Spent(sum(gigaflop.values()) / of_all[name], sum(gigaflop.values()) / rates[name])
        for name in rates
    }
    matrices, convolutions = spent.values()
    arithmetic = min(matrices, convolutions, key=lambda each: each.seconds)
    return Floor(fastest, decoders, exact[fastest], arithmetic, matrices, gigaflop, rates)


def decoding(study: Path, repeats: int, cores: int) -> dict[str, Spent | None]:
    """What each plugin spends on all slices, in so many processes; None where its values are wrong."""
    paths = sorted(study.iterdir())
    truth = study.with_name(f"{study.name.split('_')[0]}_uncompressed")
    syntax = dcmread(paths[0], stop_before_pixels=True).file_meta.TransferSyntaxUID
    plugins = get_decoder(syntax).available_plugins or ("",)  # pydicom itself, where nothing is compressed
    spent: dict[str, Spent | None] = {}
    for plugin in plugins:
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            exact = all(pool.starmap(_is_exact, [(path, truth / path.name, plugin) for path in paths]))
            spent[plugin or "pydicom"] = (
                _decoded_by_all(pool, paths, plugin, repeats, cores) if exact else None
            )
    return spent


def _decoded_by_all(pool: Pool, paths: list[Path], plugin: str, repeats: int, cores: int) -> Spent:
    """The best of the repeats, each as long as the slowest process."""
    shares = [(paths[i::cores], plugin) for i in range(cores)]
    passes = [pool.starmap(_decode, shares, chunksize=1) for _ in range(repeats)]
    return Spent(
        min(max(each.seconds for each in one) for one in passes),
        min(sum(each.cpu_s for each in one) for one in passes),
    )


def _is_exact(path: Path, truth: Path, plugin: str) -> bool:
    decoded = _decoded(dcmread(path), plugin)
    return np.array_equal(decoded, dcmread(truth).pixel_array)


def _decode(paths: list[Path], plugin: str) -> Spent:
    datasets = [dcmread(path) for path in paths]
    for dataset in datasets:
        dataset.PixelData  # noqa: B018  # read and parsed now, not while it is timed
    start, cpu = time.perf_counter(), time.process_time()
    for dataset in datasets:
        _decoded(dataset, plugin)
    return Spent(time.perf_counter() - start, time.process_time() - cpu)


def _decoded(dataset: Dataset, plugin: str) -> np.ndarray[Any, np.dtype[Any]]:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    return decoder.as_array(dataset, decoding_plugin=plugin)[0]


def matrix_rate(threads: int) -> float:
    """Gigaflop a second of a large float32 matrix product."""
    a, b = torch.rand(2, MATRIX, MATRIX)
    return best_rate(lambda: torch.mm(a, b), 2 * MATRIX**3, threads)


def convolution_rate(threads: int) -> float:
    """The same of a 3 x 3 convolution: some processors are faster there, by another library."""
    channels, side = 128, 64
    image = torch.rand(1, channels, side, side).to(memory_format=torch.channels_last)
    kernel = torch.rand(channels, channels, 3, 3).to(memory_format=torch.channels_last)
    return best_rate(lambda: conv2d(image, kernel), 2 * 9 * channels**2 * (side - 2) ** 2, threads)


def best_rate(product: Callable[[], object], flop: int, threads: int, repeats: int = 15) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = clock()
            product()
            seconds.append(clock() - start)
    torch.set_num_threads(before)
    return flop / min(seconds) / 1e9


# --- ours ----------------------------------------------------------------------------------------


def plain_loop(study: Path, models: Models, repeats: int) -> dict[str, float]:
    """Median seconds of each stage."""
    bench_stages.one_pass(study, models, bench_stages.Stopwatch())
    watch = bench_stages.Stopwatch()
    for _ in range(repeats):
        bench_stages.one_pass(study, models, watch)
    return {name: median(seconds) for name, seconds in watch.seconds.items()}


def whole_run(study: Path, copies: int, cores: int, weights: Path | None) -> dict[str, Any]:
    """Seconds a study, utilisation of the cores and peak memory of `vfscreen run`."""
    options = ("--workers", cores, "--device", "cpu", "--weights", weights)
    few, many = (one_run(study, n, *options) for n in (FEW, copies))
    seconds_each, cpu_s_each = ((many[key] - few[key]) / (copies - FEW) for key in ("seconds", "cpu_s"))
    return {
        "seconds_each": seconds_each,
        "cpu_s_each": cpu_s_each,
        "utilisation": cpu_s_each / seconds_each / cores,
        "start_s": few["seconds"] - FEW * seconds_each,
        **{name: many[name] for name in ("peak_mib", "peak_processes", "statuses", "stage_seconds_each")},
    }


def one_run(study: Path, copies: int, *options: object) -> dict[str, Any]:
    """A whole run over so many copies of a study, with these options of the command."""
    with tempfile.TemporaryDirectory(prefix="vfscreen-floor-run-") as folder:
        manifest, results = Path(folder) / "manifest.csv", Path(folder) / "results"
        with manifest.open("w", newline="") as file:
            rows = [(study.resolve(), f"study_{i:05d}", f"patient_{i:05d}") for i in range(copies)]
            csv.writer(file).writerows([("path", "study_id", "patient_id"), *rows])
        command = faults.vfscreen_run(manifest, results, *options)
        before = _children_cpu_s()
        samples = bench_night.watch(command, results)
        return {"cpu_s": _children_cpu_s() - before, **bench_night.figures(results, samples)}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- shown ---------------------------------------------------------------------------------------


def _show_stages(console: Console, figures: dict[str, Any], cores: int) -> None:
    """Where the time of one study goes."""
    floor, run = figures["floor"], figures["run"]
    parts = {
        "floor": {name: floor[name]["seconds"] for name in ("decode", "arithmetic")},
        "loop": figures["loop_stages"],
        "run, side by side": run["stage_seconds_each"],
    }
    table = Table("of", "part", "s", "share", title=f"{figures['study']}, {figures['stored']}, {cores} cores")
    for whole, stages in parts.items():
        for stage, seconds in stages.items():
            table.add_row(whole, stage, f"{seconds:.3f}", f"{seconds / sum(stages.values()):.0%}")
    console.print(table)
    for name, spent in floor["decoders"].items():
        console.print(f"{name}: {spent['cpu_s']:.3f} CPU s" if spent else f"{name}: other values")
    ratio = figures["ratio_to_matrix_floor"]
    console.print(f"At the rate of matrix products alone the run takes {ratio:.2f} times the floor.")
    for title, key in (("Gigaflop", "gigaflop"), ("Gigaflop a second of a core", "gigaflop_a_second")):
        console.print(f"{title}:", ", ".join(f"{name} {value:.1f}" for name, value in floor[key].items()))


def _show(console: Console, figures: list[dict[str, Any]]) -> None:
    names = ("floor", "loop", "run", "loop / floor", "run / floor", "cores used", "peak, MiB")
    clock = Table("study", "stored", *names, title="Seconds of the clock")
    cpu = Table("study", "stored", "floor", "run", "run / floor", title="Seconds of the processors")
    for each in figures:
        seconds, ratio, run = each["seconds"], each["ratio_to_floor"], each["run"]
        of_clock = [f"{value:.2f}" for value in (*seconds.values(), ratio["loop"], ratio["run"])]
        of_cpu = (each["floor"]["all"]["cpu_s"], run["cpu_s_each"], each["cpu_ratio_to_floor"])
        name = (each["study"], each["stored"])
        clock.add_row(*name, *of_clock, f"{run['utilisation']:.0%}", f"{run['peak_mib']:.0f}")
        cpu.add_row(*name, *(f"{value:.2f}" for value in of_cpu))
    console.print(clock)
    console.print(cpu)


if __name__ == "__main__":
    typer.run(main)
