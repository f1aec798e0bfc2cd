"""Weights are loaded only if they are the ones on record, and say where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vfscreen.errors import WeightsError
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.refiner import Refiner
from vfscreen.networks.weights import CHECKSUMS, choose_device, load_models, save_weights

SHIPPED = Path(__file__).parents[1] / "weights"


@pytest.fixture
def folder(tmp_path):
    save_weights(Localizer(), tmp_path / "localizer.pt", {"steps": 1})
    save_weights(Detector(), tmp_path / "detector.pt", {"steps": 2, "seed": 5})
    save_weights(Refiner(), tmp_path / "refiner.pt", {"steps": 3})
    return tmp_path


def test_saved_weights_load_as_they_were(tmp_path, folder):
    network = Detector().eval()
    save_weights(network, folder / "detector.pt", {})
    image = np.random.default_rng(0).normal(size=(1, 32, 80)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[:, None])
    for a, b in zip(load_models(folder, "cpu").detector(image), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-6)


def test_models_tell_how_their_weights_were_made(folder):
    models = load_models(folder, "cpu")
    assert models.device == "cpu"
    assert models.provenance["detector"]["seed"] == 5
    assert models.provenance["localizer"]["steps"] == 1
    assert len(models.provenance["detector"]["sha256"]) == 64


def test_networks_take_and_give_numpy(folder):
    models = load_models(folder, "cpu")
    centers, presence = models.localizer(np.zeros((1, 16, 32, 32), np.float32))
    assert isinstance(centers, np.ndarray)
    assert (centers.shape, presence.shape) == ((1, 16, 2), (1, 16))


@pytest.mark.parametrize("name", ["localizer.pt", "detector.pt", "refiner.pt"])
def test_missing_weights_are_an_error_with_their_path(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=rf"no weights at .*{name}"):
        load_models(folder, "cpu")


def test_altered_weights_are_refused(folder):
    content = bytearray((folder / "detector.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "detector.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="altered"):
        load_models(folder, "cpu")


def test_weights_without_a_record_are_refused(folder):
    (folder / CHECKSUMS).unlink()
    with pytest.raises(WeightsError, match=CHECKSUMS):
        load_models(folder, "cpu")


def test_weights_of_another_network_are_refused(folder):
    save_weights(Localizer(), folder / "detector.pt", {})
    with pytest.raises(WeightsError, match="another network"):
        load_models(folder, "cpu")


def test_weights_of_another_size_are_refused(folder):
    save_weights(Detector((8, 16, 32, 64, 64)), folder / "detector.pt", {})
    with pytest.raises(WeightsError, match="another network"):
        load_models(folder, "cpu")


def test_the_record_keeps_the_hashes_of_the_other_files(folder):
    before = (folder / CHECKSUMS).read_text().splitlines()
    digest = save_weights(Localizer(), folder / "localizer.pt", {"steps": 9})
    after = (folder / CHECKSUMS).read_text().splitlines()
    assert after[0] == before[0]
    assert after[1] == f"{digest}  localizer.pt"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(WeightsError, match="no GPU"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_the_shipped_weights_load_and_are_small(shipped_models):
    files = list(SHIPPED.glob("*.pt"))
    assert {path.name for path in files} == {"localizer.pt", "detector.pt", "refiner.pt"}
    assert all(path.stat().st_size < 10_000_000 for path in files)
    for name in ("localizer", "detector", "refiner"):
        assert {"sha256", "steps", "seed", "trained_on"} <= shipped_models.provenance[name].keys()
    assert "calibrated_on" in shipped_models.provenance["refiner"]
