"""The localizer: a 3D U-Net with a soft-argmax in every axial slice (paper, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (12, 24, 48, 64)
STRIDE = 2  # of the stem, in-plane: the soft-argmax is finer than a voxel


class Localizer(nn.Module):
    """Centre of the vertebral body in every axial slice, and whether the slice holds one.

    Input (n, 1, z, y, x), HU windowed to [-1, 1] at 3 mm. Output: centres (n, z, 2) as (y, x) in
    voxels, and presence logits (n, z).
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        first = channels[0]
        self.stem = nn.Sequential(
            nn.Conv3d(1, first, (3, 5, 5), (1, STRIDE, STRIDE), (1, 2, 2), bias=False),
            nn.GroupNorm(4, first),
            nn.ReLU(inplace=True),
        )
        self.down = nn.ModuleList(_block(a, b) for a, b in zip((first, *channels), channels, strict=False))
        up = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in up)
        self.map = nn.Conv3d(first, 1, 1)
        self.presence = nn.Linear(first, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (n, z, 2) in voxels (y, x) and presence logits (n, z) of images (n, 1, z, y, x)."""
        x = self.stem(images)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2, ceil_mode=True) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            grown = functional.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([grown, skip], 1))
        maps = self.map(x)[:, 0].float()  # in half precision a centre would be some millimetres coarse
        strongest = x.movedim(1, -1).amax(2).amax(2)  # (n, z, channels); amax((3, 4)) takes 20 times as long
        return soft_argmax(maps) * STRIDE, self.presence(strongest)[..., 0]


def soft_argmax(maps: Tensor) -> Tensor:
    """Expected position (y, x) of softmax(maps) in every slice: (n, z, y, x) to (n, z, 2), in cells."""
    n, d, h, w = maps.shape
    share = maps.flatten(2).softmax(-1).view(n, d, h, w)
    rows = torch.arange(h, dtype=maps.dtype, device=maps.device)
    columns = torch.arange(w, dtype=maps.dtype, device=maps.device)
    return torch.stack([(share.sum(3) * rows).sum(-1), (share.sum(2) * columns).sum(-1)], -1)


def _block(a: int, b: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (a, b):
        layers += [nn.Conv3d(before, b, 3, padding=1, bias=False), nn.GroupNorm(4, b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
