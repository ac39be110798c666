"""Runs inside SchNetPack's environment: ``python -P schnetpack_probe.py FOLDER`` writes ``FOLDER/found.json``.

Periodic Cu-Al cells of two sizes, every third left-handed, labelled by ASE's EMT calculator.
"""

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sim  # noqa: E402
from ase.build import bulk, fcc111, molecule  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402

from mlpbench.frames import Frames  # noqa: E402
from mlpbench.protocol import EventLog, Request, read_events  # noqa: E402
from mlpbench.worker.adapter import common_loss  # noqa: E402
from mlpbench.worker.adapters.schnetpack import SchnetpackAdapter  # noqa: E402

SHARED = {"cutoff": 4.0, "n_features": 8, "n_interactions": 2, "n_rbf": 6, "n_output_layers": 2}
ARCHITECTURES = {
    "painn": {"name": "painn", **SHARED, "radial_basis": "bessel", "shared_filters": False},
    "schnet": {"name": "schnet", **SHARED, "radial_basis": "gaussian", "n_filters": 8},
}
TRAINING = {
    "batch_size": 4, "optimizer": "adam", "lr": 0.02, "schedule": "plateau", "warmup_steps": 0,
    "lr_gamma": 0.98, "lr_factor": 0.5, "lr_patience": 0, "lr_min": 1e-6,
    "ema_decay": 0.9, "gradient_clip": 10.0, "weight_decay": 0.0,
    "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 100.0,
}  # fmt: skip
EPOCHS = 8


def crystals(count: int, seed: int) -> Frames:
    """Strained and rattled cells with 4 and 8 atoms in turn."""
    random = np.random.default_rng(seed)
    structures = []
    for i in range(count):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True) * (1 + i % 2, 1, 1)
        atoms.numbers[:: 2 + i % 2] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
        if i % 3 == 0:
            atoms.set_cell(atoms.cell.array[[1, 0, 2]])
        atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        structures.append(atoms)
    frames = Frames.from_atoms(
        structures, [a.get_potential_energy() for a in structures], [a.get_forces() for a in structures],
        [a.get_stress() for a in structures],
    )  # fmt: skip
    return frames.with_baseline(0.1 * frames.n_atoms)


def adapter(
    directory: Path, architecture: str, epochs: int | None, stress: bool = True, **budget: float
) -> SchnetpackAdapter:
    """An adapter for a short training in ``directory``."""
    (directory / "checkpoint").mkdir(parents=True, exist_ok=True)
    limits = {"epochs": epochs, "steps": None, "seconds": None, "interval": None, "patience": None, **budget}
    return SchnetpackAdapter(
        Request(
            "", str(directory), {**ARCHITECTURES[architecture], "native": {}}, TRAINING, limits, 3, "cpu", "float64",
            1, {}, ["energy", "forces", *(["stress"] if stress else [])], [],
        )
    )  # fmt: skip


def train(trainer: SchnetpackAdapter, data: tuple[Frames, Frames]) -> dict:
    """Train; the outcome and the events of all epochs so far."""
    path = trainer.directory / "events.jsonl"
    outcome = trainer.train(*data, EventLog(path))
    epochs = [event for event in read_events(path) if event["event"] == "epoch"]
    keys = ("epoch", "step", "train_loss", "valid_loss", "valid_energy_mae", "valid_force_mae", "lr")
    return {**vars(outcome), "curve": [[event[key] for key in keys] for event in epochs]}


def losses(potential, frames: Frames) -> list[list[float]]:
    """The common loss and the package's, for several weights."""
    pairs = []
    for energy, force, stress in ((1.0, 1.0, 0.0), (10.0, 1.0, 0.0), (1.0, 100.0, 50.0), (1.0, 0.0, 100.0)):
        training = {**TRAINING, "energy_weight": energy, "force_weight": force, "stress_weight": stress}
        prediction = potential.predict(frames, len(frames), stress=stress > 0)
        pairs.append([common_loss(prediction, frames, training), potential.package_loss(frames, training)])
    return pairs


def stress_by_strain(potential, frames: Frames, step: float = 1e-5) -> tuple[list, list]:
    """Predicted stress (Voigt), and the energy's derivative by a symmetric strain over the volume."""
    derivative = np.zeros((len(frames), 6))
    for component, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            deform = np.eye(3) + strain
            bent = replace(frames, cell=frames.cell @ deform, positions=frames.positions @ deform)
            energies.append(potential.predict(bent, len(frames)).energy)
        derivative[:, component] = (energies[0] - energies[1]) / (2 * step)
    volume = np.abs(np.linalg.det(frames.cell))
    return potential.predict(frames, 3, stress=True).stress.tolist(), (derivative / volume[:, None]).tolist()


def torchsim_against_calculator(potential, structures: list) -> dict[str, float]:
    """Largest differences between one batched call and single calls of the calculator; NaN where one has a NaN."""
    model = potential.torchsim_model()
    state = torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)
    out, again = model(state), model(state)
    calculator = potential.calculator()
    energy, forces, stress = [], [], []
    for atoms in structures:
        single = atoms.copy()
        single.calc = calculator
        energy.append(single.get_potential_energy())
        forces.append(single.get_forces())
        if model.compute_stress:
            stress.append(np.asarray(single.get_stress(voigt=False)))
    worst = {
        "energy": float(np.abs(out["energy"].numpy() - energy).max()),
        "forces": float(np.abs(out["forces"].numpy() - np.concatenate(forces)).max()),
        "again": float((out["energy"] - again["energy"]).abs().max()),
    }
    if model.compute_stress:
        worst["stress"] = float(np.abs(out["stress"].numpy() - stress).max())
    return worst


def slab_energies(potential) -> list[float]:
    """A slab with two periodic directions, without a third vector and with one; and with three and a wide gap."""
    slab = fcc111("Cu", (2, 2, 2), a=3.75, vacuum=None)
    slab.numbers[::3] = 13
    slab.rattle(0.05, seed=1)
    flat, gap, full = slab.copy(), slab.copy(), slab.copy()
    flat.cell[2] = 0
    gap.cell[2] = full.cell[2] = (0, 0, 40)
    full.pbc = True
    frames = [Frames.from_atoms([each]) for each in (flat, gap, full)]
    return [float(potential.predict(each, 1).energy[0]) for each in frames]


def repeat(native: Path, folder: Path) -> float:
    """The best loss of a training with the package alone, from the files it was given."""
    shutil.copytree(native, folder)
    done = subprocess.run(
        [sys.executable, "-P", "train.py"], cwd=folder, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "HOME": str(folder)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split("best valid_loss ")[1].split(":")[0])


def main(folder: Path) -> None:
    """Everything the tests ask about, in one process: the import takes ten seconds and more."""
    data = crystals(10, 0), crystals(5, 1)
    found: dict = {}
    straight = adapter(folder / "straight", "painn", EPOCHS)
    found["straight"] = train(straight, data)
    train(adapter(folder / "broken", "painn", 3), data)
    found["resumed"] = train(adapter(folder / "broken", "painn", EPOCHS), data)
    found["finished"] = train(adapter(folder / "broken", "painn", EPOCHS), data)
    found["patience"] = train(adapter(folder / "patience", "painn", 60, patience=2), data)
    found["steps"] = train(adapter(folder / "steps", "painn", 60, steps=7), data)
    potential = straight.load()
    found["losses"] = losses(potential, data[1])
    training = {**TRAINING}
    found["valid_loss"] = common_loss(potential.predict(data[1], 2, stress=True), data[1], training)
    found["metrics"] = potential.package_metrics(data[1], 2)
    prediction = potential.predict(data[1], 4)
    error = prediction.energy - data[1].target_energy
    found["ours"] = {
        "energy_mae": float(np.mean(np.abs(error) / data[1].n_atoms)),
        "energy_mae_total": float(np.mean(np.abs(error))),
        "force_mae": float(np.mean(np.abs(prediction.forces - data[1].forces))),
    }
    found["stress"] = stress_by_strain(potential, data[1])
    found["torchsim_crystals"] = torchsim_against_calculator(potential, data[1].to_atoms())
    found["slab"] = slab_energies(potential)

    molecules = [molecule(name) for name in ("CH3CH2OH", "H2O", "C6H6", "H")]
    labels = [np.zeros(len(each)) for each in molecules], [np.zeros((len(each), 3)) for each in molecules]
    gas = Frames.from_atoms(molecules, [each.sum() for each in labels[0]], labels[1])
    schnet = adapter(folder / "molecules", "schnet", 1, stress=False)
    train(schnet, (gas, gas))
    found["torchsim_molecules"] = torchsim_against_calculator(schnet.load("float64"), molecules)
    found["lock_files"] = [str(path) for path in Path.cwd().glob("splitting.lock")]
    found["native"] = repeat(folder / "straight" / "native", folder / "repeated")
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
