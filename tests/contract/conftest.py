"""The contract's subjects: every architecture of every registered backend, found by themselves."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlpbench import config, protocol
from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import worker_environment
from mlpbench.backends.registry import Environment
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request, Result, Task
from tests.support import ethanol_frames

CONF = config.packaged_conf()
PROBE = Path(__file__).with_name("probe.py")
WITHOUT_TORCH = {"toy"}  # seconds to build: these run in every test run, the others where their environment stands


def architectures() -> list[tuple[str, str]]:
    """(architecture, backend) of every file in conf/architecture."""
    found = []
    for path in sorted((CONF / "architecture").glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.append((node["name"], node["backend"]))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        params = [
            pytest.param(
                (name, backend),
                id=name,
                marks=[] if backend in WITHOUT_TORCH else [pytest.mark.backend, pytest.mark.slow],
            )
            for name, backend in architectures()
        ]
        metafunc.parametrize("subject", params, indirect=True, scope="session")


@dataclass
class Subject:
    """One architecture, its environment, and a way to run requests with it."""

    name: str
    environment: Environment
    trial: config.TrialConfig
    root: Path
    cache: dict[str, Any] = field(default_factory=dict)

    def request(self, folder: str, tasks: list[Task], frames: dict[str, Frames], **changes: Any) -> Request:
        """A small float64 request: 40 training frames, the tiny preset."""
        directory = self.root / folder
        directory.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, part in frames.items():
            files[name] = str(directory / f"{name}.npz")
            part.save(Path(files[name]))
        budget = {
            "epochs": 8, "steps": None, "seconds": None, "interval": None, "patience": None, "converge": None,
            **changes.pop("budget", {}),
        }  # fmt: skip
        training = {**self.trial.training.model_dump(), **changes.pop("training", {})}
        return Request(
            adapter=self.trial.backend_config.adapter,
            directory=str(directory),
            architecture=self.trial.architecture.model_dump(),
            training=training,
            budget=budget,
            seed=changes.pop("seed", 1),
            device="cpu",
            dtype="float64",
            threads=1,
            frames=files,
            labels=changes.pop("labels", ["energy", "forces"]),
            tasks=tasks,
        )

    def run(self, folder: str, tasks: list[Task], frames: dict[str, Frames], **changes: Any) -> dict[str, Result]:
        """Launch a request and return its results."""
        return launch(self.request(folder, tasks, frames, **changes), self.environment, timeout=900, on_event=None)

    def probe(self, requests: list[Request]) -> None:
        """Train and look inside, all in one process; see ``probe.py``.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        for request in requests:
            request.write(Path(request.directory) / protocol.REQUEST)
        done = subprocess.run(
            [str(self.environment.python), "-P", "-s", str(PROBE), *(request.directory for request in requests)],
            env=worker_environment(self.environment, 1), cwd=self.root, capture_output=True, text=True, timeout=3600,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def probed(self, folder: str) -> dict[str, Any]:
        """What a probe noted: ``labels`` declared, ``norms`` and ``limits`` of the clipping (None without torch)."""
        return protocol.read_json(self.root / folder / "probe.json")

    def events(self, folder: str) -> list[dict[str, Any]]:
        """The epochs a run wrote."""
        found = protocol.read_events(self.root / folder / protocol.EVENTS)
        return [event for event in found if event["event"] == "epoch"]

    def predictions(self, folder: str, file: str = protocol.PREDICTIONS) -> dict[str, np.ndarray]:
        """The arrays a run predicted."""
        with np.load(self.root / folder / file) as arrays:
            return dict(arrays)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    name, backend = request.param
    trial = config.load_trial([f"architecture={name}", "size=tiny", "dtype=float64"])
    try:
        environment = resolve(trial.backend[backend])
    except UserError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return Subject(name, environment, trial, tmp_path_factory.mktemp(name))


def split_frames() -> dict[str, Frames]:
    """40 training and 10 validation frames of ethanol."""
    pool = ethanol_frames("pool_500K")
    return {"train": pool.select(slice(0, 40)), "valid": pool.select(slice(500, 510))}


__all__ = ["EventLog", "Subject", "split_frames"]
