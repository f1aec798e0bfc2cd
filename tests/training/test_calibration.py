"""The calibration of the intervals on simulated patients, through the whole chain."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vfscreen.networks.weights import load_models, record
from vfscreen.training.calibration import calibrate, is_calibrated
from vfscreen.training.runs import collect

SHIPPED = Path(__file__).parents[2] / "weights"


@pytest.fixture
def trained(tmp_path):
    """The shipped weights as three trainings leave theirs."""
    for name in ("localizer", "detector", "refiner"):
        (tmp_path / name).mkdir()
        record(Path(shutil.copy(SHIPPED / f"{name}.safetensors", tmp_path / name)))
    return tmp_path


def test_weights_are_collected_into_one_folder_that_loads(trained, shipped_models):
    weights = collect(trained)
    assert load_models(weights, "cpu").provenance.keys() == shipped_models.provenance.keys()
    assert not is_calibrated(weights / "refiner.safetensors", trained / "refiner" / "refiner.safetensors")


@pytest.mark.slow
def test_calibrated_weights_stay_when_others_are_collected_again(trained, shipped_models):
    weights = collect(trained)
    factors = calibrate(weights, seed=3, patients=2, workers=1)
    assert factors.shape == (4,)
    assert np.abs(np.log(factors)).max() < np.log(2)  # the shipped ones are calibrated already
    assert is_calibrated(weights / "refiner.safetensors", trained / "refiner" / "refiner.safetensors")
    before = (weights / "refiner.safetensors").read_bytes()
    assert (collect(trained) / "refiner.safetensors").read_bytes() == before
    assert "2 patients of seed 3" in load_models(weights, "cpu").provenance["refiner"]["calibrated_on"]
