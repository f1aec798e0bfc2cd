"""NIfTI files as tools write them, and as damage leaves them: an image in the patient, or a reason."""

from __future__ import annotations

import gzip
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_writing import PRIVATE, X, Y, Z, assert_same_hu_in_the_patient, axial, nifti_image, ramp_volume

from vfscreen.errors import InconsistentGeometry, MissingGeometry, StudyError, TooLarge, UnreadableFile
from vfscreen.readers import nifti, read_study
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles, StudyImage

KINDS = [nibabel.Nifti1Image, nibabel.Nifti2Image]
TILT = np.deg2rad(18.5)


def read(path: Path) -> StudyImage:
    return nifti.read(StudyFiles("s", "s", (path,)), ReadSettings())


def content(image: nibabel.Nifti1Image | None = None, **fields: object) -> bytes:
    """A NIfTI file, of an axial phantom if not of another image, with some fields of its header replaced."""
    image = image or nifti_image(ramp_volume(axial()))
    written = image.to_bytes()
    size = image.header.sizeof_hdr
    header = type(image.header)(written[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + written[size:]


def write(path: Path, written: bytes) -> Path:
    path.write_bytes(gzip.compress(written) if path.suffix == ".gz" else written)
    return path


FAULTS = {
    "two volumes": ({"dim": [4, 12, 10, 12, 2, 1, 1, 1]}, UnreadableFile, "shape .*12, 10, 12, 2"),
    "one slice": ({"dim": [2, 12, 10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "no axis": ({"dim": [0, 12, 10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "nine axes": ({"dim": [9, 12, 10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "20000 axes": ({"dim": [20000, 12, 10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "minus three axes": ({"dim": [-3, 12, 10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "a negative size": ({"dim": [3, 12, -10, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "an empty axis": ({"dim": [3, 12, 0, 24, 1, 1, 1, 1]}, UnreadableFile, "shape"),
    "too many pixels": (
        {"dim": [3, 20000, 20000, 20000, 1, 1, 1, 1]},
        UnreadableFile,
        "promises 16000000000000",
    ),
    "colours": ({"datatype": 128}, UnreadableFile, "not one number"),
    "complex numbers": ({"datatype": 32}, UnreadableFile, "not one number"),
    "an unknown type": ({"datatype": 77}, UnreadableFile, "unknown datatype: 77"),
    "pixels within the header": ({"vox_offset": 0}, UnreadableFile, "vox_offset"),
    "a negative offset": ({"vox_offset": -352}, UnreadableFile, "vox_offset"),
    "half a byte": ({"vox_offset": 352.5}, UnreadableFile, "vox_offset"),
    "no offset": ({"vox_offset": np.nan}, UnreadableFile, "vox_offset"),
    "an offset far away": ({"vox_offset": 1e12}, UnreadableFile, "vox_offset"),
    "an offset behind the file": ({"vox_offset": 2**27}, UnreadableFile, "promises"),
    "a slope that is none": ({"scl_slope": np.nan}, UnreadableFile, "has no valid scl_slope"),
    "an infinite slope": ({"scl_slope": np.inf}, UnreadableFile, "has no valid scl_slope"),
    "an intercept that is none": ({"scl_inter": np.nan}, UnreadableFile, "has no valid scl_inter"),
    "a flat sform": ({"srow_z": 0}, MissingGeometry, "onto a plane"),
    "an sform that is none": ({"srow_z": np.nan}, MissingGeometry, "to nowhere"),
    "an sform from nowhere": ({"srow_z": [0, 0, 3, np.inf]}, MissingGeometry, "to nowhere"),
    "no orientation": ({"sform_code": 0}, MissingGeometry, "neither sform nor qform"),
    "a qform that is none": (
        {"sform_code": 0, "qform_code": 1, "quatern_b": np.nan},
        MissingGeometry,
        "nowhere",
    ),
    "a quaternion too long": ({"qform_code": 1, "quatern_b": 7}, UnreadableFile, "cannot be read as NIfTI"),
    "a negative voxel": ({"qform_code": 1, "pixdim": [1, -2, 2, 3, 1, 1, 1, 1]}, UnreadableFile, "NIfTI"),
    "an unknown unit": ({"xyzt_units": 7}, UnreadableFile, "unit of length: 7"),
    "metres that are millimetres": ({"xyzt_units": 1}, InconsistentGeometry, r"7.2e\+04 mm long"),
    "a pair's header": ({"magic": b"ni1"}, UnreadableFile, r"\.hdr with \.img"),
    "no magic": ({"magic": b"DOE"}, UnreadableFile, "its own pixels"),
    "another size of the header": ({"sizeof_hdr": 349}, UnreadableFile, "is no NIfTI file"),
    "pixdim of another image": (
        {"pixdim": [1, 1, 1, 1, 1, 1, 1, 1]},
        InconsistentGeometry,
        "1 x 1 x 1 by pixdim",
    ),
    "a pixdim that is none": ({"pixdim": [1, 2, 2, np.nan, 1, 1, 1, 1]}, InconsistentGeometry, "pixdim"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_header_has_its_code_and_reason(tmp_path, fault, suffix):
    fields, error, reason = FAULTS[fault]
    if fault == "an offset behind the file" and suffix == ".nii.gz":
        reason = "promises|ends within its pixels"
    path = write(tmp_path / f"ct{suffix}", content(**fields))
    with pytest.raises(error, match=reason) as caught:
        read(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 0.001, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_unreadable(tmp_path, suffix, kept):
    path = write(tmp_path / f"ct{suffix}", content())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UnreadableFile, match=path.name):
        read(path)


def test_a_byte_changed_in_a_packed_file_is_noticed(tmp_path):
    raw = bytearray(gzip.compress(content(), 0))  # stored blocks: only the checksum can tell
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "ct.nii.gz").write_bytes(raw)
    with pytest.raises(UnreadableFile, match=r"ct\.nii\.gz"):
        read(tmp_path / "ct.nii.gz")


# --- sizes ---------------------------------------------------------------------------------------


def test_more_voxels_than_there_is_memory_for_are_too_large(tmp_path, monkeypatch):
    path = write(tmp_path / "ct.nii.gz", content())
    monkeypatch.setattr(nifti, "LARGEST_VOXELS", 12 * 10 * 24 - 1)
    monkeypatch.setattr(nifti, "_hounsfield", lambda *_: pytest.fail("pixels were read"))
    with pytest.raises(TooLarge, match="2880 voxels"):
        read(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_of_more_pixels_than_its_header_promises_has_another_shape(tmp_path, suffix):
    path = write(tmp_path / f"ct{suffix}", content() + bytes(2 * nifti.LONGEST_REST))
    with pytest.raises(UnreadableFile, match="goes on behind the pixels"):
        read(path)


def test_some_bytes_behind_the_pixels_do_no_harm(tmp_path):
    assert_same_hu_in_the_patient(read(write(tmp_path / "ct.nii.gz", content() + bytes(512))))


def test_no_more_is_unpacked_than_is_promised(tmp_path, monkeypatch):
    unpacked = []

    class Watched(gzip.GzipFile):
        def close(self) -> None:
            if not self.closed:
                unpacked.append(self.tell())
            super().close()

    path = write(tmp_path / "ct.nii.gz", content() + bytes(2**26))
    monkeypatch.setattr(nifti, "_stream", Watched)
    with pytest.raises(UnreadableFile):
        read(path)
    assert max(unpacked) <= len(content()) + nifti.LONGEST_REST + 1


# --- geometry ------------------------------------------------------------------------------------


def two_forms(sform: np.ndarray, qform: np.ndarray) -> bytes:
    """A file with both; nibabel leaves the shears of the qform out, as the standard's own code does."""
    image = nifti_image(ramp_volume(axial()))
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    return content(image)


def moved(affine: np.ndarray, mm: float) -> np.ndarray:
    affine = affine.copy()
    affine[0, 3] += mm
    return affine


def test_sform_and_qform_that_agree_are_read(tmp_path):
    affine = nifti_image(ramp_volume(axial())).affine
    path = write(tmp_path / "ct.nii", two_forms(affine, moved(affine, 0.9)))
    assert_same_hu_in_the_patient(read(path))


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_sform_and_qform_that_contradict_are_refused(tmp_path, packed):
    affine = nifti_image(ramp_volume(axial())).affine
    path = write(tmp_path / f"ct.nii{packed}", two_forms(affine, moved(affine, 1.2)))
    with pytest.raises(InconsistentGeometry, match=r"sform and qform of ct\.nii.* up to 1\.2 mm apart"):
        read(path)


def test_forms_that_agree_at_one_end_of_the_image_only_are_refused(tmp_path):
    affine = nifti_image(ramp_volume(axial())).affine
    path = write(tmp_path / "ct.nii", two_forms(affine, affine @ np.diag([1, 1, 1.02, 1])))
    with pytest.raises(InconsistentGeometry, match=r"up to 1\.4 mm apart"):  # 23 slices of 3 mm, 2 %
        read(path)


def tilted() -> np.ndarray:
    return np.column_stack([Z, 2.0 * np.array([0, np.cos(TILT), -np.sin(TILT)]), X])


def test_a_sheared_sform_is_read_also_beside_a_qform_that_cannot_hold_the_shear(tmp_path):
    image = nifti_image(ramp_volume(tilted()))
    image.set_qform(image.affine, 1)
    assert not np.allclose(image.get_qform(), image.affine, atol=0.3)
    assert_same_hu_in_the_patient(read(write(tmp_path / "ct.nii", content(image))))


def test_the_sheared_file_that_dcm2niix_writes_of_a_tilted_gantry_is_refused(tmp_path):
    """Its slices are 3 mm apart along z, of which both forms make 2.845: heights would be 5 % too low."""
    sform = np.diag([-2.0, 2 * np.cos(TILT), 3 * np.cos(TILT), 1])
    sform[2, 1] = 2 * np.sin(TILT)
    qform = sform.copy()
    qform[:3, 2] = 3 * np.cos(TILT) * np.array([0, -np.sin(TILT), np.cos(TILT)])
    with pytest.raises(InconsistentGeometry, match="sform and qform"):
        read(write(tmp_path / "ct.nii", two_forms(sform, qform)))


def test_the_qform_is_used_where_there_is_no_sform(tmp_path):
    image = nifti_image(ramp_volume(axial()), "LPS")
    image.set_qform(image.affine, 1)
    path = write(tmp_path / "ct.nii", content(image, sform_code=0, srow_x=0))
    assert_same_hu_in_the_patient(read(path))


def test_a_qform_of_which_the_handedness_is_not_set_is_a_right_handed_one(tmp_path):
    image = nifti_image(ramp_volume(axial()))
    image.set_qform(image.affine, 1)
    assert image.header["pixdim"][0] == 1
    assert_same_hu_in_the_patient(
        read(write(tmp_path / "ct.nii", content(image, pixdim=[0, 2, 2, 3, 1, 1, 1, 1])))
    )


def test_pixdim_may_be_rounded_where_it_is_not_used(tmp_path):
    path = write(tmp_path / "ct.nii", content(pixdim=[1, 1.99, 2.01, 3.02, 1, 1, 1, 1]))
    assert_same_hu_in_the_patient(read(path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "axes", [[Z, Y, X], [Z, 2 * Y, X], [Z + 0.3 * Y, Y, X]], ids=["even", "long", "sheared"]
)
def test_what_nibabel_writes_by_itself_is_read(tmp_path, kind, axes):
    image = nifti_image(ramp_volume(np.column_stack(axes)))
    plain = kind(np.asarray(image.dataobj), image.affine)
    again = kind(
        np.asarray(image.dataobj), image.affine, nibabel.Nifti1Image(image.dataobj, np.eye(4)).header
    )
    for written in (plain, again, nibabel.as_closest_canonical(plain)):
        assert_same_hu_in_the_patient(read(write(tmp_path / "ct.nii.gz", content(written))))


@pytest.mark.parametrize(
    ("unit", "mm"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)]
)
@pytest.mark.parametrize("time", [0, 8, 16, 24, 56])
def test_units_of_length_become_millimetres_and_those_of_time_do_not_matter(tmp_path, unit, mm, time):
    image = nifti_image(ramp_volume(axial()))
    scaled = nibabel.Nifti1Image(image.dataobj, np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ image.affine)
    scaled.header.set_xyzt_units(unit)
    units = int(scaled.header["xyzt_units"]) + time
    assert_same_hu_in_the_patient(read(write(tmp_path / "ct.nii", content(scaled, xyzt_units=units))))


# --- values --------------------------------------------------------------------------------------


def test_scaling_a_last_axis_of_one_and_values_that_are_no_number(tmp_path):
    image = nifti_image(ramp_volume(axial()))
    data = np.asarray(image.dataobj).astype(np.float32)[..., None]
    data[0, 0, 0] = np.nan
    data[1, 0, 0] = np.inf
    data[2, 0, 0] = 1e9
    scaled = nibabel.Nifti1Image((data - 100) / 2, image.affine)
    scaled.header.set_slope_inter(2, 100)
    result = read(write(tmp_path / "ct.nii.gz", content(scaled)))
    assert_same_hu_in_the_patient(result)
    assert result.volume.hu.min() >= -1024
    assert (result.volume.hu[0, 0, :3] == [-1024, -1024, 32767]).all()


@pytest.mark.parametrize(("slope", "hu"), [(1e38, 32767), (-1e38, -1024)])
def test_a_slope_beyond_all_numbers_gives_the_ends_of_the_range(tmp_path, slope, hu):
    image = nifti_image(ramp_volume(axial()))
    ones = nibabel.Nifti1Image(np.full(image.shape, 30000, np.int16), image.affine)
    path = write(tmp_path / "ct.nii", content(ones, scl_slope=slope))
    assert (read(path).volume.hu == hu).all()


def test_a_slope_of_zero_means_none(tmp_path):
    path = write(tmp_path / "ct.nii", content(scl_slope=0, scl_inter=np.nan))
    assert_same_hu_in_the_patient(read(path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_each_type_and_byte_order_gives_the_same_hu(tmp_path, kind, dtype, order):
    image = nifti_image(ramp_volume(axial()))
    header = kind.header_class(endianness=order)
    header.set_data_dtype(order + dtype)
    data = np.asarray(image.dataobj).astype(order + dtype)
    assert_same_hu_in_the_patient(
        read(write(tmp_path / "ct.nii.gz", content(kind(data, image.affine, header))))
    )


# --- text ----------------------------------------------------------------------------------------


def planted(kind: type = nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """An image with a name wherever its header has room for text."""
    image = nifti_image(ramp_volume(axial()))
    image = kind(np.asarray(image.dataobj), image.affine)
    texts = {
        "descrip": b"DOE JANE 19500101",
        "aux_file": b"Doe^Jane",
        "intent_name": b"JANE DOE",
        "db_name": b"DOE",
    }
    for field, text in texts.items():
        if field in image.header.template_dtype.names:  # NIfTI-2 has no db_name
            image.header[field] = text
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE JANE 1950-01-01"))
    return image


def assert_nothing_private(*said: object) -> None:
    text = " ".join(f"{word!r} {word}" for word in said).upper().replace("DOES", "")
    assert [word for word in PRIVATE if word in text] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 7, 2**31 - 1, -1])
def test_extensions_are_skipped_whatever_is_in_them(tmp_path, kind, size, capfd):
    written = bytearray(content(planted(kind)))
    start = kind.header_class.sizeof_hdr + 4
    written[start : start + 4] = np.array(size, "<i4").tobytes()
    image = read(write(tmp_path / "ct.nii.gz", bytes(written)))
    assert_same_hu_in_the_patient(image)
    assert_nothing_private(image.header, *capfd.readouterr())


EXTREMES = [0, 1, -1, 7, 2**15 - 1, -(2**15), 1e30, -1e30, np.nan, np.inf, 1e-30]


def mutated(written: bytes, header: type, rng: np.random.Generator) -> bytes:
    """Some bytes of the header and its extension replaced, or one of its numbers by an extreme one."""
    if rng.random() < 0.5:
        places = rng.integers(0, header.sizeof_hdr + 40, rng.integers(1, 6))
        changed = bytearray(written)
        for place in places:
            changed[place] = rng.integers(256)
        return bytes(changed)
    fields = header(written[: header.sizeof_hdr], check=False)
    names = [name for name in fields.template_dtype.names if fields[name].dtype.kind in "iuf"]
    values = fields[rng.choice(names)].reshape(-1)
    with np.errstate(all="ignore"):
        values[rng.integers(len(values))] = np.array(rng.choice(EXTREMES)).astype(values.dtype)
    return fields.binaryblock + written[header.sizeof_hdr :]


def test_a_mutated_header_gives_an_image_or_a_study_error_and_shows_no_text(tmp_path, capfd):
    rng = np.random.default_rng(11)
    written = {kind.header_class: content(planted(kind)) for kind in KINDS}
    outcomes: Counter[str] = Counter()
    for number in range(300):
        header = nibabel.Nifti2Header if number % 3 == 0 else nibabel.Nifti1Header
        path = write(
            tmp_path / ("ct.nii.gz" if number % 2 else "ct.nii"), mutated(written[header], header, rng)
        )
        study = StudyFiles("s", "s", (path,))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = read_study(study, ReadSettings(min_extent_mm=0))
            except StudyError as error:
                outcomes[error.code] += 1
                assert_nothing_private(error)
            else:
                outcomes["read"] += 1
                assert np.isfinite(image.volume.geometry.affine).all()
                assert_nothing_private(image.header)
    assert {"read", "unreadable_file", "missing_geometry", "inconsistent_geometry"} <= set(outcomes)
    assert_nothing_private(*capfd.readouterr())
