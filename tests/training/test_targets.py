import numpy as np
import pytest
import torch

from vfscreen.networks import anchors
from vfscreen.networks.detector import Detector
from vfscreen.settings import LocalizeSettings
from vfscreen.training import detector, localizer
from vfscreen.training.detector import make_targets

SHAPE = (96, 80)


def vertebra(row=48.0, height=20.0, depth=27.0, column=40.0):
    p = column + np.repeat([-depth / 2, 0.0, depth / 2], 2)
    return np.stack([row + height / 2 * np.tile([-1.0, 1.0], 3), p], -1)


def overlaps(points):
    """Intersection over union of every anchor at every cell with the keypoints' box, (16, h, w)."""
    h, w = SHAPE[0] // anchors.STRIDE, SHAPE[1] // anchors.STRIDE
    cells = anchors.cell_centers(np.indices((h, w)).reshape(2, -1).T)
    boxes = [np.hstack([cells - size / 2, cells + size / 2]) for size in anchors.SIZES]
    return np.stack([anchors.iou(b, anchors.boxes_of(points)[None])[:, 0].reshape(h, w) for b in boxes])


def targets(*points, ratios=None):
    return make_targets(np.array(points), np.array(ratios or [0.8] * len(points)), SHAPE)


def test_anchors_that_meet_a_vertebra_by_more_than_half_are_positive_and_no_others():
    found = targets(vertebra()).objectness
    np.testing.assert_array_equal(found, overlaps(vertebra()) > 0.5)
    assert found.any()


def test_anchors_that_meet_a_cut_vertebra_count_neither_way():
    found, overlap = targets(vertebra(), ratios=[np.nan]).objectness, overlaps(vertebra())
    assert set(np.unique(found)) == {-1, 0}
    assert (found[overlap > 0.3] == -1).all()
    assert (found[overlap < 0.2] == 0).all()


@pytest.mark.parametrize("height", [10.0, 15.0, 30.0])
@pytest.mark.parametrize("depth", [18.0, 34.0])
def test_a_thoracic_vertebra_of_any_size_has_positive_anchors(height, depth):
    assert (targets(vertebra(height=height, depth=depth)).objectness == 1).any()


def test_offsets_lead_from_the_cell_to_the_keypoints_in_sizes_of_the_anchor():
    points = vertebra(47.3, column=41.9)
    found = targets(points)
    for a, i, j in np.argwhere(found.objectness == 1):
        shift = found.offsets[a, :, i, j].reshape(6, 2) * anchors.SIZES[a]
        np.testing.assert_allclose(anchors.cell_centers(np.array([i, j])) + shift, points, atol=1e-4)


def test_offsets_lead_to_the_nearest_of_two_vertebrae():
    pair = vertebra(30.0), vertebra(54.0)
    found = targets(*pair)
    rows = [
        anchors.cell_centers(np.array([i, j]))[0]
        + found.offsets[a, :, i, j].reshape(6, 2)[:, 0].mean() * anchors.SIZES[a, 0]
        for a, i, j in np.argwhere(found.objectness == 1)
    ]
    assert set(np.round(rows, 2)) == {30.0, 54.0}


def test_a_deformed_vertebra_weighs_the_inverse_of_its_ratio():
    found = targets(vertebra(30.0), vertebra(70.0), ratios=[0.5, 0.8])
    positive = found.objectness == 1
    upper, lower = positive[:, :24], positive[:, 24:]
    np.testing.assert_allclose(found.weight[:, :24][upper], 2.0)
    np.testing.assert_allclose(found.weight[:, 24:][lower], 1.25)
    assert (found.weight[~positive] == 0).all()


def test_a_sheet_without_vertebrae_has_no_positive():
    found = make_targets(np.empty((0, 6, 2)), np.empty(0), SHAPE)
    assert not found.objectness.any()
    assert found.offsets.shape == (16, 12, 48, 40)


class Says(torch.nn.Module):
    """A network that gives these logits and offsets."""

    def __init__(self, logits, offsets):
        super().__init__()
        self.said = logits, offsets

    def forward(self, sheets):
        return self.said


def batch_of(found):
    stacked = (torch.from_numpy(v[None]) for v in (found.objectness, found.offsets, found.weight))
    return torch.zeros(1, 1, *SHAPE), *stacked


def perfect(found):
    logits = torch.from_numpy(np.where(found.objectness > 0.5, 30.0, -30.0)[None].astype(np.float32))
    return logits, torch.from_numpy(found.offsets[None])


def test_the_loss_of_a_perfect_network_is_nothing():
    found = targets(vertebra())
    value, figures = detector.loss(Says(*perfect(found)), batch_of(found))
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert figures["recall"] == 1


def test_doubtful_anchors_do_not_count():
    found = targets(vertebra(24.0), vertebra(70.0), ratios=[0.8, np.nan])
    logits, offsets = perfect(found)
    logits[torch.from_numpy(found.objectness[None]) < 0] = 30.0
    assert float(detector.loss(Says(logits, offsets), batch_of(found))[0]) == pytest.approx(0, abs=1e-6)


def test_an_error_of_the_offsets_counts_by_its_weight():
    losses = []
    for ratio in (0.8, 0.4):
        found = targets(vertebra(), ratios=[ratio])
        logits, offsets = perfect(found)
        losses.append(float(detector.loss(Says(logits, offsets + 0.1), batch_of(found))[0]))
    assert losses == pytest.approx([0.125, 0.25], rel=1e-3)


def test_a_batch_without_vertebrae_has_a_finite_loss():
    found = make_targets(np.empty((0, 6, 2)), np.empty(0), SHAPE)
    network = Detector()
    value, _ = detector.loss(network, batch_of(found))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.fixture(scope="module")
def sheets():
    return detector.draw_sheets(np.random.default_rng(2), 2)


def test_drawn_sheets_show_whole_vertebrae_where_their_keypoints_are(sheets):
    for image, keypoints, ratios in sheets:
        assert image.shape == (detector.ROWS, 80)
        whole = ~np.isnan(ratios)
        assert whole.sum() >= 3
        assert (keypoints[whole] >= 0).all()
        assert (keypoints[whole] < image.shape).all()
        rows, columns = np.rint(keypoints[whole].mean(1)).astype(int).T
        assert np.median(image[rows, columns]) > -50  # bone or its marrow, not lung or air
        assert ((ratios[whole] > 0.3) & (ratios[whole] <= 1)).all()


def test_sheets_of_one_seed_are_the_same_and_of_another_differ():
    a, b = (detector.make_batch(1, 5) for _ in range(2))
    c = detector.make_batch(1, 6)
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(a[0], c[0])
    assert a[0].shape == (detector.PERSONS * detector.SHEETS, 1, detector.ROWS, 80)


def test_a_torso_has_its_centres_in_the_image_and_bone_there():
    image, centers, present = localizer.draw_sample(np.random.default_rng(4), (48, 112, 112))
    assert image.shape == (48, 112, 112)
    assert present.sum() > 20
    seen = present > 0.5
    rows, columns = np.rint(centers[seen]).astype(int).T
    assert np.median(image[np.flatnonzero(seen), rows, columns]) > -0.3  # not lung, which is near -1
    assert np.abs(np.diff(centers[seen], axis=0)).max() * LocalizeSettings().voxel_mm < 6


def test_the_localizer_s_loss_is_a_tenth_of_the_distance_where_there_is_spine():
    centers, present = torch.full((1, 4, 2), 5.0), torch.tensor([[1.0, 1, 0, 0]])
    said = centers + torch.tensor([0.0, 2.0]), (present - 0.5) * 60
    said[0][:, 2:] += 100  # where there is none, the place does not matter
    value, figures = localizer.loss(Says(*said), (torch.zeros(1, 1, 4, 8, 8), centers, present))
    assert float(value) == pytest.approx(0.1 * 2 * LocalizeSettings().voxel_mm, abs=1e-4)
    assert figures == {"error_mm": pytest.approx(6.0), "presence_accuracy": 1.0}
