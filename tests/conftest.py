"""Fixtures that several test files share, and the option that adds the slow tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from vfscreen.errors import WeightsError
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.refiner import Refiner
from vfscreen.networks.weights import Models, load_models, save_weights

settings.register_profile("vfscreen", deadline=None)  # a busy machine is no fault
settings.load_profile("vfscreen")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run also the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --run-slow"))


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A folder with weights of both networks that were never trained."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_weights(Localizer(), folder / "localizer.safetensors", {"steps": 0})
    save_weights(Detector(), folder / "detector.safetensors", {"steps": 0})
    save_weights(Refiner(), folder / "refiner.safetensors", {"steps": 0})
    return folder


@pytest.fixture(scope="session")
def random_models(random_weights) -> Models:
    return load_models(random_weights, "cpu")


@pytest.fixture(scope="session")
def shipped_models() -> Models:
    try:
        return load_models(device="cpu")
    except WeightsError as error:
        pytest.skip(f"the shipped weights are not there: {error}")
