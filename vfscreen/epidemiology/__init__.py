"""Prevalence of fractures in a cohort: from the tables of a run and covariates to tables for R and Stata.

covariates.py -> cohort.py -> prevalence.py, levels.py, flow.py -> summary.py    dictionary.py: every column
age and sex      a patient    figures                              the files
"""

from vfscreen.epidemiology.prevalence import Accuracy, accuracy_of_metrics
from vfscreen.epidemiology.summary import Options, Summary, summarize

__all__ = ["Accuracy", "Options", "Summary", "accuracy_of_metrics", "summarize"]
