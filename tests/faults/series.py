"""Which series of a study is screened. What must not be screened shows the anatomy beside its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import generate_uid

from faults.registry import Failed, Measured, fault
from faults.sound import moved, on_axes, piece, shifted, short, sound, stepped
from faults.writing import enhanced, save, slices
from vfscreen.volume import Volume

WRONG = 5  # pixels that the anatomy of other series stands beside its place

FINE = Measured(0.03, 0.6, 0.6, choice="sharper kernel")


def study(folder: Path, *series: list[Dataset], one_series: bool = False) -> None:
    """Several series as one study, all files in one folder."""
    uid = generate_uid()
    for n, datasets in enumerate(series):
        for dataset in datasets:
            dataset.StudyInstanceUID = uid
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[uid, "one" if one_series else str(n)])
        save(datasets, folder, [f"{n}_{k}" for k in range(len(datasets))])


def wrong() -> Volume:
    return shifted(sound(), WRONG)


def coronal() -> Volume:
    """The piece in slices from front to back, as thin as the pixels."""
    return on_axes(np.column_stack([(0, 1.4, 0), (0, 0, -1.4), (1.4, 0, 0)]), (68, 90, 60))


@fault("a thick series with a thin one", Measured(choice="thicker steps"))
def thin_before_thick(folder: Path) -> None:
    study(folder, slices(shifted(stepped(4.0), WRONG)), slices(sound()))


@fault("a sharp kernel with a soft one", Measured(choice="sharper kernel"))
def soft_before_sharp(folder: Path) -> None:
    study(folder, slices(wrong(), ConvolutionKernel="B70f"), slices(sound(), ConvolutionKernel="B30f"))


@fault("a sharp kernel of 1 mm with a soft one of 1.5 mm", FINE)
def sharp_and_thinner(folder: Path) -> None:
    sharp = slices(shifted(stepped(1.0), WRONG), ConvolutionKernel="BONEPLUS")
    study(folder, sharp, slices(stepped(1.5), ConvolutionKernel="SOFT"))


@fault("a thin series of a part with a longer one", Measured(choice="covers less"))
def longest_first(folder: Path) -> None:
    study(folder, slices(shifted(stepped(1.0), WRONG))[:80], slices(sound()))


@fault("a thin series with a gap beside a sound one", Measured(choice="inconsistent_geometry"))
def sound_before_broken(folder: Path) -> None:
    thin = slices(shifted(stepped(1.0), WRONG))
    study(folder, thin[:60] + thin[70:], slices(sound()))


@fault("a scout before the series", Measured(choice="localizer"))
def scout_and_axial(folder: Path) -> None:
    study(folder, scouts(), slices(sound()))


@fault("a scout within the series", Measured())
def scout_within(folder: Path) -> None:
    study(folder, scouts(), slices(sound()), one_series=True)


def scouts() -> list[Dataset]:
    return slices(coronal(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:2]


@fault("scouts alone", Failed("no_suitable_series", "2 localizer"))
def scouts_alone(folder: Path) -> None:
    study(folder, scouts())


@fault("thinner maximum projections of the series", Measured(choice="projection"))
def projections(folder: Path) -> None:
    thin = slices(shifted(stepped(1.0), WRONG), ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    study(folder, thin, slices(sound()))


@fault("a thinner coronal reformat called original", Measured(choice="not axial"))
def reformat(folder: Path) -> None:
    study(folder, slices(coronal()), slices(sound()))


@fault("derived images alone", Failed("no_suitable_series", "derived"))
def derived_alone(folder: Path) -> None:
    study(folder, slices(short(), ImageType=["DERIVED", "PRIMARY", "AXIAL"]))


@fault("a coronal series alone", Failed("no_suitable_series", "not axial"))
def coronal_alone(folder: Path) -> None:
    study(folder, slices(coronal()))


@fault("a captured dose table within the series", Measured())
def dose_table(folder: Path) -> None:
    table = slices(short(), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImagePositionPatient=None)[:1]
    study(folder, table, slices(sound()), one_series=True)


@fault("two kernels in one series", Measured(choice="sharper kernel"))
def mixed_kernels(folder: Path) -> None:
    sharp, soft = slices(wrong(), ConvolutionKernel="LUNG"), slices(sound(), ConvolutionKernel="STANDARD")
    study(folder, sharp, soft, one_series=True)


@fault("two orientations in one series", Measured(choice="not axial"))
def mixed_orientations(folder: Path) -> None:
    study(folder, slices(coronal()), slices(sound()), one_series=True)


@fault("two matrices in one series", Measured())
def mixed_matrices(folder: Path) -> None:
    other = piece(slice(77, 120), slice(54, 110), slice(41, 97))
    study(folder, slices(shifted(other, WRONG)), slices(sound()), one_series=True)


@fault("two pixel spacings in one series", Measured())
def mixed_spacings(folder: Path) -> None:
    other = slices(wrong(), PixelSpacing=["1.3", "1.3"])[4:]
    study(folder, other, slices(sound()), one_series=True)


@fault("two image types in one series", Measured(choice="derived"))
def mixed_types(folder: Path) -> None:
    derived = slices(wrong(), ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    study(folder, derived, slices(sound()), one_series=True)


def _phases(folder: Path, keyword: str, first: object, second: object) -> None:
    later = slices(wrong(), **{keyword: second})
    study(folder, later, slices(sound(), **{keyword: first}), one_series=True)


@fault("two temporal positions in one series", Measured(choice="another phase"))
def temporal_positions(folder: Path) -> None:
    _phases(folder, "TemporalPositionIdentifier", "1", "2")


@fault("two heart phases in one series", Measured(choice="another phase"))
def heart_phases(folder: Path) -> None:
    _phases(folder, "NominalPercentageOfCardiacPhase", 40.0, 75.0)


@fault("two trigger times in one series", Measured(choice="another phase"))
def trigger_times(folder: Path) -> None:
    _phases(folder, "TriggerTime", "95", "310")


@fault("two acquisitions in one series", Measured(choice="another phase"))
def acquisitions(folder: Path) -> None:
    _phases(folder, "AcquisitionNumber", "2", "10")


@fault("two tube voltages in one series", Measured())
def voltages(folder: Path) -> None:
    later = slices(sound(), KVP="140")
    study(folder, later, slices(sound(), KVP="80"), one_series=True)


@fault("a structured report alone", Failed("no_suitable_series", "SR"))
def report_alone(folder: Path) -> None:
    tags = {"Rows": None, "Columns": None, "PixelData": None}
    sop_class = "1.2.840.10008.5.1.4.1.1.88.11"
    study(folder, slices(short(), Modality="SR", SOPClassUID=sop_class, **tags)[:1])


@fault("a structured report and a presentation state beside the series", Measured())
def report_beside(folder: Path) -> None:
    tags = {"Rows": None, "Columns": None, "PixelData": None, "ImagePositionPatient": None}
    reports = slices(short(), Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", **tags)[:1]
    states = slices(short(), Modality="PR", SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", **tags)[:1]
    study(folder, reports, states, slices(sound()))


def _beside(name: str, modality: str, sop_class: str, **tags: object) -> None:
    @fault(f"{name} beside the series", Measured())
    def write(folder: Path) -> None:
        others = slices(
            short(), Modality=modality, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{sop_class}", **tags
        )
        study(folder, others[:1], slices(sound()))


NO_IMAGE = {"Rows": None, "Columns": None, "PixelData": None}
_beside("a registration", "REG", "66.1", **NO_IMAGE)
_beside("outlines for radiotherapy", "RTSTRUCT", "481.3", **NO_IMAGE)
_beside("a selection of key images", "KO", "88.59", **NO_IMAGE)
_beside("the scanner's own raw data", "CT", "66", **NO_IMAGE)
_beside("a document", "DOC", "104.1", **NO_IMAGE)
_beside("a dose in several frames", "RTDOSE", "481.2", NumberOfFrames="35")
_beside("an ultrasound film", "US", "3.1", NumberOfFrames="35")
_beside("captured pages in several frames", "CT", "7.2", NumberOfFrames="2", ImagePositionPatient=None)
_beside("a captured page without geometry", "OT", "7", ImagePositionPatient=None, PixelSpacing=None)


@fault("a segmentation beside the series", Measured())
def segmentation(folder: Path) -> None:
    labels = enhanced(shifted(sound(), WRONG))
    labels.Modality, labels.SOPClassUID = "SEG", "1.2.840.10008.5.1.4.1.1.66.4"
    study(folder, [labels], slices(sound()))


@fault("PET alone", Failed("no_suitable_series", "PT"))
def pet_alone(folder: Path) -> None:
    study(folder, slices(short(), Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128"))


@fault("PET in the same study, thinner and longer", Measured(choice="PT"))
def pet_beside(folder: Path) -> None:
    pet = slices(shifted(stepped(1.0), WRONG), Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128")
    study(folder, pet, slices(sound()))


@fault("no Modality", Failed("unreadable_file", "Modality"))
def no_modality(folder: Path) -> None:
    study(folder, slices(short(), Modality=None))


@fault("a phantom of noise without a spine", Failed("spine_not_found"))
def phantom(folder: Path) -> None:
    grid = on_axes(np.column_stack([(0, 0, 2), (0, 2, 0), (2, 0, 0)]), (50, 70, 70))
    y, x = np.indices(grid.hu.shape[1:]) - 34.5
    noise = np.random.default_rng(0).normal(40, 20, grid.hu.shape)
    study(folder, slices(moved(grid, np.where(np.hypot(x, y) < 30, noise, -1000))))


@fault("a kernel that every second slice spells otherwise", Measured())
def kernel_by_turns(folder: Path) -> None:
    datasets = slices(sound(), ConvolutionKernel="B30f")
    for dataset in datasets[::2]:
        dataset.ConvolutionKernel = "B30F"
    save(datasets, folder)


@fault("an image type that every second slice spells otherwise", Measured())
def image_type_by_turns(folder: Path) -> None:
    datasets = slices(sound())
    for dataset in datasets[1::2]:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    save(datasets, folder)


@fault("no tube voltage in one slice", Measured())
def voltage_missing(folder: Path) -> None:
    datasets = slices(sound(), KVP="120")
    datasets[20].KVP = None
    save(datasets, folder)
