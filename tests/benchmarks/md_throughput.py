"""Replica-steps per second of batched MD against an ASE loop, interleaved; run inside a backend's environment.

    PYTHON tests/benchmarks/md_throughput.py TRIAL_FOLDER [--replicas 32] [--rounds 5] [--torch-sim-integrator]
    PYTHON tests/benchmarks/md_throughput.py TRIAL_FOLDER --device auto --replicas 100 1000   # a GPU, if there is one

PYTHON is the backend's interpreter, TRIAL_FOLDER one with a finished training (results/<study>/<trial>). Each round
measures every engine once, in turn, so that other load on the machine hits all alike; the medians over the rounds and
the median of the ratios within rounds are printed, with the peak memory for each number of replicas (of the device, or
resident on a CPU). Steps of a first, discarded round warm everything up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
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
    from mlpbench.worker.dynamics.record import Settings

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


def measure(potential: Any, starts: Any, chosen: argparse.Namespace, replicas: int) -> dict[str, Any]:
    """Rates and memory with one number of replicas."""
    import torch

    from mlpbench.worker.tasks.md import make_system

    options = {"seeds": -(-replicas // len(starts)), "seed": 0}
    system, start = make_system(starts, options, 500.0), starts.to_atoms()[0]
    runs = {
        "ase": lambda: ase_loop(potential, system, start, chosen.steps * 2),
        "predict": lambda: ours(potential, system, start, "predict", chosen.steps),
        "torch-sim": lambda: ours(potential, system, start, "torch-sim", chosen.steps),
    }
    runs = {name: run for name, run in runs.items() if name in ("ase", *chosen.engines)}
    if chosen.torch_sim_integrator:
        runs["torch-sim integrator"] = lambda: torch_sim_loop(potential, system, start, chosen.steps)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(chosen.rounds + 1):
        for name, run in runs.items():
            rate = run()
            if turn:
                rates[name].append(rate)
    on_device = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "replicas": len(system.positions), "atoms": len(start),
        "replica_steps_per_second": {name: float(np.median(values)) for name, values in rates.items()},
        "ratio_to_ase": {n: float(np.median(np.divide(v, rates["ase"]))) for n, v in rates.items() if n != "ase"},
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if on_device else resident,
        "memory_of": "device" if on_device else "process",
    }  # fmt: skip


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replicas", type=int, nargs="+", default=[32], help="rounded up to a multiple of the starts")
    parser.add_argument("--starts", type=int, default=8, help="frames the replicas start from (8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--engines", nargs="*", default=["predict", "torch-sim"], help="beside the ASE loop (both)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", default="test_500K")
    parser.add_argument("--device", default=None, help="cpu, cuda or auto; default: that of the trial")
    parser.add_argument("--torch-sim-integrator", action="store_true")
    chosen = parser.parse_args()
    mount()
    from dataclasses import replace

    import torch

    from mlpbench.protocol import REQUEST, Request
    from mlpbench.worker.main import load_adapter
    from mlpbench.worker.tasks.md import start_frames

    torch.set_num_threads(chosen.threads)
    request = Request.read(chosen.folder / REQUEST)
    device = chosen.device or request.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    adapter = load_adapter(request.adapter)(replace(request, device=device, directory=str(chosen.folder.resolve())))
    potential = adapter.load()
    starts = start_frames(adapter, {"starts": chosen.starts, "start_split": chosen.split})
    found = {
        "architecture": request.architecture["name"], "dtype": request.dtype, "device": device,
        "device_name": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": chosen.threads, "rounds": chosen.rounds,
        "sizes": [measure(potential, starts, chosen, replicas) for replicas in chosen.replicas],
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
