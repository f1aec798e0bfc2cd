import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vfscreen.curve import SpineCurve
from vfscreen.measure import measure
from vfscreen.report.thumbnail import LEFT, PX_PER_MM, TOP, doubt_lines, spread, thumbnail
from vfscreen.study import Detection, Doubt, cranial_first

CURVE = SpineCurve.through(np.linspace([0.0, 0.0, 300.0], [0.0, 0.0, 0.0], 301))
BLUE, VERMILLION = (86, 180, 233), (213, 94, 0)


def vertebra(s, anterior=19.0):
    half = np.repeat([anterior, 19, 20], 2) / 2 * np.tile([-1, 1], 3)
    return Detection(np.column_stack([s + half, np.repeat([-14.0, 0.0, 14.0], 2)]), 0.9)


def png(detections, length=120, width=81, pixel_mm=1.0, hu=-1000.0, threshold=0.74, doubts=()):
    sheet = np.full((round(length / pixel_mm), round(width / pixel_mm)), hu, np.float32)
    return thumbnail(sheet, pixel_mm, detections, measure(detections, CURVE), threshold, doubts)


def picture(*args, **options):
    return np.asarray(Image.open(io.BytesIO(png(*args, **options))).convert("RGB")).astype(int)


def at(image, s, p, pixel_mm=1.0, columns=81):
    """Colour at the centre of sheet position (s, p) mm."""
    x = LEFT + (p / pixel_mm + columns / 2) * pixel_mm * PX_PER_MM - 0.5
    y = TOP + (s + pixel_mm / 2) * PX_PER_MM - 0.5
    return image[round(y), round(x)]


def near(color, expected):
    return np.abs(color - expected).max() < 40


def text_chunks(data):
    """Names of the chunks of a PNG."""
    names, i = [], 8
    while i < len(data):
        names.append(data[i + 4 : i + 8].decode())
        i += 12 + int.from_bytes(data[i : i + 4], "big")
    return names


@pytest.mark.parametrize("pixel_mm", [0.6, 1.0, 1.5])
def test_the_sheet_is_shown_in_true_proportions(pixel_mm):
    white = (picture([], length=120, width=60, pixel_mm=pixel_mm, hu=3000) == 255).all(-1)
    rows, columns = np.flatnonzero(white[:, LEFT + 5]), np.flatnonzero(white[TOP + 5])
    assert (rows.min(), columns.min()) == (TOP, LEFT)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (120 * PX_PER_MM, 60 * PX_PER_MM)


@pytest.mark.parametrize("anterior", [19.0, 10.0])
def test_a_dot_stands_on_every_keypoint(anterior):
    detection = vertebra(40, anterior)
    image = picture([detection])
    for s, p in detection.keypoints:
        assert near(at(image, s, p), BLUE if anterior == 19 else VERMILLION)


def test_dots_do_not_move_with_the_pixels_of_the_sheet():
    image = picture([vertebra(40)], width=81, pixel_mm=0.5)
    for s, p in vertebra(40).keypoints:
        assert near(at(image, s, p, 0.5, 162), BLUE)


def test_a_bright_spot_of_the_sheet_is_where_its_millimetres_say():
    sheet = np.full((100, 81), -1000, np.float32)
    sheet[30, 40 + 12] = 3000
    image = np.asarray(Image.open(io.BytesIO(thumbnail(sheet, 1.0, [], (), 0.74))).convert("RGB"))
    assert at(image, 30, 12).min() > 200
    assert at(image, 30, 8).max() < 50


def test_the_heights_of_a_deformed_vertebra_are_drawn_and_those_of_a_normal_one_are_not():
    image = picture([vertebra(40), vertebra(80, anterior=10)])
    for p in (-14, 0, 14):
        assert near(at(image, 80, p), VERMILLION)
        assert near(at(image, 40, p), (0, 0, 0))


def test_a_normal_vertebra_at_the_threshold_shows_its_heights():
    detection = vertebra(40, anterior=17)
    assert near(at(picture([detection], threshold=0.9), 40, 0), BLUE)
    assert near(at(picture([detection], threshold=0.8), 40, 0), (0, 0, 0))


def test_vertebrae_and_detections_need_not_come_in_one_order():
    found = [vertebra(80, anterior=10), vertebra(40)]
    assert png(found) == png(found[::-1])


def test_vertebrae_are_numbered_by_the_mean_of_their_keypoints_as_detect_orders_them():
    upper, lower = vertebra(60), vertebra(61)
    upper.keypoints[5, 0] += 4  # one corner far down: the middle of its box is the lower one
    assert [d is upper for d in cranial_first([lower, upper])] == [True, False]


def test_a_detection_without_its_vertebra_is_refused():
    with pytest.raises(ValueError, match="zip"):
        thumbnail(np.zeros((100, 80), np.float32), 1.0, [vertebra(40)], (), 0.74)


def test_a_study_without_vertebrae_has_a_picture_too():
    assert picture([]).any()


def test_the_caption_names_the_doubts_and_says_where_they_make_the_study_partial():
    thick, few = Doubt("thick_slices", "."), Doubt("few_vertebrae", ".", partial=True)
    assert doubt_lines([]) == []
    assert doubt_lines([thick]) == ["doubts: thick_slices"]
    assert doubt_lines([few, thick]) == ["partial: few_vertebrae, thick_slices"]
    below = TOP + 120 * PX_PER_MM
    plain, doubted = (picture([vertebra(40)], doubts=doubts) for doubts in ((), [few]))
    assert (plain[:below] == doubted[:below]).all()
    assert doubted[below:].astype(bool).sum() > plain[below:].astype(bool).sum()


def test_every_line_of_the_caption_fits_into_the_picture():
    names = ("spine_at_edge", "vertebra_missed", "spine_end_missed", "thick_slices")
    image = picture([vertebra(40)], doubts=[Doubt(name, ".", partial=True) for name in names])
    assert image[-3:].max() == 0
    assert image[:, -3:].max() == 0


def test_keypoints_beyond_the_sheet_do_no_harm():
    assert picture([vertebra(-40), vertebra(0), vertebra(118), vertebra(160)]).any()


def test_sheet_pixels_that_are_not_numbers_are_black():
    assert at(picture([], hu=np.nan), 30, 5).max() == 0


def test_the_file_holds_nothing_but_the_picture():
    assert set(text_chunks(png([vertebra(40)]))) == {"IHDR", "PLTE", "IDAT", "IEND"}


def test_a_noisy_long_sheet_makes_a_small_file():
    sheet = np.random.default_rng(0).normal(150, 80, (300, 81)).astype(np.float32)
    detections = [vertebra(s, 10) for s in range(20, 290, 25)]
    assert len(thumbnail(sheet, 1.0, detections, measure(detections, CURVE), 0.74)) < 200_000


@given(st.lists(st.tuples(st.floats(0, 500), st.integers(10, 40)), max_size=12))
def test_labels_lie_inside_the_sheet_and_never_over_each_other(labels):
    wanted, heights = sorted(top for top, _ in labels), [height for _, height in labels]
    tops = spread(wanted, heights, 0, 500)
    ends = [top + height for top, height in zip(tops, heights, strict=True)]
    assert all(end <= top + 1e-9 for end, top in zip(ends, tops[1:], strict=False))
    assert all(top >= 0 for top in tops)
    assert all(end <= 500 for end in ends)


def test_labels_with_room_stay_where_they_are_wanted():
    assert spread([10, 60], [20, 20], 0, 100) == [10, 60]
