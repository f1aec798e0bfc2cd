"""NIfTI: where the image lies, how its values are stored, and files that are none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from faults.registry import Failed, Measured, fault
from faults.sound import moved, piece, short, sound, turned
from vfscreen.volume import Volume, lps_from_ras

Nifti = nibabel.Nifti1Image
EXACT = Measured()


def image(volume: Volume, values: np.ndarray | None = None, kind: type[Nifti] = Nifti) -> Nifti:
    """The volume in RAS mm, axes i, j, k, with a name where the header has room for a text."""
    affine = lps_from_ras(volume.geometry.affine[:, [2, 1, 0, 3]])
    made = kind((volume.hu if values is None else values).T, affine)
    made.header.set_xyzt_units("mm")
    made.set_sform(affine, 1)
    made.header["descrip"] = b"DOE^JANE 19500101"
    made.header["intent_name"] = b"DOE JANE"
    return made


def write(folder: Path, made: Nifti, name: str = "ct.nii") -> Path:
    nibabel.save(made, folder / name)
    return folder / name


def patched(path: Path, **fields: object) -> Path:
    """The file with fields of its header replaced, unchecked."""
    content = path.read_bytes()
    header = nibabel.Nifti1Header(content[:348], check=False)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


def _sound(name: str, row: Measured = EXACT) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    return fault(f"NIfTI {name}", row)


def _broken(
    name: str, error: str | tuple[str, ...], reason: str = ""
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    return fault(f"NIfTI {name}", Failed(error, reason))


# --- values --------------------------------------------------------------------------------------


@_sound("packed")
def packed(folder: Path) -> None:
    write(folder, image(sound()), "ct.nii.gz")


@_sound("with an upper case suffix")
def upper_case(folder: Path) -> None:
    write(folder, image(sound())).rename(folder / "CT.NII")


@_sound("in float32 with NaN outside the field of view", Measured(0.01, 0.5, 0.5))
def with_nan(folder: Path) -> None:
    values = sound().hu.astype(np.float32)
    values[:, :4, :4] = np.nan
    values[:, -2:, -4:] = np.inf
    write(folder, image(sound(), values))


@_sound("in uint16 with slope and intercept")
def scaled(folder: Path) -> None:
    made = image(sound(), ((sound().hu.astype(np.int32) + 1024) * 2).astype(np.uint16))
    path = write(folder, made)
    patched(path, scl_slope=0.5, scl_inter=-1024)


@_sound("in float64")
def doubles(folder: Path) -> None:
    write(folder, image(sound(), sound().hu.astype(np.float64)))


@_sound("with a slope of 0, which means none")
def no_slope(folder: Path) -> None:
    patched(write(folder, image(sound())), scl_slope=0, scl_inter=-5000)


@_sound("in big endian")
def big_endian(folder: Path) -> None:
    made = image(sound())
    header = made.header.as_byteswapped(">")
    write(folder, Nifti(sound().hu.T, made.affine, header))


@_sound("of version 2")
def version_two(folder: Path) -> None:
    write(folder, image(sound(), kind=nibabel.Nifti2Image))


@_sound("with trailing axes of one")
def trailing_axes(folder: Path) -> None:
    write(folder, image(sound(), sound().hu[None, None]))


@_sound("with an extension in its header")
def extension(folder: Path) -> None:
    made = image(sound())
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE 19500101"))
    write(folder, made)


# --- places --------------------------------------------------------------------------------------


@_sound("with nothing but a qform")
def qform_alone(folder: Path) -> None:
    made = image(sound())
    made.set_qform(made.affine, 1)
    made.set_sform(None, 0)
    write(folder, made)


@_sound("with nothing but an sform")
def sform_alone(folder: Path) -> None:
    made = image(sound())
    made.set_qform(None, 0)
    made.set_sform(made.affine, 1)
    write(folder, made)


@_sound("with axes in another order")
def other_axes(folder: Path) -> None:
    write(folder, image(turned(sound(), "iKJ")))


@_sound("mirrored")
def mirrored(folder: Path) -> None:
    write(folder, image(turned(sound(), "kjI")))


def _in_unit(folder: Path, unit: str, factor: float) -> None:
    volume = sound()
    affine = lps_from_ras(volume.geometry.affine[:, [2, 1, 0, 3]])
    affine[:3] *= factor
    made = Nifti(volume.hu.T, affine)
    made.header.set_xyzt_units(unit)
    made.set_sform(affine, 1)
    write(folder, made)


@_sound("in metres")
def metres(folder: Path) -> None:
    _in_unit(folder, "meter", 0.001)


@_sound("in micrometres")
def micrometres(folder: Path) -> None:
    _in_unit(folder, "micron", 1000.0)


@_sound("with qform and sform half a millimetre apart", Measured(place_mm=0.6))
def forms_near(folder: Path) -> None:
    made = image(sound())
    near = made.affine.copy()
    near[0, 3] += 0.5
    made.set_qform(near, 1)
    write(folder, made)


@_broken("with qform and sform 5 mm apart", "inconsistent_geometry", "apart")
def forms_apart(folder: Path) -> None:
    made = image(short())
    far = made.affine.copy()
    far[2, 3] += 5
    made.set_qform(far, 1)
    write(folder, made)


@_broken("with a qform turned by half a degree", "inconsistent_geometry", "apart")
def forms_turned(folder: Path) -> None:
    made = image(short())
    angle = np.radians(1.5)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    middle = made.affine @ [30, 34, 17, 1]
    turn[:3, 3] = middle[:3] - turn[:3, :3] @ middle[:3]
    made.set_qform(turn @ made.affine, 1)
    write(folder, made)


@_broken("with other voxels by pixdim than by sform", "inconsistent_geometry", "pixdim")
def pixdim(folder: Path) -> None:
    made = image(short())
    made.set_qform(None, 0)
    patched(write(folder, made), pixdim=[1, 1.4, 1.4, 1.0, 1, 1, 1, 1])


@_broken("without sform and qform", "missing_geometry", "neither")
def no_form(folder: Path) -> None:
    patched(write(folder, image(short())), sform_code=0, qform_code=0)


@_broken("flat: a singular affine", "missing_geometry", "plane")
def singular(folder: Path) -> None:
    patched(write(folder, image(short())), srow_z=[0, 0, 0, 0], qform_code=0)


@_broken("in an unknown unit", "unreadable_file", "unit")
def unknown_unit(folder: Path) -> None:
    patched(write(folder, image(short())), xyzt_units=5)


@_broken("with slices 7 mm apart", "inconsistent_geometry", "7.0 mm apart")
def thick(folder: Path) -> None:
    volume = short()
    affine = volume.geometry.affine.copy()
    affine[:3, 0] *= 3.5
    write(folder, image(Volume(volume.hu, type(volume.geometry)(volume.hu.shape, affine))))


# --- files ---------------------------------------------------------------------------------------


@_broken("of two volumes", "unreadable_file", "one volume")
def four_axes(folder: Path) -> None:
    write(folder, image(short(), np.stack([short().hu, short().hu])))


@_broken("of one slice of two axes", "unreadable_file", "three axes")
def two_axes(folder: Path) -> None:
    write(folder, image(short(), short().hu[9]))


@_broken("in colour", "unreadable_file", "one number a voxel")
def colour(folder: Path) -> None:
    values = np.zeros(short().hu.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    made = Nifti(values.T, image(short()).affine)
    write(folder, made)


@_broken("of complex numbers", "unreadable_file", "one number a voxel")
def complex_numbers(folder: Path) -> None:
    write(folder, image(short(), short().hu.astype(np.complex64)))


@_broken("cut, not packed", "unreadable_file", "bytes")
def cut(folder: Path) -> None:
    path = write(folder, image(short()))
    path.write_bytes(path.read_bytes()[:-1000])


@_broken("cut, packed", "unreadable_file")
def cut_packed(folder: Path) -> None:
    path = write(folder, image(short()), "ct.nii.gz")
    path.write_bytes(path.read_bytes()[:-1000])


@_broken("cut in its header", "unreadable_file", "header")
def cut_header(folder: Path) -> None:
    path = write(folder, image(short()))
    path.write_bytes(path.read_bytes()[:200])


@_broken("packed with a wrong checksum", "unreadable_file")
def wrong_checksum(folder: Path) -> None:
    content = gzip.compress(write(folder, image(short())).read_bytes(), 1)
    (folder / "ct.nii").unlink()
    (folder / "ct.nii.gz").write_bytes(content[:-8] + b"\1\2\3\4" + content[-4:])


@_broken("promising more than it holds", "unreadable_file", "promises")
def promising(folder: Path) -> None:
    patched(write(folder, image(short())), dim=[3, 60, 68, 30000, 1, 1, 1, 1])


@_broken("promising more than any memory, packed", ("too_large", "unreadable_file"))
def promising_packed(folder: Path) -> None:
    content = patched(write(folder, image(short())), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]).read_bytes()
    (folder / "ct.nii").unlink()
    (folder / "ct.nii.gz").write_bytes(gzip.compress(content, 1))


@_broken("promising less than it holds", "unreadable_file", "goes on")
def promising_less(folder: Path) -> None:
    volume = piece(slice(0, 147), slice(0, 129), slice(0, 143))
    patched(write(folder, image(volume)), dim=[3, 143, 129, 40, 1, 1, 1, 1])


@_broken("with a shape below zero", "unreadable_file", "shape")
def negative_shape(folder: Path) -> None:
    patched(write(folder, image(short())), dim=[3, 60, -68, 35, 1, 1, 1, 1])


@_broken("named gz, not packed", "unreadable_file")
def not_packed(folder: Path) -> None:
    write(folder, image(short())).rename(folder / "ct.nii.gz")


@_broken("that is a text", "unreadable_file", "no NIfTI")
def text(folder: Path) -> None:
    (folder / "ct.nii").write_text("DOE^JANE 19500101 " * 50)


@_broken("of no bytes", "unreadable_file", "empty")
def no_bytes(folder: Path) -> None:
    (folder / "ct.nii").touch()


@_broken("of no bytes, packed", "unreadable_file")
def no_bytes_packed(folder: Path) -> None:
    (folder / "ct.nii.gz").write_bytes(gzip.compress(b""))


@_broken("of unknown values", "unreadable_file")
def unknown_values(folder: Path) -> None:
    patched(write(folder, image(short())), datatype=77)


@_broken("too short", "too_short", "60 mm are needed")
def too_short(folder: Path) -> None:
    write(folder, image(piece(slice(20, 40), slice(54, 122), slice(41, 101))))


@_broken("of one value", "implausible_values")
def one_value(folder: Path) -> None:
    write(folder, image(moved(short(), np.zeros(short().hu.shape))))


@_broken("with 1024 never taken off", "implausible_values", "offset")
def offset_lost(folder: Path) -> None:
    write(folder, image(short(), (short().hu.astype(np.int32) + 1024).astype(np.uint16)))


@_broken("of values between 0 and 1", ("implausible_values", "spine_not_found"))
def normalised(folder: Path) -> None:
    write(folder, image(short(), ((short().hu + 1024) / 4096).astype(np.float32)))


@_broken("of NaN alone", "implausible_values")
def all_nan(folder: Path) -> None:
    write(folder, image(short(), np.full(short().hu.shape, np.nan, np.float32)))
