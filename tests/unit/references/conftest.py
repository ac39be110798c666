"""A stand-in for PySCF that needs no environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpbench.backends.registry import BackendConfig, Environment
from mlpbench.references import running
from mlpbench.references.methods import PyscfMethod

BACKEND = BackendConfig(name="pyscf", adapter="mlpbench.worker.reference.pyscf_code:PyscfCode")

# Energy -2000 eV minus the first coordinate; no solution beyond 50 Å, an error beyond 90 Å, death beyond 110 Å.
FAKE = """
import os
import numpy as np
from mlpbench.worker.reference.code import Answer, NotConverged

class FakeCode:
    packages = ()
    version = "fake 1.0"

    def __init__(self, method):
        pass

    def compute(self, structure):
        with open(r"{log}", "a") as log:
            log.write("x")
        x = structure.positions[0][0]
        if x > 110:
            os._exit(9)
        if x > 90:
            raise ValueError("bad geometry")
        if x > 50:
            raise NotConverged("no convergence in sight")
        forces = np.tile([0.1, 0.0, 0.0], (len(structure.numbers), 1))
        return Answer(-2000.0 - x, forces, np.arange(6) * 0.01 if structure.pbc.all() else None)
"""


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The stand-in in place of PySCF; says how many frames it was asked for so far."""
    log = tmp_path / "log"
    log.write_text("")
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "fake_code.py").write_text(FAKE.format(log=log))
    monkeypatch.setattr(PyscfMethod, "worker", "fake_code:FakeCode")
    environment = Environment("pyscf", Path(sys.executable), (str(folder),), "x", True)
    monkeypatch.setattr(running, "resolve", lambda backend: environment)
    return lambda: len(log.read_text())
