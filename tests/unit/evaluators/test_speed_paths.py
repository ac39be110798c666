"""Deployments, dtypes and TF32: which paths are planned, which are refused, and what the speed table says of them."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.evaluators.speed import rows
from mlpbench.worker.adapter import Unavailable
from mlpbench.worker.paths import Deployment, differences, disagreement, plan
from mlpbench.worker.tasks import Skip
from mlpbench.worker.tasks.speed import deployed

MEANS = {"compiled": ("TorchScript", "AOTInductor")}


def options(**changes: object) -> dict:
    return {"deployments": ["eager", "compiled", "accelerated"], "dtypes": None, "tf32": [False], **changes}


def test_a_plan_has_each_means_of_a_deployment_and_a_reason_where_there_is_none() -> None:
    found = list(plan(options(), "float32", "cpu", MEANS))
    assert [(p.deployment, p.means, p.dtype) for p in found] == [
        ("compiled", "TorchScript", "float32"), ("compiled", "AOTInductor", "float32"), ("accelerated", "", "float32"),
    ]  # fmt: skip
    assert [bool(p.reason) for p in found] == [False, False, True]
    assert "no accelerated path" in found[2].reason


def test_tf32_is_of_float32_on_a_gpu_only() -> None:
    wanted = options(deployments=["eager"], dtypes=["float32", "float64"], tf32=[False, True])
    on_cpu = list(plan(wanted, "float32", "cpu", MEANS))
    assert [(p.dtype, p.tf32) for p in on_cpu] == [("float32", True), ("float64", False)]
    assert "NVIDIA" in on_cpu[0].reason
    on_gpu = list(plan(wanted, "float32", "cuda:0", MEANS))
    assert [p.reason for p in on_gpu] == ["", ""]


def test_accelerated_kernels_are_for_gpus() -> None:
    means = {"accelerated": ("cuEquivariance",)}
    wanted = options(deployments=["accelerated"])
    assert [p.reason for p in plan(wanted, "float32", "cuda", means)] == [""]
    assert ["for GPUs" in p.reason for p in plan(wanted, "float32", "cpu", means)] == [True]


def test_labels_of_paths_name_folders_and_are_unique() -> None:
    wanted = options(dtypes=["float32", "float64"], tf32=[False, True])
    names = [p.label for p in plan(wanted, "float64", "cuda", MEANS)]
    assert len(set(names)) == len(names)
    assert "compiled-AOTInductor-float32-tf32" in names
    assert all("/" not in name for name in names)


def test_differences_are_the_largest_ones() -> None:
    reference = (np.array([1.0, 2.0]), [np.zeros((2, 3)), np.ones((1, 3))])
    found = (np.array([1.0, 2.5]), [np.full((2, 3), -0.25), np.ones((1, 3))])
    assert differences(found, reference) == (0.5, 0.25)


@pytest.mark.parametrize(("energy", "force"), [(1.0, 0.0), (0.0, 1.0), (np.nan, 0.0), (0.0, np.nan)])
def test_a_path_that_computes_something_else_is_refused(energy: float, force: float) -> None:
    for dtype, tf32 in (("float32", False), ("float32", True), ("float64", False)):
        path = Deployment("compiled", "TorchScript", dtype, tf32)
        assert "not those of the eager path" in disagreement(path, energy, force)
        assert disagreement(path, 1e-9, 1e-8) == ""


def record(paths: list[dict]) -> dict:
    values = {
        "n_atoms": 10.0, "timestep_fs": 0.5, "latency": [2e-3] * 5, "latency_again": [2e-3] * 5, "md": [4e-3] * 5,
        "conditions": {"notice": "other processes kept 1.0 cores busy"}, "paths": paths,
    }  # fmt: skip
    task = {"status": "done", "peak_memory_mb": 500.0, "peak_device_memory_mb": None, "values": values}
    return {"tasks": {"speed": task}, "config": {"dtype": "float32"}}


def test_the_speed_table_has_a_row_for_what_could_not_run() -> None:
    head = {"deployment": "compiled", "means": "TorchScript", "dtype": "float32", "tf32": False}
    skipped = {**head, "status": "skipped", "reason": "refused from torch 2.10 on"}
    times = {"latency": [1e-3] * 5, "latency_again": [1e-3] * 5, "md": [2e-3] * 5}
    done = {**head, "means": "AOTInductor", "status": "done", "reason": "", "prepare_seconds": 90.0,
            "energy_difference": 1e-6, "force_difference": 2e-6, "peak_memory_mb": 600.0, **times}  # fmt: skip
    found = rows(record([skipped, done]))
    value = {(row["deployment"], row["means"], row["metric"]): row for row in found}
    assert value["eager", "", "us_per_atom"]["value"] == pytest.approx(200.0)
    assert value["eager", "", "us_per_atom"]["notice"] == "other processes kept 1.0 cores busy"
    assert value["compiled", "AOTInductor", "us_per_atom"]["value"] == pytest.approx(100.0)
    assert value["compiled", "AOTInductor", "ns_per_day"]["value"] == pytest.approx(86400 / 2e-3 * 0.5e-6)
    assert value["compiled", "AOTInductor", "path_force_difference"]["value"] == pytest.approx(2e-3)  # meV/Å
    assert value["compiled", "TorchScript", None]["reason"] == "refused from torch 2.10 on"
    assert value["compiled", "TorchScript", None]["status"] == "skipped"


def test_a_trial_that_was_not_timed_has_no_rows() -> None:
    assert rows({"tasks": {}, "config": {"dtype": "float32"}}) == []


def test_a_precision_that_the_package_does_not_have_is_skipped_with_its_reason() -> None:
    class Double:
        def load(self, dtype: str | None = None) -> None:
            raise Unavailable(f"computes in float64 alone, not {dtype}")

    node = vars(Deployment("eager", "", "float32", False))
    with pytest.raises(Skip, match="computes in float64 alone, not float32"):
        deployed(Double(), node)  # type: ignore[arg-type]
