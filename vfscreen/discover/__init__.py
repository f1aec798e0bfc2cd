"""Which studies an input holds, and which series of each is screened. Only headers are read.

    walk.py -> index.py -> contents.py -> series.py -> StudyFiles
    names      headers     what is where  choice

Folders pass through the first three one after the other, then studies through the last one: what is in
memory is one study, and of the others no more than their `StudyFiles`.

A study is what shares a StudyInstanceUID (and a PatientID), wherever its files lie; a NIfTI file is
a study of its own. A packed archive is reported and left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from vfscreen.discover.index import volume_reader
from vfscreen.discover.manifest import MANIFEST_SUFFIXES, manifest_studies
from vfscreen.discover.names import order
from vfscreen.discover.studies import FoundStudy, Look, stamped, studies_below, with_unique_ids
from vfscreen.discover.walk import PACKED_SUFFIXES, alone, walk
from vfscreen.errors import InputError
from vfscreen.settings import ReadSettings
from vfscreen.storage import check_reachable, is_remote
from vfscreen.study import StudyFiles

__all__ = ["FoundStudy", "discover", "survey"]


def discover(
    source: Path,
    settings: ReadSettings | None = None,
    *,
    index: Path | None = None,
    series: Collection[str] = (),
) -> list[StudyFiles]:
    """The studies of a folder, a NIfTI file, or a manifest, sorted by `source`.

    A study that cannot be screened is in the list with its error: UnreadableFile, NoSuitableSeries,
    InconsistentGeometry or PackedArchive. Arguments and errors are those of `survey`.
    """
    look = Look(settings or ReadSettings(), index, frozenset(series), all_series=False)
    return [found.study for found in _survey(source, look)]


def survey(
    source: Path,
    settings: ReadSettings | None = None,
    *,
    index: Path | None = None,
    series: Collection[str] = (),
) -> list[FoundStudy]:
    """The studies as `discover` lists them, with all their series and what becomes of each.

    A manifest is CSV or Parquet with a column `path` (a NIfTI file, a DICOM series' folder or one
    of its files, relative to the manifest) and optionally `study_id` and `patient_id`; a row is a
    study. `index` is a file that keeps headers for the next call. `series` names UIDs that are
    screened whatever the rule says. Raises InputError where the input itself is wrong, holds no image,
    or has no series of a name.
    """
    return _survey(source, Look(settings or ReadSettings(), index, frozenset(series), all_series=True))


def _survey(source: Path, look: Look) -> list[FoundStudy]:
    found = _found(source, look)
    if not found:
        raise InputError(
            f"{source} holds nothing that looks like a CT (DICOM, .nii, .nii.gz); give the folder that holds "
            "the studies, at any depth, and see whether its disk or share is mounted"
        )
    missing = look.wanted - {one.kind.series_uid for study in found for one in study.series}
    if missing:
        raise InputError(
            f"{source} has no series {', '.join(sorted(missing)[:3])}; `vfscreen check {source}` lists those "
            "it has"
        )
    return sorted(map(stamped, found), key=lambda one: order(one.study))


def _found(source: Path, look: Look) -> list[FoundStudy]:
    if is_remote(source):
        check_reachable(source)
    if source.name.upper() == "DICOMDIR" and source.is_file():
        source = source.parent  # which lists what lies below its folder
    if source.is_dir():
        return with_unique_ids(studies_below(source, walk(source), look))
    if not source.exists():
        raise InputError(f"{source} does not exist; {_instead(source)}")
    if volume_reader(source):
        return studies_below(source.parent, [alone(source)], look)
    if source.suffix.lower() in MANIFEST_SUFFIXES:
        return manifest_studies(source, look)
    if source.name.lower().endswith(PACKED_SUFFIXES):
        raise InputError(f"{source} is packed and is not opened; unpack it, and give the folder")
    raise InputError(
        f"{source} is neither a folder, a NIfTI file (.nii, .nii.gz) nor a manifest (.csv, .parquet); of "
        f"DICOM, give the folder: {source.absolute().parent}"
    )


def _instead(missing: Path) -> str:
    """What may be meant by a path that is not there."""
    if is_remote(missing):
        return "see the spelling, and whether you may list it"
    there = next(folder for folder in missing.absolute().parents if folder.is_dir())
    if there == missing.absolute().parent:
        alike = get_close_matches(missing.name, [path.name for path in there.iterdir()], n=1)
        if alike:
            return f"is {missing.with_name(alike[0])} meant?"
    return f"of its path {there} is there: see the spelling, and whether its disk or share is mounted"
