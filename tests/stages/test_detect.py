import numpy as np
import pytest
import torch

from vfscreen.curve import SpineCurve
from vfscreen.detect import detect, normalise, padded, suppress
from vfscreen.networks import anchors
from vfscreen.networks.detector import Detector
from vfscreen.settings import DetectSettings
from vfscreen.straighten import Sheet
from vfscreen.training.detector import make_targets

SETTINGS = DetectSettings(looks=((0, 0),))
COLUMNS = 80
SURE, NO = 8.0, -8.0


def sheet(rows=190, seed=None, pixel_mm=1.0) -> Sheet:
    image = np.zeros((rows, COLUMNS), np.float32)
    if seed is not None:
        image += np.random.default_rng(seed).normal(100, 200, image.shape).astype(np.float32)
    straight = SpineCurve.through(np.linspace([0, 0, rows - 1.0], [0.0, 0, 0], rows))
    return Sheet(image, np.ones(image.shape, bool), straight, pixel_mm)


def vertebra(row, anterior=18.0, middle=16.5, posterior=20.0, depth=27.0, column=40.0):
    p = column + np.repeat([-depth / 2, 0.0, depth / 2], 2)
    s = row + np.repeat([anterior, middle, posterior], 2) / 2 * np.tile([-1, 1], 3)
    return np.stack([s, p], -1)


def perfect(*sheets_of_keypoints, shape=(192, COLUMNS)):
    """A network that says what training asked of it for these keypoints in pixels."""
    targets = [make_targets(np.stack(k), np.full(len(k), 0.8), shape) for k in sheets_of_keypoints]
    logits = np.stack([np.where(t.objectness > 0.5, SURE, NO) for t in targets])
    offsets = np.stack([t.offsets for t in targets])
    return lambda images: (logits[: len(images)], offsets[: len(images)])


SPINE = [
    vertebra(20),
    vertebra(44, 14.1, 15.2, 19.3),
    vertebra(70, 20, 12.0, 21),
    vertebra(97.3, 22, 21, 20, 31),
]


def test_keypoints_encoded_as_targets_come_back():
    (found,) = detect([sheet()], perfect(SPINE), SETTINGS)
    pixels = np.array([sheet().to_pixels(d.keypoints) for d in found])
    np.testing.assert_allclose(pixels, SPINE, atol=1e-3)


def test_keypoints_are_millimetres_of_the_sheet():
    (found,) = detect([sheet(pixel_mm=0.5)], perfect([vertebra(60, column=49.5)]), SETTINGS)
    np.testing.assert_allclose(found[0].keypoints.mean(0), [30.0, 5.0], atol=1e-3)


def test_the_score_is_the_objectness():
    (found,) = detect([sheet()], perfect(SPINE), SETTINGS)
    assert [d.score for d in found] == pytest.approx([1 / (1 + np.exp(-SURE))] * 4)


def test_vertebrae_come_cranial_first():
    (found,) = detect([sheet()], perfect(SPINE[::-1]), SETTINGS)
    assert np.all(np.diff([d.keypoints[:, 0].mean() for d in found]) > 0)


def test_two_vertebrae_with_a_thin_disc_stay_two():
    (found,) = detect([sheet()], perfect([vertebra(50, 20, 20, 20), vertebra(71, 20, 20, 20)]), SETTINGS)
    assert [d.keypoints[:, 0].mean() for d in found] == pytest.approx([50, 71], abs=1e-3)


def test_nothing_above_the_score_is_no_vertebra():
    def empty(images):
        return np.full((len(images), 16, 96, 40), NO), np.zeros((len(images), 16, 12, 96, 40))

    assert detect([sheet(), sheet()], empty, SETTINGS) == [(), ()]


def test_each_sheet_of_a_batch_gets_its_own_vertebrae():
    found = detect([sheet(), sheet(180)], perfect(SPINE[:1], SPINE[1:]), SETTINGS)
    assert [len(f) for f in found] == [1, 3]


def test_suppression_keeps_the_best_of_each_vertebra():
    points = np.stack([vertebra(50), vertebra(51), vertebra(52), vertebra(75)])
    kept = suppress(np.array([0.7, 0.9, 0.6, 0.8]), points, SETTINGS.max_overlap)
    assert [index for index, _ in kept] == [1, 3]
    assert kept[0][1].tolist() == [True, True, True, False]


def test_suppression_removes_a_box_inside_another():
    points = np.stack([vertebra(50, 20, 20, 20), vertebra(50, 7, 7, 7, 12)])
    kept = suppress(np.array([0.9, 0.8]), points, SETTINGS.max_overlap)
    assert [index for index, _ in kept] == [0]
    assert kept[0][1].tolist() == [True, False]  # and it does not drag the mean


def test_candidates_that_agree_are_averaged_by_their_squared_scores():
    logits, offsets = np.full((1, 16, 96, 40), NO), np.zeros((1, 16, 12, 96, 40))
    points = vertebra(49.5), vertebra(50.5)
    for n, (k, score) in enumerate(zip(points, (0.9, 0.6), strict=True)):
        i, j, a = 24 + n, 20, 5
        logits[0, a, i, j] = np.log(score / (1 - score))
        offsets[0, a, :, i, j] = ((k - anchors.cell_centers(np.array([i, j]))) / anchors.SIZES[a]).ravel()
    ((found,),) = detect([sheet()], lambda images: (logits, offsets), SETTINGS)
    assert found.keypoints[:, 0].mean() == pytest.approx((49.5 * 0.81 + 50.5 * 0.36) / 1.17)
    assert found.score == pytest.approx(0.9)


def test_sheets_are_padded_with_air_on_all_sides():
    image = padded(np.full((100, 70), 40, np.float32), (5, 3))
    assert image.shape == (128, 96)
    assert (image[5:105, 3:73] == 40).all()
    assert (image == 40).sum() == 7000
    assert (image[image != 40] == -1000).all()


def test_all_looks_at_a_sheet_have_one_shape():
    shapes = {padded(np.zeros((300, 80), np.float32), shift).shape for shift in DetectSettings().looks}
    assert shapes == {(320, 96)}


def test_looks_moved_by_some_pixels_agree_on_the_place():
    """A network that sees the vertebra where it stands in the moved image."""
    looks = DetectSettings().looks
    moved = [[k + np.array(shift) for k in SPINE] for shift in looks]
    (found,) = detect([sheet()], perfect(*moved), DetectSettings(looks=looks))
    assert len(found) == len(SPINE)
    for detection, keypoints in zip(found, SPINE, strict=True):
        np.testing.assert_allclose(sheet().to_pixels(detection.keypoints), keypoints, atol=1e-3)


def test_normalised_soft_tissue_and_bone_lie_about_zero():
    hu = np.array([-1000, -600, 150, 450, 3000], np.float32)
    np.testing.assert_allclose(normalise(hu), [-2.5, -2.5, 0, 1, 1250 / 300], rtol=1e-6)


def test_overlap_of_known_boxes():
    boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [20, 20, 30, 30], [2, 2, 7, 6.0]])
    np.testing.assert_allclose(anchors.iou(boxes[:1], boxes)[0], [1, 50 / 150, 0, 0.2])
    np.testing.assert_allclose(anchors.areas(boxes), [100, 100, 100, 20])


def test_anchors_have_the_paper_s_scales_and_ratios():
    heights, widths = anchors.SIZES.T
    np.testing.assert_allclose(np.sqrt(heights * widths), np.repeat([17, 23, 28, 35], 4))
    np.testing.assert_allclose(widths / heights, np.tile([0.8, 1.1, 1.3, 2], 4))


def test_cells_lie_in_the_middle_of_the_pixels_they_stand_for():
    assert anchors.cell_centers(np.array([[0, 0], [3, 10]])).tolist() == [[0.5, 0.5], [6.5, 20.5]]


def test_boxes_enclose_all_six_keypoints():
    assert anchors.boxes_of(vertebra(50, 18, 16, 22, 30)).tolist() == [39, 25, 61, 55]


def test_the_network_speaks_for_every_anchor_of_every_cell():
    logits, offsets = Detector()(torch.zeros(2, 1, 64, 80))
    assert logits.shape == (2, 16, 32, 40)
    assert offsets.shape == (2, 16, 12, 32, 40)


def test_a_sheet_gives_the_same_vertebrae_alone_and_in_a_batch(random_models):
    sheets = [sheet(rows, seed) for seed, rows in enumerate((50, 60, 64))]
    logits, _ = random_models.detector(np.stack([normalise(padded(s.image)) for s in sheets]))
    likeliest = 1 / (1 + np.exp(-np.quantile(logits, 0.9997)))  # of an untrained network
    settings = DetectSettings(min_score=float(likeliest))
    together = detect(sheets, random_models.detector, settings)
    assert any(together)
    for one, expected in zip(sheets, together, strict=True):
        (alone,) = detect([one], random_models.detector, settings)
        assert [d.score for d in alone] == pytest.approx([d.score for d in expected], abs=1e-4)
        for a, b in zip(alone, expected, strict=True):
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)


def test_a_network_gives_the_same_output_for_a_batch_of_one_and_of_three(random_models):
    images = np.random.default_rng(0).normal(0, 1, (3, 64, 80)).astype(np.float32)
    together = random_models.detector(images)
    alone = random_models.detector(images[2:])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[2], b[0], atol=1e-4)


def test_rows_of_padding_leave_the_detection_alone():
    long = [*SPINE, vertebra(150)]
    (short,) = detect([sheet(128)], perfect(SPINE, shape=(128, COLUMNS)), SETTINGS)
    (found,) = detect([sheet(129)], perfect(long, shape=(192, COLUMNS)), SETTINGS)
    for a, b in zip(short, found, strict=False):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-6)
    assert len(found) == len(short) + 1
