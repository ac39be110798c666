"""Inputs whose scores once failed the whole trial, run as a user runs them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.integration.conftest import Run
from tests.support import CASES


def metrics(folder: Path, study: str) -> dict[str, dict[str, str]]:
    with open(folder / "results" / study / "metrics.csv", encoding="utf-8") as stream:
        return {row["metric"]: row for row in csv.DictReader(stream) if row["split"] != "valid"}


def test_reference_forces_that_are_all_zero(mlpbench: Run, tmp_path: Path) -> None:
    case = CASES / "09-eos-force-r2"
    done = mlpbench(
        "run", "study=s", "dataset=file", f"dataset.path={case}/train.extxyz", f"dataset.test_path={case}/eos.extxyz",
        "architecture=toy", "dataset.n_train=10", "dataset.n_valid=4", "size=tiny", "budget.steps=20",
        "evaluation=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = metrics(tmp_path, "s")
    assert "force_r2" not in found
    assert float(found["force_mae"]["value"]) > 0


@pytest.mark.parametrize(("pool", "test", "n_train"), [
    ("mix.extxyz", "mix_test.extxyz", 14),
    ("cu_train.extxyz", "cu_primitive_test.extxyz", 12),
])  # fmt: skip
def test_single_atoms_among_the_starts(mlpbench: Run, tmp_path: Path, pool: str, test: str, n_train: int) -> None:
    case = CASES / "10-single-atom-md-inf"
    done = mlpbench(
        "run", "study=s", "dataset=file", f"dataset.path={case}/{pool}", f"dataset.test_path={case}/{test}",
        "dataset.on_leak=warn", f"dataset.n_train={n_train}", "dataset.n_valid=4", "architecture=toy", "size=tiny",
        "budget.steps=20", "evaluation=dev", "evaluation.speed=null", "evaluation.md.nvt.length_ps=0.05",
        "evaluation.md.nve.length_ps=0.02",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "md_survival" in metrics(tmp_path, "s")
