"""The result folder: table schemas, parts written while a run goes on, and the tables made from them.

rows.py -> parts.py -> tables.py        schemas.py: every column
a study    a run       the folder       folder.py: locks, run.json
                                        copies.py: results on object storage
"""

from vfscreen.results.copies import WorkingCopy, working_copy
from vfscreen.results.files import valid, write_csv, write_parquet
from vfscreen.results.folder import SET_ASIDE, locked, read_run_json, set_aside, write_run_json
from vfscreen.results.parts import (
    RETRIED,
    Finished,
    ResultWriter,
    copy_parts,
    finished_studies,
    thumbnail_path,
)
from vfscreen.results.rows import StudyRecord, is_flagged, patient_rows, study_row, vertebra_rows
from vfscreen.results.schemas import FLAGGED, PATIENTS, STAGES, STUDIES, VERTEBRAE, Row, StudyKey, column
from vfscreen.results.tables import consolidate

__all__ = [
    "FLAGGED",
    "PATIENTS",
    "RETRIED",
    "SET_ASIDE",
    "STAGES",
    "STUDIES",
    "VERTEBRAE",
    "Finished",
    "ResultWriter",
    "Row",
    "StudyKey",
    "StudyRecord",
    "WorkingCopy",
    "column",
    "consolidate",
    "copy_parts",
    "finished_studies",
    "is_flagged",
    "locked",
    "patient_rows",
    "read_run_json",
    "set_aside",
    "study_row",
    "thumbnail_path",
    "valid",
    "vertebra_rows",
    "working_copy",
    "write_csv",
    "write_parquet",
    "write_run_json",
]
