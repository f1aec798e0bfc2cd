"""Sound studies of a few small slices, and mutants of them: one to three files damaged or contradicting."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom import Dataset, config, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

ROWS, COLUMNS, PIXEL_MM = 48, 40, 2.5
THICK, THIN = (16, 4.5), (27, 2.4)
"""Slices and their spacing, mm. Of the thin ones a missing one leaves a gap that may be filled."""
THIN_FORMS = ("explicit", "JPEG-LS")
TOKEN = "73519264081947263150"
"""Stands in the UIDs of the sound files for the digits of a study of its own."""
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
NIFTI_FORMS = (".nii", ".nii.gz")
NIFTI_SHARE = 0.25
NIFTI_HEADER = 348
SEVERAL = (0.7, 0.2, 0.1)
"""Shares of the DICOM mutants with one, two and three files mutated."""

Mutation = Callable[[np.random.Generator, bytes], tuple[bytes, str]]


@dataclass(frozen=True)
class Mutant:
    """One study of the archive: its folder, how it is stored, and what was done to which of its files."""

    name: str
    form: str
    files: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def write_archive(archive: Path, files: int, seed: int) -> list[Mutant]:
    """One sound study of each form, and mutants until so many files are mutated."""
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    rng = np.random.default_rng(seed)
    made = [_write(archive, f"sound{i}", form, 0, rng) for i, form in enumerate((*SYNTAXES, *NIFTI_FORMS))]
    left = files
    while left:
        count = 1 + int(rng.choice(3, p=SEVERAL))
        form = str(rng.choice(NIFTI_FORMS if rng.random() < NIFTI_SHARE else list(SYNTAXES)))
        count = 1 if form in NIFTI_FORMS else min(count, left)
        made.append(_write(archive, f"m{len(made):05d}", form, count, rng))
        left -= count
    return made


def _write(archive: Path, name: str, form: str, count: int, rng: np.random.Generator) -> Mutant:
    folder = archive / name
    folder.mkdir(parents=True)
    sound = _nifti_files(form) if form in NIFTI_FORMS else _dicom_files(form, rng)
    mutated = sorted(str(file) for file in rng.choice(sorted(sound), count, replace=False))
    done = {file: _mutated(rng, form, sound, file) for file in mutated}
    for file, content in sound.items():
        (folder / file).write_bytes(done[file][0] if file in done else content)
    kinds = tuple(what.partition(":")[0] for _, what in done.values())
    return Mutant(name, form, tuple(mutated), kinds, tuple(f"{f} {w}" for f, (_, w) in done.items()))


def _mutated(rng: np.random.Generator, form: str, sound: dict[str, bytes], file: str) -> tuple[bytes, str]:
    """Other bytes than the sound ones, and what was done: `kind: detail`."""
    while True:
        with suppress(ValueError, TypeError, AttributeError, struct.error):  # which pydicom will not write
            content, what = _one_mutation(rng, form, sound, file)
            if content != sound[file]:
                return content, what


def _one_mutation(
    rng: np.random.Generator, form: str, sound: dict[str, bytes], file: str
) -> tuple[bytes, str]:
    if rng.random() < 0.45:
        mutation: Mutation = BYTE_MUTATIONS[int(rng.integers(len(BYTE_MUTATIONS)))]
        return _packed(form, mutation, rng, sound[file])
    if form in NIFTI_FORMS:
        return _packed(form, _field_replaced, rng, sound[file], inside=True)
    if rng.random() < 0.03:
        other = str(rng.choice(sorted(set(sound) - {file})))
        return sound[other], f"copy of another slice: {other}"
    mutation = ELEMENT_MUTATIONS[rng.choice(len(ELEMENT_MUTATIONS), p=ELEMENT_SHARES)]
    return mutation(rng, sound[file])


def _packed(
    form: str, mutation: Mutation, rng: np.random.Generator, content: bytes, inside: bool | None = None
) -> tuple[bytes, str]:
    """Of a packed NIfTI file the packed bytes or those inside are mutated."""
    inside = rng.random() < 0.6 if inside is None else inside
    if form != ".nii.gz" or not inside:
        return mutation(rng, content)
    changed, what = mutation(rng, gzip.decompress(content))
    return gzip.compress(changed, 1, mtime=0), f"{what} (unpacked)"


# --- sound studies -------------------------------------------------------------------------------


def slices_of(form: str) -> tuple[int, float]:
    """How many slices the sound study of a form has, and their spacing, mm."""
    return THIN if form in THIN_FORMS else THICK


@lru_cache
def _anatomy(slices: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """HU (slices, rows, columns): air round soft tissue with a column of bone, and some noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    body = ((y - ROWS / 2) / 21) ** 2 + ((x - COLUMNS / 2) / 18) ** 2 < 1
    bone = ((y - 33) / 4) ** 2 + ((x - COLUMNS / 2) / 4) ** 2 < 1
    plane = np.where(bone, 500, np.where(body, 40, -1000))
    noise = rng.normal(0, 15, (slices, ROWS, COLUMNS))
    return np.rint(np.maximum(plane + noise, -1024)).astype(np.int16)


def _dicom_files(form: str, rng: np.random.Generator) -> dict[str, bytes]:
    """The sound series under UIDs of its own; every second one with file extensions."""
    token = "".join(str(digit) for digit in (rng.integers(1, 10), *rng.integers(0, 10, len(TOKEN) - 1)))
    suffix = str(rng.choice(["", ".dcm"]))
    templates = _dicom_templates(form)
    return {f"IM{k:04d}{suffix}": _with_token(t, token) for k, t in enumerate(templates)}


def _with_token(template: tuple[bytes, bytes, bool], token: str) -> bytes:
    meta, body, deflated = template
    old, new = TOKEN.encode(), token.encode()
    body = body.replace(old, new)
    return meta.replace(old, new) + (_deflated(body) if deflated else body)


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


@lru_cache
def _dicom_templates(form: str) -> list[tuple[bytes, bytes, bool]]:
    """Of each slice the bytes up to the data set, those of the data set, and whether to deflate these."""
    syntax = SYNTAXES[form]
    deflated = syntax == DeflatedExplicitVRLittleEndian
    templates = []
    for k in range(slices_of(form)[0]):
        dataset = _sound_slice(k, *slices_of(form))
        if syntax.is_compressed and not deflated:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if deflated else syntax
        content = _written(dataset)
        if deflated:
            content = _with_syntax(content, DeflatedExplicitVRLittleEndian)
        end = _meta_end(content)
        templates.append((content[:end], content[end:], deflated))
    return templates


def _written(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _meta_end(content: bytes) -> int:
    """Where the file meta information ends, by its group length."""
    return 144 + int.from_bytes(content[140:144], "little")


def _with_syntax(content: bytes, uid: str) -> bytes:
    """Another TransferSyntaxUID in the file meta information; the data set stays as it is."""
    end = _meta_end(content)
    at = content.index(b"\x02\0\x10\0UI", 0, end)
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    value = uid.encode() + b"\0" * (len(uid) % 2)
    meta = content[:at] + b"\x02\0\x10\0UI" + len(value).to_bytes(2, "little") + value
    meta += content[at + 8 + length : end]
    return meta[:140] + (len(meta) - 144).to_bytes(4, "little") + meta[144:] + content[end:]


def _sound_slice(k: int, slices: int, slice_mm: float) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    z_mm = -400 + k * slice_mm
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.826.0.1.{TOKEN}.3.{k + 10}",
        "StudyDate": "20200131",
        "Modality": "CT",
        "Manufacturer": "NONE",
        "SeriesDescription": "sound",
        "PatientName": "SIMULATED",
        "PatientID": f"P{TOKEN}",
        "SliceThickness": f"{slice_mm}",
        "KVP": "120",
        "SpacingBetweenSlices": f"{slice_mm}",
        "GantryDetectorTilt": "0",
        "ConvolutionKernel": "B30f",
        "PatientPosition": "HFS",
        "StudyInstanceUID": f"1.2.826.0.1.{TOKEN}.1",
        "SeriesInstanceUID": f"1.2.826.0.1.{TOKEN}.2",
        "SeriesNumber": "2",
        "AcquisitionNumber": "1",
        "InstanceNumber": str(k + 1),
        "ImagePositionPatient": ["-48.75", "-58.75", f"{z_mm:.2f}"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "FrameOfReferenceUID": f"1.2.826.0.1.{TOKEN}.4",
        "SliceLocation": f"{z_mm:.2f}",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "PixelSpacing": [f"{PIXEL_MM}", f"{PIXEL_MM}"],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "PixelData": (_anatomy(slices)[k].astype(np.int32) + 1024).astype(np.uint16).tobytes(),
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    return dataset


@lru_cache
def _nifti_files(form: str) -> dict[str, bytes]:
    slices, slice_mm = slices_of(form)
    affine = np.diag([-PIXEL_MM, -PIXEL_MM, slice_mm, 1.0])
    affine[:3, 3] = 48.75, 58.75, -400
    image = nibabel.Nifti1Image(_anatomy(slices).T, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    return {f"ct{form}": gzip.compress(content, 1, mtime=0) if form == ".nii.gz" else content}


# --- bytes ---------------------------------------------------------------------------------------


def _flip_header(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    end = max(1, min(len(content), 1000 if content[128:132] == b"DICM" else NIFTI_HEADER))
    return _flipped(rng, content, end, int(rng.integers(1, 6)), "bits flipped in the header")


def _flip_anywhere(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    return _flipped(rng, content, len(content), int(rng.integers(1, 25)), "bits flipped anywhere")


def _flipped(rng: np.random.Generator, content: bytes, end: int, count: int, kind: str) -> tuple[bytes, str]:
    changed = bytearray(content)
    places = sorted(int(place) for place in rng.integers(0, end, count))
    for place in places:
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"{kind}: at {places}"


def _truncated(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    length = int(rng.choice([0, 100, 132, *rng.integers(0, len(content), 9)]))
    return content[:length], f"truncated: to {length} of {len(content)} bytes"


def _inserted(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    place, count = int(rng.integers(len(content))), int(rng.integers(1, 40))
    return content[:place] + rng.bytes(count) + content[place:], f"bytes inserted: {count} at {place}"


def _taken_out(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    place, count = int(rng.integers(len(content))), int(rng.integers(1, 40))
    return content[:place] + content[place + count :], f"bytes taken out: {count} at {place}"


def _zeroed(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    place = int(rng.integers(0, len(content), endpoint=True)) // 512 * 512
    block = bytes(min(512, len(content) - place))
    return content[:place] + block + content[place + 512 :], f"a block of zeros: at {place}"


BYTE_MUTATIONS: Sequence[Mutation] = (
    _flip_header,
    _flip_header,
    _flip_anywhere,
    _truncated,
    _inserted,
    _taken_out,
    _zeroed,
)


# --- elements of DICOM ---------------------------------------------------------------------------


def _dropped(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    dataset = dcmread(io.BytesIO(content))
    keywords = [element.keyword for element in dataset]
    keyword = str(rng.choice(keywords))
    del dataset[keyword]
    return _written(dataset), f"{keyword} dropped: "


def _emptied(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    dataset = dcmread(io.BytesIO(content))
    keyword = str(rng.choice([element.keyword for element in dataset if element.keyword != "PixelData"]))
    dataset[keyword].value = None
    return _written(dataset), f"{keyword} emptied: "


def _replaced(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    dataset = dcmread(io.BytesIO(content))
    keyword = str(rng.choice(list(VALUES)))
    value = VALUES[keyword](rng, dataset.get(keyword))
    setattr(dataset, keyword, value)
    if dataset[keyword].VR == "US or SS":
        dataset[keyword].VR = "US"
    return _written(dataset), f"{keyword} replaced: {value!r}"


def _other_syntax(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    uids = [*SYNTAXES.values(), "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"]
    uid = str(rng.choice([*uids, "1.2.840.10008.1.2.4.201", "1.2.3.4.5", ""]))
    return _with_syntax(content, uid), f"TransferSyntaxUID replaced: {uid}"


def _other_pixels(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    dataset = dcmread(io.BytesIO(content))
    length = len(dataset.PixelData)
    other = int(rng.choice([0, length // 2, length - 2, length + 2, 2 * length])) // 2 * 2
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        other = max(other, 8)  # the empty table of offsets
    dataset.PixelData = (dataset.PixelData * 2)[:other]
    return _written(dataset), f"PixelData of another length: {other} instead of {length}"


ELEMENT_MUTATIONS: Sequence[Mutation] = (_replaced, _dropped, _emptied, _other_syntax, _other_pixels)
ELEMENT_SHARES = (0.7, 0.12, 0.05, 0.08, 0.05)


def _any_of(*values: Any) -> Callable[[np.random.Generator, Any], Any]:
    return lambda rng, _: values[rng.integers(len(values))]


def _pixel_spacing(rng: np.random.Generator, value: Any) -> Any:
    a, b = (f"{v:.4f}" for v in rng.uniform(0.1, 6, 2))
    near = f"{PIXEL_MM * rng.uniform(0.9, 1.1):.4f}"
    options = [
        [a, b],
        [near, near],
        [a, f"{PIXEL_MM}"],
        [a],
        ["0", "0"],
        ["-1", "-1"],
        ["NaN", "NaN"],
        ["1e30", a],
    ]
    return options[rng.integers(len(options))]


def _position(rng: np.random.Generator, value: Any) -> Any:
    x, y, z = (float(v) for v in value)
    far, near = rng.uniform(-300, 300), rng.uniform(-6, 6)
    options = [
        [x, y, round(z + far, 2)],
        [x, y, round(z + near, 2)],
        [x, y, round(z + near, 2)],
        [x, y, z + 4.5],
        [round(x + near, 2), y, z],
        [round(x + near / 20, 3), y, round(z + near / 20, 3)],
        [x, round(y + far, 2), z],
        [z, y, x],
        [x, y],
        ["NaN", y, z],
        [x, y, "1e30"],
        [x, y, -z],
    ]
    return options[rng.integers(len(options))]


def _orientation(rng: np.random.Generator, value: Any) -> Any:
    tilt = rng.uniform(0.002, 1.5)
    c, s = round(float(np.cos(tilt)), 6), round(float(np.sin(tilt)), 6)
    options = [
        [1, 0, 0, 0, c, s],
        [c, s, 0, -s, c, 0],
        [-1, 0, 0, 0, 1, 0],
        [0, 1, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, -1],
        [0, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 1],
        [float(v) for v in rng.uniform(-1, 1, 6).round(4)],
    ]
    return options[rng.integers(len(options))]


def _pixels(rng: np.random.Generator, value: Any) -> int:
    return int(rng.choice([0, 1, value - 1, value + 1, 2 * value, value // 2, 512, 65535, ROWS, COLUMNS]))


def _uid(rng: np.random.Generator, value: Any) -> str:
    return f"2.25.{rng.integers(10**17, 10**18)}"


def _millimetres(rng: np.random.Generator, value: Any) -> str:
    return str(rng.choice([f"{rng.uniform(0.1, 20):.3f}", "0", "-4.5", "NaN", "1e9"]))


VALUES: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "PixelSpacing": _pixel_spacing,
    "ImagePositionPatient": _position,
    "ImageOrientationPatient": _orientation,
    "Rows": _pixels,
    "Columns": _pixels,
    "BitsAllocated": _any_of(0, 1, 8, 12, 32, 64),
    "BitsStored": _any_of(0, 1, 8, 10, 16, 17),
    "HighBit": _any_of(0, 7, 9, 15, 31),
    "PixelRepresentation": _any_of(1, 2, 255),
    "NumberOfFrames": _any_of("0", "2", "16", "100000", "-1"),
    "RescaleSlope": _any_of("0", "-1", "2", "0.001", "1e9", "NaN", "inf", ["1", "1"]),
    "RescaleIntercept": _any_of("0", "1024", "1e6", "NaN", "-32768"),
    "SamplesPerPixel": _any_of(0, 2, 3, 4),
    "PlanarConfiguration": _any_of(0, 1, 7),
    "PhotometricInterpretation": _any_of("MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", "", "X"),
    "SliceThickness": _millimetres,
    "SpacingBetweenSlices": _millimetres,
    "SliceLocation": _millimetres,
    "GantryDetectorTilt": _any_of("15", "-30", "90"),
    "PatientPosition": _any_of("FFS", "HFP", "HFDR"),
    "InstanceNumber": _any_of("0", "-1", "7", "99999"),
    "Modality": _any_of("MR", "PT", "ct", ""),
    "ImageType": _any_of(["DERIVED", "SECONDARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "LOCALIZER"], [""]),
    "SOPClassUID": _any_of(MRImageStorage, "1.2.3", ""),
    "SOPInstanceUID": _uid,
    "StudyInstanceUID": _uid,
    "SeriesInstanceUID": _uid,
    "FrameOfReferenceUID": _uid,
    "PatientID": _any_of("ANOTHER", ""),
    "StudyDate": _any_of("20209999", "yesterday", "19000101"),
    "SpecificCharacterSet": _any_of("ISO_IR 999", ["", "ISO 2022 IR 87"], "ISO 2022 IR 13"),
    "PixelPaddingValue": _any_of(0, 1064, 65535),
    "SmallestImagePixelValue": _any_of(0, 65535),
    "AcquisitionNumber": _any_of("2"),
}


# --- fields of NIfTI -----------------------------------------------------------------------------


def _field_replaced(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    header = nibabel.Nifti1Header(content[:NIFTI_HEADER], check=False)
    field = str(rng.choice(list(FIELDS) + GEOMETRY_FIELDS * 3))
    block = header._structarr
    if block[field].shape:
        at = int(rng.integers(0, min(len(block[field]), 5)))
        value: Any = next(_field_values(rng, field, block[field][at]))
        block[field][at] = value
        field = f"{field}[{at}]"
    else:
        value = next(_field_values(rng, field, block[field]))
        block[field] = value
    return header.binaryblock + content[NIFTI_HEADER:], f"{field} replaced: {value}"


def _field_values(rng: np.random.Generator, field: str, value: Any) -> Iterator[Any]:
    """Endlessly other values of a field than that it has; numbers also near to it."""
    while True:
        options = FIELDS[field]
        if options is None:
            number = float(value)
            near = [number * rng.uniform(0.8, 1.25), number + rng.uniform(-2, 2), -number]
            option: Any = float(rng.choice([*near, 0.0, 1.0, rng.uniform(-9, 9), np.nan, np.inf, 1e20]))
        elif field == "dim":
            option = int(np.clip(int(value) + int(rng.choice(options)), -32768, 32767))
        else:
            option = options[int(rng.integers(len(options)))]
        if option != value:
            yield option


GEOMETRY_FIELDS = ["dim", "pixdim", "srow_x", "srow_y", "srow_z"]
"""Drawn more often than others."""
FIELDS: dict[str, Sequence[Any] | None] = {
    "dim": (-1, 1, -2, 3, 10, -40, 300, 32000, -100),
    "pixdim": None,
    "srow_x": None,
    "srow_y": None,
    "srow_z": None,
    "quatern_b": None,
    "quatern_c": None,
    "quatern_d": None,
    "qoffset_z": None,
    "qform_code": (0, 2, 3, 77, -1),
    "sform_code": (0, 2, 3, 77, -1),
    "datatype": (2, 8, 16, 64, 128, 256, 512, 768, 1536, 0, 1),
    "bitpix": (8, 32, 0, 1),
    "vox_offset": (0.0, 348.0, 350.0, 354.0, 368.0, 1e6, -16.0, float("nan")),
    "magic": (b"ni1", b"n+2", b"xxx", b""),
    "xyzt_units": (0, 1, 3, 4, 7, 8, 16, 255),
    "scl_slope": None,
    "scl_inter": None,
    "sizeof_hdr": (0, 540, 1543569408, 347),
    "intent_code": (1007, 2001),
    "slice_end": (3, 99),
}
