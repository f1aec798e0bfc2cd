"""Whole trainings: one network or all three, on simulated or on annotated CT, ready for `--weights`."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vfscreen.errors import InputError, WeightsError
from vfscreen.networks.weights import record, weights_path
from vfscreen.training import annotated, detector, localizer, refiner, task
from vfscreen.training.annotation import FOLDS, deal_folds
from vfscreen.training.calibration import PATIENTS, calibrate, is_calibrated
from vfscreen.training.loop import Plan
from vfscreen.training.studies import load_studies

log = logging.getLogger(__name__)

NETWORKS = {"localizer": localizer, "detector": detector, "refiner": refiner}
SHIPPED = "shipped"


@dataclass(frozen=True)
class Options:
    """How to train. `steps` None is each network's own number; `start` holds weights to fine-tune."""

    seed: int = 0
    steps: int | None = None
    device: str = "auto"
    workers: int = 1
    start: Path | None = None
    patients: int = PATIENTS  # simulated to calibrate the refiner's spreads; 0 leaves them as they are


def train_simulated(networks: Sequence[str], out: Path, options: Options) -> None:
    """Train on simulated CT into `out/NETWORK`, and put all weights together in `out/weights`.

    Where all three are trained, the refiner's spreads are calibrated on the whole chain.
    """
    check_start(networks, options.start)
    for name in networks:
        task.run(NETWORKS[name].simulated(options.seed), plan_of(name, out, options), options.start)
    weights = collect(out)
    done = is_calibrated(weights_path(weights, "refiner"), weights_path(out / "refiner", "refiner"))
    if set(networks) == set(NETWORKS) and options.patients and not done:
        calibrate(weights, options.seed, options.patients, options.workers)


@dataclass(frozen=True)
class Source:
    """Where the annotated CT lies, and which fold to train; None is one after the other."""

    dicom: Path
    annotation: Path
    fold: int | None = None


def train_annotated(networks: Sequence[str], out: Path, source: Source, options: Options) -> None:
    """Train on annotated CT, each fold on the studies of the others, into `out/fold_K/NETWORK`.

    `out/folds.json` lists the studies that each fold leaves out. Raises InputError where it is of
    other studies or of another seed: a network would be tested on what it was trained on.
    """
    check_start(networks, options.start)
    studies = load_studies(source.dicom, source.annotation, out / "cache")
    folds = deal_folds({study.name: study.deformed for study in studies}, options.seed)
    _keep(folds, out / "folds.json")
    for fold in range(FOLDS) if source.fold is None else [source.fold]:
        todo = annotated.tasks(studies, folds[fold], fold, options.seed)
        for name in networks:
            log.info("fold %d: %s", fold, name)
            task.run(todo[name], plan_of(name, out / f"fold_{fold}", options), options.start)
        collect(out / f"fold_{fold}")


def plan_of(name: str, out: Path, options: Options) -> Plan:
    """The training of one network."""
    steps = options.steps or NETWORKS[name].STEPS
    return Plan(out / name, steps, options.seed, options.device, options.workers)


def start_folder(start: str | None) -> Path | None:
    """The folder that an option names; `shipped` is that of the package's own weights."""
    if start == SHIPPED:
        return Path(str(files("vfscreen._weights")))
    return None if start is None else Path(start)


def check_start(networks: Sequence[str], start: Path | None) -> None:
    """Raise WeightsError where weights to start from are missing: now, not when the first network is done."""
    missing = [name for name in networks if start and not weights_path(start, name).exists()]
    if missing:
        raise WeightsError(
            f"there are no weights of {' and '.join(missing)} to start from in {start}; give a folder that "
            f"`vfscreen train` made, or the word {SHIPPED}"
        )


def collect(out: Path) -> Path:
    """Copy the weights of all networks trained below `out` into one folder with one SHA256SUMS.

    A refiner that was calibrated there stays, unless it has been trained further.
    """
    weights = out / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    for name in sorted(NETWORKS):
        path = weights_path(out / name, name)
        if path.exists() and not (name == "refiner" and is_calibrated(weights / path.name, path)):
            shutil.copyfile(path, weights / path.name)
            record(weights / path.name)
    return weights


def _keep(folds: Sequence[Sequence[str]], path: Path) -> None:
    listed = {f"fold_{i}": list(fold) for i, fold in enumerate(folds)}
    if path.exists() and json.loads(path.read_text()) != listed:
        raise InputError(f"{path} was made of other studies or another seed; take another folder for --out")
    path.write_text(json.dumps(listed, indent=1) + "\n")
