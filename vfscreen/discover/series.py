"""The series of a study, and which of them is screened. docs/archives.md tells the rule to users.

1. Images that are alike (one series, one matrix, pixel size and orientation) form a stack. Where several
   lie at one place, the stack is split by kernel, kind of image and tube voltage, and then by temporal
   position, heart phase, trigger time, further words of the image type, acquisition or its time,
   whichever tells them apart.
2. Suitable are axial CT images that are neither localizers nor projections, derived, or captured.
3. Of the suitable stacks those go first whose slices form a volume, then those within a tenth of the
   longest coverage, then whole series before phases, evenly spaced before uneven ones, then the thinnest
   steps, where steps up to 1.5 mm count as equal, then the softer kernel, the thinner steps, the longer
   coverage, the earlier phase, the smaller UID.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vfscreen.errors import NoSuitableSeries, StudyError
from vfscreen.readers import with_geometry
from vfscreen.readers.dicom import are_alike, grid_of, with_steps
from vfscreen.readers.dicom_headers import Image, Kind, fault_of
from vfscreen.readers.stacking import NEAREST_SLICES_MM, stack
from vfscreen.settings import ReadSettings
from vfscreen.study import StudyHeader
from vfscreen.volume import Floats

log = logging.getLogger(__name__)

SIMILAR_COVERAGE = 0.9
THIN_MM = 1.5
FEWEST_IN_A_PHASE = 0.5  # of the images of the largest phase
EXTENT_OF_A_PHASE = 0.8  # of what all show: a part of the places is no phase
WHOLE_STEP = 0.1  # of a step, off a whole number of them


class ArchiveImage(NamedTuple):
    """An image, the file it is in, and the file's size and time."""

    path: Path
    stamp: tuple[int, int]
    kind: Kind
    image: Image


@dataclass(frozen=True)
class Series:
    """Images that could be screened together, and what they would give: a geometry, or the error.

    `images` are let go of when the study's series is chosen; `n_images` is their number. `phase` counts the
    parts of a series that show the same places; 0 is a whole one.
    """

    kind: Kind
    images: tuple[ArchiveImage, ...]
    n_images: int
    header: StudyHeader
    extent_mm: float
    error: StudyError | None
    phase: int = 0

    @property
    def step_mm(self) -> float:
        """Between slices, the usual one."""
        return self.header.slice_spacing_mm or float("inf")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a series: `screened`, `not_chosen`, `unsuitable` or `refused`, and why."""

    name: str
    reason: str


def series_of(
    images: Sequence[ArchiveImage], settings: ReadSettings, wanted: Collection[str] = ()
) -> tuple[list[Series], list[tuple[ArchiveImage, ...]]]:
    """The series of one study, sorted by the rule; and copies of their places that belong to none.

    Exact copies of an image are left out. Series whose UID is `wanted` count as suitable.
    """
    found: list[Series] = []
    strangers: list[tuple[ArchiveImage, ...]] = []
    for kind, alike in _stacks([_suitable(one) if one.kind.series_uid in wanted else one for one in images]):
        parts, others = _phases(alike, kind)
        strangers += others
        for number, part in enumerate(parts, start=1):
            found.append(_series(kind, part, number if len(parts) > 1 else 0, settings))
    longest = max((s.extent_mm for s in found if _is_sound(s)), default=0.0)
    return sorted(found, key=lambda series: _rank(series, longest)), strangers


def _suitable(one: ArchiveImage) -> ArchiveImage:
    return one._replace(kind=one.kind._replace(unsuitable="")) if one.kind.rows else one


def choose(series: Sequence[Series], wanted: Collection[str] = ()) -> Series | None:
    """Of series as `series_of` sorts them the one to screen; the first of those whose UID is `wanted`."""
    suitable = [one for one in series if not one.kind.unsuitable]
    named = [one for one in suitable if one.kind.series_uid in wanted]
    return next(iter(named or suitable), None)


def verdicts(series: Sequence[Series], chosen: Series | None, wanted: Collection[str] = ()) -> list[Verdict]:
    """One for each series, in their order."""
    return [_verdict(one, chosen, wanted) for one in series]


def choice(series: Sequence[Series], chosen: Series, wanted: Collection[str] = ()) -> str:
    """Why this series is screened and no other of its study, in one line."""
    suitable = sum(not one.kind.unsuitable for one in series)
    if chosen.kind.series_uid in wanted:
        head = "named by --series"
    elif suitable == 1:
        head = "the only axial original series"
    else:
        head = f"of {suitable} axial original series"
    counts = Counter(_in_a_word(one, chosen, wanted) for one in series if one is not chosen)
    others = ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items()))
    return f"{head}: {in_short(chosen)}" + (f"; others: {others}" if others else "")


def _in_a_word(one: Series, chosen: Series, wanted: Collection[str]) -> str:
    return one.error.code if one.error else _verdict(one, chosen, wanted).reason


def nothing_suitable(series: Sequence[Series]) -> NoSuitableSeries:
    """What a study without a suitable series holds."""
    images: Counter[str] = Counter()
    for one in series:
        images[one.kind.unsuitable] += one.n_images
    found = ", ".join(f"{count} {name}" for name, count in sorted(images.items()))
    return NoSuitableSeries(f"no original axial CT series; images found: {found}")


# --- stacks --------------------------------------------------------------------------------------


def _stacks(images: Sequence[ArchiveImage]) -> list[tuple[Kind, list[ArchiveImage]]]:
    """Images that can form one volume, exact copies left out.

    Images of a series that differ in kernel, image type or voltage are told apart only where they lie at
    the same places: a word that one slice spells otherwise must not cost the series that slice.
    """
    stacks: list[tuple[Kind, list[ArchiveImage]]] = []
    for of_series in _alike(images, _loosely):
        kind, found = _commonest(of_series), _without_copies(of_series)
        if kind.unsuitable or (_places_differ(found, kind) and _are_one_row(found, kind)):
            stacks.append((kind, found))
        else:
            stacks += [(_commonest(same), same) for same in _alike(found, _strictly)]
    return stacks


def _are_one_row(images: Sequence[ArchiveImage], kind: Kind) -> bool:
    """Whether images of one content, or, whatever their content, at whole steps from each other."""
    if len({one.kind.content for one in images}) == 1:
        return True
    steps = np.diff(_depths(images, kind))
    if not len(steps):
        return True
    counts = steps / np.median(steps)
    return bool((np.abs(counts - np.rint(counts)) < WHOLE_STEP).all())


def _loosely(kind: Kind) -> Hashable:
    if kind.unsuitable:
        return kind.series_uid, kind.unsuitable
    return kind._replace(orientation=None, spacing=None, sharp=False, content="")


def _strictly(kind: Kind) -> Hashable:
    return kind._replace(orientation=None, spacing=None)


def _alike(images: Sequence[ArchiveImage], of: Callable[[Kind], Hashable]) -> list[list[ArchiveImage]]:
    """Images by a part of their kind, where directions and spacings that differ by rounding alone are one."""
    by_kind: defaultdict[Kind, list[ArchiveImage]] = defaultdict(list)
    for one in images:
        by_kind[one.kind].append(one)
    groups: defaultdict[Hashable, list[tuple[Kind, list[ArchiveImage]]]] = defaultdict(list)
    for kind, found in sorted(by_kind.items(), key=lambda item: (-len(item[1]), repr(item[0]))):
        likely = groups[of(kind)]
        same = next((group for other, group in likely if kind.unsuitable or are_alike(other, kind)), None)
        if same is None:
            likely.append((kind, list(found)))
        else:
            same += found
    return [group for likely in groups.values() for _, group in likely]


def _commonest(images: Sequence[ArchiveImage]) -> Kind:
    return Counter(one.kind for one in images).most_common(1)[0][0]


def _without_copies(images: Sequence[ArchiveImage]) -> list[ArchiveImage]:
    kept: dict[Hashable, ArchiveImage] = {}
    for one in sorted(images, key=_place_on_disk):
        image = one.image  # an anonymiser may have given all images of a series one UID
        key = (
            (image.instance, image.frame, image.position, image.phase, one.kind)
            if image.instance
            else one.path
        )
        kept.setdefault(key, one)
    if len(kept) < len(images):
        log.info("%d images of a study are copies of others and left out", len(images) - len(kept))
    return list(kept.values())


def _place_on_disk(one: ArchiveImage) -> tuple[Path, int]:
    return one.path, one.image.frame or 0


def _phases(
    images: Sequence[ArchiveImage], kind: Kind
) -> tuple[list[tuple[ArchiveImage, ...]], list[tuple[ArchiveImage, ...]]]:
    """The images as parts in which no place is taken twice, and parts that are not the series' own.

    Where no tag tells doubled places apart, but folders do, the first folder has the series. Where
    nothing does, they stay together and will be refused.
    """
    if kind.unsuitable or _places_differ(images, kind):
        return [tuple(images)], []
    for number in range(len(images[0].image.phase)):
        parts = _parted(images, kind, partial(_phase, number))
        if parts:
            return parts, []
    folders = _parted(images, kind, lambda one: one.path.parent)
    if folders:
        return folders[:1], folders[1:]
    return [tuple(images)], []


def _phase(number: int, one: ArchiveImage) -> Hashable:
    return one.image.phase[number]


def _parted(
    images: Sequence[ArchiveImage], kind: Kind, of: Callable[[ArchiveImage], Hashable]
) -> list[tuple[ArchiveImage, ...]]:
    """The images by a value, in its order; none where that leaves places taken twice, or crumbs."""
    parts: defaultdict[Hashable, list[ArchiveImage]] = defaultdict(list)
    for one in images:
        parts[of(one)].append(one)
    sizes = [len(part) for part in parts.values()]
    if len(parts) == 1 or min(sizes) < FEWEST_IN_A_PHASE * max(sizes):
        return []
    if not all(_places_differ(part, kind) for part in parts.values()):
        return []
    if min(_extent(part, kind) for part in parts.values()) < EXTENT_OF_A_PHASE * _extent(images, kind):
        return []
    ordered = sorted(parts.items(), key=lambda item: (str(type(item[0])), item[0]))
    return [tuple(part) for _, part in ordered]


def _places_differ(images: Sequence[ArchiveImage], kind: Kind) -> bool:
    return bool((np.diff(_depths(images, kind)) >= NEAREST_SLICES_MM).all())


def _depths(images: Sequence[ArchiveImage], kind: Kind) -> Floats:
    """Where images lie along their normal, mm, sorted; empty where the headers do not tell."""
    positions = [one.image.position for one in images if one.image.position]
    if not positions or kind.orientation is None:
        return np.empty(0)
    axes = np.array(kind.orientation).reshape(2, 3)
    return np.sort(np.array(positions) @ np.cross(axes[0], axes[1]))


def _extent(images: Sequence[ArchiveImage], kind: Kind) -> float:
    depths = _depths(images, kind)
    return float(np.ptp(depths)) if len(depths) else 0.0


def _series(kind: Kind, images: tuple[ArchiveImage, ...], phase: int, settings: ReadSettings) -> Series:
    """The series with the geometry that its headers give, or the error that the reader will raise."""
    keys, count = StudyHeader(kind.patient_id, None, kind.series_uid or None), len(images)
    if kind.unsuitable:
        return Series(kind, images, count, keys, 0.0, None, phase)
    extent_mm = 0.0
    try:
        for one in images:
            fault = fault_of(one.image)
            if fault:
                raise fault
        positions = np.array([one.image.position for one in images], float)
        stacking = stack(grid_of(kind), positions, settings)
        header = with_steps(keys, stacking)
        extent_mm = float(np.abs(stacking.geometry.affine[2, 0]) * stacking.geometry.shape[0])
        header = with_geometry(header, stacking.geometry, settings)
    except StudyError as error:
        error = error.with_traceback(None)  # which holds the images
        return Series(kind, images, count, keys, extent_mm or _covered(images), error, phase)
    return Series(kind, images, count, header, extent_mm, None, phase)


def _covered(images: Sequence[ArchiveImage]) -> float:
    z = [one.image.position[2] for one in images if one.image.position]
    return max(z) - min(z) if z else 0.0


# --- the rule ------------------------------------------------------------------------------------


def _is_sound(series: Series) -> bool:
    return series.error is None and not series.kind.unsuitable


def _rank(series: Series, longest_mm: float) -> tuple[object, ...]:
    step = series.step_mm
    return (
        bool(series.kind.unsuitable),
        series.error is not None,
        series.extent_mm < SIMILAR_COVERAGE * longest_mm if series.error is None else -series.extent_mm,
        series.phase > 0,
        series.header.widest_step_mm is not None,
        max(round(step, 1), THIN_MM),
        series.kind.sharp,
        step,
        -round(series.extent_mm),
        series.phase,
        series.kind.series_uid,
        series.images[0].path,
    )


def _verdict(one: Series, chosen: Series | None, wanted: Collection[str]) -> Verdict:
    if one is chosen:
        return Verdict("refused", str(one.error)) if one.error else Verdict("screened", in_short(one))
    if one.kind.unsuitable:
        return Verdict("unsuitable", one.kind.unsuitable)
    if one.error:
        return Verdict("refused", str(one.error))
    if chosen is not None and chosen.kind.series_uid in wanted:
        return Verdict("not_chosen", "another is named by --series")
    return Verdict("not_chosen", _worse(one, chosen) if chosen else "")


def in_short(series: Series) -> str:
    """What a series offers, as the rule looks at it."""
    kernel = "sharp" if series.kind.sharp else "soft"
    steps = series.error.code if series.error else f"slices {series.step_mm:.2f} mm apart"
    return f"{series.extent_mm:.0f} mm, {steps}, {kernel} kernel"


def _worse(one: Series, chosen: Series) -> str:
    """The first point of the rule in which a series stands behind the chosen one."""
    if one.extent_mm < SIMILAR_COVERAGE * chosen.extent_mm:
        return f"covers less ({one.extent_mm:.0f} mm)"
    if one.phase and one.kind == chosen.kind:
        return "another phase"
    if one.phase and not chosen.phase:
        return "a phase of several"
    if one.header.widest_step_mm and not chosen.header.widest_step_mm:
        return "unevenly spaced"
    if max(round(one.step_mm, 1), THIN_MM) > max(round(chosen.step_mm, 1), THIN_MM):
        return f"thicker steps ({one.step_mm:.1f} mm)"
    if one.kind.sharp and not chosen.kind.sharp:
        return "sharper kernel"
    if one.step_mm > chosen.step_mm:
        return f"thicker steps ({one.step_mm:.2f} mm)"
    if round(one.extent_mm) < round(chosen.extent_mm):
        return f"covers a little less ({one.extent_mm:.0f} mm)"
    return "equal, with a larger UID"
