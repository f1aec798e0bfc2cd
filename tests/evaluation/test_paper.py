"""The paper's figures stand as printed, under the names of ours."""

from __future__ import annotations

from made_pairs import cohort, numbered, perfect

from vfscreen.evaluation.detection import table_1
from vfscreen.evaluation.intervals import draw_patients
from vfscreen.evaluation.paper import EXPERTS, PATIENTS, PROPOSED, PUBLISHED, VERTEBRAE
from vfscreen.evaluation.thresholds import table_2


def test_every_figure_of_tables_1_and_2_is_there():
    draws, pairs = draw_patients(60, 1), numbered(perfect(cohort()))
    names = {*table_1(draws, pairs), *table_2(draws, pairs)}
    assert all(set(figures) == names for figures in PUBLISHED.values())


def test_rows_are_read_by_vertebra_and_by_patient():
    assert PROPOSED["AUC by patient, mild"] == 0.93
    assert PROPOSED["sensitivity by vertebra, moderate"] == 0.75
    assert EXPERTS["specificity by patient, mild"] == 0.60
    assert EXPERTS["SD of localization error, G <= 0.74, mm"] == 0.78


def test_the_numbers_are_of_1268_vertebrae_of_100_patients():
    assert sum(VERTEBRAE.values()) == 1268
    assert sum(PATIENTS.values()) == 100
