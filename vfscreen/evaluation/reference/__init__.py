"""References: simulated cohort, expert annotation, table or vertebra masks -> true vertebrae in mm."""

from __future__ import annotations

from pathlib import Path

from vfscreen.errors import InputError
from vfscreen.evaluation.reference.annotation import read_annotated
from vfscreen.evaluation.reference.masks import find_masks, read_masks
from vfscreen.evaluation.reference.model import Reference, ReferenceStudy
from vfscreen.evaluation.reference.simulated import read_simulated
from vfscreen.evaluation.reference.table import TABLE_SUFFIXES, read_table

__all__ = ["Reference", "ReferenceStudy", "read_reference"]

EXPECTED = (
    "expected is the folder of a simulated cohort (with truth.json), a table (.csv, .tsv, .parquet, or the "
    "result folder of another run), a folder of vertebra masks (NIfTI), or the expert annotation (.json "
    "files) together with --dicom"
)


def read_reference(path: Path, dicom: Path | None = None) -> Reference:
    """The reference at `path`, of whatever kind; `dicom` is the folder of the annotated CT, and only theirs.

    Raises InputError where it is of no kind, or cannot be read.
    """
    if dicom is not None:
        return read_annotated(path, dicom)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise InputError(f"The reference {path} is not there; {EXPECTED}")
    if path.suffix.lower() == ".json":
        return read_simulated(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_table(path)
    raise InputError(f"{path} is no reference; {EXPECTED}")


def _of_folder(path: Path) -> Reference:
    if (path / "truth.json").exists():
        return read_simulated(path / "truth.json")
    if (path / "vertebrae.parquet").exists():
        return read_table(path / "vertebrae.parquet")
    if find_masks(path):
        return read_masks(path)
    if any(path.glob("*.json")):
        raise InputError(
            f"{path} looks like the expert annotation, whose points are voxels; name the folder with its CT "
            "by --dicom"
        )
    raise InputError(f"{path} is no reference; {EXPECTED}")
