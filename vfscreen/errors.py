"""The tree of errors. Each `StudyError` has the stable code that `studies.error` shows.

VfscreenError
├── InputError             the command line, manifest or input folder is wrong (exit code 2)
├── WeightsError           the weights are missing, altered or of another network
└── StudyError             one study cannot be screened; it becomes a row with this code
    ├── UnreadableFile         a file cannot be opened or decoded
    ├── FilesVanished          a file that was listed is gone, or its share does not answer
    ├── MissingGeometry        a header lacks spacing, position or orientation
    ├── InconsistentGeometry   slices are missing, doubled, or do not form one volume
    ├── ImplausibleValues      the values are no Hounsfield units of a body
    ├── NoSuitableSeries       nothing but scouts, derived images or other modalities (skipped)
    ├── PackedArchive          a zip or tar file, which is not opened (skipped)
    ├── UnsupportedFormat      a volume that is neither DICOM nor NIfTI (skipped)
    ├── TooShort               too few centimetres along the body to hold a spine (skipped)
    ├── TooLarge               more pixels than a reader's memory may hold
    ├── SpineNotFound          the localizer sees no spine
    ├── ReaderDied             the reader process ended while it read this study
    ├── ReaderTimeout          reading took longer than the limit
    ├── WorkerDied             a worker of a cluster ended while it screened this study
    ├── OutOfMemory            reading needed more memory than the limit
    └── UnexpectedError        any other exception, with its type and place
"""


class VfscreenError(Exception):
    """Base of all errors raised by vfscreen."""


class InputError(VfscreenError):
    """The command line, manifest or input folder is wrong."""


class WeightsError(VfscreenError):
    """The weights are missing, altered, malformed, or belong to another network."""


class StudyError(VfscreenError):
    """One study cannot be screened. `code` is stable; the message is a sentence for a person.

    `advice` says what to do about it: docs/errors.md is made of it and of the docstrings.
    """

    code = "study_error"
    status = "failed"
    advice = ""


class UnreadableFile(StudyError):
    """A file cannot be opened or its pixels cannot be decoded."""

    code = "unreadable_file"
    advice = (
        "Copy or export the files named again: they are truncated, damaged, or not readable for this user. A "
        "transfer syntax without a decoder is named in the reason; `vfscreen info` lists the decoders."
    )


class FilesVanished(StudyError):
    """A file that was listed is gone, or its disk, share or object storage gives no answer."""

    code = "files_vanished"
    advice = (
        "The study was moved or deleted meanwhile, or the share with the archive went away. Each next call "
        "tries again what it still finds; the run stops where study after study is gone."
    )


class MissingGeometry(StudyError):
    """A header lacks spacing, position or orientation; they are never guessed."""

    code = "missing_geometry"
    advice = (
        "Export the study again from the archive of the scanner's own images: a converter or anonymiser "
        "dropped the tag that the reason names. If another series of the study is whole, name it with "
        "`--series`."
    )


class InconsistentGeometry(StudyError):
    """Slices are missing, doubled, of different size, or not parallel, or two headers contradict."""

    code = "inconsistent_geometry"
    advice = (
        "Look whether the transfer of the series was complete, and send it again. Small gaps are resampled "
        "from the true positions and named as a doubt; only what would hide a vertebra's endplate is refused."
    )


class ImplausibleValues(StudyError):
    """The values are no Hounsfield units of a body: all alike, or as bright as bone everywhere."""

    code = "implausible_values"
    advice = (
        "See whether the rescaling to Hounsfield units was lost in a conversion (often an offset of 1024), "
        "and convert the study again from its DICOM."
    )


class NoSuitableSeries(StudyError):
    """The study holds no axial original CT series."""

    code = "no_suitable_series"
    status = "skipped"
    advice = (
        "Nothing to do where the study holds only localizers, reformats or reports. `vfscreen check` lists "
        "each series with the reason; `--series` takes one all the same."
    )


class PackedArchive(StudyError):
    """A zip, tar or similar file, or compressed slices, which are not opened: they may hold studies."""

    code = "packed_archive"
    status = "skipped"
    advice = "Unpack it beside itself where it holds studies; the next call finds them."


class UnsupportedFormat(StudyError):
    """A volume in a format that is not read: NRRD, MetaImage, Analyze, MGH, or NIfTI not packed by gzip."""

    code = "unsupported_format"
    status = "skipped"
    advice = "Convert it to NIfTI (`.nii` or `.nii.gz`) from the DICOM, where there is one."


class TooShort(StudyError):
    """The image covers too little of the body along the spine to be screened."""

    code = "too_short"
    status = "skipped"
    advice = "Nothing to do, unless slices are missing from the archive: the reason says what is covered."


class TooLarge(StudyError):
    """The header promises more pixels than a reader's memory may hold; nothing was decoded."""

    code = "too_large"
    advice = (
        "Mostly a damaged header. Where the study is really so large, use `--memory` with more and "
        "`--workers` with less, and `--retry-failed`."
    )


class SpineNotFound(StudyError):
    """The localizer sees no spine in the image."""

    code = "spine_not_found"
    advice = "Look at the study: it shows no vertebral column (a head, a limb), or an unusual one."


class ReaderDied(StudyError):
    """The reader process ended (crashed or was killed) while it held this study."""

    code = "reader_died"
    advice = (
        "A decoder crashed, or the system was out of memory. Each next call tries again; if it stays, "
        "decompress the study with another tool (`gdcmconv --raw`), or use fewer `--workers`."
    )


class ReaderTimeout(StudyError):
    """Reading the study took longer than the limit."""

    code = "reader_timeout"
    advice = "A slow disk or network, or a decoder in an endless loop. Try `--retry-failed --timeout 3600`."


class WorkerDied(StudyError):
    """A worker process of a cluster ended twice while it screened this study, the second time alone."""

    code = "worker_died"
    advice = (
        "The log of the worker (`logs/` in the results) may tell why; mostly its machine was out of memory "
        "or was taken away. Each next call tries again; if it stays, screen the study on one machine."
    )


class OutOfMemory(StudyError):
    """Reading the study needed more memory than the limit of a reader."""

    code = "out_of_memory"
    advice = "Use `--memory` with more and `--workers` with less, and `--retry-failed`."


class UnexpectedError(StudyError):
    """An exception that no stage foresaw; its type and place are in the message."""

    code = "unexpected_error"
    advice = "A fault of vfscreen: please report it with the reason and the output of `vfscreen info`."
