"""The detector: a 2D U-Net with one region-proposal head (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vfscreen.networks.anchors import SIZES

CHANNELS = (16, 32, 64, 128, 128)
HEAD = 64
N_ANCHORS = len(SIZES)


class Detector(nn.Module):
    """Objectness and twelve offsets of every anchor on the straightened sheet.

    Input (n, 1, rows, columns), normalised HU at 1 mm, sides multiples of 16. Output: objectness
    logits (n, 16, rows / 2, columns / 2), and offsets (n, 16, 12, rows / 2, columns / 2): six
    keypoints as (row, column) from the cell's centre, in heights and widths of the anchor.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.down = nn.ModuleList(conv_block(a, b) for a, b in zip((1, *channels), channels, strict=False))
        outs = (*channels[-2:1:-1], HEAD)  # the head stands at half the resolution
        ins = (channels[-1], *outs)
        pairs = zip(ins, channels[-2:0:-1], outs, strict=False)
        self.up = nn.ModuleList(conv_block(below + skip, out) for below, skip, out in pairs)
        self.objectness = nn.Conv2d(HEAD, N_ANCHORS, 1)
        self.offsets = nn.Conv2d(HEAD, N_ANCHORS * 12, 1)
        nn.init.constant_(self.objectness.bias, -3.5)  # type: ignore[arg-type]  # positives are rare

    def forward(self, sheets: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness logits and offsets of sheets (n, 1, rows, columns)."""
        x = sheets
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2:0:-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        offsets = self.offsets(x)
        return self.objectness(x), offsets.unflatten(1, (N_ANCHORS, 12))


def conv_block(a: int, b: int) -> nn.Sequential:
    """Two 3 x 3 convolutions from a to b channels, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for before in (a, b):
        layers += [nn.Conv2d(before, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
