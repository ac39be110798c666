"""Runs inside a backend's environment: ``python -P md_probe.py FOLDER`` writes ``FOLDER/md_found.json``.

FOLDER holds a finished training. Batched NVE in float64 over 50 steps, through torch-sim, is held against replica after
replica through the package's own ASE calculator.
"""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402

from mlpbench.protocol import REQUEST, Request  # noqa: E402
from mlpbench.worker.dynamics.engine import make_integrator  # noqa: E402
from mlpbench.worker.dynamics.forces import choose  # noqa: E402
from mlpbench.worker.dynamics.integrators import Phase  # noqa: E402
from mlpbench.worker.dynamics.record import Settings  # noqa: E402
from mlpbench.worker.main import load_adapter  # noqa: E402
from mlpbench.worker.tasks.md import make_system, start_frames  # noqa: E402

STEPS = 50


def trajectory(potential, system, start, engine):
    """(STEPS, R, N, 3) Å and the engine's name."""
    forces = choose(potential, start, engine)
    integrator = make_integrator(Settings("nve", 1.0, 0.5, 0.5, 500.0), system.masses, system.periodic)
    energy, force, stress = forces(system.positions, system.cell)
    empty = np.zeros((len(energy), 3))
    phase = Phase(
        system.positions.copy(), system.velocities.copy(), force, energy, stress, system.cell, empty, empty.copy(),
        np.arange(len(energy)),
    )  # fmt: skip
    found = []
    for _ in range(STEPS):
        integrator.before(phase, None)
        phase.energy, phase.forces, phase.stress = forces(phase.positions, phase.cell)
        integrator.after(phase)
        found.append(phase.positions.copy())
    return np.array(found), forces.name


def main(folder):
    """Compare and write."""
    request = replace(Request.read(folder / REQUEST), directory=str(folder))
    adapter = load_adapter(request.adapter)(request)
    potential = adapter.load(dtype="float64")
    options = {"starts": 2, "seeds": 2, "seed": 0, "temperature_K": 500.0}
    starts = start_frames(adapter, options)
    system, start = make_system(starts, options, options["temperature_K"]), starts.to_atoms()[0]
    batched, engine = trajectory(potential, system, start, "auto")
    single, _ = trajectory(potential, system, start, "ase")
    found = {
        "engine": engine,
        "largest_difference_A": float(np.abs(batched - single).max()),
        "moved_A": float(np.abs(batched[-1] - batched[0]).max()),
    }
    (folder / "md_found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
