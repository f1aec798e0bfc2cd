import numpy as np
import pytest

from vfscreen.curve import SpineCurve
from vfscreen.measure import measure_refined
from vfscreen.quality import agreeing, doubts, is_plausible, is_whole, second_look_doubts, why_not_trusted
from vfscreen.settings import QualitySettings
from vfscreen.straighten import Sheet
from vfscreen.study import Detection, Refined, StudyHeader

SETTINGS = QualitySettings()
HEADER = StudyHeader(slice_spacing_mm=1.5)


def sheet(rows=140, columns=80, hidden=()) -> Sheet:
    inside = np.ones((rows, columns), bool)
    for part in hidden:
        inside[part] = False
    straight = SpineCurve.through(np.linspace([0, 0, rows - 1.0], [0.0, 0, 0], rows))
    return Sheet(np.zeros((rows, columns), np.float32), inside, straight, 1.0)


def detection(s=50.0, heights=(18, 17, 20), depth=28.0, p=0.0) -> Detection:
    columns = p + np.repeat([-depth / 2, 0.0, depth / 2], 2)
    rows = s + np.repeat(np.array(heights) / 2, 2) * np.tile([-1, 1], 3)
    return Detection(np.stack([rows, columns], -1), 0.9)


def trusted(of, detections, settings):
    return tuple(d for d in detections if why_not_trusted(of, d, settings, settings.edge_mm) is None)


def swapped(a, b) -> Detection:
    points = detection().keypoints
    points[[a, b]] = points[[b, a]]
    return Detection(points, 0.9)


def spine(*at):
    return [detection(s) for s in at]


def named(found):
    return {doubt.name: doubt for doubt in found}


def test_a_complete_study_leaves_no_doubt():
    assert doubts(HEADER, sheet(), spine(20, 44, 68, 93), SETTINGS) == ()


def test_what_lies_behind_the_curve_is_no_vertebral_body():
    spinous = detection(60, (11, 12, 16), depth=16, p=30)
    body = detection(40)
    (kept,) = trusted(sheet(), [body, spinous], SETTINGS)
    assert kept is body


@pytest.mark.parametrize(("places", "told"), [((20, 44), "2 whole vertebrae"), ((20,), "1 whole vertebra ")])
def test_few_vertebrae_make_a_study_partial(places, told):
    found = named(doubts(HEADER, sheet(), spine(*places), SETTINGS))
    assert found.keys() == {"few_vertebrae"}
    assert found["few_vertebrae"].partial
    assert told in found["few_vertebrae"].reason


def test_no_vertebra_at_all_is_doubted_too():
    assert named(doubts(HEADER, sheet(), [], SETTINGS)).keys() == {"few_vertebrae"}


def test_a_gap_in_the_row_of_vertebrae_makes_a_study_partial():
    found = named(doubts(HEADER, sheet(), spine(20, 44, 92, 116, 140), SETTINGS))
    assert found.keys() == {"vertebra_missed"}
    assert found["vertebra_missed"].partial
    assert "48 mm lie between vertebrae 2 and 3" in found["vertebra_missed"].reason


def test_steps_that_grow_to_caudal_are_no_gap():
    assert doubts(HEADER, sheet(), spine(10, 30, 52, 76, 104, 136), SETTINGS) == ()


def test_a_spine_beside_the_image_makes_a_study_partial():
    found = named(doubts(HEADER, sheet(hidden=[np.s_[60:]]), spine(20, 44, 68), SETTINGS))
    assert found.keys() == {"spine_at_edge"}
    assert found["spine_at_edge"].partial
    assert "43%" in found["spine_at_edge"].reason


def test_air_far_from_the_bodies_is_no_doubt():
    edges = [np.s_[:, :27], np.s_[:, 53:]]
    assert doubts(HEADER, sheet(hidden=edges), spine(20, 44, 68), SETTINGS) == ()


def test_thick_slices_are_named_and_leave_the_study_complete():
    found = named(doubts(StudyHeader(slice_spacing_mm=5.0), sheet(), spine(20, 44, 68), SETTINGS))
    assert found.keys() == {"thick_slices"}
    assert not found["thick_slices"].partial


def test_an_unknown_slice_spacing_is_no_doubt():
    assert doubts(StudyHeader(), sheet(), spine(20, 44, 68), SETTINGS) == ()


def test_every_doubt_can_come_at_once():
    cut = sheet(hidden=[np.s_[:, :45]])
    found = doubts(StudyHeader(slice_spacing_mm=4.0), cut, spine(20, 44), SETTINGS)
    assert [d.name for d in found] == ["spine_at_edge", "few_vertebrae", "thick_slices"]


def test_a_whole_vertebra_is_trusted():
    whole, implausible, cut = detection(), swapped(0, 1), detection(s=5.0)
    assert trusted(sheet(), [cut, whole, implausible], SETTINGS) == (whole,)


@pytest.mark.parametrize("s", [9.0, 190.0, -30.0, 260.0])
def test_a_vertebra_cut_by_an_end_of_the_sheet_is_not_trusted(s):
    assert trusted(sheet(), [detection(s)], SETTINGS) == ()


@pytest.mark.parametrize("p", [-27.0, 27.0])
def test_a_vertebra_cut_by_a_side_of_the_sheet_is_not_trusted(p):
    assert trusted(sheet(), [detection(p=p)], SETTINGS) == ()


@pytest.mark.parametrize("hidden", [np.s_[:40], np.s_[61:], np.s_[:, :26], np.s_[:, 54:]])
def test_a_vertebra_that_the_image_does_not_show_wholly_is_cut(hidden):
    assert not is_whole(sheet(hidden=[hidden]), detection().keypoints, SETTINGS.edge_mm)


@pytest.mark.parametrize("hidden", [np.s_[:39], np.s_[62:], np.s_[:, :24], np.s_[:, 56:]])
def test_a_vertebra_a_few_millimetres_from_the_image_s_end_is_whole(hidden):
    assert is_whole(sheet(hidden=[hidden]), detection().keypoints, SETTINGS.edge_mm)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (2, 3), (4, 5), (0, 4), (0, 2), (3, 5)])
def test_keypoints_out_of_order_are_implausible(a, b):
    assert is_plausible(detection().keypoints)
    assert not is_plausible(swapped(a, b).keypoints)


@pytest.mark.parametrize(
    ("heights", "depth"),
    [((2, 17, 20), 28), ((18, 46, 20), 28), ((18, 17, 2.5), 28), ((18, 17, 20), 7), ((18, 17, 20), 60)],
)
def test_sizes_that_no_vertebra_has_are_implausible(heights, depth):
    assert not is_plausible(detection(heights=heights, depth=depth).keypoints)


@pytest.mark.parametrize("endplate", [0, 1])
def test_one_endplate_too_short_is_implausible(endplate):
    points = detection().keypoints
    points[endplate::2, 1] *= 0.2
    assert not is_plausible(points)


@pytest.mark.parametrize("heights", [(5, 6, 12), (36, 33, 36)])
def test_a_crushed_and_a_tall_vertebra_are_plausible(heights):
    assert is_plausible(detection(heights=heights).keypoints)


def test_a_long_end_of_the_spine_without_vertebrae_makes_a_study_partial():
    found = named(doubts(HEADER, sheet(rows=260), spine(120, 144, 168, 193, 218), SETTINGS))
    assert found.keys() == {"spine_end_missed"}
    assert found["spine_end_missed"].partial
    assert "uppermost 110 mm" in found["spine_end_missed"].reason


def looked(shown: Detection, sd=0.02, has_metal=False) -> Refined:
    """The second look that puts a vertebra where this detection is."""
    flat = np.column_stack([shown.keypoints, np.zeros(6)])
    return Refined(sheet().curve.to_patient(flat), np.full(3, 0.5), sd, has_metal)


def test_what_the_second_look_confirms_gets_its_keypoints():
    seen = detection(51.5, heights=(18, 12, 20))
    ((kept, look),), removed = agreeing(sheet(), [detection(50)], [looked(seen)], SETTINGS)
    assert removed == []
    np.testing.assert_allclose(kept.keypoints, seen.keypoints, atol=1e-6)
    assert kept.score == detection().score
    assert look.genant_ratio_sd == 0.02


@pytest.mark.parametrize("seen", [detection(59.0), swapped(0, 1), detection(50, depth=70)])
def test_what_moves_far_or_is_no_vertebra_is_not_confirmed(seen):
    found, (removed,) = agreeing(sheet(), [detection(50)], [looked(seen)], SETTINGS)
    assert found == []
    assert removed.unconfirmed


def test_what_turns_out_to_be_cut_by_the_image_is_left_out_like_any_such_vertebra():
    found, (removed,) = agreeing(sheet(), [detection(14)], [looked(detection(9))], SETTINGS)
    assert found == []
    assert (removed.reason, removed.unconfirmed) == ("not wholly in the image", False)


def test_two_detections_that_come_to_one_vertebra_leave_the_better_one():
    better = Detection(detection(47).keypoints, 0.99)
    found, (removed,) = agreeing(sheet(), [detection(53), better], [looked(detection(50))] * 2, SETTINGS)
    assert [d.score for d, _ in found] == [0.99]
    assert not removed.unconfirmed


def test_confirmed_detections_stay_cranial_first():
    lower, upper = detection(90), detection(40)
    found, _ = agreeing(sheet(), [lower, upper], [looked(lower), looked(upper)], SETTINGS)
    assert [round(d.keypoints[:, 0].mean()) for d, _ in found] == [40, 90]


def test_an_unsure_vertebra_and_metal_are_doubted_by_name():
    looks = [looked(detection(30)), looked(detection(60), sd=0.2), looked(detection(90), has_metal=True)]
    vertebrae = measure_refined(looks, [0.9] * 3, SETTINGS.max_ratio_sd)
    assert [v.doubts for v in vertebrae] == [(), ("uncertain",), ("metal",)]
    found = named(second_look_doubts(vertebrae, unconfirmed=0))
    assert found.keys() == {"uncertain", "metal"}
    assert "1 of 3 vertebrae" in found["uncertain"].reason
    assert all(doubt.partial for doubt in found.values())


def test_detections_left_out_are_told():
    (doubt,) = second_look_doubts((), unconfirmed=2)
    assert doubt.name == "second_look_disagrees"
    assert doubt.partial
    assert doubt.reason.startswith("2 of the vertebrae")
