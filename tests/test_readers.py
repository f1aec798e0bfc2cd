"""The contract of the readers: in any format and orientation, the same HU at the same patient mm."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import (
    PRIVATE,
    X,
    Y,
    Z,
    assert_same_hu_in_the_patient,
    axial,
    damaged,
    ramp_volume,
    write_nifti,
    write_series,
)
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from vfscreen.discover import discover
from vfscreen.errors import (
    InconsistentGeometry,
    InputError,
    MissingGeometry,
    StudyError,
    TooShort,
    UnreadableFile,
)
from vfscreen.readers import dicom, read_geometry, read_study, read_volume
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyFiles, StudyImage

SHARED = Path(__file__).parents[2] / "shared"
TILT = np.deg2rad(18.5)
AXES = {  # steps along slices, rows, columns
    "head first, supine": (Z, Y, X),
    "slices written downwards": (-Z, Y, X),
    "feet first, supine": (-Z, Y, -X),
    "prone": (Z, -Y, -X),
    "mirrored": (Z, Y, -X),
    "oblique": tuple(Rotation.from_euler("xyz", [12, -8, 20], degrees=True).apply([Z, Y, X])),
    "tilted gantry": (Z, 2.0 * np.array([0, np.cos(TILT), -np.sin(TILT)]), X),
}
AXCODES = ["RAS", "LPS", "LAS", "RPI", "SRA", "IPL", "ASR"]


def read(path: Path, **limits: float) -> StudyImage:
    (study,) = discover(path)
    return read_study(study, ReadSettings(**limits))


@pytest.mark.parametrize("name", AXES)
def test_dicom_gives_the_same_hu_in_every_orientation(tmp_path, name):
    write_series(tmp_path, ramp_volume(np.column_stack(AXES[name])))
    assert_same_hu_in_the_patient(read(tmp_path))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axcodes", AXCODES)
def test_nifti_gives_the_same_hu_in_every_orientation(tmp_path, axcodes, suffix):
    image = read(write_nifti(tmp_path / f"ct{suffix}", ramp_volume(axial()), axcodes))
    assert_same_hu_in_the_patient(image)
    assert image.header.n_slices == 24
    assert image.header.slice_spacing_mm == pytest.approx(3.0)
    assert image.header.pixel_spacing_mm == pytest.approx(2.0)


def test_slices_are_ordered_by_position_not_by_name(tmp_path):
    names = [f"{n}.dcm" for n in np.random.default_rng(1).permutation(24)]
    write_series(tmp_path, ramp_volume(axial()), names=names)
    assert_same_hu_in_the_patient(read(tmp_path))


def test_a_tilted_gantry_is_kept_as_shear(tmp_path):
    write_series(tmp_path, ramp_volume(np.column_stack(AXES["tilted gantry"])))
    affine = read(tmp_path).volume.geometry.affine
    np.testing.assert_allclose(affine[:3, 0], Z, atol=1e-4)
    assert abs(affine[:3, 0] @ affine[:3, 1]) > 1.0


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (0.5, -500), (-1, 300)])
def test_rescaling_gives_hounsfield_units(tmp_path, slope, intercept):
    write_series(tmp_path, ramp_volume(axial()), slope=slope, intercept=intercept)
    assert_same_hu_in_the_patient(read(tmp_path))


def test_each_slice_has_its_own_rescaling(tmp_path):
    volume = ramp_volume(axial())
    even = write_series(
        tmp_path / "even", volume, intercept=0, StudyInstanceUID="1.2", SeriesInstanceUID="1.3"
    )
    odd = write_series(
        tmp_path / "odd", volume, intercept=-500, StudyInstanceUID="1.2", SeriesInstanceUID="1.3"
    )
    study = StudyFiles("s", "s", (*even[::2], *odd[1::2]))
    assert_same_hu_in_the_patient(read_study(study, ReadSettings()))


def test_padding_below_air_becomes_air(tmp_path):
    volume = ramp_volume(axial())
    volume.hu[:, 0] = -2000
    write_series(tmp_path, volume)
    assert read(tmp_path).volume.hu[:, 0].max() == -1024


def test_a_file_without_preamble_is_read(tmp_path):
    for path in write_series(tmp_path, ramp_volume(axial())):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        bare = pydicom.dcmread(path)
        del bare.file_meta, bare.preamble
        bare.save_as(path, implicit_vr=True, little_endian=True, overwrite=True)
    assert path.read_bytes()[128:132] != b"DICM"
    assert_same_hu_in_the_patient(read(tmp_path))


def test_the_header_has_linking_keys_and_geometry(tmp_path):
    write_series(tmp_path, ramp_volume(axial()), SeriesInstanceUID="1.2.3")
    header = read(tmp_path).header
    assert (header.patient_id, header.study_date, header.series_uid) == ("P-17", "2020-01-31", "1.2.3")
    assert (header.n_slices, header.slice_spacing_mm, header.pixel_spacing_mm) == (24, 3.0, 2.0)


def test_no_name_or_birth_date_travels(tmp_path):
    write_series(tmp_path, ramp_volume(axial()))
    (study,) = discover(tmp_path)
    travelling = f"{study.study_id} {study.patient_id} {read_study(study, ReadSettings()).header}"
    assert not [word for word in PRIVATE if word in travelling.upper()]


def test_headers_alone_give_the_geometry_that_reading_gives(tmp_path):
    write_series(tmp_path, ramp_volume(np.column_stack(AXES["oblique"])))
    (study,) = discover(tmp_path)
    geometry, header = read_geometry(study, ReadSettings())
    image = read_study(study, ReadSettings())
    assert geometry.shape == image.volume.geometry.shape
    np.testing.assert_array_equal(geometry.affine, image.volume.geometry.affine)
    assert header == image.header


def edit(path: Path, **tags: object) -> None:
    dataset = pydicom.dcmread(path)
    for tag, value in tags.items():
        if value is None:
            del dataset[tag]
        else:
            setattr(dataset, tag, value)
    dataset.save_as(path)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DICOM_FAULTS = {
    "a missing slice": (
        lambda files: files[9].unlink(),
        InconsistentGeometry,
        "a gap of 6.00 mm between z =",
    ),
    "another slice at the same place": (
        lambda files: edit(shutil.copy(files[9], files[9].with_name("x.dcm")), SOPInstanceUID="1.2.3"),
        InconsistentGeometry,
        "two slices lie at z =",
    ),
    "a slice out of line": (
        lambda files: edit(files[9], ImagePositionPatient=[5, -29, -307.5]),
        InconsistentGeometry,
        "straight line",
    ),
    "another pixel size": (lambda files: edit(files[3], PixelSpacing=[1, 1]), InconsistentGeometry, "a gap"),
    "another orientation": (
        lambda files: edit(files[3], ImageOrientationPatient=[0, 1, 0, -1, 0, 0]),
        InconsistentGeometry,
        "a gap",
    ),
    "crooked axes": (
        lambda files: edit(files[3], ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]),
        InconsistentGeometry,
        "perpendicular",
    ),
    "no PixelSpacing": (lambda files: edit(files[3], PixelSpacing=None), MissingGeometry, "PixelSpacing"),
    "no position": (
        lambda files: edit(files[3], ImagePositionPatient=None),
        MissingGeometry,
        "ImagePositionPatient",
    ),
    "no orientation": (
        lambda files: edit(files[3], ImageOrientationPatient=None),
        MissingGeometry,
        "ImageOrientationPatient",
    ),
    "an empty orientation": (
        lambda files: edit(files[3], ImageOrientationPatient=""),
        MissingGeometry,
        "ImageOrientationPatient",
    ),
    "a zero PixelSpacing": (
        lambda files: edit(files[3], PixelSpacing=[0, 0]),
        MissingGeometry,
        "PixelSpacing",
    ),
    "no rescaling": (lambda files: edit(files[3], RescaleIntercept=None), UnreadableFile, "RescaleIntercept"),
    "truncated pixels": (lambda files: halve(files[5]), UnreadableFile, "0005.dcm"),
    "no pixels": (lambda files: edit(files[5], PixelData=None), UnreadableFile, "0005.dcm"),
    "a coloured image": (
        lambda files: edit(files[5], PhotometricInterpretation="JANE"),
        UnreadableFile,
        "0005.dcm is no greyscale",
    ),
    "a number that is none": (
        lambda files: write_over(files[3], "NumberOfFrames", b"12345678", b"Jane Doe"),
        UnreadableFile,
        r"0003.dcm is damaged \(ValueError\)$",
    ),
    "multi-frame": (lambda files: edit(files[5], NumberOfFrames=2), UnreadableFile, "multi-frame"),
    "an unknown syntax": (
        lambda files: set_syntax(files[5], "1.2.840.10008.1.2.9"),
        UnreadableFile,
        "0005.dcm",
    ),
    "a single slice": (lambda files: [file.unlink() for file in files[1:]], TooShort, "single slice"),
}


def write_over(path: Path, tag: str, text: bytes, other: bytes) -> None:
    edit(path, **{tag: text.decode()})
    path.write_bytes(path.read_bytes().replace(text, other))


def set_syntax(path: Path, uid: str) -> None:
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\x00", uid.encode() + b"\x00", 1))


@pytest.mark.parametrize("name", DICOM_FAULTS)
def test_a_fault_of_a_series_has_its_code_and_reason(tmp_path, name):
    spoil, error, reason = DICOM_FAULTS[name]
    spoil(write_series(tmp_path, ramp_volume(axial())))
    with pytest.raises(error, match=reason):
        read(tmp_path)


def test_slices_of_different_size_are_refused(tmp_path):
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    files = write_series(tmp_path, ramp_volume(axial()), **uids)
    small = write_series(tmp_path / "small", ramp_volume(axial(), (24, 8, 12)), **uids)
    shutil.move(small[3], files[3])
    shutil.rmtree(tmp_path / "small")
    with pytest.raises(InconsistentGeometry, match="a gap"):
        read(tmp_path)
    with pytest.raises(InconsistentGeometry, match="other pixels"):
        read_study(StudyFiles("s", "s", tuple(files)), ReadSettings())


@pytest.mark.filterwarnings("ignore")
def test_reading_a_damaged_file_gives_an_image_or_a_study_error(tmp_path):
    files = tuple(write_series(tmp_path, ramp_volume(axial(), (2, 4, 5))))
    for content in damaged(files[0].read_bytes(), 60, 2000):
        files[0].write_bytes(content)
        with suppress(StudyError):
            read_study(StudyFiles("s", "s", files), ReadSettings(min_extent_mm=0))


def test_what_a_decoder_cannot_read_is_named_without_its_words(tmp_path):
    files = write_series(tmp_path, ramp_volume(axial()))
    dataset = pydicom.dcmread(files[5])
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.save_as(files[5])
    with pytest.raises(UnreadableFile, match=r"0005\.dcm cannot be decoded \(\w+\)$"):
        read(tmp_path)


def test_a_short_image_says_how_much_it_covers_and_how_much_is_needed(tmp_path):
    write_series(tmp_path, ramp_volume(axial(), (13, 10, 12)))
    with pytest.raises(TooShort, match=r"39 mm .* 60 mm"):
        read(tmp_path)
    assert read(tmp_path, min_extent_mm=30.0).volume.hu.shape == (13, 10, 12)


def test_slices_too_far_apart_are_refused(tmp_path):
    write_series(tmp_path, ramp_volume(np.column_stack([7 / 3 * Z, Y, X])))
    with pytest.raises(InconsistentGeometry, match=r"7\.0 mm apart"):
        read(tmp_path)


def test_a_study_found_with_an_error_raises_it(tmp_path):
    error = UnreadableFile("as found")
    with pytest.raises(UnreadableFile, match="as found"):
        read_study(StudyFiles("s", "s", (), error=error), ReadSettings())


def test_read_volume_takes_a_file_or_a_folder_of_one_study(tmp_path):
    write_series(tmp_path / "a", ramp_volume(axial()))
    write_nifti(tmp_path / "b.nii.gz", ramp_volume(axial()))
    assert (
        read_volume(tmp_path / "a").hu.shape
        == read_volume(str(tmp_path / "b.nii.gz")).hu.shape
        == (24, 10, 12)
    )
    with pytest.raises(InputError, match="2 studies"):
        read_volume(tmp_path)


# --- real files, where the checkout has them --------------------------------------------------------


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    return SHARED / name


def as_ct_pair(source: Path, folder: Path) -> StudyFiles:
    """An MR test image as two CT slices in the syntax it has."""
    paths = []
    for k in range(2):
        dataset = pydicom.dcmread(source)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 40 * k]
        paths.append(folder / f"{k}.dcm")
        dataset.save_as(paths[-1])
    return StudyFiles("s", "s", tuple(paths))


@pytest.mark.parametrize("name", [f"{n}.dcm" for n in range(2, 10)])
def test_every_transfer_syntax_gives_the_same_hu(tmp_path, name):
    folder = shared("dicom/transfer_syntaxes")
    (tmp_path / "plain").mkdir()
    plain = dicom.read(as_ct_pair(folder / "1.dcm", tmp_path / "plain"), ReadSettings()).volume.hu
    assert plain.max() > plain.min()
    np.testing.assert_array_equal(
        dicom.read(as_ct_pair(folder / name, tmp_path), ReadSettings()).volume.hu, plain
    )


def test_twelve_bits_are_masked_and_sign_extended(tmp_path):
    folder = shared("dicom/twelve_bit")
    unsigned = dicom.read(as_ct_pair(folder / "12bitUnsigned_0x0F0F.dcm", tmp_path), ReadSettings()).volume.hu
    assert (unsigned.min(), unsigned.max()) == (0, 4095)
    signed = dicom.read(as_ct_pair(folder / "12bitSigned_0x0F0F.dcm", tmp_path), ReadSettings()).volume.hu
    assert (signed.min(), signed.max()) == (-1024, 2047)


def test_real_tilted_series_keep_their_shear():
    shared("dicom/real_archive")
    study = next(s for s in discover(SHARED / "dicom/real_archive") if s.source == "Philips/S21610/S3010")
    geometry, header = read_geometry(study, ReadSettings())
    np.testing.assert_allclose(geometry.affine[:3, 0], [0, 0, 2.5], atol=1e-3)
    assert geometry.affine[2, 1] == pytest.approx(0.40625 * 0.2840153, rel=1e-4)
    assert header.n_slices == 58


def test_a_real_series_with_gaps_is_refused():
    (study,) = discover(shared("dicom/real_archive/GE"))
    with pytest.raises(StudyError) as caught:
        read_study(study, ReadSettings())
    assert caught.value.code == "inconsistent_geometry"


def test_a_real_jpeg2000_series_is_read(tmp_path):
    (study,) = discover(shared("ct/jpeg2000_slab"))
    image = read_study(study, ReadSettings(min_extent_mm=30))
    assert image.header.slice_spacing_mm == pytest.approx(2.0)
    assert -1024 <= image.volume.hu.min() < -900
    assert np.median(image.volume.hu[:, 256, 200:300]) > -100  # the middle of the body is no air
