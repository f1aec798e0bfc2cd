"""A study's measurements as a DICOM Structured Report, TID 1500 in a Comprehensive 3D SR: `--dicom-sr`.

docs/formats.md shows the content tree and its codes. This module alone imports highdicom, which comes with
the extra `vfscreen[dicom-sr]`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    CoordinatesForMeasurement3D,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from vfscreen import __version__
from vfscreen.measure import grade
from vfscreen.results import StudyRecord, vertebra_rows
from vfscreen.study import HEIGHTS, SourceImages, StudyResult, Vertebra
from vfscreen.volume import Floats

logger = logging.getLogger(__name__)

SCHEME = "99VFSCREEN"
SERIES_NUMBER = 9900  # behind those of any scanner
_UIDS = uuid.uuid5(uuid.NAMESPACE_OID, SCHEME)  # namespace of all UIDs that are made here


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)


GENANT_RATIO = _own("GENANT_RATIO", "Genant ratio")
GENANT_GRADE = _own("GENANT_GRADE", "Genant grade")
SHAPE = _own("SHAPE", "Shape of vertebral deformity")
STATUS = _own("STATUS", "Status of measurement")
DOUBT = _own("DOUBT", "Doubt about measurement")
STATUSES = {
    "ok": _own("OK", "Measured"),
    "partial": _own("PARTIAL", "Too little measured to rule out a fracture"),
}
GRADES: Mapping[str, Code] = {
    "normal": codes.SCT.Normal,
    "mild": codes.SCT.Mild,
    "moderate": codes.SCT.Moderate,
    "severe": codes.SCT.Severe,
}
SHAPES: Mapping[str, Code | CodedConcept] = {
    "normal": codes.SCT.Normal,
    "wedge": codes.SCT.WedgeShaped,
    "biconcave": _own("BICONCAVE", "Biconcave"),
    "crush": _own("CRUSH", "Crush"),
}
PLACES: Mapping[str, Code] = {
    "anterior": codes.SCT.Anterior,
    "middle": codes.NCIt.Middle,
    "posterior": codes.SCT.Posterior,
}
"""Which of the three heights of a vertebra, as the topographical modifier of its finding site."""


@dataclass
class Reports:
    """Hands out what makes the report of each study of a run, and counts those that can have none.

    `weights` are the provenance of the networks, by name.
    """

    weights: Mapping[str, Mapping[str, Any]]
    without: int = 0

    def of(self, record: StudyRecord, images: SourceImages | None) -> Callable[[], bytes] | None:
        """What makes the report of a finished study; None where nothing was measured or it is not DICOM."""
        if record.result is None or not record.result.vertebrae:
            return None
        if images is None:
            self.without += 1
            return None
        return partial(structured_report, record, record.result, images, self.weights)

    def tell(self) -> None:
        """Log how many of the measured studies have no report because of what they are."""
        if self.without:
            logger.warning(
                "Measured studies without a DICOM SR: %d. NIfTI files have none, and DICOM studies whose "
                "images cannot be referred to are named above.",
                self.without,
            )


def structured_report(
    record: StudyRecord, result: StudyResult, images: SourceImages, weights: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """The DICOM file of a study with a vertebra. The same result of the same images has the same UIDs.

    Of the source's headers it has the patient's id as the tables have it, study date and time, and UIDs.
    """
    vertebrae = vertebra_rows(record)
    tells = [record.header.study_date, result.status, *_doubts(result), *vertebrae]
    series_uid = _uid(record.study_id, images.series_uid)
    report_uid = _uid(series_uid, __version__, _digest([tells, asdict(images), weights]))
    algorithm = AlgorithmIdentification("vfscreen", __version__, [_hashes(weights)])
    groups = [_of_study(result, algorithm, report_uid)]
    for number, vertebra in enumerate(result.vertebrae, start=1):
        tracking = TrackingIdentifier(_uid(report_uid, number), f"vertebra {number}")
        groups.append(_of_vertebra(vertebra, tracking, algorithm, images.frame_of_reference_uid))
    content = MeasurementReport(
        observation_context=_observer(weights),
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )
    report = Comprehensive3DSR(
        evidence=_evidence(images, vertebrae[0]["patient_id"], record.header.study_date),
        content=content[0],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        series_description="Vertebral heights by vfscreen",
        sop_instance_uid=report_uid,
        instance_number=1,
        manufacturer="vfscreen",
        manufacturer_model_name="vfscreen",
        software_versions=__version__,
        is_complete=result.status == "ok",
        specific_character_set="ISO_IR 192",
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="vfscreen")],
    )
    stream = io.BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _of_study(
    result: StudyResult, algorithm: AlgorithmIdentification, report_uid: str
) -> MeasurementsAndQualitativeEvaluations:
    """The smallest G, its grade, the status, and the doubts in words."""
    smallest = min(vertebra.genant_ratio for vertebra in result.vertebrae)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(_uid(report_uid, "study"), "study"),
        algorithm_id=algorithm,
        finding_sites=[FindingSite(codes.SCT.Spine)],
        measurements=[_ratio(smallest, derivation=codes.SCT.Minimum)],
        qualitative_evaluations=[
            QualitativeEvaluation(GENANT_GRADE, GRADES[grade(smallest)]),
            QualitativeEvaluation(STATUS, STATUSES[result.status]),
        ],
    )
    texts = (TextContentItem(DOUBT, doubt, RelationshipTypeValues.CONTAINS) for doubt in _doubts(result))
    group[0].ContentSequence.extend(texts)
    return group


def _of_vertebra(
    vertebra: Vertebra, tracking: TrackingIdentifier, algorithm: AlgorithmIdentification, frame_uid: str
) -> MeasurementsAndQualitativeEvaluations:
    """Three heights with the two keypoints of each, G, grade, shape and doubts."""
    pairs = vertebra.keypoints_mm.reshape(3, 2, 3)  # superior and inferior of each height
    heights = zip(HEIGHTS, vertebra.heights_mm.tolist(), pairs, strict=True)
    evaluations = [
        QualitativeEvaluation(GENANT_GRADE, GRADES[vertebra.grade]),
        QualitativeEvaluation(SHAPE, SHAPES[vertebra.shape]),
        *(QualitativeEvaluation(DOUBT, _own(name.upper(), name)) for name in vertebra.doubts),
    ]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        algorithm_id=algorithm,
        finding_sites=[FindingSite(codes.SCT.Vertebra)],
        measurements=[
            *(_height(PLACES[name], mm, points, frame_uid) for name, mm, points in heights),
            _ratio(vertebra.genant_ratio),
        ],
        qualitative_evaluations=evaluations,
    )


def _height(place: Code, mm: float, points_mm: Floats, frame_uid: str) -> Measurement:
    """A height with its points (2, 3), the superior and then the inferior one, LPS mm."""
    return Measurement(
        name=codes.DCM.Height,
        value=mm,
        unit=codes.UCUM.Millimeter,
        finding_sites=[FindingSite(codes.SCT.Vertebra, topographical_modifier=place)],
        referenced_coordinates=[
            CoordinatesForMeasurement3D(
                "POINT", np.atleast_2d(point), frame_uid, purpose=codes.DCM.SourceOfMeasurement
            )
            for point in points_mm
        ],
    )


def _ratio(value: float, derivation: Code | None = None) -> Measurement:
    return Measurement(GENANT_RATIO, float(value), codes.UCUM.Ratio, derivation=derivation)


def _doubts(result: StudyResult) -> list[str]:
    return [f"{doubt.name}: {doubt.reason}" for doubt in result.doubts]


def _observer(weights: Mapping[str, Any]) -> ObservationContext:
    """The device that measured: this version of vfscreen with these weights."""
    device = DeviceObserverIdentifyingAttributes(
        uid=_uid("device", __version__, _digest(weights)),
        name="vfscreen",
        manufacturer_name="vfscreen",
        model_name="vfscreen",
        serial_number=__version__,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _hashes(weights: Mapping[str, Mapping[str, Any]]) -> str:
    """As run.json tells them."""
    hashes = [f"{network} {made['sha256']}" for network, made in sorted(weights.items())]
    return f"SHA-256 of weights: {', '.join(hashes)}"


def _evidence(images: SourceImages, patient_id: str | None, study_date: str | None) -> Sequence[Dataset]:
    """The instances that were measured; highdicom takes what it says of patient and study from the first."""
    instances = [_instance(uid, images) for uid in images.instance_uids]
    first = instances[0]
    first.PatientID = patient_id or ""
    first.StudyDate, first.StudyTime = (study_date or "").replace("-", ""), images.study_time
    first.PatientName = first.PatientBirthDate = first.PatientSex = ""
    first.AccessionNumber = first.StudyID = first.ReferringPhysicianName = ""
    return instances


def _instance(uid: str, images: SourceImages) -> Dataset:
    instance = Dataset()
    instance.SOPClassUID, instance.SOPInstanceUID = images.sop_class_uid, uid
    instance.StudyInstanceUID, instance.SeriesInstanceUID = images.study_uid, images.series_uid
    return instance


def _uid(*names: object) -> str:
    """A UID that these names always have."""
    return f"2.25.{uuid.uuid5(_UIDS, json.dumps(names)).int}"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
