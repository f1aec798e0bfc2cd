"""The picture of a study: what is known in mm stands where its pixels say."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import BENT, column, scene, vertebra
from PIL import Image

from vfscreen.report import crops, words
from vfscreen.report.marks import COLORS, draw_grade
from vfscreen.report.picture import LABELS, LEFT, PX_PER_MM, SHEET_WIDTH, TOP, draw_picture, spread
from vfscreen.study import Doubt

BLUE, VERMILLION = COLORS["normal"], COLORS["severe"]
FEW = Doubt("few_vertebrae", "only 2 whole vertebrae could be measured", partial=True)


def drawn(made):
    return np.asarray(Image.open(io.BytesIO(draw_picture(made))).convert("RGB")).astype(int)


def on_sheet(image, s, p, pixel_mm=1.0):
    """Colour at (s, p) mm of a sheet 80 mm wide: s = 0 in the middle of its first row."""
    x = LEFT + (p + 40) * PX_PER_MM - 0.5
    y = TOP + (s + pixel_mm / 2) * PX_PER_MM - 0.5
    return image[round(y), round(x)]


def on_sagittal(image, made, point_mm):
    """Colour at an LPS point as the true sagittal shows it."""
    first, pixel_mm = made.sagittal.first_mm, made.sagittal.pixel_mm
    y_mm, z_mm = point_mm[1] - first[1] + pixel_mm / 2, first[2] - point_mm[2] + pixel_mm / 2
    x = LEFT + SHEET_WIDTH + LABELS + 44 + y_mm * PX_PER_MM - 0.5
    return image[round(TOP + z_mm * PX_PER_MM - 0.5), round(x)]


def near(color, expected):
    return np.abs(color - expected).max() < 45


def text_chunks(data):
    """Names of the chunks of a PNG."""
    names, i = [], 8
    while i < len(data):
        names.append(data[i + 4 : i + 8].decode())
        i += 12 + int.from_bytes(data[i : i + 4], "big")
    return names


@pytest.mark.parametrize("pixel_mm", [0.5, 1.0, 1.6])
def test_the_sheet_is_shown_in_true_proportions(pixel_mm):
    white = np.full((round(120 / pixel_mm), round(80 / pixel_mm)), 3000, np.float32)
    shown = (drawn(scene(sheet_hu=white, pixel_mm=pixel_mm)) > 240).all(-1)
    rows, columns = np.flatnonzero(shown[:, LEFT + 5]), np.flatnonzero(shown[TOP + 5, : LEFT + SHEET_WIDTH])
    assert (rows.min(), columns.min()) == (TOP, LEFT)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (120 * PX_PER_MM, 80 * PX_PER_MM)


@pytest.mark.parametrize("anterior", [19.0, 10.0])
@pytest.mark.parametrize("curve", ["straight", "bent"])
def test_a_dot_stands_on_every_keypoint_of_both_images(anterior, curve):
    detection = vertebra(140, anterior)
    made = scene(detection, **({"curve": BENT} if curve == "bent" else {}))
    image, color = drawn(made), BLUE if anterior == 19 else VERMILLION
    for (s, p), point in zip(detection.keypoints, made.result.vertebrae[0].keypoints_mm, strict=True):
        assert near(on_sheet(image, s, p), color)
        assert near(on_sagittal(image, made, point), color)


def test_dots_do_not_move_with_the_pixels_of_the_sheet():
    image = drawn(scene(vertebra(40), pixel_mm=0.5))
    for s, p in vertebra(40).keypoints:
        assert near(on_sheet(image, s, p, 0.5), BLUE)


def test_a_bright_spot_of_the_sheet_is_where_its_millimetres_say():
    sheet = np.full((100, 80), -1000, np.float32)
    sheet[30, 51:53] = 3000  # p = 12 between them
    image = drawn(scene(sheet_hu=sheet))
    assert on_sheet(image, 30, 12).min() > 200
    assert on_sheet(image, 30, 8).max() < 50


def test_a_bright_spot_of_the_patient_is_in_the_true_sagittal_where_the_curve_passes_it():
    seen = BENT.points_mm[120] + np.array([0, 17, 0])
    beside = BENT.points_mm[180] + np.array([8, 17, 0])
    made = scene(curve=BENT, bright_mm=[seen, beside])
    image = drawn(made)
    assert on_sagittal(image, made, seen).min() > 200
    assert on_sagittal(image, made, seen + np.array([0, 5, 0])).max() < 50
    assert on_sagittal(image, made, beside).max() < 50


def test_the_true_sagittal_is_not_stretched_where_the_spine_bends():
    made = scene(curve=BENT)
    ends = made.sagittal.to_pixels(np.array([[5.0, 3, 150], [-5, 3, 140], [0, 13, 140]]))
    np.testing.assert_allclose(np.diff(ends, axis=0) * made.sagittal.pixel_mm, [[10, 0], [0, 10]], atol=1e-9)


def test_the_true_sagittal_ends_with_the_ct():
    made = scene()
    assert made.sagittal.first_mm[2] == pytest.approx(305, abs=1)  # the curve's end and 5 mm
    height = len(made.sagittal.image) * made.sagittal.pixel_mm
    assert height == pytest.approx(310, abs=1)


def test_the_heights_of_a_deformed_vertebra_are_drawn_and_those_of_a_normal_one_are_not():
    image = drawn(scene(vertebra(40), vertebra(80, anterior=10)))
    for p in (-14, 0, 14):
        assert near(on_sheet(image, 80, p), VERMILLION)
        assert near(on_sheet(image, 40, p), (0, 0, 0))


def test_a_normal_vertebra_at_the_threshold_shows_its_heights():
    detection = vertebra(40, anterior=17)
    assert near(on_sheet(drawn(scene(detection, threshold=0.9)), 40, 0), BLUE)
    assert near(on_sheet(drawn(scene(detection, threshold=0.8)), 40, 0), (0, 0, 0))


def test_grades_are_told_apart_by_shape_without_colour():
    outlines = []
    for grade in COLORS:
        picture = Image.new("RGBA", (41, 41), (0, 0, 0, 255))
        draw_grade(picture, np.array([20.0, 20.0]), grade, 12)
        outlines.append(np.asarray(picture.convert("L")) > 60)
    for i, one in enumerate(outlines):
        assert one[20, 20]
        for other in outlines[:i]:
            assert (one & other).sum() < 0.88 * (one | other).sum()


def test_the_grade_of_a_vertebra_is_marked_at_its_middle_in_the_true_sagittal():
    made = scene(vertebra(40), vertebra(80, anterior=10), curve=BENT)
    image = drawn(made)
    for found, color in zip(made.result.vertebrae, (BLUE, VERMILLION), strict=True):
        assert near(on_sagittal(image, made, found.center_mm), color)


def test_a_crop_stands_upright_with_its_vertebra_in_the_middle_and_both_neighbours_in_sight():
    made = scene(vertebra(110), vertebra(140, anterior=12), vertebra(172), vertebra(200), curve=BENT)
    (crop,) = made.crops
    rows, columns = crop.view.image.shape
    assert crop.number == 2
    found = made.result.vertebrae
    middle = crop.view.to_pixels(found[1].center_mm)
    np.testing.assert_allclose(middle, [(rows - 1) / 2, (columns - 1) / 2], atol=1e-6)
    seen = crop.view.to_pixels(np.concatenate([v.keypoints_mm for v in found[:3]]))
    assert (seen > 0).all()
    assert (seen < [rows - 1, columns - 1]).all()
    front, back = seen[6:8].mean(0), seen[10:12].mean(0)
    assert back[0] == pytest.approx(front[0], abs=1e-6)
    assert back[1] > front[1]


def test_a_crop_shows_what_of_the_patient_lies_there():
    plain = scene(vertebra(110), vertebra(140, anterior=12), vertebra(172), curve=BENT)
    corner = plain.result.vertebrae[1].keypoints_mm[4]
    (crop,) = scene(vertebra(110), vertebra(140, 12), vertebra(172), curve=BENT, bright_mm=[corner]).crops
    row, column = np.rint(crop.view.to_pixels(corner)).astype(int)
    assert crop.view.image[row, column] > 1000
    assert crop.view.image[row + 12, column] == -1000


def test_heights_on_a_crop_are_those_of_the_patient():
    made = scene(vertebra(110), vertebra(140, anterior=12), vertebra(172), curve=BENT)
    (placed,) = crops.placed_crops(made, 0)
    found = made.result.vertebrae[1]
    px = placed.panel.to_px(placed.crop.view.to_pixels(found.keypoints_mm)).reshape(3, 2, 2)
    lengths = np.linalg.norm(np.diff(px, axis=1)[:, 0], axis=-1)
    np.testing.assert_allclose(lengths, found.heights_mm * crops.PX_PER_MM, rtol=1e-3)


def test_the_worst_have_crops_and_the_picture_says_which_have_none():
    made = scene(*(vertebra(30 + 32 * i, anterior) for i, anterior in enumerate((12, 10, 11, 9, 19))))
    assert [crop.number for crop in made.crops] == [2, 3, 4]
    assert words.findings(made)[-1] == "deformed too, without a crop here: vertebra 1"


def test_what_is_found_stands_in_words():
    assert words.findings(scene(vertebra(40), vertebra(80, anterior=10))) == [
        "lowest G 0.500, severe: vertebra 2 of 2",
        "G at or below 0.74: 1 of 2",
    ]
    assert words.findings(scene()) == ["no vertebra measured"]


def test_doubts_stand_in_sentences_and_name_their_vertebrae():
    thick = Doubt("thick_slices", "slices stand 4.0 mm apart: heights are coarse")
    unsure = Doubt("uncertain", "2 of 3 vertebrae: too uncertain", partial=True)
    found = (vertebra(40), vertebra(80), vertebra(120))
    assert words.doubts(scene(*found)) == []
    assert words.doubts(scene(*found, doubts=[thick])) == ["doubtful:", f"- {thick.reason}"]
    made = scene(*found, doubts=[unsure], change=lambda v: replace(v, doubts=("uncertain",)))
    assert words.doubts(made) == [
        "partial, never to be read as negative:",
        "- 2 of 3 vertebrae: too uncertain (1, 2, 3)",
    ]
    assert words.doubts_of(made.result.vertebrae[0]) == ["the heights are too uncertain to tell the grade"]


def test_the_words_say_how_far_a_ruler_on_the_picture_is_off():
    straight, bent = (words.notes(scene(vertebra(140), **at))[-1] for at in ({}, {"curve": BENT}))
    assert "up to 1% on the straightened" in straight
    assert "up to 1% on the straightened" not in bent


def test_nothing_is_clipped_at_the_edges_of_the_picture():
    doubts = [replace(FEW, reason=f"{FEW.reason}, " * 4) for _ in range(9)]
    doubted = {"doubts": doubts, "change": lambda v: replace(v, genant_ratio_sd=0.05, doubts=("metal",))}
    for anteriors in ((19,), (19, 10, 11), (10, 10, 10, 10)):
        found = [vertebra(40 + 40 * i, anterior) for i, anterior in enumerate(anteriors)]
        image = drawn(scene(*found, **doubted))
        assert image[-3:].max() == 0
        assert image[:, -3:].max() == 0


def test_vertebrae_and_detections_need_not_come_in_one_order():
    found = [vertebra(80, anterior=10), vertebra(40)]
    assert draw_picture(scene(*found)) == draw_picture(scene(*found[::-1]))


def test_a_detection_without_its_vertebra_is_refused():
    with pytest.raises(ValueError, match="zip"):
        draw_picture(replace(scene(vertebra(40)), detections=()))


def test_a_study_without_vertebrae_has_a_picture_too():
    assert drawn(scene()).any()


def test_keypoints_beyond_the_images_do_no_harm():
    assert drawn(scene(vertebra(-40, 10), vertebra(0), vertebra(298), vertebra(330, 10))).any()


def test_sheet_pixels_that_are_not_numbers_are_black():
    assert on_sheet(drawn(scene(sheet_hu=np.full((100, 80), np.nan, np.float32))), 30, 5).max() == 0


def test_what_waits_to_be_drawn_is_small_and_holds_nothing_of_the_column():
    made = scene(*(vertebra(s, 10) for s in range(20, 290, 25)))
    assert len(pickle.dumps(made)) < 1_500_000 < column(made.sheet.curve).hu.nbytes


def test_the_file_holds_nothing_but_the_picture():
    assert set(text_chunks(draw_picture(scene(vertebra(40))))) == {"IHDR", "PLTE", "IDAT", "IEND"}


def test_a_noisy_long_study_makes_a_small_file():
    noise = np.random.default_rng(0).normal(150, 80, (300, 80)).astype(np.float32)
    made = scene(*(vertebra(s, 10) for s in range(20, 290, 25)), sheet_hu=noise)
    loud = np.random.default_rng(1).normal(150, 80, made.sagittal.image.shape).astype(np.float32)
    made = replace(made, sagittal=replace(made.sagittal, image=loud))
    assert len(draw_picture(made)) < 700_000


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
