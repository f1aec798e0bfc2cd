"""Faults of archives, each with the row that it must give, through the installed command.

`registry.py` holds the words, the topics (`archive.py`, `series.py`, ...) the faults, `sound.py` the
study that most of them break. `python tests/faults/report.py` prints what becomes of each.
"""
