"""How long does `vfscreen check` take for an archive of headers, beside a plain loop of pydicom?

    python benchmarks/check_archive.py --files 100000

The files are headers as scanners write them, some 120 elements with private ones and sequences, without
pixels: studies of 200 slices in two or three series. `vfscreen check` runs twice, the second time with
the index that the first one left. The files are in the memory of the system each time: no disk is measured.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import faults
import numpy as np
import pyarrow.parquet as pq
import typer
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SLICES = 200
"""Of a study, all series together."""
SERIES = ((120, 60, 20), (100, 100), (150, 50), (90, 90, 20))
"""Slices of the series of every fourth study."""
STUDY, SERIES_NUMBER, INSTANCE, POSITION, NUMBER = "7351926408", "87", "61803", "-4321.25", "92716"
"""What stands in the template's bytes for digits of its own, of the same length."""


def main(
    files: Annotated[int, typer.Option(min=1, help="Files of the archive.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the UIDs.")] = 7,
    work: Annotated[Path | None, typer.Option(help="Folder for the archive, which then stays.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figures, as JSON.")] = None,
) -> None:
    with tempfile.TemporaryDirectory(prefix="vfscreen-check-") as temporary:
        folder = work or Path(temporary)
        elements, size = write_archive(folder / "archive", files, seed)
        plain = _plain_seconds(folder / "archive")
        command = [*faults.VFSCREEN, "check", str(folder / "archive"), "--out", str(folder / "results")]
        first = faults.finish(command)
        second = faults.finish(command)
        start_s = faults.finish([*faults.VFSCREEN, "--version"]).seconds
        series = _series_listed(folder / "results")
    studies = -(-files // SLICES)
    figures = {
        "files": files,
        "studies": studies,
        "elements": elements,
        "bytes_each": size,
        "series_written": _series_written(files),
        "series_listed": series,
        "codes": [first.code, second.code],
        "seconds": {"pydicom": plain, "first": first.seconds, "second": second.seconds, "command": start_s},
        "ratio": {"first": first.seconds / plain, "second": second.seconds / plain},
        "seconds_a_thousand_studies": {
            "first": 1000 * first.seconds / studies,
            "second": 1000 * second.seconds / studies,
        },
        "last_words": [end.last_words for end in (first, second) if end.code],
    }
    faults.report(_lines(figures), {"seed": seed, **figures}, out)
    raise typer.Exit(0 if figures["codes"] == [0, 0] and series == figures["series_written"] else 1)


def write_archive(archive: Path, files: int, seed: int) -> tuple[int, int]:
    """Write so many files; the elements and the bytes of each."""
    template, elements = _template()
    token_of = np.random.default_rng(seed)
    left = files
    for study in range(-(-files // SLICES)):
        token = str(token_of.integers(10 ** (len(STUDY) - 1), 10 ** len(STUDY)))
        for series, slices in enumerate(SERIES[study % len(SERIES)]):
            count = min(slices, left)
            _write_series(archive / f"study_{study:05d}" / str(series), template, token, series, count)
            left -= count
    return elements, len(template)


def _write_series(folder: Path, template: bytes, token: str, series: int, slices: int) -> None:
    if not slices:
        return
    folder.mkdir(parents=True)
    of_series = template.replace(SERIES_NUMBER.encode(), f"{series + 11}".encode())
    step_mm = 300 / slices
    for k in range(slices):
        position = f"{-1000 - step_mm * k:+08.2f}".encode()
        content = of_series.replace(POSITION.encode(), position).replace(
            NUMBER.encode(), f"{k + 1:05d}".encode()
        )
        content = content.replace(INSTANCE.encode(), f"{k + 10001}".encode())
        (folder / f"IM{k:04d}").write_bytes(content.replace(STUDY.encode(), token.encode()))


def _series_written(files: int) -> int:
    full, rest = divmod(files, SLICES)
    count = sum(len(SERIES[study % len(SERIES)]) for study in range(full))
    for slices in SERIES[full % len(SERIES)] if rest else ():
        count += rest > 0
        rest -= slices
    return count


def _series_listed(results: Path) -> int | None:
    path = results / "series.parquet"
    return pq.read_metadata(path).num_rows if path.exists() else None


def _plain_seconds(archive: Path) -> float:
    start = time.perf_counter()
    for path in _files(archive):
        dcmread(path, stop_before_pixels=True)
    return time.perf_counter() - start


def _files(archive: Path) -> Iterator[Path]:
    for study in sorted(archive.iterdir()):
        for series in sorted(study.iterdir()):
            yield from sorted(series.iterdir())


def _lines(figures: Mapping[str, Any]) -> list[str]:
    seconds, ratio, thousand = (figures[n] for n in ("seconds", "ratio", "seconds_a_thousand_studies"))
    return [
        f"{figures['files']} files of {figures['elements']} elements ({figures['bytes_each']} bytes) in "
        f"{figures['studies']} studies; {figures['series_listed']} of {figures['series_written']} series "
        "listed",
        f"plain pydicom {seconds['pydicom']:.1f} s; vfscreen check {seconds['first']:.1f} s "
        f"({ratio['first']:.2f} of it), again {seconds['second']:.1f} s ({ratio['second']:.2f} of it); "
        f"of each {seconds['command']:.1f} s are the command's start",
        f"a thousand studies of {SLICES} files: {thousand['first']:.0f} s, again {thousand['second']:.0f} s",
        *figures["last_words"],
    ]


# --- the header ----------------------------------------------------------------------------------


def _template() -> tuple[bytes, int]:
    """One file's bytes, and its number of elements, those in sequences included."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in {**_identity(), **_acquisition(), **_image()}.items():
        setattr(dataset, name, value)
    dataset.RequestAttributesSequence = [_item(RequestedProcedureID="1", ScheduledProcedureStepID="2")]
    dataset.ReferencedImageSequence = [
        _item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=f"1.2.826.9.{STUDY}.8.{k}")
        for k in range(2)
    ]
    dataset.ProcedureCodeSequence = [_item(CodeValue="71250", CodingSchemeDesignator="C4", CodeMeaning="CT")]
    _add_private(dataset)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue(), sum(1 for _ in dataset.iterall())


def _item(**values: str) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _identity() -> dict[str, Any]:
    uid = f"1.3.12.2.1107.5.1.4.{STUDY}.3000"
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
        "InstanceCreationDate": "20200131",
        "InstanceCreationTime": "101112.345000",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{uid}.3.{SERIES_NUMBER}.{INSTANCE}",
        "StudyDate": "20200131",
        "SeriesDate": "20200131",
        "AcquisitionDate": "20200131",
        "ContentDate": "20200131",
        "AcquisitionDateTime": "20200131101112.345000",
        "StudyTime": "100500.000000",
        "SeriesTime": "100800.125000",
        "AcquisitionTime": "101112.345000",
        "ContentTime": "101112.345000",
        "AccessionNumber": "A000017",
        "Modality": "CT",
        "Manufacturer": "NONE",
        "InstitutionName": "SIMULATED",
        "InstitutionAddress": "Nowhere 1",
        "ReferringPhysicianName": "NOBODY",
        "StationName": "CT1",
        "StudyDescription": "Chest low dose",
        "SeriesDescription": "Chest 1.0 B30f",
        "InstitutionalDepartmentName": "Radiology",
        "PerformingPhysicianName": "NOBODY",
        "OperatorsName": "NOBODY",
        "ManufacturerModelName": "Simulator",
        "IrradiationEventUID": f"{uid}.9",
        "PatientName": "SIMULATED",
        "PatientID": f"P{STUDY}",
        "PatientBirthDate": "19500101",
        "PatientSex": "O",
        "PatientAge": "070Y",
        "PatientSize": "1.70",
        "PatientWeight": "70",
        "PatientIdentityRemoved": "YES",
        "StudyInstanceUID": f"{uid}.1",
        "SeriesInstanceUID": f"{uid}.2.{SERIES_NUMBER}",
        "StudyID": "1",
        "SeriesNumber": SERIES_NUMBER,
        "AcquisitionNumber": "2",
        "InstanceNumber": NUMBER,
        "FrameOfReferenceUID": f"{uid}.4",
        "PositionReferenceIndicator": "",
    }


def _acquisition() -> dict[str, Any]:
    return {
        "BodyPartExamined": "CHEST",
        "ScanOptions": "HELICAL MODE",
        "SliceThickness": "1",
        "KVP": "120",
        "DataCollectionDiameter": "500",
        "DeviceSerialNumber": "12345",
        "SoftwareVersions": "syngo 0",
        "ProtocolName": "ThoraxLowDose",
        "ReconstructionDiameter": "358.4",
        "DistanceSourceToDetector": "1085.6",
        "DistanceSourceToPatient": "595",
        "GantryDetectorTilt": "0",
        "TableHeight": "155",
        "RotationDirection": "CW",
        "ExposureTime": "500",
        "XRayTubeCurrent": "60",
        "Exposure": "30",
        "FilterType": "FLAT",
        "GeneratorPower": "7",
        "FocalSpots": ["1.2"],
        "DateOfLastCalibration": "20200130",
        "TimeOfLastCalibration": "073000.000000",
        "ConvolutionKernel": ["B30f"],
        "PatientPosition": "FFS",
        "SingleCollimationWidth": 0.6,
        "TotalCollimationWidth": 38.4,
        "TableSpeed": 92.2,
        "TableFeedPerRotation": 46.1,
        "SpiralPitchFactor": 1.2,
        "DataCollectionCenterPatient": [0.0, -155.0, -1200.5],
        "ReconstructionTargetCenterPatient": [0.0, -155.0, -1200.5],
        "ExposureModulationType": "XYZ_EC",
        "EstimatedDoseSaving": 30.0,
        "CTDIvol": 2.1,
        "ImageComments": "",
        "RequestedProcedureDescription": "Chest low dose",
        "PerformedProcedureStepStartDate": "20200131",
        "PerformedProcedureStepStartTime": "100500.000000",
        "PerformedProcedureStepID": "1",
        "PerformedProcedureStepDescription": "Chest low dose",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
    }


def _image() -> dict[str, Any]:
    return {
        "ImagePositionPatient": ["-179.2", "-334.2", POSITION],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "SliceLocation": POSITION,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 512,
        "Columns": 512,
        "PixelSpacing": ["0.7", "0.7"],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": ["40", "-600"],
        "WindowWidth": ["350", "1500"],
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenterWidthExplanation": ["WINDOW1", "WINDOW2"],
    }


def _add_private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0029, "SIMULATED CSA HEADER", create=True)
    block.add_new(0x08, "CS", "SOM 5 NULLDATA")
    block.add_new(0x09, "LO", "VB10A")
    block.add_new(0x10, "OB", bytes(range(256)) * 2)
    other = dataset.private_block(0x0019, "SIMULATED CT VA0", create=True)
    for at in range(0x10, 0x18):
        other.add_new(at, "DS", f"{at / 7:.4f}")


if __name__ == "__main__":
    typer.run(main)
