from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from vfscreen.errors import VfscreenError
from vfscreen.measure import FREEDOM, genant_ratio, heights_mm
from vfscreen.networks.refiner import Refiner, moments
from vfscreen.refine import Upright, crop_points
from vfscreen.simulation.painting import SampleGrid
from vfscreen.simulation.person import draw_person
from vfscreen.simulation.scanner import sample_slices
from vfscreen.training import refiner
from vfscreen.training.calibration import spread_factors
from vfscreen.training.curves import ratio_figures
from vfscreen.volume import Volume, VolumeGeometry


@pytest.fixture(scope="module")
def crops():
    return refiner.draw_crops(np.random.default_rng(3), 2)


def test_crops_show_bone_between_their_keypoints(crops):
    assert len(crops) == 2 * refiner.CROPS
    for crop in crops:
        assert crop.hu.shape == (5, 96, 96)
        row, column = np.rint(crop.keypoints.mean(0)).astype(int)
        assert np.abs(crop.keypoints.mean(0) - 47.5).max() < 20  # near the middle, as a detector leaves it
        assert np.median(crop.hu[1:4, row - 2 : row + 3, column - 2 : column + 3]) > -100


def test_keypoints_of_a_crop_have_the_heights_of_a_vertebra(crops):
    heights = heights_mm(np.stack([c.keypoints for c in crops]) * refiner.SETTINGS.pixel_mm)
    assert heights.min() > 2.5
    assert heights.max() < 40


def test_heights_in_the_crop_are_those_of_the_person():
    person = draw_person(np.random.default_rng(5))
    body, curve = person.spine.bodies[10], person.spine.curve()
    frame = refiner.frame_on_sheet(body.keypoints_mm(), curve)
    own = frame.to_own(body.keypoints_mm())
    np.testing.assert_allclose(heights_mm(own[:, :2]), heights_mm(body.keypoints_mm()), rtol=0.02)


def test_batches_of_one_seed_and_step_are_the_same_and_others_differ():
    a, b, c = (refiner.make_batch(1, step) for step in (5, 5, 6))
    assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])
    assert a[0].shape == (refiner.PERSONS * refiner.SCANS * refiner.CROPS, 5, 96, 96)


def test_moments_of_a_map_are_its_mean_and_variance():
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(30.0), indexing="ij")
    bell = -((rows - 17.3) ** 2) / (2 * 2.0**2) - (columns - 11.6) ** 2 / (2 * 1.5**2)
    mean, variance = moments(torch.from_numpy(bell)[None, None])
    np.testing.assert_allclose(mean[0, 0], [17.3, 11.6], atol=1e-3)
    np.testing.assert_allclose(variance[0, 0], [4.0, 2.25], atol=0.02)


def test_a_network_gives_six_keypoints_in_the_crop_and_four_spreads():
    with torch.inference_mode():
        keypoints, spreads = Refiner().eval()(torch.zeros(2, 5, 96, 96))
    assert (keypoints.shape, spreads.shape) == ((2, 6, 2), (2, 4))
    assert ((keypoints >= 0) & (keypoints < 96)).all()


class Says(torch.nn.Module):
    def __init__(self, keypoints, spread):
        super().__init__()
        self.said = keypoints, torch.full((len(keypoints), 4), float(np.log(spread)))

    def forward(self, crops):
        return self.said


def test_the_loss_of_a_perfect_network_is_that_of_its_spreads(crops):
    images, true = refiner.batch_of(crops)
    value, figures = refiner.loss(Says(true, 0.1), (images, true))
    assert figures["keypoint_mm"] == figures["height_mm"] == figures["ratio"] == 0
    assert float(value) == pytest.approx(0.05 * np.log(0.1), rel=1e-5)


def test_the_best_spread_is_that_of_the_errors():
    errors = torch.from_numpy(t.rvs(FREEDOM, size=(20_000, 1), random_state=0) * 0.4)
    spreads = np.linspace(0.2, 0.8, 25)
    losses = [float(refiner.student_loss(errors, torch.full((1, 1), np.log(s)))) for s in spreads]
    assert spreads[int(np.argmin(losses))] == pytest.approx(0.4, abs=0.03)


def test_calibration_finds_by_how_much_spreads_are_too_small():
    z = t.rvs(FREEDOM, size=(50_000, 4), random_state=1) * [1.0, 2.0, 0.5, 1.5]
    np.testing.assert_allclose(spread_factors(z), [1.0, 2.0, 0.5, 1.5], rtol=0.03)


def test_calibration_on_nothing_is_an_error():
    with pytest.raises(VfscreenError, match="not one vertebra"):
        spread_factors(np.empty((0, 4)))


def test_the_learning_curve_of_g_is_perfect_for_true_heights():
    heights = np.random.default_rng(0).uniform(15, 25, (200, 3))
    figures = ratio_figures(heights, heights)
    assert figures["auc_moderate"] == figures["auc_mild"] == pytest.approx(figures["correlation"]) == 1
    assert figures["height_mm"] == figures["ratio"] == 0
    assert ratio_figures(heights + 1, heights)["height_mm"] == pytest.approx(1)
    assert genant_ratio(heights).min() < 0.74


def test_a_training_crop_shows_what_screening_cuts_from_the_same_slices():
    rng = np.random.default_rng(8)
    z, y, x = np.arange(-40, 40, 1.5), np.arange(-50, 45, 0.7), np.arange(-30, 31, 2.0)
    slices = rng.normal(100, 50, (len(z), len(y), len(x))).round().astype(np.float32)
    affine = np.array([[0, 0, 2.0, x[0]], [0, 0.7, 0, y[0]], [1.5, 0, 0, z[0]], [0, 0, 0, 1]])
    volume = Volume(slices.astype(np.int16), VolumeGeometry(slices.shape, affine))
    body = draw_person(np.random.default_rng(5)).spine.bodies[10]
    frame = replace(Upright.of(body.keypoints_mm()), center_mm=np.zeros(3))
    points = crop_points(frame, refiner.SETTINGS)
    trained = sample_slices(slices, z, SampleGrid(z, y, x), points)
    np.testing.assert_allclose(trained, volume.sample(points), atol=1e-2)
