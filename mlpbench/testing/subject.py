"""The suite's subjects: architectures in their environments, and the frames that they are trained on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read

from mlpbench import config, datasets, protocol
from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import BOOTSTRAP, worker_environment
from mlpbench.backends.registry import BackendConfig, Environment
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import Request, Result, Task, write_json
from mlpbench.worker.probe import FOLDERS

ETHANOL = Path(datasets.__file__).parent / "embedded" / "ethanol-pbe"
PROBE = "mlpbench.worker.probe"


@cache
def declared_architectures() -> dict[str, BackendConfig]:
    """Every architecture that a backend declares, those of outside packages included, with that backend."""
    return {name: backend for backend in config.load_backends().values() for name in backend.architectures}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``subject`` for each name in the module's ``ARCHITECTURES``, or for all there are."""
    if "subject" in metafunc.fixturenames:
        names = getattr(metafunc.module, "ARCHITECTURES", None)
        chosen = declared_architectures() if names is None else names
        params = [pytest.param((name, names is not None), id=name) for name in chosen]
        metafunc.parametrize("subject", params, indirect=True, scope="session")


@dataclass
class Subject:
    """One architecture, its environment, and a way to run requests with it."""

    name: str
    environment: Environment
    trial: config.TrialConfig
    root: Path
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def backend(self) -> BackendConfig:
        """What the backend declares of itself."""
        return self.trial.backend_config

    @property
    def invariant(self) -> bool:
        """Whether it declares that its energy does not change when a frame is turned."""
        return self.backend.architectures[self.name].invariant

    @property
    def epochs(self) -> int:
        """Of the training that most tests look at: more where rotations have to be learnt, 1 without iterations."""
        if not self.backend.iterations:
            return 1
        return 8 if self.invariant else 32

    def need_iterations(self) -> None:
        """Skip a test of budgets, steps or resumption where the backend declares that it has none."""
        if not self.backend.iterations:
            pytest.skip(f"{self.name} is solved at once (iterations: false)")

    @property
    def as_they_are(self) -> dict[str, Any]:
        """Settings with which frames are not turned before they are trained on: their loss could not be compared."""
        return {"augment": False} if "augment" in (self.trial.architecture.model_extra or {}) else {}

    def request(self, folder: str, tasks: list[Task], frames: Mapping[str, Frames], **changes: Any) -> Request:
        """A small float64 request: 8 epochs of the tiny preset on the CPU.

        Args:
            folder: name of the folder for it.
            tasks: what to do.
            frames: split name -> its frames; ``train`` and ``valid`` must be there.
            changes: ``budget``, ``training`` and ``architecture`` (settings that differ), ``labels``, ``seed``, and
                ``start``, the folder of a request that was trained.
        """
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
        start = changes.pop("start", None)
        known = {} if start is None else {"kind": "potential", "trial": start, "directory": str(self.root / start)}
        return Request(
            adapter=self.backend.adapter,
            directory=str(directory),
            architecture={**self.trial.architecture.model_dump(), **changes.pop("architecture", {})},
            training=training,
            budget=budget,
            seed=changes.pop("seed", 1),
            device="cpu",
            dtype="float64",
            threads=1,
            frames=files,
            labels=changes.pop("labels", ["energy", "forces"]),
            tasks=tasks,
            capabilities=self.backend.capabilities(),
            start=known,
        )

    def run(self, folder: str, tasks: list[Task], frames: Mapping[str, Frames], **changes: Any) -> dict[str, Result]:
        """Launch a request and return its results."""
        return launch(self.request(folder, tasks, frames, **changes), self.environment, timeout=900, on_event=None)

    def probe(self, requests: list[Request]) -> None:
        """Train and look inside, all in one process; see ``mlpbench.worker.probe``.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        for request in requests:
            request.write(Path(request.directory) / protocol.REQUEST)
        write_json(self.root / FOLDERS, {"folders": [request.directory for request in requests]})
        done = subprocess.run(
            [str(self.environment.python), "-P", "-s", str(BOOTSTRAP), str(self.root), PROBE],
            env=worker_environment(self.environment, 1), cwd=self.root, capture_output=True, text=True, timeout=3600,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def probed(self, folder: str) -> dict[str, Any]:
        """What a probe noted: ``norms`` and ``limits`` of the clipping (None without torch)."""
        return protocol.read_json(self.root / folder / "probe.json")

    def events(self, folder: str) -> list[dict[str, Any]]:
        """The epochs a run wrote."""
        events = protocol.read_events(self.root / folder / protocol.EVENTS)
        return [event for event in events if event["event"] == "epoch"]

    def predictions(self, folder: str, file: str = protocol.PREDICTIONS) -> dict[str, np.ndarray]:
        """The arrays a run predicted."""
        with np.load(self.root / folder / file) as arrays:
            return dict(arrays)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The architecture under test; without its environment a failure if it was named, else skipped."""
    name, named = request.param
    try:
        trial = config.load_trial([f"architecture={name}", "size=tiny", "dtype=float64"])
        environment = resolve(trial.backend_config)
    except UserError as error:
        (pytest.fail if named else pytest.skip)(str(error))
    return Subject(name, environment, trial, tmp_path_factory.mktemp(name))


def ethanol_frames(split: str = "pool_500K", count: int | None = None) -> Frames:
    """Frames of the embedded set, read with ASE alone; a constant near the mean energy stands as baseline."""
    atoms: Any = read(ETHANOL / f"{split}.xyz", index=":" if count is None else f":{count}")
    frames = Frames.from_atoms(atoms, [a.get_potential_energy() for a in atoms], [a.get_forces() for a in atoms])
    return frames.with_baseline(np.full(len(frames), -4209.0))


def split_frames() -> dict[str, Frames]:
    """40 training and 10 validation frames of ethanol."""
    pool = ethanol_frames("pool_500K")
    return {"train": pool.select(slice(0, 40)), "valid": pool.select(slice(500, 510))}
