"""Result folders made on the spot, with everything that the page of a run reads."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from vfscreen.measure import genant_ratio, grade, heights_mm, shape
from vfscreen.results import (
    ResultWriter,
    StudyRecord,
    consolidate,
    is_flagged,
    thumbnail_path,
    write_run_json,
)
from vfscreen.study import StudyHeader, StudyResult, Vertebra

RUN = {
    "input": "/home/jane_doe/archive",
    "settings": {"measure": {"threshold": 0.74}, "refine": {"enabled": True}},
    "weights": {"localizer": {"sha256": "cf3f0a67455a"}, "detector": {"sha256": "8187cf5db737"}},
    "pseudonyms": None,
    "versions": {"vfscreen": "0.1.0"},
    "options": {"limit": None},
    "calls": [{"started": "2026-03-01T20:00:00.000+00:00", "command": ["vfscreen", "run", "/home/jane_doe"]}],
}


def study(
    study_id,
    *ratios,
    patient="",
    date="2020-01-02",
    status="ok",
    doubts=(),
    error=None,
    sd=0.02,
    source=None,
):
    """A study whose vertebrae are wedges of these G, or that failed with this error."""
    header = StudyHeader(patient or f"P-{study_id}", date, "1.2.3", 200, 1.5, 0.7)
    vertebrae = tuple(_vertebra(ratio, -30.0 * i, sd) for i, ratio in enumerate(ratios))
    result = None if error else StudyResult(header, status, vertebrae, doubts=doubts)
    return StudyRecord(study_id, source or f"in/{study_id}", None, result, error, header, {"read": 1.0})


def write_run(out, *records, threshold=0.74, **run):
    """A finished run of these studies; every flagged one has the same picture."""
    with ResultWriter(out, threshold, max_studies=1000) as writer:
        for record in records:
            is_shown = record.result and is_flagged(record.result, threshold)
            writer.add(record, b"" if is_shown else None)  # named, and linked below: 10,000 are fast
            if is_shown:
                _show(out, record.study_id)
    consolidate(out)
    settings = {**RUN["settings"], "measure": {"threshold": threshold}}
    write_run_json(out, {**RUN, "settings": settings, **run})
    return out


def _vertebra(ratio, z, sd):
    heights = np.array([20 * ratio, 19.5 if ratio < 0.97 else 20.0, 20.0])
    points = np.zeros((6, 3))
    points[:, 1] = np.repeat([-15, 0, 15], 2)
    points[::2, 2], points[1::2, 2] = z + heights / 2, z - heights / 2
    heights = heights_mm(points)
    g = float(genant_ratio(heights))
    return Vertebra(points, heights, g, grade(g), shape(heights), 0.9, np.full(3, 0.4), sd)


def _show(out, study_id):
    picture = out / "picture.png"
    if not picture.exists():
        Image.new("RGB", (470, 1300), (40, 40, 40)).save(picture)
    os.link(picture, out / thumbnail_path(study_id))
