"""Runs inside the NequIP environment: ``python -P nequip_probe.py FOLDER`` leaves its findings in ``found.json`` there.

Periodic Cu-Al cells of two sizes, labelled by ASE's EMT calculator, which gives stress in ASE's sign.
"""

import contextlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sim  # noqa: E402
import yaml  # noqa: E402
from ase.build import bulk  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402
from hydra.utils import instantiate  # noqa: E402
from nequip.data._nl import register_neighborlist_backend  # noqa: E402
from nequip.integrations.torchsim import NequIPTorchSimCalc  # noqa: E402

from mlpbench.frames import Frames  # noqa: E402
from mlpbench.protocol import EventLog, Request, read_events  # noqa: E402
from mlpbench.worker.adapter import common_loss  # noqa: E402
from mlpbench.worker.adapters._nequip_config import placed  # noqa: E402
from mlpbench.worker.adapters._nequip_deploy import TORCH_SIM, torch_sim_neighbours  # noqa: E402
from mlpbench.worker.adapters.nequip import NequIPAdapter  # noqa: E402

ARCHITECTURE = {
    "name": "nequip", "cutoff": 4.0, "n_layers": 2, "l_max": 1, "parity": False, "n_features": 4, "n_radial_basis": 4,
    "radial_basis_trainable": True, "cutoff_power": 6, "radial_layers": 1, "radial_width": 8, "native": {},
}  # fmt: skip
TRAINING = {
    "batch_size": 4, "lr": 0.2, "schedule": "plateau", "lr_factor": 0.5, "lr_patience": 0, "lr_min": 1e-6,
    "lr_gamma": 0.985, "warmup_steps": 0, "optimizer": "adam", "ema_decay": 0.9, "gradient_clip": 10.0,
    "weight_decay": 0.0, "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 100.0,
}  # fmt: skip
SCHEDULES: dict[str, dict] = {"cosine": {}, "plateau": {"lr": 1.0, "lr_factor": 0.9, "ema_decay": None}}  # restless


def crystals(count: int, seed: int) -> Frames:
    """Strained and rattled cells with 4 and 8 atoms in turn."""
    random = np.random.default_rng(seed)
    structures = []
    for i in range(count):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True) * (1 + i % 2, 1, 1)
        atoms.numbers[:: 2 + i % 2] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        structures.append(atoms)
    frames = Frames.from_atoms(
        structures, [a.get_potential_energy() for a in structures], [a.get_forces() for a in structures],
        [a.get_stress() for a in structures],
    )  # fmt: skip
    return frames.with_baseline(0.1 * frames.n_atoms)


def adapter(directory: Path, schedule: str = "cosine", dtype: str = "float32") -> NequIPAdapter:
    """An adapter for nine intervals of two steps in ``directory``; a pass over the ten frames takes three steps."""
    (directory / "checkpoint").mkdir(parents=True, exist_ok=True)
    budget = {"epochs": None, "steps": 18, "seconds": None, "interval": 2, "patience": None}
    return NequIPAdapter(
        Request(
            adapter="", directory=str(directory), architecture=ARCHITECTURE, budget=budget, seed=5, frames={},
            training={**TRAINING, "schedule": schedule, **SCHEDULES[schedule]}, device="cpu", dtype=dtype, threads=1,
            labels=["energy", "forces", "stress"], tasks=[],
        )
    )  # fmt: skip


class PowerCut(EventLog):
    """Ends the process's work in its sixth interval, when that is trained and not yet saved."""

    def epoch(self, epoch: int, *args, **kwargs) -> None:
        """Raises a RuntimeError."""
        super().epoch(epoch, *args, **kwargs)
        if epoch == 6:
            raise RuntimeError("power cut")


def train(directory: Path, data: tuple[Frames, Frames], schedule: str, cut: bool = False) -> dict:
    """Train, if ``cut`` with a break in between, and return the outcome with the last events of each interval."""
    events = directory / "events.jsonl"
    directory.mkdir(exist_ok=True)
    if cut:
        with contextlib.suppress(RuntimeError):
            adapter(directory, schedule).train(*data, PowerCut(events))
    outcome = adapter(directory, schedule).train(*data, EventLog(events))
    rows = {
        event["epoch"]: {k: v for k, v in event.items() if k not in ("time", "seconds")}
        for event in read_events(events)
        if event["event"] == "epoch"
    }
    return {"resumed": outcome.resumed, "best_epoch": outcome.best_epoch, "epochs": list(rows.values())}


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


def read_back(native: Path, train_frames: Frames) -> dict[str, float]:
    """Largest deviation of what NequIP's own data module reads in the native folder from what was asked for."""
    config = placed(yaml.safe_load((native / "config.yaml").read_text()), native, native)
    module = instantiate(config["data"], _recursive_=False)
    module.setup("fit")
    graphs = [module.train_dataset[0][i] for i in range(len(train_frames))]
    rows, columns = np.triu_indices(3)
    stress = np.array([graph["stress"][0].numpy()[rows, columns] for graph in graphs])
    deviations = {
        "positions": np.concatenate([g["pos"].numpy() for g in graphs]) - train_frames.positions,
        "forces": np.concatenate([g["forces"].numpy() for g in graphs]) - train_frames.forces,
        "energy": np.array([g["total_energy"].item() for g in graphs]) - train_frames.target_energy,
        "cell": np.array([g["cell"][0].numpy() for g in graphs]) - train_frames.cell,
        "stress": stress - train_frames.stress[:, [0, 5, 4, 1, 3, 2]],  # xx xy xz yy yz zz
    }
    return {name: float(np.abs(value).max()) for name, value in deviations.items()}


def torchsim_against_calculator(potential, frames: Frames) -> dict[str, float]:
    """Largest deviations of the batched torch-sim model from the ASE calculator, one structure at a time."""
    model, calculator = potential.torchsim_model(), potential.calculator()
    structures = frames.to_atoms()
    out = model(torch_sim.initialize_state(structures, device=torch.device("cpu"), dtype=torch.float64))
    for atoms in structures:
        atoms.calc = calculator
    forces = np.concatenate([a.get_forces() for a in structures])
    return {
        "energy": float(np.abs(out["energy"].numpy() - [a.get_potential_energy() for a in structures]).max()),
        "forces": float(np.abs(out["forces"].numpy() - forces).max()),
        "stress": float(np.abs(out["stress"].numpy() - [a.get_stress(voigt=False) for a in structures]).max()),
    }


def own_neighbours(potential, frames: Frames) -> dict[str, float]:
    """Largest deviations with torch-sim's neighbour list from matscipy's, in small cells and without a cell."""
    register_neighborlist_backend(TORCH_SIM, torch_sim_neighbours, supports_cuda=True, overwrite=True)
    isolated = replace(frames, cell=np.zeros_like(frames.cell), pbc=np.zeros_like(frames.pbc))
    deviations = {}
    for name, given in (("cells", frames), ("no_cell", isolated)):
        structures = given.to_atoms()
        state = torch_sim.initialize_state(structures, device=torch.device("cpu"), dtype=torch.float64)
        out = NequIPTorchSimCalc(potential.model, "cpu", transforms=potential._make_transforms(TORCH_SIM))(state)
        expected = potential.predict(given, len(given), stress=True)
        deviations[f"{name}_energy"] = float(np.abs(out["energy"].numpy() - expected.energy).max())
        deviations[f"{name}_forces"] = float(np.abs(out["forces"].numpy() - expected.forces).max())
    return deviations


def dtypes(potential, frames: Frames) -> list[str]:
    """Floating types of the weights and of what flows through the last layer."""
    seen = {str(p.dtype) for p in potential.model.parameters()}
    readout = potential.model.model.func.per_atom_energy_readout
    handle = readout.register_forward_hook(lambda _m, _i, out: seen.add(str(out["node_features"].dtype)))
    potential.predict(frames.select([0]), 1)
    handle.remove()
    return sorted(seen)


def main(folder: Path) -> None:
    """Train short potentials in ``folder`` and write the findings."""
    data = crystals(10, 1), crystals(4, 2)
    test = crystals(5, 3)
    found = {
        schedule: [
            train(folder / schedule, data, schedule),
            train(folder / f"{schedule}-cut", data, schedule, cut=True),
        ]
        for schedule in SCHEDULES
    }
    potential = adapter(folder / "cosine").load("float64")
    single = adapter(folder / "cosine").load()
    found |= {
        "losses": losses(potential, test),
        "stress": stress_by_strain(potential, test),
        "read_back": read_back(folder / "cosine" / "native", data[0]),
        "torchsim": torchsim_against_calculator(potential, test),
        "own_neighbours": own_neighbours(potential, test),
        "dtypes": [dtypes(potential, test), dtypes(single, test)],
        "float32_from_float64": float(np.abs(single.predict(test, 5).forces - potential.predict(test, 5).forces).max()),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
