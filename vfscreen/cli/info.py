"""`vfscreen info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from vfscreen.cli.options import Device, DeviceOption, Weights
from vfscreen.errors import WeightsError


def info(weights: Weights = None, device: DeviceOption = Device.auto) -> None:
    """Versions, codecs, weights and device: what a bug report needs.

    Examples:

        vfscreen info
        vfscreen info --weights runs/weights
    """
    from vfscreen import provenance

    facts = {**provenance.versions(), **provenance.machine(), **_codecs(), **_weights(weights, device.value)}
    for name, value in facts.items():
        typer.echo(f"{name}: {value}")


def _codecs() -> dict[str, str]:
    """Which plugins of pydicom decode each compressed transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    found = {}
    for uid in AllTransferSyntaxes:
        try:
            decoder = get_decoder(uid)
        except NotImplementedError:
            continue
        if uid.is_compressed:
            found[uid.name] = ", ".join(decoder.available_plugins) or "none"
    return found


def _weights(folder: Path | None, device: str) -> dict[str, Any]:
    from vfscreen.networks.weights import load_models

    try:
        models = load_models(folder, device)
    except WeightsError as error:
        return {"weights": str(error)}
    weights = {
        f"weights {name}": f"sha256 {made['sha256']}, {made.get('steps', 'unknown')} steps"
        for name, made in models.provenance.items()
    }
    return {"device": models.device, **weights}
