"""The refiner: a 2D U-Net with six heat maps on an upright crop of one vertebra, and how sure it is.

An addition to the paper, whose detector regresses all keypoints from one coarse cell.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vfscreen.networks.detector import conv_block

SHEETS = 5
CHANNELS = (24, 48, 96, 128)
STRIDE = 2  # of the stem: the soft-argmax is finer than a cell
N_KEYPOINTS = 6
N_SPREADS = 4  # of three heights and of G


class Refiner(nn.Module):
    """Six keypoints of the vertebra in the middle of a crop, and the spread of their errors.

    Input (n, 5, rows, columns): parallel sagittal sheets of normalised HU, sides multiples of 16.
    Output: keypoints (n, 6, 2) as (row, column) in pixels, ordered as `study.KEYPOINTS`, and the
    logarithms (n, 4) of the spreads of the errors of the anterior, middle and posterior height, in
    mm, and of G.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(SHEETS, first, 5, STRIDE, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(
            conv_block(a, b) for a, b in zip((first, *channels), channels, strict=False)
        )
        pairs = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.up = nn.ModuleList(conv_block(below + skip, skip) for below, skip in pairs)
        self.maps = nn.Conv2d(first, N_KEYPOINTS, 1)
        self.spreads = nn.Sequential(
            nn.Linear(last + first + 2 * N_KEYPOINTS, 64), nn.ReLU(inplace=True), nn.Linear(64, N_SPREADS)
        )

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (n, 6, 2) in pixels and log spreads (n, 4) of crops (n, 5, rows, columns)."""
        x = self.stem(crops)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        deepest = x.float().mean((2, 3))
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            grown = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([grown, skip], 1))
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            means, variances = moments(self.maps(x))
            seen = torch.cat([deepest, x.mean((2, 3)), variances.add(1e-2).log().flatten(1)], 1)
            return means * STRIDE + (STRIDE - 1) / 2, self.spreads(seen)


def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (row, column) of softmax(maps), both (n, k, 2) in cells, of maps (n, k, h, w)."""
    n, k, h, w = maps.shape
    share = maps.flatten(2).softmax(-1).view(n, k, h, w)
    means, variances = [], []
    for size, dim in ((h, 3), (w, 2)):
        at = torch.arange(size, dtype=maps.dtype, device=maps.device)
        along = share.sum(dim)
        mean = (along * at).sum(-1)
        means.append(mean)
        variances.append((along * (at - mean[..., None]) ** 2).sum(-1))
    return torch.stack(means, -1), torch.stack(variances, -1)
