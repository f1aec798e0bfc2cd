"""What lies about in archives: links, pipes, packed files, copies, odd names, files cut short."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import tempfile
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import UID

from faults.registry import Failed, Measured, NotPossible, fault
from faults.sound import shifted, short, sound
from faults.writing import save, slices

PACKED = Failed("packed_archive", "not opened")


@fault("a series twelve folders deep", Measured())
def deep(folder: Path) -> None:
    save(slices(sound()), folder.joinpath(*"abcdefghijkl"))


@fault("one series over three folders", Measured())
def over_three_folders(folder: Path) -> None:
    for n, part in enumerate("abc"):
        save(slices(sound(), StudyInstanceUID="1.2.3.1", SeriesInstanceUID="1.2.3.1.1")[n::3], folder / part)


@fault("two studies in one folder", Measured(), Measured())
def two_studies_in_one_folder(folder: Path) -> None:
    for letter in "ab":
        save(slices(sound()), folder, [f"{letter}{n}" for n in range(len(sound().hu))])


@fault("two patients with one StudyInstanceUID", Measured(), Measured())
def two_patients(folder: Path) -> None:
    for patient in ("P-1", "P-2"):
        save(slices(sound(), StudyInstanceUID="1.2.3.2", PatientID=patient), folder / patient)


@fault("a DICOMDIR", Measured())
def dicomdir(folder: Path) -> None:
    files = FileSet()
    tags = {"StudyTime": "120000", "StudyID": "7", "SeriesNumber": "3"}
    for path in save(slices(sound(), **tags), folder / "temporary"):
        files.add(path)
    files.write(folder)
    shutil.rmtree(folder / "temporary")


@fault("files that are none of DICOM beside a series", Measured())
def other_files(folder: Path) -> None:
    save(slices(sound()), folder)
    for name in ("Thumbs.db", "notes.txt", "report.PDF", "README", "checksums.md5", "done", "run.exe"):
        (folder / name).write_bytes(b"no image, whatever the name")
    for name in (".DS_Store", "._IM0000", "lock.tmp", ".nfs0001"):
        (folder / name).touch()
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._IM0000.dcm").write_bytes(b"\0\5\26\7")


@fault("an empty folder")
def empty_folder(folder: Path) -> None:
    (folder / "nothing" / "in here").mkdir(parents=True)


@fault("a folder of texts")
def texts(folder: Path) -> None:
    (folder / "README").write_text("the images were moved")
    (folder / "list.csv").write_text("path\n/elsewhere\n")


@fault("folders named like files", Measured(), Measured())
def named_like_files(folder: Path) -> None:
    save(slices(sound()), folder / "ct.nii.gz")
    save(slices(sound()), folder / "packed.zip")


@fault("a zip beside a series", Measured(), PACKED)
def zip_beside(folder: Path) -> None:
    save(slices(sound()), folder / "series")
    shutil.make_archive(str(folder / "packed"), "zip", folder / "series")


@fault("a tar.gz with a series and nothing else", PACKED)
def only_tar(folder: Path) -> None:
    save(slices(short())[:3], folder / "series")
    shutil.make_archive(str(folder / "packed"), "gztar", folder / "series")
    shutil.rmtree(folder / "series")


@fault("packed files of other kinds", PACKED, PACKED, PACKED, PACKED)
def other_packed(folder: Path) -> None:
    for name in ("a.7z", "B.RAR", "c.tar", "d.TGZ"):
        (folder / name).write_bytes(b"whatever is in it")


@fault("links in a circle", Measured())
def circle(folder: Path) -> None:
    save(slices(sound()), folder / "a" / "b")
    (folder / "a" / "b" / "up").symlink_to("../..", target_is_directory=True)
    (folder / "a" / "again").symlink_to("b", target_is_directory=True)


@fault("a link to itself beside a folder of slices", Measured())
def link_to_itself(folder: Path) -> None:
    save(slices(sound()), folder / "series")
    (folder / "itself").symlink_to("itself")


@fault("a link to itself among slices", Failed("unreadable_file", "IM0009"))
def link_to_itself_among_slices(folder: Path) -> None:
    save(slices(short()), folder)[9].unlink()
    (folder / "IM0009").symlink_to("IM0009")


@fault("a link to a series elsewhere", Measured())
def link_to_series(folder: Path) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir=folder.parents[1]))
    save(slices(sound()), elsewhere)
    (folder / "series").symlink_to(elsewhere, target_is_directory=True)


@fault("a link to nothing among slices", Failed("unreadable_file", "link to nothing"))
def dangling(folder: Path) -> None:
    save(slices(short()), folder)[9].unlink()
    (folder / "IM0009").symlink_to("../moved/IM0009")


@fault("a pipe and a socket among slices", Measured())
def pipes(folder: Path) -> None:
    save(slices(sound()), folder)
    os.mkfifo(folder / "pipe.dcm")
    with tempfile.TemporaryDirectory(dir="/tmp") as near, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{near}/s")  # a socket's path has to be short
        try:
            os.rename(f"{near}/s", folder / "socket")
        except OSError as error:
            raise NotPossible("the archive is not in /tmp's file system") from error


@fault("a folder that may not be listed", Failed("unreadable_file", "cannot be listed"))
def locked_folder(folder: Path) -> None:
    save(slices(short()), folder / "locked")
    _forbid(folder / "locked")


@fault("a slice that may not be read", Failed("unreadable_file", "IM0009"))
def locked_file(folder: Path) -> None:
    _forbid(save(slices(short()), folder)[9])


def _forbid(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        raise NotPossible("root may read everything")


@fault("names that are no UTF-8", Measured())
def odd_names(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller \xff"))
    try:
        save(slices(sound()), odd, [os.fsdecode(b"\xe9\x80 %d" % n) for n in range(len(sound().hu))])
    except OSError as error:
        raise NotPossible("the file system wants UTF-8") from error


@fault("names with line breaks, quotes, emoji and commas", Measured())
def unusual_names(folder: Path) -> None:
    names = [f'sl\'ice "{n}",\n%s ☢ [bold].txt.{n}' for n in range(len(sound().hu))]
    save(slices(sound()), folder / "a,b\n;c\t'd' [red]x[/red]", names)


@fault("an empty file named dcm among slices", Failed("unreadable_file", "named like DICOM"))
def empty_dcm(folder: Path) -> None:
    save(slices(short()), folder)
    (folder / "last.dcm").touch()


@fault("an empty file without a suffix among slices", Failed("unreadable_file", "empty"))
def empty_file(folder: Path) -> None:
    save(slices(short()), folder)
    (folder / "IM9999").touch()


@fault("a slice of zeros", Failed("unreadable_file", "blank"))
def zeros(folder: Path) -> None:
    path = save(slices(short()), folder)[9]
    path.write_bytes(bytes(path.stat().st_size))


@fault("a slice cut in its header", Failed("unreadable_file", "IM0009"))
def cut_header(folder: Path) -> None:
    path = save(slices(short()), folder)[9]
    path.write_bytes(path.read_bytes()[:700])


@fault("a slice cut in its preamble", Failed("unreadable_file"))
def cut_preamble(folder: Path) -> None:
    path = save(slices(short()), folder)[9]
    path.write_bytes(path.read_bytes()[:100])


@fault("a text named dcm", Failed("unreadable_file", "named like DICOM"))
def text_named_dcm(folder: Path) -> None:
    (folder / "report.dcm").write_text("DOE^JANE 19500101")


@fault("one study copied twice", Measured())
def copied_twice(folder: Path) -> None:
    save(slices(sound()), folder / "first")
    shutil.copytree(folder / "first", folder / "second")


@fault("a few slices copied under other names", Measured())
def some_copied(folder: Path) -> None:
    for path in save(slices(sound()), folder)[10:20]:
        shutil.copy(path, folder / f"copy of {path.name}")


@fault("UIDs of another patient's images", Measured(), Failed("inconsistent_geometry", "are no copy"))
def same_uids(folder: Path) -> None:
    tags = {"StudyInstanceUID": "1.2.3.3", "SeriesInstanceUID": "1.2.3.3.1"}
    save(slices(sound(), **tags), folder / "first")
    save(slices(shifted(sound(), 4), **tags), folder / "second")


@fault("two folders without StudyInstanceUID", Measured(), Measured())
def no_study_uid(folder: Path) -> None:
    for name in "ab":
        save(slices(sound(), StudyInstanceUID=None), folder / name)


@fault("no UID but those of the images", Measured())
def no_uids(folder: Path) -> None:
    save(slices(sound(), StudyInstanceUID=None, SeriesInstanceUID=None), folder)


@fault("no preamble, as old archives have it", Measured())
def no_preamble(folder: Path) -> None:
    for path in save(slices(sound()), folder):
        content = path.read_bytes()
        length = int.from_bytes(content[140:144], "little")
        path.write_bytes(content[144 + length :])


@fault("a broken NIfTI file beside a series", Measured(), Failed("unreadable_file", "NIfTI"))
def broken_nifti(folder: Path) -> None:
    save(slices(sound()), folder)
    (folder / "ct.nii.gz").write_bytes(b"not packed at all")


@fault("names ending in a dot, a space and two suffixes", Measured())
def trailing(folder: Path) -> None:
    save(slices(sound()), folder / "study. ", [f"{n}.ima.gz.bak " for n in range(len(sound().hu))])


@fault("one SOPInstanceUID for all slices", Measured())
def one_instance_uid(folder: Path) -> None:
    save(slices(sound(), SOPInstanceUID="1.2.3"), folder)


@fault("file meta information of another image", Measured())
def meta_contradicts(folder: Path) -> None:
    for path in save(slices(sound()), folder):
        dataset = dcmread(path)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
        dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
        dataset.save_as(path)


@fault("a blank file in a folder of two studies", Measured(), Measured(), Failed("unreadable_file", "blank"))
def blank_beside_two(folder: Path) -> None:
    for letter in "ab":
        save(slices(sound()), folder, [f"{letter}{n}" for n in range(len(sound().hu))])
    (folder / "c0").write_bytes(bytes(500))


@fault(
    "a whole study, and a copy of it with all files cut short",
    Measured(),
    Failed("unreadable_file", "header"),
)
def copy_cut_short(folder: Path) -> None:
    save(slices(sound()), folder / "first")
    shutil.copytree(folder / "first", folder / "second")
    for path in (folder / "second").iterdir():
        path.write_bytes(path.read_bytes()[:700])


@fault("slices compressed one by one", Failed("packed_archive", "compressed files"))
def compressed_slices(folder: Path) -> None:
    for path in save(slices(short())[:4], folder):
        path.with_name(f"{path.name}.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@fault("volumes in other formats", *[Failed("unsupported_format")] * 5)
def other_formats(folder: Path) -> None:
    for name in ("a.nrrd", "b.mha", "C.HDR", "C.IMG", "d.nii.bz2", "e.mgz"):
        (folder / name).write_bytes(b"whatever is in it")


@fault("a slice whose preamble lost its letters", Failed("unreadable_file", "named like the slices"))
def without_letters(folder: Path) -> None:
    save(slices(sound()), folder)
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes().replace(b"DICM", b"DIXM", 1))


@fault("every second slice without StudyInstanceUID", Measured())
def half_without_study(folder: Path) -> None:
    save(_every_second_without("StudyInstanceUID"), folder)


@fault("every second slice without SeriesInstanceUID and PatientID", Measured())
def half_without_series(folder: Path) -> None:
    save(_every_second_without("SeriesInstanceUID", "PatientID"), folder)


def _every_second_without(*names: str) -> list[Dataset]:
    found = slices(sound())
    for dataset in found[::2]:
        for name in names:
            delattr(dataset, name)
    return found
