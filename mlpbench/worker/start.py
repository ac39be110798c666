"""A training that starts from a finished potential: its energy zero is moved to the labels, and said in every answer.

A potential's energies have the zero of the labels it was trained on. Before the training a constant for each element is
fitted to what separates it from the new labels, and is taken off them, so that the package trains on labels that the
start predicts well from the first step on. The constants are added to every energy that the trained potential gives
(predictions, ASE calculators, torch-sim models). No package has to know of it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, chemical_symbols

from mlpbench.frames import Float, Frames
from mlpbench.protocol import EventLog, Request, read_json, write_json
from mlpbench.worker.adapter import BEGUN, Adapter, Potential, Prediction, TrainOutcome, common_loss

FILE = "start.json"  # in the folder of the checkpoints: the shifts, and the start's own errors
BATCH = 16  # frames in a forward pass of the start
CARRIED = "the model as it was: weights, scale of the output, elements, and average neighbour number where it has one"
_TABLE = len(chemical_symbols)
_SHIFTS = "energy_shifts_eV"  # attribute of a calculator whose energies have them: (119,) by atomic number


def begin(kind: type[Adapter], request: Request) -> Adapter:
    """The adapter of class ``kind`` for ``request``; with what this module adds, if it has a start."""
    if not request.start:
        return kind(request)
    names = {"__module__": kind.__module__, "plain": kind}
    started: type[Adapter] = type(kind.__name__, (FromStart, kind), names)
    return started(request)


class FromStart(Adapter):
    """Stands before a backend's adapter whose training does not start from scratch."""

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`; the frames' baseline gets the shifts of the energy zero first.

        Raises:
            ValueError: the start does not know an element of the frames.
        """
        path = self.checkpoints / FILE
        if not path.exists():  # else a training that was interrupted goes on
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            facts = self._compare(train, valid)
            write_json(path, facts)
            events.write("start", **facts["errors"])
        if self.request.start.get("kind") == "zero_shot":
            outcome = self._as_it_is()
        else:
            shifts = read_shifts(self.checkpoints)
            outcome = super().train(moved(train, shifts), moved(valid, shifts), events)  # type: ignore[safe-super]
        shutil.rmtree(self.directory / BEGUN, ignore_errors=True)
        return outcome

    def _as_it_is(self) -> TrainOutcome:
        """Nothing is trained: the start's checkpoint is this one's."""
        assert self.start is not None
        for source in self.start.checkpoints.iterdir():
            if source.name != FILE:
                copied = shutil.copytree if source.is_dir() else shutil.copyfile
                copied(source, self.checkpoints / source.name)
        loss = read_json(self.checkpoints / FILE)["errors"]["valid_loss"]
        return TrainOutcome(
            epochs=0, steps=0, passes=0.0, best_epoch=0, best_step=0, best_valid_loss=loss, stopped_by="zero_shot"
        )

    def _compare(self, train: Frames, valid: Frames) -> dict[str, Any]:
        """Shifts of the energy zero, and the errors of the start with them on the validation frames."""
        assert self.start is not None
        potential, labels = self.start.load(), self.request.labels
        if "energy" in labels:
            shifts = fit_shifts(train, potential.predict(train, BATCH).energy)
        else:
            shifts = dict.fromkeys(np.unique(train.numbers).tolist(), 0.0)  # no energy enters the loss
        frames = moved(valid, shifts)
        prediction = potential.predict(frames, BATCH, stress="stress" in labels)
        energy = np.abs(prediction.energy - frames.target_energy) / frames.n_atoms
        errors = {
            "valid_loss": common_loss(prediction, frames, self.request.training),
            "valid_energy_mae": float(energy.mean()) if np.isfinite(energy).all() else None,
            "valid_force_mae": float(np.nanmean(np.abs(prediction.forces - frames.forces)))
            if frames.has_forces
            else None,
        }
        own = {chemical_symbols[z]: value for z, value in potential.atomic_energies().items() if z in shifts}
        return {
            "shifts_eV": {chemical_symbols[z]: shift for z, shift in shifts.items()},
            **({"own_atomic_energies_eV": own} if own else {}),
            "errors": errors,
        }

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`."""
        potential = super().load(dtype)  # type: ignore[safe-super]
        shift(potential, read_shifts(self.checkpoints))
        return potential

    def deploy(self, potential: Potential, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`."""
        return shifted(super().deploy(potential, means), read_shifts(self.checkpoints))


def summary(request: Request, checkpoints: Path) -> dict[str, Any]:
    """What a trial's record says of its start.

    Returns:
        ``kind``, ``trial`` (study and folder) or ``foundation`` (name, ``file`` and ``options``), and ``weights``
        (digest) of the start, ``carried_over``, ``frozen``, ``shifts_eV`` (element -> what was added to the start's
        energy zero), ``own_atomic_energies_eV`` where it has them, and the start's errors on the validation frames
        before the first step: ``valid_loss`` (common loss), ``valid_energy_mae`` (eV/atom), ``valid_force_mae``
        (eV/Å).
    """
    told = {name: value for name, value in request.start.items() if name not in ("directory", "file", "freeze")}
    if "file" in request.start:
        told["file"] = Path(request.start["file"]).name
    facts = read_json(checkpoints / FILE)
    errors = facts.pop("errors")
    return {**told, "carried_over": CARRIED, "frozen": request.start.get("freeze", "none"), **facts, **errors}


def read_shifts(checkpoints: Path) -> dict[int, float]:
    """Atomic number -> eV, as the training noted them.

    Raises:
        FileNotFoundError: there is no training.
    """
    return {
        atomic_numbers[symbol]: float(value) for symbol, value in read_json(checkpoints / FILE)["shifts_eV"].items()
    }


def fit_shifts(frames: Frames, energy: Float) -> dict[int, float]:
    """Atomic number -> the constant (eV) that moves a potential's energies to the labels, by least squares.

    Where the compositions do not determine the constants, the part that all atoms share is fitted first and the
    deviations of the elements from it have the smallest norm.

    Args:
        frames: the training frames, with ``target_energy`` (F,) eV.
        energy: (F,) eV, what the potential says of them.
    """
    numbers = np.unique(frames.numbers)
    counts = np.zeros((len(frames), len(numbers)))
    np.add.at(counts, (frames.frame_of_atom, np.searchsorted(numbers, frames.numbers)), 1.0)
    difference = frames.target_energy - energy
    shared = float(difference.sum() / frames.n_atoms.sum())
    rest = np.linalg.lstsq(counts, difference - shared * frames.n_atoms, rcond=None)[0]
    return {int(z): shared + float(value) for z, value in zip(numbers, rest, strict=True)}


def moved(frames: Frames, shifts: Mapping[int, float]) -> Frames:
    """``frames`` whose baseline holds the shifts too: what is learnt is the label without them."""
    return frames.with_baseline(frames.baseline + constant(frames, shifts))


def constant(frames: Frames, shifts: Mapping[int, float]) -> Float:
    """(F,) eV: the sum of the shifts over the atoms of each frame.

    Raises:
        ValueError: the training had no frame with one of the elements, so that its shift is not known.
    """
    total = np.zeros(len(frames))
    np.add.at(total, frames.frame_of_atom, _table(shifts)[frames.numbers])
    if np.isnan(total).any():
        unknown = sorted({chemical_symbols[z] for z in set(frames.numbers.tolist()) - set(shifts)})
        raise ValueError(f"the training frames hold no {', '.join(unknown)}: its energy zero is not known")
    return total


def _table(shifts: Mapping[int, float]) -> Float:
    table = np.full(_TABLE, np.nan)
    table[list(shifts)] = list(shifts.values())
    return table


# --- a trained potential, whose energies get the shifts --------------------------------------------------------------


def shift(potential: Potential, shifts: Mapping[int, float]) -> None:
    """From now on every energy of ``potential``, of its calculator and of its torch-sim model has the shifts.

    Losses and metrics of the package are on labels without them, as in the training.
    """
    plain = copy.copy(potential)

    def predict(frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        found = kind.predict(plain, frames, batch_size, stress)
        return Prediction(found.energy + constant(frames, shifts), found.forces, found.stress)

    kind = type(potential)
    changed: dict[str, Any] = {
        "predict": predict,
        "calculator": lambda: shifted(kind.calculator(plain), shifts),
        "package_loss": lambda frames, training: kind.package_loss(plain, moved(frames, shifts), training),
        "package_metrics": lambda frames, size: kind.package_metrics(plain, moved(frames, shifts), size),
        "torchsim_model": lambda: _shifted_model(kind.torchsim_model(plain), shifts),
    }
    for name, method in changed.items():
        setattr(potential, name, method)


def shifted(calculator: Calculator, shifts: Mapping[int, float]) -> Calculator:
    """``calculator``, of a class of the same name, whose energies have the shifts (once)."""
    if hasattr(calculator, _SHIFTS):
        return calculator
    kind: Any = type(calculator)

    def calculate(self: Any, *args: Any, **options: Any) -> None:
        self.results = {}
        kind.calculate(self, *args, **options)
        per_atom = getattr(self, _SHIFTS)[self.atoms.numbers]
        for names, value in ((("energy", "free_energy"), per_atom.sum()), (("energies", "node_energy"), per_atom)):
            for name in set(names) & set(self.results):
                self.results[name] = self.results[name] + value

    setattr(calculator, _SHIFTS, _table(shifts))
    # One base alone, so that instances have the same layout.
    calculator.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, "calculate": calculate})
    return calculator


def _shifted_model(model: Any, shifts: Mapping[int, float]) -> Any:
    """A torch-sim model whose energies have the shifts."""
    import torch  # not at the top: an adapter may have none

    kind = type(model)
    table = torch.as_tensor(np.nan_to_num(_table(shifts)))

    def forward(self: Any, state: Any, **options: Any) -> Any:
        output = kind.forward(self, state, **options)
        per_atom = table.to(state.atomic_numbers.device)[state.atomic_numbers]
        total = per_atom.new_zeros(state.n_systems).index_add(0, state.system_idx, per_atom)
        return {**output, "energy": output["energy"] + total.to(output["energy"].dtype)}

    model.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, "forward": forward})
    return model
