"""Which device a trial gets, on machines that this one is not."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlpbench import devices, turns
from mlpbench.backends.registry import Environment
from mlpbench.errors import UserError

ENVIRONMENT = Environment("mace", Path(sys.executable), (), "lock", False)


def machine(monkeypatch, *, driver: bool, names: list[str] | None, cuda: str | None = "13.0") -> None:
    """Pretend a machine with or without a driver, whose torch sees ``names`` (None: no torch)."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    report = {} if names is None else {"version": "2.13.0", "cuda": cuda, "hip": None, "devices": names}
    gpus = [{"name": "NVIDIA X", "driver": "600", "memory_mb": 80000}] if driver else []
    monkeypatch.setattr(devices, "driver_present", lambda: driver)
    monkeypatch.setattr(devices, "torch_report", lambda environment: report)
    monkeypatch.setattr(devices, "nvidia", lambda: gpus)


def test_the_cpu_is_never_asked_for(monkeypatch):
    monkeypatch.setattr(devices, "torch_report", lambda environment: pytest.fail("torch was asked"))
    assert devices.resolve_device("cpu", ENVIRONMENT) == "cpu"
    monkeypatch.setattr(devices, "driver_present", lambda: False)
    assert devices.resolve_device("auto", ENVIRONMENT) == "cpu"


def test_auto_takes_a_device_that_torch_sees(monkeypatch):
    machine(monkeypatch, driver=True, names=["NVIDIA X", "NVIDIA X"])
    assert devices.resolve_device("auto", ENVIRONMENT) == "cuda"
    assert devices.resolve_device("cuda", ENVIRONMENT) == "cuda"
    assert devices.resolve_device("cuda:1", ENVIRONMENT) == "cuda:1"
    with pytest.raises(UserError, match="cuda:0 NVIDIA X, cuda:1 NVIDIA X"):
        devices.resolve_device("cuda:2", ENVIRONMENT)


def test_auto_without_torch_is_the_cpu(monkeypatch):
    machine(monkeypatch, driver=True, names=None)
    assert devices.resolve_device("auto", ENVIRONMENT) == "cpu"
    with pytest.raises(UserError, match="has no torch"):
        devices.resolve_device("cuda", ENVIRONMENT)


def test_a_cpu_build_beside_a_gpu_is_not_passed_over_in_silence(monkeypatch):
    machine(monkeypatch, driver=True, names=[], cuda=None)
    with pytest.raises(UserError, match="NVIDIA X, but the torch of backend 'mace' is a CPU build") as error:
        devices.resolve_device("auto", ENVIRONMENT)
    assert "mlpbench env build mace --rebuild --torch default" in (error.value.hint or "")


def test_hidden_devices(monkeypatch):
    machine(monkeypatch, driver=True, names=["NVIDIA X"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.resolve_device("auto", ENVIRONMENT) == "cpu"
    with pytest.raises(UserError, match="hides them all"):
        devices.resolve_device("cuda", ENVIRONMENT)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", ""])
def test_a_device_that_is_none(monkeypatch, device):
    machine(monkeypatch, driver=True, names=["NVIDIA X"])
    with pytest.raises(UserError, match="is not known"):
        devices.resolve_device(device, ENVIRONMENT)


def test_no_driver(monkeypatch):
    machine(monkeypatch, driver=False, names=[])
    with pytest.raises(UserError, match="no driver"):
        devices.resolve_device("cuda:0", ENVIRONMENT)


def test_nvidia_smi_is_read(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA X, 600.10, 81559'\necho 'NVIDIA Y, 600.10, [N/A]'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    devices._nvidia.cache_clear()
    try:
        found = devices.nvidia()
    finally:
        devices._nvidia.cache_clear()
    assert found[0] == {"name": "NVIDIA X", "driver": "600.10", "memory_mb": 85521}
    assert found[1]["memory_mb"] == 0


def test_hardware_names_no_host():
    import platform

    found = devices.hardware()
    assert found["cpu"]
    assert found["threads_usable"] >= 1
    assert found["memory_gb"] > 0.5
    assert platform.node() not in str(found)


def test_trials_at_the_same_time_are_spread_over_the_devices(monkeypatch):
    machine(monkeypatch, driver=True, names=["NVIDIA X"] * 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    with ExitStack() as stack:
        taken = [stack.enter_context(devices.one_device("cuda", ENVIRONMENT)) for _ in range(4)]
        assert sorted(taken) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
        assert stack.enter_context(devices.one_device("cuda:2", ENVIRONMENT)) == "cuda:2"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8,9,10")  # another job, which sees one of these devices
        assert stack.enter_context(devices.one_device("cuda", ENVIRONMENT)) == "cuda:1"
    assert stack.enter_context(devices.one_device("cpu", ENVIRONMENT)) == "cpu"


def test_one_device_needs_no_choice(monkeypatch):
    machine(monkeypatch, driver=True, names=["NVIDIA X"])
    with devices.one_device("cuda", ENVIRONMENT) as device:
        assert device == "cuda"


def test_a_folder_of_locks_that_cannot_be_trusted_is_a_mistake_in_words(monkeypatch):
    def unsafe() -> Path:
        raise turns.Unsafe("/tmp/x is a link")

    monkeypatch.setattr(turns, "safe_place", unsafe)
    with pytest.raises(UserError, match="is a link"), devices.one_device("cpu", ENVIRONMENT):
        pass


def test_a_planted_lock_is_refused_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("MLPBENCH_TURNS", str(tmp_path / "turns"))
    (tmp_path / "turns").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "turns" / "work").symlink_to(victim)
    with pytest.raises(UserError, match="is a link"):
        devices.require_locks()
    assert victim.read_text() == "precious"
