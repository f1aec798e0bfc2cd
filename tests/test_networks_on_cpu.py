"""On a CPU the networks have other layers, and give the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.on_cpu import for_cpu
from vfscreen.networks.refiner import Refiner

IMAGES = [
    (Localizer, (1, 1, 16, 32, 32)),
    (Localizer, (1, 1, 48, 80, 64)),
    (Localizer, (2, 1, 19, 38, 53)),
    (Detector, (1, 1, 64, 96)),
    (Detector, (3, 1, 128, 48)),
    (Refiner, (1, 5, 96, 96)),
    (Refiner, (7, 5, 32, 64)),
]


def trained(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Random weights, and means and variances as after some steps."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        network(torch.randn(2, *shape[1:]) + 0.5)
    return network.eval()


def layouts(images):
    return torch.contiguous_format, torch.channels_last_3d if images.ndim == 5 else torch.channels_last


@pytest.mark.parametrize(("kind", "shape"), IMAGES)
def test_a_network_gives_the_same_numbers(kind, shape):
    plain = trained(kind(), shape)
    fast, images = for_cpu(copy.deepcopy(plain)), torch.randn(shape)
    with torch.inference_mode():
        expected = plain(images)
        for layout in layouts(images):
            found = fast.to(memory_format=layout)(images.to(memory_format=layout))
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_detector_keeps_no_batch_normalisation():
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in for_cpu(Detector().eval()).modules())


@pytest.fixture
def normalisation():
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, 12)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    return plain, for_cpu(nn.Sequential(copy.deepcopy(plain)))


@pytest.mark.parametrize("mean", [0, 2])
def test_group_normalisation_of_a_whole_ct_has_the_digits_of_float32(normalisation, mean):
    plain, fast = normalisation
    x = (torch.randn(1, 12, 112, 64, 64) + mean).to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        expected = plain.double()(x.double())
        assert (fast(x) - expected).abs().max() < 2e-5


def test_group_normalisation_of_air_is_its_bias(normalisation):
    plain, fast = normalisation
    with torch.inference_mode():
        air = fast(torch.full((1, 12, 16, 32, 32), -0.9996))
        expected = plain.bias.view(1, 12, 1, 1, 1).expand_as(air)
    torch.testing.assert_close(air, expected, rtol=0, atol=1e-3)


def test_normalised_images_keep_channels_last(normalisation):
    x = torch.randn(1, 12, 4, 6, 8).to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        assert normalisation[1](x).is_contiguous(memory_format=torch.channels_last_3d)
