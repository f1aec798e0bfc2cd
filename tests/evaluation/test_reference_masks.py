"""Vertebra masks of known geometry come back as their heights in mm."""

from __future__ import annotations

from itertools import pairwise

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension
from scipy.spatial.transform import Rotation

from vfscreen.errors import InputError
from vfscreen.evaluation.reference import read_reference
from vfscreen.evaluation.reference.bodies import body_keypoints
from vfscreen.measure import genant_ratio, heights_mm
from vfscreen.simulation.findings import NOTHING
from vfscreen.simulation.spine import Deformities, draw_spine
from vfscreen.simulation.vertebra import draw_bone, vertebra_structures
from vfscreen.volume import VolumeGeometry, apply_affine, lps_from_ras

CAUDAL = np.array([0.0, 0.0, -1.0])
DEPTH, WIDTH, GAP = 30.0, 40.0, 28.0
SHAPES = {
    "box": (20.0, 20.0, 20.0),
    "wedge": (13.0, 16.5, 20.0),
    "severe wedge": (8.0, 15.0, 22.0),
    "biconcave": (22.0, 14.0, 22.0),
    "crush": (20.0, 17.0, 14.0),
    "flat": (12.0, 12.0, 12.0),
}


def half_height(u, heights):
    """Of the body at u from the front (-15) to the back (15): straight from height to height."""
    return np.interp(u, [-DEPTH / 2, 0, DEPTH / 2], heights) / 2


def vertebra(points, center, heights, arch=True):
    """Which LPS points (..., 3) lie in a vertebra: a body, pedicles, laminae and a spinous process."""
    x, y, z = np.moveaxis(points - center, -1, 0)
    body = (np.abs(y) <= DEPTH / 2) & (np.abs(x) <= WIDTH / 2) & (np.abs(z) <= half_height(y, heights))
    if not arch:
        return body
    pedicles = (np.abs(np.abs(x) - 14) < 4) & (y > 14) & (y < 30) & (np.abs(z) < 4)
    laminae = (np.abs(x) < 18) & (y > 29) & (y < 35) & (np.abs(z + 3) < 8)
    process = (np.abs(x) < 3) & (y > 34) & (y < 60) & (np.abs(z + 8) < 6)
    return body | pedicles | laminae | process


def grid(voxel_mm, rotation_deg=(0, 0, 0), reach=(90, 110, 90), origin=(0, 15, 0)):
    """Points (k, j, i, 3) round the origin and the affine of a grid turned in the patient."""
    turn = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    shape = tuple(int(r / v) for r, v in zip(reach, voxel_mm, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * voxel_mm
    affine[:3, 3] = origin - affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return apply_affine(affine, index), VolumeGeometry(shape, affine)


def save(path, labels, geometry, names=None):
    """A NIfTI file; `names` go into the header extension as TotalSegmentator writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels.astype(np.int16).T, lps_from_ras(geometry.affine[:, [2, 1, 0, 3]]))
    for number, name in (names or {}).items():
        text = f'<Label Key="{number}" Red="1"><![CDATA[{name}]]></Label>'
        image.header.extensions.append(Nifti1Extension(0, text.encode()))
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def column():
    """Three vertebrae one below the other on a grid of 1.5 mm, (n, k, j, i), and the grid."""
    points, geometry = grid((1.5, 1.5, 1.5), reach=(110, 110, 70))
    shapes = (SHAPES["box"], SHAPES["wedge"], SHAPES["biconcave"])
    masks = [vertebra(points, (0, 0, GAP * (1 - i)), heights) for i, heights in enumerate(shapes)]
    return np.array(masks), geometry


def numbered(column, numbers):
    masks, geometry = column
    return np.tensordot(numbers, masks.astype(int), 1), geometry


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rotation_deg", [(20, -15, 30), (-10, 25, 5), (5, 12, -40)])
def test_oblique_grids_give_heights_to_half_a_voxel_and_g_to_three_hundredths(name, rotation_deg):
    points, geometry = grid((1.0, 1.0, 1.0), rotation_deg)
    true = np.array(SHAPES[name])
    keypoints = body_keypoints(vertebra(points, 0, true), geometry, CAUDAL)
    assert heights_mm(keypoints) == pytest.approx(true, abs=0.6)
    assert float(genant_ratio(heights_mm(keypoints))) == pytest.approx(float(genant_ratio(true)), abs=0.03)
    assert np.linalg.norm(keypoints.mean(0)) < 0.3


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (2.0, 0.7, 0.7), (0.8, 2.0, 0.8)])
def test_where_voxels_cut_endplates_all_alike_heights_are_true_to_a_voxel(name, voxel_mm):
    points, geometry = grid(voxel_mm, origin=(0.3, 15.2, 0.4))
    keypoints = body_keypoints(vertebra(points, 0, SHAPES[name]), geometry, CAUDAL)
    assert heights_mm(keypoints) == pytest.approx(SHAPES[name], abs=1.1 * max(voxel_mm))


def test_a_body_without_its_arch_has_the_same_heights():
    points, geometry = grid((1.0, 1.0, 1.0))
    heights = SHAPES["wedge"]
    found = [heights_mm(body_keypoints(vertebra(points, 0, heights, a), geometry, CAUDAL)) for a in (0, 1)]
    assert found[0] == pytest.approx(found[1], abs=0.3)


def test_a_vertebra_that_leans_has_its_own_heights():
    points, geometry = grid((1.0, 1.0, 1.0))
    lean = Rotation.from_euler("x", 25, degrees=True)
    mask = vertebra(lean.inv().apply(points.reshape(-1, 3)).reshape(points.shape), 0, SHAPES["wedge"])
    keypoints = body_keypoints(mask, geometry, lean.apply(CAUDAL))
    assert heights_mm(keypoints) == pytest.approx(SHAPES["wedge"], abs=0.8)


def test_an_arch_alone_is_no_body():
    points, geometry = grid((1.0, 1.0, 1.0))
    mask = vertebra(points, 0, SHAPES["box"]) & (points[..., 1] > 50) & (points[..., 2] > -6)
    assert body_keypoints(mask, geometry, CAUDAL) is None


def test_simulated_bodies_come_back_with_the_heights_of_their_keypoints():
    rng = np.random.default_rng(2)
    spine = draw_spine(rng, Deformities(), NOTHING, cobb_deg=5.0)
    bone = draw_bone(rng)
    bodies = [body for body in spine.bodies if body.level in ("T4", "T6", "T8", "T10", "T12", "L2")]
    centers = {upper.level: lower.center_mm - upper.center_mm for upper, lower in pairwise(spine.bodies)}
    found = []
    for body in bodies:
        points, geometry = grid((1.0, 0.8, 0.8), origin=body.center_mm + np.array([0, 20, 0]))
        x, y, z = points[:1, :1, :, 0], points[:1, :, :1, 1], points[:, :1, :1, 2]
        (_, *arch, canal), (front, *_) = vertebra_structures(rng, body, bone, (4.0, 4.0))
        behind = np.any([part.depth(x, y, z) > 0 for part in arch], axis=0) & (canal.depth(x, y, z) <= 0)
        found.append(body_keypoints(behind | (front.depth(x, y, z) > 0), geometry, centers[body.level]))
    true = heights_mm(np.array([body.keypoints_mm() for body in bodies]))
    errors = heights_mm(np.array(found)) - true
    assert np.abs(errors).mean() < 0.6
    assert np.abs(genant_ratio(true + errors) - genant_ratio(true)).mean() < 0.03


@pytest.mark.parametrize(
    ("numbers", "levels"),
    [
        ([15, 16, 17], ("T8", "T9", "T10")),
        ([19, 28, 20], ("T12", "T13", "L1")),
        ([33, 32, 31], ("T11", "T12", "L1")),
    ],
)
def test_numbers_of_verse_and_totalsegmentator_are_levels(column, tmp_path, numbers, levels):
    save(tmp_path / "a.nii.gz", *numbered(column, numbers))
    (study,) = read_reference(tmp_path).studies
    assert (study.source, study.levels) == ("a", levels)
    assert study.heights_mm == pytest.approx(
        np.array([*map(SHAPES.get, ("box", "wedge", "biconcave"))]), abs=1.5
    )
    assert study.centers_mm[:, 2] == pytest.approx([GAP, 0, -GAP], abs=0.8)
    assert study.slice_mm == pytest.approx(1.5)


def test_names_in_the_header_go_before_numbers(column, tmp_path):
    names = {1: "vertebrae_T4", 2: "vertebrae_T5", 3: "vertebrae_T6", 4: "liver"}
    save(tmp_path / "a.nii.gz", *numbered(column, [1, 2, 3]), names)
    assert read_reference(tmp_path).studies[0].levels == ("T4", "T5", "T6")


def test_a_file_a_vertebra_belongs_to_the_study_of_its_folder(column, tmp_path):
    masks, geometry = column
    for level, mask in zip(("T11", "T12", "L1"), masks, strict=True):
        save(tmp_path / f"s01/segmentations/vertebrae_{level}.nii.gz", mask, geometry)
    save(tmp_path / "s01/segmentations/vertebrae_L2.nii.gz", 0 * mask, geometry)
    save(tmp_path / "s01/segmentations/liver.nii.gz", mask, geometry)
    save(tmp_path / "s01/ct.nii.gz", mask * 50 - 1000, geometry)
    (study,) = read_reference(tmp_path).studies
    assert (study.source, study.levels) == ("s01", ("T11", "T12", "L1"))


def test_images_beside_the_masks_of_verse_are_left_alone(column, tmp_path):
    labels, geometry = numbered(column, [15, 16, 17])
    save(tmp_path / "derivatives/sub-1/sub-1_seg-vert_msk.nii.gz", labels, geometry)
    save(tmp_path / "rawdata/sub-1/sub-1_ct.nii.gz", labels - 1000, geometry)
    (tmp_path / "sub-1_ctd.json").write_text("[]")
    assert [study.source for study in read_reference(tmp_path).studies] == ["derivatives/sub-1/sub-1"]


def test_what_the_image_cuts_and_the_upper_neck_are_there_but_do_not_count(column, tmp_path):
    labels, geometry = numbered(column, [6, 7, 8])
    rows = slice(int(np.argwhere(labels == 8)[:, 0].min()) + 6, None)
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_patient(np.array([rows.start, 0, 0]))
    save(tmp_path / "a.nii", labels[rows], VolumeGeometry(labels[rows].shape, affine))
    (study,) = read_reference(tmp_path).studies
    assert study.levels == ("C7",)
    assert study.others_mm[:, 2] == pytest.approx([GAP, -GAP], abs=6)
    assert np.abs(study.others_mm[:, :2]).max() < 5


def test_an_image_is_no_label_map(column, tmp_path):
    labels, geometry = numbered(column, [15, 16, 17])
    save(tmp_path / "a.nii", labels - 1000, geometry)
    with pytest.raises(InputError, match=r"a\.nii is no label map: its values run from -1000 to -983"):
        read_reference(tmp_path)


def test_one_label_for_all_vertebrae_is_an_error(column, tmp_path):
    labels, geometry = numbered(column, [15, 16, 17])
    for value in (1, 20, 255):
        save(tmp_path / "a.nii", (labels > 0) * labels.dtype.type(value), geometry)
        with pytest.raises(InputError, match=rf"a\.nii has one label only, {value}"):
            read_reference(tmp_path)


def test_a_mask_without_vertebrae_is_an_error(column, tmp_path):
    save(tmp_path / "a.nii", *numbered(column, [101, 102, 103]))
    with pytest.raises(InputError, match=r"a\.nii holds no label of a vertebra"):
        read_reference(tmp_path)


def test_labels_in_a_wrong_order_are_an_error(column, tmp_path):
    save(tmp_path / "a.nii", *numbered(column, [17, 15, 16]))
    with pytest.raises(InputError, match="do not follow one another"):
        read_reference(tmp_path)


def test_a_damaged_mask_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.nii"):
        read_reference(tmp_path)


def test_two_masks_of_a_study_are_an_error(column, tmp_path):
    labels, geometry = numbered(column, [15, 16, 17])
    for name in ("a_seg.nii", "a_mask.nii"):
        save(tmp_path / name, labels, geometry)
    with pytest.raises(InputError, match="more than one truth of the same source: a"):
        read_reference(tmp_path)
