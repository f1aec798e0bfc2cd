"""Weights are loaded only if they are the ones on record, run no code, and say where they come from."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from vfscreen.errors import WeightsError
from vfscreen.networks.detector import Detector
from vfscreen.networks.localizer import Localizer
from vfscreen.networks.refiner import Refiner
from vfscreen.networks.weights import (
    CHECKSUMS,
    choose_device,
    load_models,
    load_weights,
    record,
    save_weights,
)

SHIPPED = Path(__file__).parents[1] / "weights"


@pytest.fixture
def folder(tmp_path):
    save_weights(Localizer(), tmp_path / "localizer.safetensors", {"steps": 1})
    save_weights(Detector(), tmp_path / "detector.safetensors", {"steps": 2, "seed": 5})
    save_weights(Refiner(), tmp_path / "refiner.safetensors", {"steps": 3})
    return tmp_path


def test_saved_weights_load_as_they_were(tmp_path, folder):
    network = Detector().eval()
    save_weights(network, folder / "detector.safetensors", {})
    image = np.random.default_rng(0).normal(size=(1, 32, 80)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)[:, None])
    for a, b in zip(load_models(folder, "cpu").detector(image), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)  # channels last adds in another order


def test_the_round_trip_keeps_every_bit_and_the_provenance(tmp_path):
    torch.manual_seed(1)
    network = Detector().to(memory_format=torch.channels_last)  # as the training leaves it
    network(torch.randn(2, 1, 32, 80))  # running means are weights too
    path = tmp_path / "detector.safetensors"
    made = {"steps": 3, "trained_on": "Wirbelsäule ½", "rates": [0.1, None]}
    digest = save_weights(network, path, made)
    other = Detector()
    assert load_weights(path, other) == {**made, "sha256": digest}
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


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


@pytest.mark.parametrize("name", ["localizer.safetensors", "detector.safetensors", "refiner.safetensors"])
def test_missing_weights_are_an_error_with_their_path(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=rf"no weights at .*{name}"):
        load_models(folder, "cpu")


def test_altered_weights_are_refused(folder):
    content = bytearray((folder / "detector.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "detector.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="altered"):
        load_models(folder, "cpu")


def test_weights_without_a_record_are_refused(folder):
    (folder / CHECKSUMS).unlink()
    with pytest.raises(WeightsError, match=CHECKSUMS):
        load_models(folder, "cpu")


def test_a_record_that_cannot_be_read_is_an_error_with_its_path(folder):
    (folder / CHECKSUMS).write_bytes(b"\xff one two three")
    with pytest.raises(WeightsError, match=CHECKSUMS):
        load_models(folder, "cpu")


def test_weights_of_another_network_are_refused(folder):
    save_weights(Localizer(), folder / "detector.safetensors", {})
    with pytest.raises(WeightsError, match="another network"):
        load_models(folder, "cpu")


def test_weights_of_another_size_are_refused(folder):
    save_weights(Detector((8, 16, 32, 64, 64)), folder / "detector.safetensors", {})
    with pytest.raises(WeightsError, match="another network"):
        load_models(folder, "cpu")


def test_tensors_of_another_type_are_refused(folder):
    save_weights(Detector().double(), folder / "detector.safetensors", {})
    with pytest.raises(WeightsError, match=r"detector\.safetensors belongs to another network"):
        load_models(folder, "cpu")


def test_a_refused_file_leaves_the_network_as_it_was(folder):
    network = Detector()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    other = Detector().state_dict()
    other["down.0.0.weight"] = torch.zeros(1)
    path = put(folder, save(other, {"provenance": "{}"}))
    with pytest.raises(WeightsError, match=r"1 tensors differ, first down\.0\.0\.weight"):
        load_weights(path, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Trap:
    """What a pickle can do: unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def put(folder: Path, content: bytes) -> Path:
    """The file of the detector with that content, and its hash on record."""
    path = folder / "detector.safetensors"
    path.write_bytes(content)
    record(path)
    return path


def header(content: object, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_pickle_is_refused_and_not_run(folder):
    torch.save({"weights": Trap(folder / "ran")}, folder / "trap.pt")
    for content in (pickle.dumps(Trap(folder / "ran")), (folder / "trap.pt").read_bytes()):
        put(folder, content)
        with pytest.raises(WeightsError, match=r"detector\.safetensors holds no weights"):
            load_models(folder, "cpu")
    assert not (folder / "ran").exists()


def tensor(dtype: str, shape: list[int], end: int) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


MALFORMED = {
    "empty": b"",
    "garbage": bytes(range(256)) * 20,
    "header of 8 EiB": struct.pack("<Q", 1 << 63) + b"{}",
    "header longer than the file": struct.pack("<Q", 90_000_000) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"\xff\xfe{}",
    "a list": header([]),
    "nested": struct.pack("<Q", 500_000) + b'{"a":' * 100_000,
    "no provenance": header(tensor("F32", [1], 4), bytes(4)),
    "data end early": header(tensor("F32", [2], 8), bytes(7)),
    "data go on": header(tensor("F32", [1], 4), bytes(9)),
    "shape overflows": header(tensor("F32", [1 << 62, 16], 0)),
    "shape that torch cannot hold": header(tensor("F32", [0, 1 << 63], 0)),
    "type that torch lacks": header(tensor("F6_E2M3", [4], 3), bytes(3)),
}
PROVENANCE = ["", "3", "[1]", "null", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_an_error_with_its_name(tmp_path, content):
    with pytest.raises(WeightsError, match=r"detector\.safetensors holds no weights"):
        load_weights(put(tmp_path, content), Detector())


@pytest.mark.parametrize("text", PROVENANCE, ids=lambda text: text[:8] or "empty")
def test_a_provenance_that_is_no_json_object_is_an_error(tmp_path, text):
    content = save(Detector().state_dict(), {"provenance": text})
    with pytest.raises(WeightsError, match=r"detector\.safetensors holds no weights"):
        load_weights(put(tmp_path, content), Detector())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder, a small network, and the content of its file."""
    folder, network = tmp_path_factory.mktemp("small"), torch.nn.Conv1d(2, 3, 3)
    save_weights(network, folder / "detector.safetensors", {"steps": 1})
    return folder, network, (folder / "detector.safetensors").read_bytes()


@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0)
def test_a_truncated_file_is_an_error_with_its_name(small, share):
    folder, network, content = small
    with pytest.raises(WeightsError, match=r"detector\.safetensors holds no weights"):
        load_weights(put(folder, content[: int(share * len(content))]), network)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_loads_or_is_an_error_of_weights(small, place, value):
    folder, network, content = small
    changed = bytearray(content)
    changed[place % len(content)] = value
    with contextlib.suppress(WeightsError):
        load_weights(put(folder, bytes(changed)), network)


def test_the_record_keeps_the_hashes_of_the_other_files(folder):
    before = (folder / CHECKSUMS).read_text().splitlines()
    digest = save_weights(Localizer(), folder / "localizer.safetensors", {"steps": 9})
    after = (folder / CHECKSUMS).read_text().splitlines()
    assert after[0] == before[0]
    assert after[1] == f"{digest}  localizer.safetensors"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(WeightsError, match="no GPU"):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_the_shipped_weights_load_and_are_small(shipped_models):
    files = list(SHIPPED.glob("*.safetensors"))
    assert {path.name for path in files} == {
        "localizer.safetensors",
        "detector.safetensors",
        "refiner.safetensors",
    }
    assert all(path.stat().st_size < 10_000_000 for path in files)
    for name in ("localizer", "detector", "refiner"):
        assert {"sha256", "steps", "seed", "trained_on"} <= shipped_models.provenance[name].keys()
    assert "calibrated_on" in shipped_models.provenance["refiner"]
