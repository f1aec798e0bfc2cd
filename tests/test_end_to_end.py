"""`sample_data/` through the installed command, against the truth that stands beside it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vfscreen.results import PATIENTS, STUDIES, VERTEBRAE

SAMPLE = Path(__file__).parents[1] / "sample_data"
CENTER = ["center_x_mm", "center_y_mm", "center_z_mm"]
HEIGHTS = ["height_anterior_mm", "height_middle_mm", "height_posterior_mm"]
FOUND_MM = 5.0


def screened(out: Path, *options: str) -> Path:
    command = [Path(sys.executable).with_name("vfscreen"), "run", SAMPLE, "--out", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def results(shipped_models, tmp_path_factory):
    return screened(tmp_path_factory.mktemp("sample") / "results", "--workers", "1", "--batch-size", "1")


@pytest.fixture(scope="module")
def studies(results):
    return pd.read_parquet(results / "studies.parquet").set_index("source")


def test_every_study_has_its_row_and_the_broken_one_its_reason(studies):
    assert studies.status.to_dict() == {
        "missing_slice": "failed",
        "moderate_wedge": "ok",
        "nifti.nii.gz": "ok",
        "normal": "ok",
        "severe_biconcave": "ok",
    }
    assert studies.error["missing_slice"] == "inconsistent_geometry"
    assert "gap" in studies.reason["missing_slice"]


def test_the_fractured_patients_are_flagged_and_the_normal_one_is_not(studies, results):
    assert studies.flagged["moderate_wedge"] is True
    assert studies.flagged["severe_biconcave"] is True
    assert studies.flagged["normal"] is False
    flagged = pd.read_csv(results / "flagged.csv")
    assert set(flagged.source) == {"moderate_wedge", "severe_biconcave"}
    assert all((results / path).exists() for path in flagged.thumbnail)


def test_the_vertebrae_stand_where_the_truth_says(studies, results):
    vertebrae = pd.read_parquet(results / "vertebrae.parquet")
    errors, n_true = [], 0
    for source, truth in json.loads((SAMPLE / "truth.json").read_text()).items():
        found = vertebrae[vertebrae.study_id == studies.study_id[source]]
        for true in truth["vertebrae"]:
            n_true += 1
            distance = np.linalg.norm(found[CENTER] - true["center_mm"], axis=1)
            if distance.min() < FOUND_MM:
                errors.append(found[HEIGHTS].iloc[distance.argmin()] - true["heights_mm"])
    assert len(errors) >= 0.95 * n_true
    assert len(vertebrae) <= 1.05 * n_true
    assert np.abs(errors).mean() < 0.8


def test_the_fractures_have_their_true_ratio_within_its_interval(studies, results):
    vertebrae = pd.read_parquet(results / "vertebrae.parquet")
    for source, ratio in (("moderate_wedge", 0.66), ("severe_biconcave", 0.5)):
        found = vertebrae[vertebrae.study_id == studies.study_id[source]]
        worst = found.loc[found.genant_ratio.idxmin()]
        assert worst.genant_ratio == pytest.approx(ratio, abs=0.05)
        assert worst.genant_ratio_low <= ratio <= worst.genant_ratio_high
        assert worst.probability_moderate > 0.9
        assert studies.max_probability_moderate[source] == worst.probability_moderate


def test_measured_as_in_the_paper_there_is_no_spread(results, tmp_path):
    paper = pd.read_parquet(screened(tmp_path / "paper", "--paper") / "vertebrae.parquet")
    looked = pd.read_parquet(results / "vertebrae.parquet")
    spreads = [name for name in paper if "_sd" in name or name in ("genant_ratio_low", "genant_ratio_high")]
    assert len(spreads) == 6
    assert paper[[*spreads, "probability_moderate"]].isna().all(axis=None)
    assert looked[spreads].notna().all(axis=None)
    assert abs(len(paper) - len(looked)) <= 2


def test_the_tables_have_their_schemas(results):
    for name, schema in (("studies", STUDIES), ("vertebrae", VERTEBRAE), ("patients", PATIENTS)):
        assert pq.read_schema(results / f"{name}.parquet").equals(schema)


def test_many_workers_and_large_batches_give_the_same_tables(results, tmp_path):
    other = screened(tmp_path / "results", "--workers", "4", "--batch-size", "8")
    for name in ("studies", "vertebrae"):
        a, b = (pd.read_parquet(folder / f"{name}.parquet") for folder in (results, other))
        seconds = [column for column in a if column.startswith("seconds")]
        pd.testing.assert_frame_equal(a.drop(columns=seconds), b.drop(columns=seconds), atol=1e-3, rtol=0)


def test_descriptions_and_names_of_the_headers_are_in_no_table(results):
    for path in [*results.glob("*.parquet"), *results.glob("*.csv"), *results.glob("thumbnails/*")]:
        assert b"SIMULATED" not in path.read_bytes()
