"""Runs inside the MACE environment: ``python -P mace_probe.py FOLDER`` writes what it finds to ``FOLDER/found.json``.

Periodic Cu-Al cells of two sizes, labelled by ASE's EMT calculator, which gives stress in ASE's sign.
"""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sim  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402
from mace.data import KeySpecification, load_from_xyz, update_keyspec_from_kwargs  # noqa: E402
from mace.tools import build_default_arg_parser  # noqa: E402

from mlpbench.frames import Frames  # noqa: E402
from mlpbench.protocol import EventLog, Request, read_events  # noqa: E402
from mlpbench.worker.adapter import common_loss  # noqa: E402
from mlpbench.worker.adapters.mace import MaceAdapter  # noqa: E402

ARCHITECTURE = {
    "name": "mace", "cutoff": 4.0, "num_channels": 4, "max_L": 1, "max_ell": 1, "num_interactions": 2, "correlation": 2,
    "num_radial_basis": 4, "num_cutoff_basis": 5, "radial_MLP": [8, 8], "readout_channels": 4,
    "native": {"pair_repulsion": True},
}  # fmt: skip
TRAINING = {
    "batch_size": 4, "optimizer": "amsgrad", "lr": 0.1, "schedule": "plateau", "warmup_steps": 0, "lr_factor": 0.5,
    "lr_patience": 0, "lr_min": 1e-6, "ema_decay": 0.9, "gradient_clip": 10.0, "weight_decay": 0.0,
    "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 100.0,
}  # fmt: skip


def crystals(count: int, seed: int, sizes: int = 2) -> Frames:
    """Strained and rattled cells with 4 and 8 atoms in turn (``sizes=1``: 4 only)."""
    random = np.random.default_rng(seed)
    structures = []
    for i in range(count):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True) * (1 + i % sizes, 1, 1)
        atoms.numbers[:: 2 + i % sizes] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        structures.append(atoms)
    frames = Frames.from_atoms(
        structures, [a.get_potential_energy() for a in structures], [a.get_forces() for a in structures],
        [a.get_stress() for a in structures],
    )  # fmt: skip
    return frames.with_baseline(0.1 * frames.n_atoms)


def adapter(directory: Path, epochs: int, patience: int | None = None, **changes: Any) -> MaceAdapter:
    """An adapter for a short training in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    budget = {"epochs": epochs, "steps": None, "seconds": None, "interval": None, "patience": patience}
    training = {**TRAINING, **changes}
    return MaceAdapter(
        Request(
            adapter="", directory=str(directory), architecture=ARCHITECTURE, training=training, budget=budget, seed=5,
            device="cpu", dtype="float32", threads=1, frames={}, labels=["energy", "forces", "stress"], tasks=[],
        )
    )  # fmt: skip


def train(trainer: MaceAdapter, data: tuple[Frames, Frames]) -> dict:
    """Train, and return the outcome with the epochs' events."""
    events = trainer.directory / "events.jsonl"
    outcome = trainer.train(*data, EventLog(events))
    rows = [
        {k: v for k, v in event.items() if k not in ("event", "time", "seconds")}
        for event in read_events(events)
        if event["event"] == "epoch"
    ]
    return {**vars(outcome), "rows": rows}


def losses(potential, frames: Frames) -> list[list[float]]:
    """(common, package's) loss for several weightings on one batch whose frames differ in size."""
    prediction = potential.predict(frames, len(frames), stress=True)
    pairs = []
    for weights in ((1.0, 1.0, 0.0), (10.0, 1.0, 0.0), (1.0, 100.0, 0.0), (1.0, 1.0, 500.0), (0.0, 0.0, 1.0)):
        training = {**TRAINING, **dict(zip(("energy_weight", "force_weight", "stress_weight"), weights, strict=True))}
        pairs.append([common_loss(prediction, frames, training), potential.package_loss(frames, training)])
    return pairs


def stress_by_strain(potential, frames: Frames) -> tuple[list[float], list[float]]:
    """Six components of the first frame: from the potential, and by central differences of the energy over strain."""
    atoms = frames.to_atoms()[0]
    atoms.calc = potential.calculator()
    cell, volume, step, found = atoms.cell.array.copy(), atoms.get_volume(), 1e-5, []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(cell @ strain, scale_atoms=True)
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        found.append((energies[0] - energies[1]) / (2 * step * volume))
    return potential.predict(frames.select([0]), 1, stress=True).stress[0].tolist(), found


def read_back(native: Path, frames: Frames) -> dict[str, float]:
    """Largest deviation of what MACE itself reads in the native folder from what was asked for."""
    args = build_default_arg_parser().parse_args(["--config", str(native / "config.yaml")])
    keys = update_keyspec_from_kwargs(KeySpecification(), vars(args))
    _, read = load_from_xyz(str(native / args.train_file), keys)
    deviations = {
        "positions": np.concatenate([c.positions for c in read]) - frames.positions,
        "forces": np.concatenate([c.properties["forces"] for c in read]) - frames.forces,
        "energy": np.array([c.properties["energy"] for c in read]) - frames.target_energy,
        "cell": np.array([c.cell for c in read]) - frames.cell,
        "stress": np.array([c.properties["stress"] for c in read]) - frames.stress,
        "weight": np.array([c.weight for c in read]) - 1,
    }
    return {name: float(np.abs(value).max()) for name, value in deviations.items()}


def torchsim_against_calculator(potential, structures: list) -> dict[str, float]:
    """Largest deviations of the batched torch-sim model from the ASE calculator, one structure at a time."""
    model, calculator = potential.torchsim_model(), potential.calculator()
    out = model(torch_sim.initialize_state(structures, device=torch.device("cpu"), dtype=torch.float64))
    for atoms in structures:
        atoms.calc = calculator
    forces = np.concatenate([a.get_forces() for a in structures])
    deviations = {
        "energy": out["energy"].numpy() - [a.get_potential_energy() for a in structures],
        "forces": out["forces"].numpy() - forces,
    }
    if structures[0].pbc.all():
        deviations["stress"] = out["stress"].numpy() - [a.get_stress(voigt=False) for a in structures]
    return {name: float(np.abs(value).max()) for name, value in deviations.items()}


def in_single_and_double(trainer: MaceAdapter, frames: Frames) -> dict[str, float]:
    """How far the float64 potential is from float32, and from one that only looks like float64."""
    single, double = trainer.load(), trainer.load("float64")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = replace(frames, positions=frames.positions @ turn.T, cell=frames.cell @ turn.T)
    straight = double.predict(frames, 3)
    return {
        "single": float(np.abs(single.predict(frames, 3).forces - straight.forces).max()),
        "rotation": float(np.abs(double.predict(turned, 3).forces - straight.forces @ turn.T).max()),
    }


def main(folder: Path) -> None:
    """Train short potentials in ``folder`` and write the findings."""
    data, test = (crystals(10, 1), crystals(5, 2)), crystals(5, 3)
    straight = train(adapter(folder / "straight", 9), data)
    train(adapter(folder / "broken", 7), data)
    cosine = {"schedule": "cosine", "optimizer": "adam", "lr": 0.02, "stress_weight": 0.0}
    wrong = (data[0], replace(data[1], forces=-data[1].forces, stress=-data[1].stress))
    potential = adapter(folder / "straight", 9).load("float64")
    kept = adapter(folder / "straight", 9).load().predict(data[1], 2, stress=True)
    copper = [molecule("H2O"), molecule("CH4")]
    for atoms in copper:
        atoms.numbers[:] = 29
        atoms.positions *= 2.2
    found = {
        "straight": straight,
        "resumed": train(adapter(folder / "broken", 9), data),
        "again": train(adapter(folder / "broken", 9), data),
        "patience": train(adapter(folder / "patience", 60, patience=2), wrong),
        "annealed": train(adapter(folder / "annealed", 6, **cosine), data),
        "kept_loss": common_loss(kept, data[1], TRAINING),
        "losses": losses(potential, test),
        "stress": stress_by_strain(potential, test),
        "read_back": read_back(folder / "straight" / "native", data[0]),
        "torchsim": {
            "periodic": torchsim_against_calculator(potential, test.to_atoms()),
            "open": torchsim_against_calculator(potential, copper),
        },
        "dtypes": in_single_and_double(adapter(folder / "straight", 9), test),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
