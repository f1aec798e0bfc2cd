"""The tree of errors. Each `StudyError` has the stable code that `studies.error` shows.

VfscreenError
├── InputError             the command line, manifest or input folder is wrong (exit code 2)
├── WeightsError           the weights are missing, altered or of another network
└── StudyError             one study cannot be screened; it becomes a row with this code
    ├── UnreadableFile         a file cannot be opened or decoded
    ├── MissingGeometry        a header lacks spacing, position or orientation
    ├── InconsistentGeometry   slices are missing, doubled, or do not form one volume
    ├── NoSuitableSeries       nothing but scouts, derived images or other modalities (skipped)
    ├── TooShort               too few centimetres along the body to hold a spine (skipped)
    ├── SpineNotFound          the localizer sees no spine
    ├── ReaderDied             the reader process ended while it read this study
    ├── ReaderTimeout          reading took longer than the limit
    └── UnexpectedError        any other exception, with its type and text
"""


class VfscreenError(Exception):
    """Base of all errors raised by vfscreen."""


class InputError(VfscreenError):
    """The command line, manifest or input folder is wrong."""


class WeightsError(VfscreenError):
    """The weights are missing, altered, or belong to another network."""


class StudyError(VfscreenError):
    """One study cannot be screened. `code` is stable; the message is a sentence for a person."""

    code = "study_error"
    status = "failed"


class UnreadableFile(StudyError):
    """A file cannot be opened or its pixels cannot be decoded."""

    code = "unreadable_file"


class MissingGeometry(StudyError):
    """A header lacks spacing, position or orientation; they are never guessed."""

    code = "missing_geometry"


class InconsistentGeometry(StudyError):
    """Slices are missing, doubled, of different size, or not parallel."""

    code = "inconsistent_geometry"


class NoSuitableSeries(StudyError):
    """The study holds no axial original CT series."""

    code = "no_suitable_series"
    status = "skipped"


class TooShort(StudyError):
    """The image covers too little of the body along the spine to be screened."""

    code = "too_short"
    status = "skipped"


class SpineNotFound(StudyError):
    """The localizer sees no spine in the image."""

    code = "spine_not_found"


class ReaderDied(StudyError):
    """The reader process ended (crashed or was killed) while it held this study."""

    code = "reader_died"


class ReaderTimeout(StudyError):
    """Reading the study took longer than the limit."""

    code = "reader_timeout"


class UnexpectedError(StudyError):
    """An exception that no stage foresaw; its type and text are in the message."""

    code = "unexpected_error"
