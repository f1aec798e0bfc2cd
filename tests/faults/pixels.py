"""How values are stored: numbers, padding, frames, transfer syntaxes, and what is no image at all."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, fragment_frame, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from faults.registry import Failed, Measured, fault
from faults.sound import moved, shifted, short, sound
from faults.writing import enhanced, put, put_all, save, slices, store, stored

Change = Callable[[int, Dataset], None]
CODERS = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def _stored(name: str, *rows: Measured, **tags: object) -> Callable[[Change], Change]:
    """The sound study with each slice changed by the function below, which must not change its HU."""

    def register(change: Change) -> Change:
        @fault(name, *(rows or (Measured(),)))
        def write(folder: Path) -> None:
            datasets = slices(sound(), **tags)
            for k, dataset in enumerate(datasets):
                change(k, dataset)
            save(datasets, folder)

        return change

    return register


# --- numbers -------------------------------------------------------------------------------------


@_stored("slope and intercept of each slice its own", BitsStored=16, HighBit=15)
def own_slopes(k: int, dataset: Dataset) -> None:
    factor = 1 + k % 3
    store(dataset, (stored(dataset) * factor + 100 * (k % 5)).astype(np.uint16))
    dataset.RescaleSlope, dataset.RescaleIntercept = (
        f"{1 / factor:.9f}",
        f"{-1024 - 100 * (k % 5) / factor:.6f}",
    )


@_stored("signed values", BitsStored=16, HighBit=15, PixelRepresentation=1, RescaleIntercept="0")
def signed(k: int, dataset: Dataset) -> None:
    store(dataset, stored(dataset).astype(np.int16) - 1024)


@_stored("signed values of 12 bits", PixelRepresentation=1, RescaleIntercept="0")
def signed_twelve(k: int, dataset: Dataset) -> None:
    store(dataset, np.clip(stored(dataset).astype(np.int16) - 1024, -2048, 2047) & 0x0FFF)


@_stored("something in the bits above those stored")
def high_bits(k: int, dataset: Dataset) -> None:
    overlay = np.indices((dataset.Rows, dataset.Columns)).sum(0) % 16
    store(dataset, stored(dataset) | (overlay << 12).astype(np.uint16))


@_stored("values of 32 bits", BitsAllocated=32, BitsStored=32, HighBit=31)
def thirty_two(k: int, dataset: Dataset) -> None:
    store(dataset, stored(dataset).astype(np.uint32))


@_stored("MONOCHROME1 with Hounsfield units", PhotometricInterpretation="MONOCHROME1")
def monochrome1(k: int, dataset: Dataset) -> None:
    pass


@_stored("a RescaleType that is not specified", RescaleType="US")
def unspecified(k: int, dataset: Dataset) -> None:
    pass


@_stored("no ImageType", ImageType=None)
def no_image_type(k: int, dataset: Dataset) -> None:
    pass


@_stored("more bytes than pixels")
def more_bytes(k: int, dataset: Dataset) -> None:
    dataset.PixelData += bytes(64)


def round_view(values: np.ndarray, padding: int) -> np.ndarray:
    """Values with a round field of view, outside of which there is padding."""
    y, x = np.indices(values.shape)
    outside = np.hypot((y - 33.5) / 40, (x - 29.5) / 36) > 1
    return np.where(outside, padding, values).astype(values.dtype)


ROUND = Measured(0.01, 0.5, 0.5)


@_stored("padding as air", ROUND, PixelPaddingValue=0)
def dark_padding(k: int, dataset: Dataset) -> None:
    store(dataset, round_view(stored(dataset), 0))


@_stored("bright padding that the header names", ROUND, BitsStored=16, HighBit=15, PixelPaddingValue=65535)
def bright_padding(k: int, dataset: Dataset) -> None:
    store(dataset, round_view(stored(dataset), 65535))


@_stored(
    "padding of -2000, signed", ROUND, PixelRepresentation=1, BitsStored=16, HighBit=15, RescaleIntercept="0"
)
def negative_padding(k: int, dataset: Dataset) -> None:
    store(dataset, round_view(stored(dataset).astype(np.int16) - 1024, -2000))
    put(dataset, "PixelPaddingValue", np.int16(-2000).tobytes())


@_stored("high values at metal beyond 12 bits", Measured(0.01, 0.3, 0.3), BitsStored=16, HighBit=15)
def metal(k: int, dataset: Dataset) -> None:
    values = stored(dataset).copy()
    values[2:5, 3:6] = 65535
    store(dataset, values)


def _values(name: str, error: str, reason: str, **tags: object) -> Callable[[Change], Change]:
    """Half the study with each slice changed by the function below."""

    def register(change: Change) -> Change:
        @fault(name, Failed(error, reason))
        def write(folder: Path) -> None:
            datasets = slices(short(), **tags)
            for k, dataset in enumerate(datasets):
                change(k, dataset)
            save(datasets, folder)

        return change

    return register


def _tags(name: str, error: str, reason: str = "", **tags: object) -> None:
    @_values(name, error, reason, **tags)
    def unchanged(k: int, dataset: Dataset) -> None:
        pass


@_values("a constant image", "implausible_values", "")
def constant(k: int, dataset: Dataset) -> None:
    store(dataset, np.full_like(stored(dataset), 1064))


_tags("1024 never taken off", "implausible_values", "offset", RescaleIntercept="0")
_tags("a slope of zero", "implausible_values", RescaleSlope="0")
_tags("a RescaleType of a photograph", "no_suitable_series", "Hounsfield", RescaleType="MGML")
_tags("no RescaleSlope", "unreadable_file", "RescaleSlope", RescaleSlope=None)
_tags("no RescaleIntercept", "unreadable_file", "RescaleIntercept", RescaleIntercept=None)
_tags("optical density instead of HU", "no_suitable_series", "Hounsfield", RescaleType="OD")
_tags("no PixelData", "unreadable_file", "no pixels", PixelData=None)
_tags("several frames without functional groups", "unreadable_file", "multi-frame", NumberOfFrames="2")


_tags("no Rows", "unreadable_file", Rows=None)
_tags("zero Rows", "unreadable_file", Rows=0)
_tags("no BitsAllocated", "unreadable_file", BitsAllocated=None)
_tags("12 bits allocated", "unreadable_file", BitsAllocated=12)
_tags("no PixelRepresentation", "unreadable_file", PixelRepresentation=None)
_tags("no PhotometricInterpretation", "unreadable_file", "greyscale", PhotometricInterpretation=None)
_tags("colours from a palette", "unreadable_file", "greyscale", PhotometricInterpretation="PALETTE COLOR")
_tags("several samples a pixel", "unreadable_file", SamplesPerPixel=2)
_tags("a slope beyond all numbers", "unreadable_file", "RescaleSlope", RescaleSlope="1e300")
_tags("an intercept beyond all numbers", "unreadable_file", "RescaleIntercept", RescaleIntercept="-1e300")
_tags("an intercept at infinity", "unreadable_file", "RescaleIntercept", RescaleIntercept="inf")


@_values("float pixels", "unreadable_file", "")
def float_pixels(k: int, dataset: Dataset) -> None:
    dataset.FloatPixelData = stored(dataset).astype(np.float32).tobytes()
    del dataset.PixelData


@_values("a slope that is no number", "unreadable_file", "RescaleSlope")
def slope_nan(k: int, dataset: Dataset) -> None:
    put(dataset, "RescaleSlope", "NaN")


@_values("one slice without RescaleIntercept", "unreadable_file", "IM0009")
def one_unscaled(k: int, dataset: Dataset) -> None:
    if k == 9:
        del dataset.RescaleIntercept


@_values("60000 x 60000 pixels promised", "too_large", "60000 x 60000", Rows=60000, Columns=60000)
def sixty_thousand(k: int, dataset: Dataset) -> None:
    pass


@fault("8000 x 8000 pixels promised", Failed("inconsistent_geometry", "which no body is"))
def eight_thousand(folder: Path) -> None:
    save(slices(short(), Rows=8000, Columns=8000), folder)


@fault("colour", Failed(("unreadable_file", "no_suitable_series")))
def colour(folder: Path) -> None:
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    datasets = slices(short(), BitsAllocated=8, BitsStored=8, HighBit=7, **tags)
    for dataset in datasets:
        dataset.PixelData = bytes(3 * dataset.Rows * dataset.Columns)
    save(datasets, folder)


@fault("pixels of one slice cut in half", Failed("unreadable_file", "IM0009"))
def cut_pixels(folder: Path) -> None:
    path = save(slices(short()), folder)[9]
    path.write_bytes(path.read_bytes()[:-4000])


@fault("pixels of one slice lacking their last byte", Failed("unreadable_file", "IM0009"))
def cut_last_byte(folder: Path) -> None:
    path = save(slices(short()), folder)[9]
    path.write_bytes(path.read_bytes()[:-2])


# --- frames --------------------------------------------------------------------------------------


@fault("enhanced CT", Measured())
def enhanced_ct(folder: Path) -> None:
    save([enhanced(sound())], folder)


@fault("enhanced CT with frames in disorder", Measured())
def enhanced_disorder(folder: Path) -> None:
    order = np.random.default_rng(2).permutation(len(sound().hu))
    save([enhanced(sound(), list(order))], folder)


@fault("enhanced CT with slope and intercept of each frame its own", Measured())
def enhanced_slopes(folder: Path) -> None:
    dataset = enhanced(sound())
    values = np.frombuffer(dataset.PixelData, np.uint16).reshape(sound().hu.shape).copy()
    shared = dataset.SharedFunctionalGroupsSequence[0]
    transformation = shared.PixelValueTransformationSequence[0]
    del shared.PixelValueTransformationSequence
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = deepcopy(transformation)
        item.RescaleIntercept = str(-1024 - 50 * (k % 7))
        group.PixelValueTransformationSequence = [item]
        values[k] += np.uint16(50 * (k % 7))
    dataset.BitsStored, dataset.HighBit = 16, 15
    store(dataset, values)
    save([dataset], folder)


@fault("enhanced CT made of single slices by a converter", Measured())
def legacy_converted(folder: Path) -> None:
    dataset = enhanced(sound())
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.2"
    save([dataset], folder)


@fault("enhanced CT of two heart phases", Measured(choice="another phase"))
def enhanced_phases(folder: Path) -> None:
    first, second = enhanced(sound()), enhanced(shifted(sound(), 5))
    for phase, dataset in ((1, first), (2, second)):
        for group in dataset.PerFrameFunctionalGroupsSequence:
            group.FrameContentSequence[0].TemporalPositionIndex = phase
    first.PerFrameFunctionalGroupsSequence.extend(second.PerFrameFunctionalGroupsSequence)
    first.PixelData += second.PixelData
    first.NumberOfFrames = 2 * len(sound().hu)
    save([first], folder)


@fault("enhanced CT in three files", Measured())
def enhanced_three(folder: Path) -> None:
    datasets = [enhanced(sound(), range(n, len(sound().hu), 3)) for n in range(3)]
    for dataset in datasets:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.8", "1.2.3.8.1"
    save(datasets, folder)


@fault("enhanced CT, compressed", Measured())
def enhanced_compressed(folder: Path) -> None:
    dataset = enhanced(sound())
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    save([dataset], folder)


@fault("enhanced CT without positions of frames", Failed("missing_geometry", "positions"))
def enhanced_unplaced(folder: Path) -> None:
    dataset = enhanced(short())
    del dataset.PerFrameFunctionalGroupsSequence
    save([dataset], folder)


@fault("enhanced CT with one frame without position", Failed("missing_geometry", "ImagePositionPatient"))
def enhanced_one_unplaced(folder: Path) -> None:
    dataset = enhanced(short())
    del dataset.PerFrameFunctionalGroupsSequence[9].PlanePositionSequence
    save([dataset], folder)


@fault("enhanced CT with fewer pixels than frames", Failed("unreadable_file"))
def enhanced_cut(folder: Path) -> None:
    dataset = enhanced(short())
    dataset.PixelData = dataset.PixelData[: -3 * 2 * 68 * 60]
    save([dataset], folder)


# --- transfer syntaxes ---------------------------------------------------------------------------


@fault("implicit little endian", Measured())
def implicit(folder: Path) -> None:
    _as(slices(sound()), folder, ImplicitVRLittleEndian)


@fault("deflated", Measured())
def deflated(folder: Path) -> None:
    _as(slices(sound()), folder, DeflatedExplicitVRLittleEndian)


@fault("explicit big endian", Measured())
def big_endian(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets:
        store(dataset, stored(dataset).byteswap())
    _as(datasets, folder, ExplicitVRBigEndian)


def _as(datasets: list[Dataset], folder: Path, syntax: str) -> None:
    for dataset in datasets:
        dataset.decode()  # or its bytes would be written as they stand
        dataset.set_original_encoding(None, None)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    save(datasets, folder)


def _compressed(name: str, syntax: str) -> None:
    @fault(name, Measured())
    def write(folder: Path) -> None:
        save(compressed(slices(sound()), syntax), folder)


def compressed(datasets: list[Dataset], *syntaxes: str) -> list[Dataset]:
    """The datasets compressed in place, by each syntax in turn."""
    for k, dataset in enumerate(datasets):
        dataset.compress(syntaxes[k % len(syntaxes)], generate_instance_uid=False)
    return datasets


_compressed("RLE", RLELossless)
_compressed("JPEG-LS", JPEGLSLossless)
_compressed("JPEG 2000", JPEG2000Lossless)


@fault("JPEG 2000 with loss", Measured(0.02, 0.5, 0.5))
def jpeg2000_lossy(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets:
        dataset.compress(JPEG2000, j2k_cr=[4], generate_instance_uid=False)
    save(datasets, folder)


@fault("JPEG-LS with loss", Measured(0.02, 0.5, 0.5))
def jpegls_lossy(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets:
        dataset.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    save(datasets, folder)


@fault("JPEG lossless", Measured())
def jpeg_lossless(folder: Path) -> None:
    for path in save(slices(sound()), folder):
        _by_gdcm(path, gdcm.TransferSyntax.JPEGLosslessProcess14_1)


def _by_gdcm(path: Path, syntax: int) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@fault("several transfer syntaxes in one series", Measured())
def several_syntaxes(folder: Path) -> None:
    save(compressed(slices(sound()), *CODERS), folder)


@fault("a frame in three fragments", Measured())
def fragments(folder: Path) -> None:
    datasets = compressed(slices(sound()), JPEGLSLossless)
    for dataset in datasets:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=False)
        assert len(list(fragment_frame(frame, 3))) == 3
    save(datasets, folder)


@fault("an unknown transfer syntax", Failed("unreadable_file", "no decoder"))
def unknown_syntax(folder: Path) -> None:
    for path in save(compressed(slices(short()), RLELossless), folder):
        path.write_bytes(path.read_bytes().replace(RLELossless.encode() + b"\0", b"1.2.840.10008.1.2.9\0"))


@fault("a video instead of an image", Failed("unreadable_file", "no decoder"))
def video(folder: Path) -> None:
    datasets = compressed(slices(short()), RLELossless)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    save(datasets, folder)


def _garbled(name: str, syntax: str, garble: Callable[[bytes], bytes]) -> None:
    @fault(name, Failed("unreadable_file", "IM0009"))
    def write(folder: Path) -> None:
        datasets = compressed(slices(short()), syntax)
        frame = next(generate_frames(datasets[9].PixelData, number_of_frames=1))
        datasets[9].PixelData = encapsulate([garble(frame)])
        save(datasets, folder)


def half(frame: bytes) -> bytes:
    return frame[: len(frame) // 4 * 2]


def noise(frame: bytes) -> bytes:
    return np.random.default_rng(3).bytes(len(frame) // 2 * 2)


_garbled("JPEG 2000 that is noise", JPEG2000Lossless, noise)
_garbled("JPEG-LS that is noise", JPEGLSLossless, noise)
_garbled("RLE that is noise", RLELossless, noise)
_garbled("JPEG-LS cut in half", JPEGLSLossless, half)
_garbled("JPEG 2000 cut in half", JPEG2000Lossless, half)
_garbled("RLE cut in half", RLELossless, half)
_garbled("a compressed frame of two bytes", JPEGLSLossless, lambda frame: b"\0\0")


def huge_jpeg2000(frame: bytes) -> bytes:
    """The size of the image and of its only tile, 32 bits each, stand behind the marker."""
    size = frame.index(b"\xff\x51") + 6
    huge = (20_000).to_bytes(4, "big") * 2
    return frame[:size] + huge + frame[size + 8 : size + 16] + huge + frame[size + 24 :]


def huge_jpegls(frame: bytes) -> bytes:
    """Lines and samples a line, 16 bits each."""
    size = frame.index(b"\xff\xf7") + 5
    return frame[:size] + (40_000).to_bytes(2, "big") * 2 + frame[size + 4 :]


_garbled("JPEG 2000 of 20000 x 20000 pixels in a small frame", JPEG2000Lossless, huge_jpeg2000)
_garbled("JPEG-LS of 40000 x 40000 pixels in a small frame", JPEGLSLossless, huge_jpegls)


@fault("a compressed image of another size than the header's", Failed("unreadable_file", "IM0009"))
def other_size(folder: Path) -> None:
    datasets = slices(short())
    small = slices(short())[9]
    small.Rows, small.Columns = 40, 40
    small.PixelData = small.PixelData[: 2 * 40 * 40]
    compressed([*datasets, small], JPEGLSLossless)
    datasets[9].PixelData = small.PixelData
    save(datasets, folder)


@fault("a file that was cut while it was compressed", Failed("unreadable_file", "IM0009"))
def cut_compressed(folder: Path) -> None:
    path = save(compressed(slices(short()), JPEG2000Lossless), folder)[9]
    path.write_bytes(path.read_bytes()[:-1500])


@fault("elements of unknown VR", Measured())
def unknown_vr(folder: Path) -> None:
    for path in save(slices(sound()), folder):
        dataset = pydicom.dcmread(path)
        for keyword in ("ImagePositionPatient", "PixelSpacing", "RescaleIntercept"):
            element = dataset.get_item(keyword)
            assert isinstance(element, RawDataElement)
            dataset[element.tag] = element._replace(VR="UN")
        dataset.save_as(path)


@fault("an image darker than air everywhere", Failed("implausible_values"))
def all_air(folder: Path) -> None:
    save(slices(moved(short(), np.full(short().hu.shape, -1024)), RescaleIntercept="-3000"), folder)


@fault("private elements, groups of unknown length and nested sequences", Measured())
def private(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets:
        block = dataset.private_block(0x0009, "DOE JANE", create=True)
        inner = Dataset()
        inner.ImagePositionPatient, inner.PixelSpacing = ["1", "2", "3"], ["9", "9"]
        block.add_new(0x01, "SQ", [inner])
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        dataset.ReferencedStudySequence = [outer]
        dataset["ReferencedStudySequence"].is_undefined_length = True
        outer["ReferencedImageSequence"].is_undefined_length = True
    save(put_all(datasets, "SourceImageSequence", b""), folder)
