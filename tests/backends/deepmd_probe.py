"""Runs in DeePMD-kit's environment: ``python -P deepmd_probe.py FOLDER`` leaves its findings in ``found.json`` there.

Left- and right-handed Cu-Al cells of two sizes, labelled by ASE's EMT calculator.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sim  # noqa: E402
from ase.build import bulk  # noqa: E402
from ase.calculators.emt import EMT  # noqa: E402

from mlpbench.frames import Frames  # noqa: E402
from mlpbench.protocol import EventLog, Request, read_events  # noqa: E402
from mlpbench.worker.adapters.deepmd import SCRIPTED, TABULATED, DeepmdAdapter  # noqa: E402

COMMON = {"cutoff": 4.0, "neighbours": "auto:1.2", "axis_neurons": 2, "fitting_layers": [8, 8], "native": {}}
DP = {**COMMON, "cutoff_smooth": 0.5, "embedding_layers": [4, 8], "activation": "tanh"}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "se_e2_a": {**DP, "type_one_side": True},
    "dpa1": {**DP, "type_embedding": 4, "attention_width": 8, "attention_layers": 1},
    "dpa3": {
        **COMMON, "cutoff_smooth": 3.5, "angle_cutoff": 3.0, "angle_cutoff_smooth": 2.5, "angle_neighbours": "auto:1.2",
        "node_features": 8, "edge_features": 4, "angle_features": 4, "n_layers": 2, "activation": "silut:10.0",
    },
}  # fmt: skip
TRAINING = {
    "batch_size": 3, "lr": 0.02, "schedule": "cosine", "lr_factor": 0.5, "lr_patience": 0, "lr_min": 1e-6,
    "lr_gamma": 0.9, "warmup_steps": 0, "optimizer": "adam", "ema_decay": 0.9, "gradient_clip": 10.0,
    "weight_decay": 0.0, "energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 100.0,
}  # fmt: skip


def crystals(count: int, seed: int, squeeze: float = 1.0) -> Frames:
    """Strained and rattled cells with 4 and 8 atoms in turn, every third left-handed."""
    random = np.random.default_rng(seed)
    structures = []
    for i in range(count):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True) * (1 + i % 2, 1, 1)
        atoms.numbers[:: 2 + i % 2] = 13
        atoms.set_cell(squeeze * atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
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


def adapter(directory: Path, name: str, data: tuple[Frames, Frames], **changes: Any) -> DeepmdAdapter:
    """An adapter for six intervals of two steps; a pass over the eight frames takes three steps."""
    (directory / "checkpoint").mkdir(parents=True, exist_ok=True)
    for split, frames in zip(("train", "valid"), data, strict=True):
        frames.save(directory / f"{split}.npz")
    native = changes.pop("native", {})
    return DeepmdAdapter(
        Request(
            adapter="", directory=str(directory), architecture={"name": name, **ARCHITECTURES[name], "native": native},
            budget={"epochs": None, "steps": 12, "seconds": None, "interval": 2, "patience": None}, seed=5,
            training={**TRAINING, **changes}, device="cpu", dtype="float64", threads=1, tasks=[],
            labels=["energy", "forces", "stress"] if changes.get("stress_weight", 1.0) else ["energy", "forces"],
            frames={split: str(directory / f"{split}.npz") for split in ("train", "valid")},
        )
    )  # fmt: skip


class PowerCut(EventLog):
    """Ends the process's work in its fourth interval, when that is trained and not yet saved."""

    def epoch(self, epoch: int, *args: Any, **kwargs: Any) -> None:
        """Raises a RuntimeError."""
        super().epoch(epoch, *args, **kwargs)
        if epoch == 4:
            raise RuntimeError("power cut")


def train(directory: Path, name: str, data: tuple[Frames, Frames], cut: bool = False, **changes: Any) -> dict[str, Any]:
    """Train, if ``cut`` with a break in between, and return the last events of each interval."""
    directory.mkdir(parents=True, exist_ok=True)
    events = directory / "events.jsonl"
    if cut:
        with contextlib.suppress(RuntimeError):
            adapter(directory, name, data, **changes).train(*data, PowerCut(events))
    outcome = adapter(directory, name, data, **changes).train(*data, EventLog(events))
    rows = {
        e["epoch"]: [e["valid_loss"], e["train_loss"], e["lr"]] for e in read_events(events) if e["event"] == "epoch"
    }
    return {"resumed": outcome.resumed, "best": outcome.best_valid_loss, "epochs": list(rows.values())}


def deviations(one: Any, other: Any) -> dict[str, float]:
    """Largest differences of energies, forces and stress."""
    return {k: float(np.abs(np.asarray(one[k]) - np.asarray(other[k])).max()) for k in ("energy", "forces", "stress")}


def by_calculator(calculator: Any, frames: Frames) -> dict[str, Any]:
    """Energies, forces and stress, one frame after another."""
    found: dict[str, list[Any]] = {"energy": [], "forces": [], "stress": []}
    for atoms in frames.to_atoms():
        atoms.calc = calculator
        found["energy"].append(atoms.get_potential_energy())
        found["forces"].append(atoms.get_forces())
        found["stress"].append(atoms.get_stress())
    return {**found, "forces": np.concatenate(found["forces"])}


def by_torchsim(potential: Any, frames: Frames) -> dict[str, Any]:
    """The same in one batch."""
    model = potential.torchsim_model()
    out = model(torch_sim.initialize_state(frames.to_atoms(), device=torch.device("cpu"), dtype=torch.float64))
    arrays = {name: value.numpy() for name, value in out.items()}
    return {**arrays, "stress": arrays["stress"][:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]}


def slope_error(calculator: Any, frames: Frames, step: float = 1e-4) -> float:
    """Largest difference between force and slope of the energy, of three coordinates of the first frame (eV/Å)."""
    atoms = frames.to_atoms()[0]
    atoms.calc = calculator
    forces, worst = atoms.get_forces(), 0.0
    for atom, axis in ((0, 0), (1, 1), (3, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        worst = max(worst, abs(-(energies[0] - energies[1]) / (2 * step) - forces[atom, axis]))
    return worst


def message(action: Any) -> str:
    """What a call complains of."""
    try:
        action()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def look(folder: Path, name: str, data: tuple[Frames, Frames]) -> dict[str, Any]:
    """All that is found of one architecture."""
    straight, cut = (train(folder / kind, name, data, cut=kind == "cut") for kind in ("straight", "cut"))
    finished = adapter(folder / "straight", name, data)
    potential, test = finished.load(), crystals(3, 3)
    prediction = vars(potential.predict(test, 2, stress=True))
    squeezed = crystals(2, 4, squeeze=0.8)
    deployed = {}
    for means in (SCRIPTED, TABULATED) if name == "se_e2_a" else (SCRIPTED,):
        calculator = finished.deploy(potential, means)
        deployed[means] = [deviations(prediction, by_calculator(calculator, test)), slope_error(calculator, test)]
    return {
        "straight": straight,
        "cut": cut,
        "torchsim": deviations(prediction, by_torchsim(potential, test)),
        "calculator": deviations(prediction, by_calculator(potential.calculator(), test)),
        "deployed": deployed,
        "crowded": message(lambda: potential.predict(squeezed, 2)),
        "crowded_calculator": message(lambda: by_calculator(potential.calculator(), squeezed)),
        "crowded_torchsim": bool(np.isnan(by_torchsim(potential, squeezed)["energy"]).any()),
        "unknown_element": message(lambda: potential.predict(replace(test, numbers=test.numbers + 1), 2)),
        "float32": deviations(prediction, vars(finished.load("float32").predict(test, 3, stress=True))),
    }


def main(folder: Path) -> None:
    """Train short potentials in ``folder`` and write the findings."""
    data = crystals(8, 1), crystals(4, 2)
    found: dict[str, Any] = {name: look(folder / name, name, data) for name in ARCHITECTURES}
    own = {
        "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1},
        "learning_rate": {"type": "exp", "decay_steps": 3, "stop_lr": 1e-5},
    }
    plain = {"schedule": "constant", "stress_weight": 0.0, "gradient_clip": None, "ema_decay": None}
    found["own"] = train(folder / "own", "se_e2_a", data, native=own, **plain)
    refused = {
        "option": {"descriptor": {"axis_nueron": 3}}, "decided": {"descriptor": {"seed": 3}},
        "loss": {"loss": {"start_pref_q": 1}}, "rate": {"learning_rate": {"type": "exp", "stop_lr": 1e-5}},
    }  # fmt: skip
    found["refused"] = {
        name: message(
            lambda native=native: train(folder / "refused", "se_e2_a", data, native=native, stress_weight=0.0)
        )
        for name, native in refused.items()
    }
    native = folder / "se_e2_a" / "straight" / "native"
    command = [sys.executable, "-P", "train.py"]
    done = subprocess.run(
        command, cwd=native, env={**os.environ, "PYTHONPATH": str(native)}, capture_output=True, text=True, check=False
    )
    events = native / "again" / "events.jsonl"
    losses = [e["valid_loss"] for e in read_events(events) if e["event"] == "epoch"] if events.exists() else []
    found["native"] = [losses, done.stdout + done.stderr]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
