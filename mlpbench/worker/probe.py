"""Requests carried out for the contract suite: it trains as a trial does and looks at what a trial does not report.

Started in a backend's environment by ``bootstrap.py FOLDER mlpbench.worker.probe``, where FOLDER has the file
``probe-folders.json`` that lists the folders with a ``request.json``. Each of them gets ``probe.json`` and
``probe.npz``. The request's only task is ``probe``, with the options

    splits   names of splits to predict
    stress   those of them with stress
    batch    frames in a forward pass, 4 unless told
    calculator   names of splits whose frames go one by one through the package's ASE calculator
    deployed     names of splits whose frames go through each deployment that runs here
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from mlpbench.frames import Frames
from mlpbench.protocol import EVENTS, REQUEST, EventLog, Request, read_json
from mlpbench.worker.adapter import Unavailable
from mlpbench.worker.main import load_adapter
from mlpbench.worker.start import begin

FOLDERS = "probe-folders.json"


class Clipping:
    """What the package's trainer asks of torch's ``clip_grad_norm_``, step by step."""

    def __init__(self) -> None:
        self.norms: list[float] = []  # of the gradient, before it is clipped
        self.limits: list[float] = []

    def watch(self) -> None:
        """From now on, note every call."""
        import torch

        original = torch.nn.utils.clip_grad_norm_

        def noted(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Any:
            norm = original(parameters, max_norm, *args, **kwargs)
            self.norms.append(float(norm))
            self.limits.append(float(max_norm))
            return norm

        torch.nn.utils.clip_grad_norm_ = noted


def by_calculator(calculator: Calculator, frames: Frames) -> dict[str, np.ndarray]:
    """Energies, forces and stress of ``frames``; the stress is NaN where the calculator gives none."""
    energy, forces, stress = [], [], []
    for atoms in frames.to_atoms():
        atoms.calc = calculator
        energy.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        has_stress = atoms.pbc.all() and "stress" in calculator.implemented_properties
        stress.append(atoms.get_stress() if has_stress else np.full(6, np.nan))
    return {"energy": np.array(energy).reshape(-1), "forces": np.concatenate(forces), "stress": np.array(stress)}


def probe(folder: Path, clipping: Clipping | None) -> None:
    """Carry out one request."""
    request = Request.read(folder / REQUEST)
    (task,) = request.tasks
    frames = {name: Frames.load(path) for name, path in request.frames.items()}
    adapter = begin(load_adapter(request.adapter), request)
    seen: dict[str, Any] = {"norms": None, "limits": None}
    adapter.checkpoints.mkdir(exist_ok=True)
    if clipping is not None:
        clipping.norms, clipping.limits = [], []
    adapter.train(frames["train"], frames["valid"], EventLog(folder / EVENTS))
    potential = adapter.load()
    arrays: dict[str, np.ndarray] = {}
    for split in task.options.get("splits", []):
        stress = split in task.options.get("stress", [])
        prediction = potential.predict(frames[split], task.options.get("batch", 4), stress)
        arrays[f"{split}.energy"], arrays[f"{split}.forces"] = prediction.energy, prediction.forces
        if prediction.stress is not None:
            arrays[f"{split}.stress"] = prediction.stress
    for split in task.options.get("calculator", []):
        for name, values in by_calculator(potential.calculator(), frames[split]).items():
            arrays[f"{split}.calculator.{name}"] = values
    if task.options.get("deployed"):
        seen["deployed"] = {}
        for means in (name for names in adapter.deployments.values() for name in names):
            try:
                calculator = adapter.deploy(potential, means)
            except Unavailable as reason:
                seen["deployed"][means] = str(reason)
                continue
            seen["deployed"][means] = ""
            for split in task.options["deployed"]:
                for name, values in by_calculator(calculator, frames[split]).items():
                    arrays[f"{split}.{means}.{name}"] = values
    np.savez(folder / "probe.npz", **arrays)  # type: ignore[arg-type]
    seen |= {} if clipping is None else vars(clipping)
    (folder / "probe.json").write_text(json.dumps(seen), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Carry out all requests in one process: the import of a package takes ten seconds."""
    folders = read_json(Path(arguments[0]) / FOLDERS)["folders"]
    first = Request.read(Path(folders[0]) / REQUEST)
    load_adapter(first.adapter)
    clipping = Clipping() if "torch" in sys.modules else None
    if clipping is not None:
        clipping.watch()
    for folder in folders:
        probe(Path(folder), clipping)
    return 0
