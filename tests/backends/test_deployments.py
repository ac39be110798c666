"""Every deployment of every real backend: labels as the eager path has them, or a reason why it cannot run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlpbench import config, protocol
from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import launch
from mlpbench.errors import UserError
from tests.support import make_request

pytestmark = [pytest.mark.backend, pytest.mark.slow]

OPTIONS = {
    "split": "test_500K", "n_frames": 4, "blocks": 3, "block_seconds": 0.02, "batch_sizes": [1], "md_block_steps": 3,
    "timestep_fs": 0.5, "temperature_K": 300.0, "copies": [1], "max_seconds_per_call": 5.0, "memory_fraction": None,
    "deployments": ["eager", "compiled", "accelerated"], "dtypes": ["float32", "float64"], "tf32": [False],
    "path_seconds": 900.0, "reference": None,
}  # fmt: skip
WORK_ON_A_CPU = {
    "schnet": {"TorchScript", "torch.compile"}, "painn": {"TorchScript", "torch.compile"}, "nequip": {"AOTInductor"},
    "mace": {"torch.compile"}, "se_e2_a": {"TorchScript", "TorchScript, tabulated"}, "dpa1": {"TorchScript"},
    "dpa3": {"TorchScript"},
}  # fmt: skip


def paths(architecture: str, folder: Path, device: str, **options: Any) -> list[dict[str, Any]]:
    """Train for one epoch and time every path; skips where the environment is not built."""
    settings = config.load_trial([f"architecture={architecture}", "size=tiny"])
    try:
        environment = resolve(settings.backend_config)
    except UserError as error:
        pytest.skip(str(error))
    tasks = [protocol.Task("train"), protocol.Task("speed", options={**OPTIONS, **options})]
    request = make_request(
        folder, settings.backend_config.adapter, settings.architecture.model_dump(), tasks, n_train=10,
        training=settings.training.model_dump(), budget={"epochs": 1}, device=device,
    )  # fmt: skip
    result = launch(request, environment, timeout=3000)["speed"]
    assert result.status == "done", result.reason
    found: list[dict[str, Any]] = result.values["paths"]
    return found


@pytest.mark.parametrize("architecture", sorted(WORK_ON_A_CPU))
def test_compiled_paths_have_the_labels_of_the_eager_one(architecture: str, tmp_path: Path) -> None:
    found = paths(architecture, tmp_path, "cpu")
    done = {(path["means"], path["dtype"]): path for path in found if path["status"] == "done"}
    expected = {(means, dtype) for means in WORK_ON_A_CPU[architecture] for dtype in ("float32", "float64")}
    assert set(done) == expected | {("", "float64")}
    for (means, dtype), path in done.items():
        limit = 1e-8 if dtype == "float64" and means else 1e-4  # eV/Å; eager float64 is held to float32
        assert path["force_difference"] < limit, (means, dtype)
    for path in found:
        if path["status"] == "skipped":
            assert path["deployment"] == "accelerated" or path["means"].startswith("TorchScript")
            assert path["reason"]


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", sorted(WORK_ON_A_CPU))
def test_paths_on_a_gpu(architecture: str, tmp_path: Path) -> None:
    """Whatever runs there agrees with eager, TF32 within its wider tolerance; nothing fails without a reason."""
    for path in paths(architecture, tmp_path, "cuda", dtypes=["float32"], tf32=[False, True]):
        assert path["status"] in ("done", "skipped"), path["reason"]
        assert path["status"] == "done" or path["reason"]
