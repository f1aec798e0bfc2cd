"""Weights on disk: safetensors with their provenance, loaded only if their SHA-256 is the one on record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from vfscreen.detect import DetectorNetwork
from vfscreen.errors import WeightsError
from vfscreen.localize import LocalizerNetwork
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.on_cpu import for_cpu
from vfscreen.networks.refiner import Refiner
from vfscreen.refine import RefinerNetwork
from vfscreen.volume import Floats

CHECKSUMS = "SHA256SUMS"
_EXPECTED = "give a folder `weights` that `vfscreen train` made, or leave the option out for the shipped ones"
LAYOUTS: dict[str, torch.memory_format] = {
    "localizer": torch.channels_last_3d,
    "detector": torch.channels_last,
    "refiner": torch.channels_last,
}
"""How the networks' tensors lie in memory: channels last is a fifth to a third faster on a CPU."""


@dataclass(frozen=True)
class Models:
    """The networks on one device, and how their weights were made."""

    localizer: LocalizerNetwork
    detector: DetectorNetwork
    refiner: RefinerNetwork
    device: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def count_gpus() -> int:
    """The GPUs that torch sees."""
    return torch.cuda.device_count()


def load_models(folder: str | Path | None = None, device: str = "auto") -> Models:
    """The three networks from a folder, or the shipped ones; `device` is auto, cpu or cuda.

    Raises WeightsError where a file is missing, altered, malformed, or belongs to another network.
    """
    device = choose_device(device)
    if folder is None:
        with as_file(files("vfscreen._weights")) as shipped:
            return load_models(shipped, device)
    networks: dict[str, nn.Module] = {
        "localizer": Localizer(),
        "detector": Detector(),
        "refiner": Refiner(),
    }
    provenance = {
        name: load_weights(weights_path(Path(folder), name), network) for name, network in networks.items()
    }
    for name, network in networks.items():
        network.eval()
        if device == "cpu":
            for_cpu(network)
        network.to(device).to(memory_format=LAYOUTS[name])  # type: ignore[call-overload]
    on_device = {name: _OnDevice(network, device) for name, network in networks.items()}
    return Models(**on_device, device=device, provenance=provenance)


def choose_device(device: str) -> str:
    """`auto` is the GPU where there is one. Raises WeightsError where cuda is asked for in vain."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise WeightsError(
            f"--device {device}: torch {torch.__version__} sees no GPU; leave the option out to use the CPU, "
            "or see whether `nvidia-smi` lists the GPU and this torch was built for CUDA"
        )
    return device


def weights_path(folder: Path, name: str) -> Path:
    """Where a folder keeps the weights of a network."""
    return folder / f"{name}.safetensors"


def save_weights(network: nn.Module, path: Path, provenance: Mapping[str, Any]) -> str:
    """Write weights with their provenance and record their SHA-256 beside them; returns it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(tensors, {"provenance": json.dumps(dict(provenance))}))  # save_file: mode 0600
    return record(path)


def record(path: Path) -> str:
    """Write the SHA-256 of weights into the record beside them; returns it."""
    digest = _sha256(path)
    sums = _checksums(path.parent) | {path.name: digest}
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    temporary = path.parent / f"{CHECKSUMS}.tmp"
    temporary.write_text(lines)
    os.replace(temporary, path.parent / CHECKSUMS)
    return digest


@dataclass(frozen=True)
class _OnDevice:
    """A network as the stages see it: numpy in, numpy out.

    On a CPU images of several studies go through one by one: a batch gains nothing there, and its size,
    which depends on chance, would change the last digits.
    """

    network: nn.Module
    device: str

    def __call__(self, images: NDArray[np.float32]) -> tuple[Floats, Floats]:
        if isinstance(self.network, Refiner):  # its batch is one study
            return self._computed(images)
        channels = images[:, None]
        if self.device != "cpu":
            return self._computed(channels)
        firsts, seconds = zip(*(self._computed(image[None]) for image in channels), strict=True)
        return np.concatenate(firsts), np.concatenate(seconds)

    def _computed(self, channels: NDArray[np.float32]) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            first, second = self.network(torch.from_numpy(channels).to(self.device))
        return first.float().cpu().numpy(), second.float().cpu().numpy()


def load_weights(path: Path, network: nn.Module) -> dict[str, Any]:
    """Put stored weights into a network; returns how they were made, with their SHA-256.

    Raises WeightsError where the file is missing, altered, malformed, or belongs to another network.
    """
    digest, recorded = _sha256(path), _checksums(path.parent).get(path.name)
    if recorded is None:
        raise WeightsError(f"{path.parent / CHECKSUMS} records no {path.name}; {_EXPECTED}")
    if recorded != digest:
        raise WeightsError(
            f"{path} is not the file recorded in {path.parent / CHECKSUMS}: it was altered; copy it anew"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = file.get_tensors()
            made = {**json.loads(file.metadata()["provenance"]), "sha256": digest}
    except Exception as error:  # of safetensors, torch or json, whatever the file is
        raise WeightsError(
            f"{path} holds no weights with their provenance: {error!r}; {_EXPECTED}"
        ) from error
    if differing := _signature(tensors) ^ _signature(network.state_dict()):
        names = sorted({name for name, *_ in differing})
        raise WeightsError(
            f"{path} belongs to another network: {len(names)} tensors differ, first {names[0]}; {_EXPECTED}"
        )
    network.load_state_dict(tensors)
    return made


def _signature(tensors: Mapping[str, torch.Tensor]) -> set[tuple[str, torch.dtype, torch.Size]]:
    return {(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        return {name: digest for digest, name in (line.split() for line in path.read_text().splitlines())}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no list of SHA-256 sums: {error}") from error


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"no weights at {path} ({error.strerror}); {_EXPECTED}") from error
