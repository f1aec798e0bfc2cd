"""Where slices lie: missing, doubled, turned, tilted, or not said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset

from faults.registry import Failed, Measured, fault
from faults.sound import on_axes, shifted, short, sound, stepped, turned
from faults.writing import put, put_all, save, slices, texts
from vfscreen.volume import Floats

INTERPOLATED = Measured(ratio=0.02, place_mm=0.5, height_mm=0.3)
LEANING = 0.17 * np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
UNEVEN = frozenset({"slices_missing"})


def axes(x: Floats, y: Floats, z: Floats) -> Floats:
    """Steps along k, j, i of a grid of 1 x 1.4 x 1.4 mm along these directions."""
    return np.column_stack([z, np.multiply(y, 1.4), np.multiply(x, 1.4)])


def about_x(degrees: float) -> tuple[Floats, Floats, Floats]:
    """The patient's axes turned about x, as rows."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([1, 0, 0]), np.array([0, c, s]), np.array([0, -s, c])


# --- places --------------------------------------------------------------------------------------


@fault("missing slice, 3 mm steps", Failed("inconsistent_geometry", "a gap of 6.00 mm"))
def gap_of_six(folder: Path) -> None:
    datasets = slices(stepped(3.0))
    save(datasets[:20] + datasets[21:], folder)


@fault("three missing slices, 1.5 mm steps", Failed("inconsistent_geometry", "a gap of 6.00 mm"))
def gap_of_three(folder: Path) -> None:
    datasets = slices(stepped(1.5))
    save(datasets[:40] + datasets[43:], folder)


@fault(
    "missing slice, 2 mm steps",
    Measured(0.03, 0.6, 0.8, "partial", UNEVEN, columns={"widest_step_mm": 4.0, "slice_spacing_mm": 2.0}),
)
def gap_of_four(folder: Path) -> None:
    datasets = slices(sound())
    save(datasets[:20] + datasets[21:], folder)


@fault("missing slice, 1.5 mm steps", Measured(0.03, 0.6, 0.5, "ok", UNEVEN, columns={"widest_step_mm": 3.0}))
def gap_of_two_steps(folder: Path) -> None:
    datasets = slices(stepped(1.5))
    save(datasets[:40] + datasets[41:], folder)


@fault("slices missing at both ends", Measured(0.01, 0.3, 0.5))
def cut_ends(folder: Path) -> None:
    save(slices(sound())[1:-1], folder)


@fault("another spacing in the lower half", Measured(0.03, 0.6, 0.6, "ok", UNEVEN))
def two_spacings(folder: Path) -> None:
    tags = {"StudyInstanceUID": "1.2.3.5", "SeriesInstanceUID": "1.2.3.5.1"}
    thin, thick = slices(stepped(1.0), **tags), slices(sound(), **tags)
    save(thick[:26] + thin[52:], folder)


@fault("slices 7 mm apart", Failed("inconsistent_geometry", "7.0 mm apart"))
def far_apart(folder: Path) -> None:
    save(slices(stepped(7.0)), folder)


@fault("slices 5 mm apart", Measured(0.2, 2.0, 4.0, "ok", frozenset({"thick_slices"})))
def thick(folder: Path) -> None:
    save(slices(stepped(5.0)), folder)


@fault("overlapping slices, half a millimetre apart", INTERPOLATED)
def overlapping(folder: Path) -> None:
    save(slices(stepped(0.5)), folder)


@fault("one slice 1 mm beside the others", Failed("inconsistent_geometry", "straight line"))
def beside_the_line(folder: Path) -> None:
    save(moved_slice(slices(short()), 9, (1.0, 0, 0)), folder)


@fault("one slice half a millimetre off its place along the body", Measured(0.03, 0.5, 0.5, "ok", UNEVEN))
def off_its_place(folder: Path) -> None:
    save(moved_slice(slices(sound()), 30, (0, 0, 0.5)), folder)


@fault("positions rounded to a tenth of a millimetre", Measured(0.01, 0.2, 0.2))
def rounded(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets:
        dataset.ImagePositionPatient = [f"{value:.1f}" for value in dataset.ImagePositionPatient]
    save(datasets, folder)


def moved_slice(datasets: list[Dataset], k: int, by_mm: tuple[float, float, float]) -> list[Dataset]:
    datasets[k].ImagePositionPatient = texts(np.array(datasets[k].ImagePositionPatient, float) + by_mm)
    return datasets


@fault("instance numbers and names in disorder", Measured())
def disorder(folder: Path) -> None:
    datasets = slices(sound())
    numbers = np.random.default_rng(1).permutation(len(datasets))
    for dataset, number in zip(datasets, numbers, strict=True):
        dataset.InstanceNumber, dataset.SliceLocation = int(number), float(-number)
    save(datasets, folder, [f"{number:05d}.dcm" for number in numbers[::-1]])


@fault("one image twice under one SOPInstanceUID", Measured())
def same_image_twice(folder: Path) -> None:
    datasets = slices(sound())
    save([*datasets, datasets[30]], folder)


@fault("two images at one place", Failed("inconsistent_geometry", "two slices lie at"))
def two_at_one_place(folder: Path) -> None:
    tags = {"StudyInstanceUID": "1.2.3.6", "SeriesInstanceUID": "1.2.3.6.1"}
    save([*slices(short(), **tags), slices(shifted(short(), 5), **tags)[9]], folder)


@fault("every place twice and no tag that tells why", Failed("inconsistent_geometry", "two slices lie at"))
def doubled(folder: Path) -> None:
    tags = {"StudyInstanceUID": "1.2.3.7", "SeriesInstanceUID": "1.2.3.7.1"}
    save([*slices(short(), **tags), *slices(shifted(short(), 5), **tags)], folder)


@fault("all slices at one place", Failed("inconsistent_geometry", "two slices lie at"))
def one_place(folder: Path) -> None:
    datasets = slices(short())
    for dataset in datasets:
        dataset.ImagePositionPatient = datasets[0].ImagePositionPatient
    save(datasets, folder)


@fault("one slice of another matrix, 3 mm steps", Failed("inconsistent_geometry", "a gap of"))
def other_matrix(folder: Path) -> None:
    datasets = slices(stepped(3.0))
    datasets[20].Rows, datasets[20].Columns = datasets[20].Columns, datasets[20].Rows
    save(datasets, folder)


@fault("one slice of another pixel spacing, 3 mm steps", Failed("inconsistent_geometry", "a gap of"))
def other_spacing(folder: Path) -> None:
    datasets = slices(stepped(3.0))
    datasets[20].PixelSpacing = ["0.7", "0.7"]
    save(datasets, folder)


@fault("a single slice", Failed("too_short", "single slice"))
def single_slice(folder: Path) -> None:
    save(slices(short())[:1], folder)


@fault("four centimetres of a body", Failed("too_short", "60 mm are needed"))
def four_centimetres(folder: Path) -> None:
    save(slices(short())[:20], folder)


# --- directions ----------------------------------------------------------------------------------


def _turned(name: str, order: str) -> None:
    @fault(name, Measured())
    def write(folder: Path) -> None:
        save(slices(turned(sound(), order)), folder)


_turned("feet first", "KjI")
_turned("prone", "kJI")
_turned("feet first and prone", "KJi")
_turned("lying on the right side", "kIj")
_turned("lying on the left side", "kiJ")
_turned("mirrored in the file, not in the patient", "kjI")
_turned("stored from the feet to the head", "Kji")


def _interpolated(name: str, row: Measured, axes_mm: Floats, shape: tuple[int, int, int]) -> None:
    @fault(name, row)
    def write(folder: Path) -> None:
        save(slices(on_axes(axes_mm, shape)), folder)


def tilted(degrees: float) -> Floats:
    """Slices turned about x, one behind the other along the table."""
    x, y, z = about_x(degrees)
    return axes(x, y, np.array([0, 0, 1 / z[2]]))


# In slices of 1 mm: those of 2 mm, interpolated from others of 2 mm, are so blurred that heights change.
TILTED = Measured(ratio=0.02, place_mm=0.8, height_mm=0.3)
OBLIQUE = Measured(ratio=0.02, place_mm=0.8, height_mm=0.4)
_interpolated("gantry tilted by 15 degrees", TILTED, tilted(15), (106, 72, 60))
_interpolated("gantry tilted by -20 degrees", TILTED, tilted(-20), (98, 72, 60))
_interpolated("turned by 10 degrees about x", OBLIQUE, axes(*about_x(10)), (118, 76, 60))
_interpolated("turned about all axes", OBLIQUE, axes(*np.linalg.qr(np.eye(3) + LEANING)[0].T), (98, 80, 76))
_interpolated("pixels half as wide as high", INTERPOLATED, axes(*np.eye(3)) * [2, 1, 0.5], (52, 68, 120))


@fault("directions that differ by rounding", Measured(0.01, 0.3, 0.3))
def rounded_directions(folder: Path) -> None:
    datasets = slices(sound())
    for n, dataset in enumerate(datasets):
        dataset.ImageOrientationPatient = ["1", f"{n % 3 * 1e-4:.6f}", "0", f"{-n % 3 * 1e-4:.6f}", "1", "0"]
    save(datasets, folder)


@fault("a patient position that contradicts the directions", Measured())
def patient_position(folder: Path) -> None:
    save(slices(sound(), PatientPosition="FFP", GantryDetectorTilt="12", SliceThickness="5"), folder)


# --- what headers do not say ---------------------------------------------------------------------


def _without(keyword: str) -> None:
    @fault(f"no {keyword}", Failed("missing_geometry", keyword))
    def write(folder: Path) -> None:
        save(slices(short(), **{keyword: None}), folder)


def _as_text(name: str, code: str, keyword: str, text: str, *, one: bool = False) -> None:
    @fault(name, Failed(code, keyword))
    def write(folder: Path) -> None:
        datasets = slices(short())
        put_all(datasets[9:10] if one else datasets, keyword, text)
        save(datasets, folder)


for _keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
    _without(_keyword)

_as_text("pixel spacing of zero", "missing_geometry", "PixelSpacing", "0\\0")
_as_text("negative pixel spacing", "missing_geometry", "PixelSpacing", "-1.4\\-1.4")
_as_text("pixel spacing that is no number", "missing_geometry", "PixelSpacing", "NaN\\NaN")
_as_text("pixel spacing with decimal commas", "missing_geometry", "PixelSpacing", "1,4\\1,4")
_as_text("a single pixel spacing", "missing_geometry", "PixelSpacing", "1.4")
_as_text("an empty pixel spacing", "missing_geometry", "PixelSpacing", "")
_as_text("positions that are no numbers", "missing_geometry", "ImagePositionPatient", "a\\b\\c")
_as_text("positions at infinity", "missing_geometry", "ImagePositionPatient", "0\\0\\inf")
_as_text("a single slice without position", "missing_geometry", "ImagePositionPatient", "", one=True)
_as_text("directions of zeros", "inconsistent_geometry", "ImageOrientationPatient", "0\\0\\0\\0\\0\\0")
_as_text(
    "directions not perpendicular",
    "inconsistent_geometry",
    "ImageOrientationPatient",
    "1\\0\\0\\0.3\\0.95\\0",
)
_as_text(
    "directions not of unit length", "inconsistent_geometry", "ImageOrientationPatient", "2\\0\\0\\0\\2\\0"
)
_as_text("five directions", "missing_geometry", "ImageOrientationPatient", "1\\0\\0\\0\\1")


ABSURD = ("inconsistent_geometry", "missing_geometry", "implausible_values", "too_large")


@fault("pixels of a metre", Failed(ABSURD))
def metres(folder: Path) -> None:
    save(slices(short(), PixelSpacing=["1000", "1000"]), folder)


@fault("pixels of a millionth of a millimetre", Failed((*ABSURD, "spine_not_found")))
def nanometres(folder: Path) -> None:
    save(slices(short(), PixelSpacing=["1e-6", "1e-6"]), folder)


@fault("a slice a kilometre from the others", Failed("inconsistent_geometry", "a gap of"))
def kilometre(folder: Path) -> None:
    save(moved_slice(slices(short()), 34, (0, 0, 1e6)), folder)


@fault("positions beyond all numbers", Failed(ABSURD))
def beyond_numbers(folder: Path) -> None:
    datasets = slices(short())
    for k, dataset in enumerate(datasets):
        put(dataset, "ImagePositionPatient", f"0\\0\\{k}e307")
    save(datasets, folder)


@fault("a slice turned against the others, 3 mm steps", Failed("inconsistent_geometry", "a gap of"))
def one_turned(folder: Path) -> None:
    datasets = slices(stepped(3.0))
    put(datasets[20], "ImageOrientationPatient", "0.966\\0.2588\\0\\-0.2588\\0.966\\0")
    save(datasets, folder)


@fault(
    "the upper half of a study beside its lower half of another table height",
    Failed("inconsistent_geometry", "straight line"),
)
def two_table_heights(folder: Path) -> None:
    datasets = slices(short())
    for k in range(17, len(datasets)):
        moved_slice(datasets, k, (0, 12.0, 0))
    save(datasets, folder)
