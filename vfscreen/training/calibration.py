"""Calibration: the spreads that the refiner states are brought to the errors that the whole chain makes.

Patients are simulated that no network was trained on, scanned by every protocol and measured from
the localizer on. Each stated spread is multiplied by one factor, so that 90 % intervals hold 90 %.
"""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from vfscreen.child_process import end_with_parent
from vfscreen.errors import StudyError, VfscreenError
from vfscreen.evaluation.matching import is_whole, match
from vfscreen.measure import SPREAD_TO_SD, genant_ratio, heights_mm, spreads_within
from vfscreen.networks.refiner import N_SPREADS, Refiner
from vfscreen.networks.weights import Models, load_models, load_weights, save_weights, weights_path
from vfscreen.screening import screen
from vfscreen.simulation.cohort import PROTOCOLS, SimulatedStudy, scan_patient
from vfscreen.volume import Floats

log = logging.getLogger(__name__)

PATIENTS = 60
FIRST_PATIENT = 100_000  # of a seed: cohorts to measure on begin at 0
COVERAGE = 0.9


def calibrate(weights: Path, seed: int, patients: int = PATIENTS, workers: int = 1) -> Floats:
    """Calibrate the refiner in a folder with all three networks; returns the factors (4,).

    Called again on calibrated weights it finds factors near 1.
    """
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        found = list(pool.map(partial(_of_patient, weights, seed), range(patients)))
    factors = spread_factors(np.concatenate([np.empty((0, N_SPREADS)), *found]))
    network = Refiner()
    path = weights_path(weights, "refiner")
    about = load_weights(path, network)
    with torch.no_grad():
        network.spreads[-1].bias += torch.from_numpy(np.log(factors)).float()  # type: ignore[operator]
    source = about.pop("sha256")
    made = {"calibrated_from": source, "calibrated_on": f"{patients} patients of seed {seed}"}
    save_weights(network, path, {**about, **made})
    log.info("factors of the spreads of heights and G: %s", factors.round(3))
    return factors


def is_calibrated(path: Path, source: Path) -> bool:
    """Whether the weights at `path` are those at `source` after calibration."""
    if not (path.exists() and source.exists()):
        return False
    about = load_weights(path, Refiner())
    return bool(about.get("calibrated_from") == load_weights(source, Refiner())["sha256"])


def spread_factors(z: Floats) -> Floats:
    """Factors (4,) for spreads, from errors by spread (n, 4): Student's t is to hold `COVERAGE` of them.

    Raises VfscreenError where there are none.
    """
    if not len(z):
        raise VfscreenError("not one vertebra was found to calibrate on: the networks need more training")
    return np.quantile(np.abs(z), COVERAGE, axis=0) / spreads_within(COVERAGE)


def _of_patient(weights: Path, seed: int, index: int) -> Floats:
    """Errors by stated spread (n, 4) of all vertebrae found in one patient's scans."""
    models = models_of_process(weights)
    found = [
        _of_scan(study, models)
        for study in scan_patient(seed, FIRST_PATIENT + index, list(PROTOCOLS.values()))
    ]
    return np.concatenate([np.empty((0, N_SPREADS)), *found])


def _of_scan(study: SimulatedStudy, models: Models) -> Floats:
    try:
        result = screen(study.volume, models)
    except StudyError:
        return np.empty((0, N_SPREADS))
    true = study.keypoints_mm()
    whole = is_whole(study.volume.geometry, true)
    pairs, _ = match(np.array([v.center_mm for v in result.vertebrae]), true.mean(1), whole)
    rows = []
    for i, j in pairs:
        vertebra, heights = result.vertebrae[i], heights_mm(true[j])
        if vertebra.height_sd_mm is None or vertebra.genant_ratio_sd is None:
            continue
        errors = [*(vertebra.heights_mm - heights), vertebra.genant_ratio - float(genant_ratio(heights))]
        rows.append(SPREAD_TO_SD * np.array(errors) / [*vertebra.height_sd_mm, vertebra.genant_ratio_sd])
    return np.array(rows).reshape(-1, N_SPREADS)


@cache
def models_of_process(weights: Path | None) -> Models:
    """The networks in a folder, or the shipped ones, loaded once by each process of a pool.

    A process works on one thread: there are as many as CPUs.
    """
    torch.set_num_threads(1)
    return load_models(weights, "cpu")
