"""Replica-steps per second of batched MD against an ASE loop, interleaved; run inside a backend's environment.

    PYTHON tests/benchmarks/md_throughput.py TRIAL_FOLDER [--replicas 32] [--rounds 5] [--torch-sim-integrator]

PYTHON is the backend's interpreter, TRIAL_FOLDER one with a finished training (results/<study>/<trial>). Each round
measures every engine once, in turn, so that other load on the machine hits all alike; the medians over the rounds and
the median of the ratios within rounds are printed. Steps of a first, discarded round warm everything up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).parents[2] / "mlpbench"


def mount() -> None:
    """Make ``mlpbench.worker`` importable without the core's packages, as the worker's own start does."""
    spec = importlib.util.spec_from_file_location("bootstrap", SOURCE / "worker" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._mount()


def ours(potential: Any, system: Any, start: Any, engine: str, steps: int) -> float:
    """Replica-steps per second of mlpbench's integrator with the forces of ``engine``."""
    from mlpbench.worker.dynamics.engine import make_integrator
    from mlpbench.worker.dynamics.forces import choose
    from mlpbench.worker.dynamics.integrators import Phase
    from mlpbench.worker.dynamics.settings import Settings

    forces = CACHE.setdefault(engine, choose(potential, start, engine))
    count = len(system.positions) if engine != "ase" else 1
    positions, cell = system.positions[:count].copy(), system.cell[:count]
    integrator = make_integrator(Settings("nve", 1.0, 0.5, 0.5, 500.0), system.masses, system.periodic)
    empty = np.zeros((count, 3))
    energy, force, stress = forces(positions, cell)
    velocities = system.velocities[:count].copy()
    phase = Phase(positions, velocities, force, energy, stress, cell, empty, empty.copy(), np.arange(count))
    begin = time.perf_counter()
    for _ in range(steps):
        integrator.before(phase, None)
        phase.energy, phase.forces, phase.stress = forces(phase.positions, phase.cell)
        integrator.after(phase)
    return count * steps / (time.perf_counter() - begin)


def ase_loop(potential: Any, system: Any, start: Any, steps: int) -> float:
    """Steps per second of ASE's own velocity Verlet with the package's calculator: one replica, the yardstick."""
    from ase import Atoms, units
    from ase.md.verlet import VelocityVerlet

    atoms = Atoms(start.numbers, positions=system.positions[0], cell=start.cell, pbc=start.pbc)
    atoms.set_velocities(system.velocities[0])
    atoms.calc = CACHE.setdefault("calculator", potential.calculator())
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.run(1)
    begin = time.perf_counter()
    dynamics.run(steps)
    return steps / (time.perf_counter() - begin)


def torch_sim_loop(potential: Any, system: Any, start: Any, steps: int) -> float:
    """Replica-steps per second of torch-sim's own velocity Verlet, in the dtype of the potential."""
    import torch
    import torch_sim as ts
    from ase import Atoms

    model = CACHE.setdefault("model", potential.torchsim_model())
    atoms = [Atoms(start.numbers, positions=p, cell=start.cell, pbc=start.pbc) for p in system.positions]
    state = ts.nve_init(
        ts.initialize_state(atoms, model.device, model.dtype), model, kT=torch.tensor(0.043, dtype=model.dtype)
    )
    begin = time.perf_counter()
    for _ in range(steps):
        state = ts.nve_step(state, model, dt=torch.tensor(0.5 / 10.180505710774743, dtype=model.dtype))
    return len(atoms) * steps / (time.perf_counter() - begin)


CACHE: dict[str, Any] = {}


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", default="test_500K")
    parser.add_argument("--device", default=None)
    parser.add_argument("--torch-sim-integrator", action="store_true")
    chosen = parser.parse_args()
    mount()
    from dataclasses import replace

    import torch

    from mlpbench.protocol import REQUEST, Request
    from mlpbench.worker.adapter import Potential
    from mlpbench.worker.main import load_adapter
    from mlpbench.worker.tasks.md import make_system, start_frames

    torch.set_num_threads(chosen.threads)
    request = Request.read(chosen.folder / REQUEST)
    request = replace(request, device=chosen.device or request.device, directory=str(chosen.folder.resolve()))
    adapter = load_adapter(request.adapter)(request)
    potential: Potential = adapter.load()
    options = {
        "starts": 8,
        "seeds": -(-chosen.replicas // 8),
        "seed": 0,
        "temperature_K": 500.0,
        "start_split": chosen.split,
    }
    starts = start_frames(adapter, options)
    system, start = make_system(starts, options, options["temperature_K"]), starts.to_atoms()[0]
    runs = {
        "ase": lambda: ase_loop(potential, system, start, chosen.steps * 2),
        "predict": lambda: ours(potential, system, start, "predict", chosen.steps),
        "torch-sim": lambda: ours(potential, system, start, "torch-sim", chosen.steps),
    }
    if chosen.torch_sim_integrator:
        runs["torch-sim integrator"] = lambda: torch_sim_loop(potential, system, start, chosen.steps)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(chosen.rounds + 1):
        for name, measure in runs.items():
            rate = measure()
            if turn:
                rates[name].append(rate)
    found = {
        "architecture": request.architecture["name"], "dtype": request.dtype, "device": request.device,
        "threads": chosen.threads, "replicas": len(system.positions), "atoms": len(start), "rounds": chosen.rounds,
        "replica_steps_per_second": {name: float(np.median(values)) for name, values in rates.items()},
        "ratio_to_ase": {n: float(np.median(np.divide(v, rates["ase"]))) for n, v in rates.items() if n != "ase"},
    }  # fmt: skip
    if request.device.startswith("cuda"):
        found["peak_device_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
