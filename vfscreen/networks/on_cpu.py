"""Networks as a CPU computes them fastest: other layers, the same numbers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def one_thread() -> None:
    """For a thread beside which others compute: studies side by side keep cores busier than one shared."""
    torch.set_num_threads(1)


def for_cpu(network: nn.Module) -> nn.Module:
    """Put faster layers into a network in evaluation mode, which is changed and returned."""
    for name, layer in network.named_children():
        setattr(network, name, _faster(layer))
    return network


def _faster(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d | nn.Conv3d) and torch.backends.mkldnn.is_available():
        return OneDnnConvolution(layer)
    if isinstance(layer, nn.GroupNorm):
        return RowwiseGroupNorm(layer)
    return for_cpu(_folded(layer) if isinstance(layer, nn.Sequential) else layer)


def _folded(layers: nn.Sequential) -> nn.Sequential:
    """Each batch normalisation as part of the convolution before it."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            kept[-1] = fuse_conv_bn_eval(cast(nn.Conv2d, kept[-1]), layer)
        else:
            kept.append(layer)
    return nn.Sequential(*kept)


class OneDnnConvolution(nn.Module):
    """A convolution by oneDNN whatever its size: torch gives small ones to code up to four times slower."""

    def __init__(self, plain: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """As `plain`."""
        p = self.plain
        padding = cast(tuple[int, ...], p.padding)
        return torch.mkldnn_convolution(x, p.weight, p.bias, padding, p.stride, p.dilation, p.groups)


class RowwiseGroupNorm(nn.Module):
    """A group normalisation whose sums run over whole rows of voxels with their channels.

    Where channels come last, torch's own adds voxel to voxel, which is slower, and over a CT the rounding
    errors reach a thousandth of an SD: centres of the spine would depend on the number of threads.
    """

    def __init__(self, plain: nn.GroupNorm) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, z, y, x) normalised as by `plain`."""
        p, columns = self.plain, x.shape[-1]
        rows = x.movedim(1, -1).flatten(3)  # (n, z, y, x * channels), no copy where channels come last
        moments = torch.stack([rows.mean((1, 2)), rows.square().mean((1, 2))])
        mean, square = moments.unflatten(-1, (columns, p.num_groups, -1)).mean((2, 4))
        precision = (square - mean.square()).clamp_min(0).add(p.eps).rsqrt()
        scale = precision[..., None] * p.weight.view(p.num_groups, -1)
        shift = p.bias.view(p.num_groups, -1) - mean[..., None] * scale
        scale, shift = (each.flatten(1).repeat(1, columns)[:, None, None] for each in (scale, shift))
        return torch.addcmul(shift, rows, scale).unflatten(3, (columns, -1)).movedim(-1, 1)
