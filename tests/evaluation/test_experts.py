"""Experts against each other: hand-made readings with known differences, and the public annotation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vfscreen.errors import InputError
from vfscreen.evaluation.experts import IN_PLANE_MM, SLICE_MM, evaluate_experts, in_plane_mm
from vfscreen.evaluation.paper import EXPERTS, PATIENTS, VERTEBRAE
from vfscreen.training.annotation import read_annotation

SHARED = Path(__file__).parents[3] / "shared" / "annotation"
RATIOS = (1.0, 0.95, 0.9, 0.85, 0.82, 0.78, 0.76, 0.7, 0.65, 0.5)


def reading(ratios=RATIOS, x=250.0, y=300.0, z=40.0):
    """A vertebra every 25 slices, 20 slices high, its anterior height less by the factor G."""
    columns = (y, y + 15, y + 30)
    vertebrae = []
    for i, ratio in enumerate(ratios):
        top = z + 25 * i
        heights = zip(columns, (20 * ratio, 20.0, 20.0), strict=True)
        vertebrae.append([[column, x, end] for column, h in heights for end in (top + 20 - h, top + 20)])
    return vertebrae


def write(folder, name="a", uid=None, **experts):
    content = {"Folder": name, "SeriesInstanceUID": uid or f"1.2.{name}", "Annotation": experts}
    (folder / f"{name}.json").write_text(json.dumps(content))


def figures(folder):
    return {row["figure"]: row["value"] for row in evaluate_experts(folder, repeats=20).rows()}


def test_experts_who_agree_are_perfect(tmp_path):
    write(tmp_path, "a", one=reading(), two=reading(), three=reading())
    write(tmp_path, "b", one=reading(RATIOS[:3]), two=reading(RATIOS[:3]))
    write(tmp_path, "c", one=reading(RATIOS[3:6]), two=reading(RATIOS[3:6]))
    found = figures(tmp_path)
    assert all(found[f"{name}localization error, mm"] == 0 for name in ("", "SD of "))
    assert all(found[name] == 1 for name in EXPERTS if "error" not in name)


def test_one_who_is_shifted_by_voxels_errs_by_their_millimetres(tmp_path):
    write(tmp_path, one=reading(), two=reading(x=253, y=304, z=44))
    error = np.hypot(5 * IN_PLANE_MM, 4 * SLICE_MM)
    found = figures(tmp_path)
    assert found["localization error, mm"] == pytest.approx(error)
    assert found["localization error, G <= 0.74, mm"] == pytest.approx(error)
    assert found["recall"] == found["precision"] == found["AUC by vertebra, mild"] == 1


def test_another_sagittal_slice_shows_the_same_vertebra(tmp_path):
    write(tmp_path, one=reading(), two=reading(x=280))
    assert figures(tmp_path)["recall"] == 1
    assert figures(tmp_path)["localization error, mm"] == pytest.approx(30 * IN_PLANE_MM)


def test_a_missed_and_an_added_vertebra_lower_recall_and_precision(tmp_path):
    write(tmp_path, one=reading(), two=reading(), three=[*reading(RATIOS[:9]), *reading((0.6,), z=400)])
    found = figures(tmp_path)
    # All find the first nine. The tenth is true for the third only; for the others it counts neither way.
    assert found["recall"] == pytest.approx(27 / 28)
    assert found["precision"] == pytest.approx(27 / 28)
    assert found["recall, G <= 0.74"] == pytest.approx(6 / 7)
    assert found["sensitivity by vertebra, moderate"] == pytest.approx(6 / 7)


def test_the_order_of_points_and_vertebrae_does_not_matter(tmp_path):
    swapped = [[*points[4:], *points[2:4], *points[:2]][::-1] for points in reversed(reading())]
    write(tmp_path, "a", one=reading(), two=reading(z=41))
    expected = figures(tmp_path)
    write(tmp_path, "a", one=reading(), two=swapped)
    assert figures(tmp_path)["localization error, mm"] == pytest.approx(0)
    write(tmp_path, "a", one=swapped, two=reading(z=41))
    assert figures(tmp_path) == pytest.approx(expected, nan_ok=True)


def test_both_versions_of_the_format_give_the_same(tmp_path):
    write(tmp_path, "a", one=reading(), two=reading(z=42))
    expected = figures(tmp_path)
    named = [{"segments": np.reshape(points, (3, 2, 3)).tolist(), "type": "Th5"} for points in reading(z=42)]
    write(tmp_path, "a", one=reading(), two=named)
    assert figures(tmp_path) == expected


def test_one_who_reads_the_opposite_is_wrong_in_every_figure(tmp_path):
    ratios, opposite = (0.9, 0.9, 0.9, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.9, 0.9, 0.9)
    write(tmp_path, one=reading(ratios), two=reading(opposite))
    found = figures(tmp_path)
    for name in ("AUC", "sensitivity", "specificity"):
        assert found[f"{name} by vertebra, mild"] == found[f"{name} by vertebra, moderate"] == 0


def test_the_truth_is_the_mean_of_the_others_heights(tmp_path):
    write(
        tmp_path, one=reading((0.9, 0.9, 0.9)), two=reading((0.8, 0.8, 0.8)), three=reading((0.6, 0.6, 0.6))
    )
    pairs = evaluate_experts(tmp_path, repeats=20).pairs.groupby("scan")
    assert pairs.true_ratio.first().round(6).tolist() == [0.7, 0.85, 0.75]
    assert pairs.ratio.first().round(6).tolist() == [0.9, 0.6, 0.8]
    assert pairs.true_anterior_mm.first()["a, one"] == pytest.approx(0.7 * 20 * SLICE_MM)


def test_vertebrae_and_patients_are_counted_by_grade(tmp_path):
    write(tmp_path, "a", one=reading(), two=reading())
    write(tmp_path, "b", one=reading(RATIOS[:5]), two=reading(RATIOS[:5]))
    found = figures(tmp_path)
    assert [found[f"vertebrae, {name}"] for name in VERTEBRAE] == [10, 2, 2, 1]
    assert [found[f"patients, {name}"] for name in PATIENTS] == [1, 0, 0, 1]


def test_studies_with_one_reader_are_left_out_and_counted(tmp_path):
    write(tmp_path, "a", one=reading(), two=reading())
    write(tmp_path, "b", one=reading())
    write(tmp_path, "c", one=reading(), two=reading(RATIOS[:2]))  # two vertebrae are no reading
    report = evaluate_experts(tmp_path, repeats=20)
    assert (report.studies, report.readings, report.one_reader) == (1, 2, 2)
    assert set(report.pairs.patient) == {"a"}


def test_a_row_has_the_papers_figure_and_none_for_what_there_is_not(tmp_path):
    write(tmp_path, one=reading(RATIOS[:4]), two=reading(RATIOS[:4]))
    rows = {row["figure"]: row for row in evaluate_experts(tmp_path, repeats=20).rows()}
    recall = rows["recall"]
    assert (recall["value"], recall["paper"], recall["low"]) == (1, 0.983, None)  # one patient: no interval
    assert recall["difference"] == pytest.approx(0.017)
    assert rows["AUC by vertebra, mild"]["value"] is rows["AUC by vertebra, mild"]["difference"] is None
    assert set(EXPERTS) <= set(rows)
    json.dumps(list(rows.values()), allow_nan=False)


@pytest.mark.parametrize(
    ("experts", "text"),
    [
        ({"one": reading()}, "no study was read by two experts"),
        ({}, "no study was read by two experts"),
        ({"one": reading(), "two": [[[1, 2, 3]] * 5] * 3}, "a.json is no annotation"),
        ({"one": reading(), "two": reading(y=-100)}, "a.json has points with negative coordinates"),
    ],
)
def test_input_that_cannot_be_compared_is_an_error(tmp_path, experts, text):
    write(tmp_path, **experts)
    with pytest.raises(InputError, match=text):
        evaluate_experts(tmp_path)


def test_a_folder_without_annotation_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no annotation"):
        evaluate_experts(tmp_path)


def test_two_files_of_one_series_are_an_error_that_names_both(tmp_path):
    write(tmp_path, "a", uid="1.2.3", one=reading(), two=reading())
    write(tmp_path, "b", uid="1.2.3", one=reading(), two=reading())
    with pytest.raises(InputError, match=r"b\.json and a\.json have the same SeriesInstanceUID, 1\.2\.3"):
        evaluate_experts(tmp_path)


def clicks(spacing_mm, pixel_mm, seed=0):
    """A reading clicked on a screen whose pixels have this size, (10, 3, 2, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 900, (10, 3, 2, 3))
    return pixels * pixel_mm / np.array([spacing_mm, spacing_mm, SLICE_MM]) + 17.3


def test_clicks_on_a_screen_betray_the_in_plane_spacing():
    for spacing in (0.518, 0.653, 0.8, 0.977):
        readings = [clicks(spacing, 0.17, 1), clicks(spacing, 0.23, 2)]
        assert in_plane_mm(readings) == pytest.approx(spacing, abs=1e-6)


@pytest.mark.parametrize(
    "readings",
    [
        [np.random.default_rng(0).uniform(0, 400, (10, 3, 2, 3))],
        [np.random.default_rng(0).uniform(0, 400, (10, 3, 2, 3)).round(1)],
        [clicks(0.6, 0.17), clicks(0.7, 0.17)],
        [clicks(0.3, 0.17)],
    ],
    ids=["no raster", "rounded", "experts differ", "no chest"],
)
def test_where_clicks_tell_nothing_there_is_no_spacing(readings):
    assert in_plane_mm(readings) is None


@pytest.fixture(scope="module")
def public():
    folder = SHARED / "thoracic-2020"
    if not folder.exists():
        pytest.skip("the public annotation is not here")
    return evaluate_experts(folder)


def test_the_public_annotation_gives_the_papers_experts(public):
    rows = {row["figure"]: row for row in public.rows()}
    assert (public.studies, public.readings, public.one_reader) == (100, 271, 0)
    off = {name: abs(rows[name]["difference"]) for name in EXPERTS}
    assert max(value for name, value in off.items() if "error" not in name) < 0.031
    assert max(value for name, value in off.items() if "vertebra," in name) < 0.01
    assert off["localization error, mm"] < 0.25
    assert off["localization error, G <= 0.74, mm"] < 0.35
    assert all(rows[name]["low"] < rows[name]["value"] < rows[name]["high"] for name in EXPERTS)


def test_the_papers_numbers_come_back_where_moderate_begins_at_three_quarters(public):
    def numbers(ratios):
        return np.histogram(-ratios, [-np.inf, -0.8, -0.75, -0.6, np.inf])[0]

    ratios, worst = public.consensus.ratio, public.consensus.groupby("patient").ratio.min()
    assert np.abs(numbers(ratios) - [*VERTEBRAE.values()]).max() < 10
    assert np.abs(numbers(worst) - [*PATIENTS.values()]).max() < 3


def test_the_public_clicks_betray_spacings_as_headers_give_them(public):
    files = sorted((SHARED / "thoracic-2020").glob("*.json"))
    found = [in_plane_mm(list(read_annotation(path).readings.values())) for path in files]
    spacings = np.array([spacing for spacing in found if spacing])
    assert len(spacings) == public.spacing_found > 95
    assert np.abs(spacings - spacings.round(3)).max() < 1e-4  # three decimals, though nothing rounded them


def test_the_auc_of_the_public_annotation_is_scikit_learns(public):
    found = public.pairs[public.pairs.found]
    value = public.figures["table 2"]["AUC by vertebra, moderate"].value
    assert value == pytest.approx(roc_auc_score(found.true_ratio <= 0.74, -found.ratio))
