"""One study stage by stage, with all that each one gave: to see why a result is what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vfscreen.detect import detect
from vfscreen.errors import StudyError
from vfscreen.localize import LocalizerInput, Track, localizer_input, track
from vfscreen.readers import read_volume
from vfscreen.screening import Measured, curve_of, header_of, measure_studies
from vfscreen.settings import Settings
from vfscreen.straighten import Straightened, straightened
from vfscreen.study import Detection

if TYPE_CHECKING:
    from vfscreen.networks.weights import Models

FAINT_SCORE = 0.05
"""Down to this score the detections are shown that do not count."""


@dataclass(frozen=True)
class Stages:
    """What each stage of one study gave, as far as it came; `error` says why it came no further.

    `faint` are detections whose score is too low to count.
    """

    reduced: LocalizerInput | None = None
    track: Track | None = None
    along: Straightened | None = None
    faint: tuple[Detection, ...] = ()
    measured: Measured | None = None
    error: StudyError | None = None


def stages(study: str | Path, models: Models, settings: Settings) -> Stages:
    """Screen a folder of one DICOM series or a NIfTI file, with the result of `screening.screen`.

    Raises InputError where the path is wrong; a study that cannot be measured carries its error.
    """
    seen = Stages()
    try:
        volume = read_volume(study)
        reduced = localizer_input(volume, settings.localize)
        seen = Stages(reduced, track(reduced, models.localizer))
        along = straightened(volume, curve_of(reduced, models, settings), settings.straighten)
        seen = replace(seen, along=along, faint=_faint(along, models, settings))
        (measured,) = measure_studies([(header_of(volume), along)], models, settings)
        return replace(seen, measured=measured)
    except StudyError as error:
        return replace(seen, error=error)


def _faint(along: Straightened, models: Models, settings: Settings) -> tuple[Detection, ...]:
    """What the detector also sees, below the score that counts; beside what counts it never stands."""
    low = replace(settings.detect, min_score=FAINT_SCORE)
    (found,) = detect([along.sheet], models.detector, low)
    return tuple(each for each in found if each.score <= settings.detect.min_score)
