"""A reader's verdict on a study: what may be said, and the columns in which spreadsheet and page hold it."""

from __future__ import annotations

VERDICTS = {
    "fracture": "a vertebra is fractured",
    "no fracture": "none is, and the measurement or its picture misled",
    "unsure": "it cannot be told from this image, or another reader is to look",
    "not readable": "the picture does not show the spine well enough to say anything",
}
"""The choices and what they mean; a study that nobody has read has none."""

GRADES = ("mild", "moderate", "severe")
"""Of the worst fracture, as the reader sees it; left empty where there is none."""

COLUMNS = {
    "verdict": f"One of: {', '.join(VERDICTS)}",
    "verdict_grade": f"Grade of the worst fracture as the reader sees it: {', '.join(GRADES)}; else empty",
    "verdict_vertebra": "Number of that vertebra, as in the picture; else empty",
    "verdict_comment": "Free text",
    "reader": "Who read it: a name, initials or a number",
    "read_at": "When it was read, ISO 8601 with the offset from UTC, or a date",
}
"""The columns of a verdict beside `study_id`, with their meaning."""
