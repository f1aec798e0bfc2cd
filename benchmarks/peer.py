"""What a user would pick instead, on the same study: TotalSegmentator's fast network, run by nnU-Net.

    python benchmarks/peer.py /tmp/chests/chest --threads 2 --out peer.json

The peer is `TotalSegmentator --fast --ml --device cpu`: DICOM is read, reduced to 3 mm, segmented by the
predictor of nnU-Net, and the labels are brought back to the voxels of the scan. Its weights are random, as
none can be downloaded here: the arithmetic is the same, the labels mean nothing. It runs in an environment of
its own, which is made where it is missing. Each side has a process of its own with so many threads of torch;
its first pass, which pays for caches, is not timed; memory is the most that this process ever held.

What the peer is, and where that was found:

- TotalSegmentator 2.18.0 on PyPI (`map_tasks_config.py`, `nnunet.py`, `resampling.py`, the command): one
  network (task 297, fold 0) at 3 mm, reached by `scipy.ndimage.zoom` of float64 with order 1 unless
  `--resampling_order` says otherwise, and left with order 0; no mirroring; windows 0.8 of their size apart
  (in earlier versions 0.5 at 3 mm). Its README: about 70 s on a CPU for a large CT with `-ml -f -sl -ro 1`,
  which is the peer here without its last part.
- Descriptions of the plans of Dataset297 in other public repositories: PlainConvUNet, windows of
  112 x 112 x 128 in the order z, y, x, 118 classes, CT normalisation with these four numbers.
- Assumed, as the plans themselves were not seen: what nnU-Net gives by default for such a window, five
  stages of 32, 64, 128, 256 and 320 features, two convolutions each. These are 16.6 million parameters, as
  many as fit the published weights (135 MB, with a momentum for each); six stages would be twice as many.

Left out in the peer's favour: the start of Python, the loading of weights, `dicom2nifti` (SimpleITK reads
here), the compressed files in between and at the end, and heights, which labels are not yet.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.ndimage import zoom
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

# The peer's environment has no vfscreen, and ours has no nnU-Net: functions import what is theirs.
if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

PACKAGES = [
    "torch==2.13.0",
    "nnunetv2==2.8.1",
    "dynamic-network-architectures==0.4.4",
    "acvl-utils==0.2.6",
    "batchgeneratorsv2==0.3.6",
    "SimpleITK==2.5.7",
    "numpy==2.4.6",
    "scipy==1.17.1",
    "typer==0.29.2",
]
SPACING_MM = [3.0, 3.0, 3.0]
WINDOW = [112, 112, 128]  # z, y, x
STEP = 0.8  # of the window
CLASSES = 118
SMALLEST_SIDE = 4  # of the deepest stage: the planner's default
NORMALISATION = {"percentile_00_5": -1004.0, "percentile_99_5": 1588.0, "mean": -50.3869, "std": 503.3923}


class Clock:
    """Seconds, and CPU seconds of all threads, of each named part: a pair for each pass."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self.spent[name].append((time.perf_counter() - start, time.process_time() - cpu))

    def medians(self) -> dict[str, list[float]]:
        return {
            part: [median(each) for each in zip(*passes, strict=True)] for part, passes in self.spent.items()
        }


def main(
    study: Annotated[Path, typer.Argument(help="A folder with one DICOM study.")],
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Passes that are timed, after one that is not.")] = 3,
    order: Annotated[int, typer.Option(help="Of the splines by which the peer reduces to 3 mm.")] = 1,
    env: Annotated[Path, typer.Option(help="Environment of the peer, made if missing.")] = Path("/tmp/peer"),
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    from vfscreen import provenance

    given = {"study": str(study.resolve()), "threads": threads, "repeats": repeats}
    peer = environment(env)
    figures = {
        "vfscreen": in_process(Path(sys.executable), "ours", given),
        "peer": in_process(peer, "theirs", {**given, "order": order}),
    }
    if out:
        machine = {**provenance.machine(), "threads": threads, "order": order, "load": os.getloadavg()}
        out.write_text(json.dumps({"machine": machine, "packages": PACKAGES, **figures}, indent=1) + "\n")
    _show(Console(), figures, f"{study.name}, {threads} threads")


def environment(folder: Path) -> Path:
    """The Python of the peer."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def in_process(python: Path, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a function of this file answers there. nnU-Net prints too, so that only the last line counts."""
    code = f"import json, peer; print(json.dumps(peer.{function}(**json.loads({json.dumps(arguments)!r}))))"
    command = [str(python), "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(study: str, threads: int, repeats: int) -> dict[str, Any]:
    import bench_stages

    from vfscreen import load_models

    torch.set_num_threads(threads)
    models, clock, ignored = load_models(None, "cpu"), Clock(), bench_stages.Stopwatch()
    with flop_counter() as counter:
        bench_stages.one_pass(Path(study), models, ignored)
    for _ in range(repeats):
        with clock.part("all"):
            bench_stages.one_pass(Path(study), models, ignored)
    return {"parts": clock.medians(), **_effort(counter)}


def theirs(study: str, threads: int, repeats: int, order: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    predictor, clock, windows = untrained_predictor(), Clock(), []
    counting = predictor.network.register_forward_hook(lambda *_: windows.append(1))
    with flop_counter() as counter:
        reduced = peer_pass(study, predictor, order, Clock())
    counting.remove()
    for _ in range(repeats):
        peer_pass(study, predictor, order, clock)
    return {
        "parts": clock.medians(),
        **_effort(counter),
        "windows": len(windows),
        "reduced": reduced,
        "parameters": sum(each.numel() for each in predictor.network.parameters()),
    }


def flop_counter() -> FlopCounterMode:
    """It also counts convolutions that are asked of oneDNN itself, which torch's own leaves out."""

    def convolution(image: list[int], kernel: list[int], *_: Any, out_shape: list[int]) -> int:
        return conv_flop_count(image, kernel, out_shape)

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: convolution})


def _effort(counter: FlopCounterMode) -> dict[str, float]:
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"gigaflop": counter.get_total_flops() / 1e9, "peak_mib": peak_mib}


def peer_pass(study: str, predictor: nnUNetPredictor, order: int, clock: Clock) -> tuple[int, ...]:
    """One study as TotalSegmentator treats it; the shape of what the network sees."""
    import SimpleITK as sitk

    with clock.part("read"):
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(study))
        hu = sitk.GetArrayFromImage(image)
    with clock.part("reduce to 3 mm"):
        factors = np.divide(image.GetSpacing()[::-1], SPACING_MM)
        reduced = zoom(hu.astype(np.float64), factors, order=order, mode="nearest").astype(np.int32)
    with clock.part("nnU-Net"):
        one_channel = reduced[None].astype(np.float32)
        labels = predictor.predict_single_npy_array(one_channel, {"spacing": SPACING_MM})
    with clock.part("back to the scan"):
        factors = np.divide(hu.shape, labels.shape)
        zoom(labels.astype(np.float64), factors, order=0, mode="nearest").astype(np.uint8)
    return labels.shape


def untrained_predictor() -> nnUNetPredictor:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(0)
    manager = PlansManager(plans())
    fast = manager.get_configuration("3d_fullres")
    imports = fast.network_arch_init_kwargs_req_import
    layers = (fast.network_arch_class_name, fast.network_arch_init_kwargs, imports)
    network = get_network_from_plans(
        *layers, input_channels=1, output_channels=CLASSES, deep_supervision=False
    )
    labels = {"background": 0, **{f"structure {i}": i for i in range(1, CLASSES)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    predictor = nnUNetPredictor(STEP, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(network, manager, fast, [network.state_dict()], dataset, "", None)
    return predictor


def plans() -> dict[str, Any]:
    """As nnU-Net wrote them in 2023: it completes such plans itself, with a warning."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    pools, strides, kernels, *_ = get_pool_and_conv_props(SPACING_MM, WINDOW, SMALLEST_SIDE, 999999)
    resampling = "resample_data_or_seg_to_shape"  # which has nothing to do: the spacing is the network's
    return {
        "dataset_name": "Dataset297_TotalSegmentator_total_3mm_1559subj",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": NORMALISATION},
        "configurations": {
            "3d_fullres": {
                "preprocessor_name": "DefaultPreprocessor",
                "patch_size": WINDOW,
                "spacing": SPACING_MM,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "UNet_class_name": "PlainConvUNet",
                "UNet_base_num_features": 32,
                "unet_max_num_features": 320,
                "n_conv_per_stage_encoder": [2] * len(strides),
                "n_conv_per_stage_decoder": [2] * (len(strides) - 1),
                "num_pool_per_axis": pools,
                "pool_op_kernel_sizes": strides,
                "conv_kernel_sizes": kernels,
                **{f"resampling_fn_{what}": resampling for what in ("data", "seg", "probabilities")},
                **{f"resampling_fn_{what}_kwargs": {} for what in ("data", "seg", "probabilities")},
            }
        },
    }


def _show(console: Console, figures: dict[str, Any], title: str) -> None:
    table = Table("", "part", "s", "CPU s", "Gflop", "peak, MiB", title=title)
    whole = {name: np.sum(list(of["parts"].values()), axis=0) for name, of in figures.items()}
    for name, of in figures.items():
        parts = {**of["parts"], "all": whole[name]}
        for part, (seconds, cpu_s) in parts.items():
            effort = (f"{of['gigaflop']:.0f}", f"{of['peak_mib']:.0f}") if part == "all" else ()
            table.add_row(name, part, f"{seconds:.2f}", f"{cpu_s:.2f}", *effort)
    console.print(table)
    peer, shape = figures["peer"], " x ".join(map(str, figures["peer"]["reduced"]))
    console.print(
        f"{shape} voxels, {peer['windows']} windows of {peer['gigaflop'] / peer['windows']:.0f} Gflop"
    )
    seconds, cpu_s = whole["peer"] / whole["vfscreen"]
    console.print(f"peer / vfscreen: {seconds:.1f} times the seconds, {cpu_s:.1f} times the CPU seconds")


if __name__ == "__main__":
    typer.run(main)
