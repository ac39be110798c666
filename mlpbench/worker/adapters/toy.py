"""A pair potential fitted by gradient descent, in numpy alone: seconds to train, and honest about everything else.

It exists so that the whole way from config to report can be tested where no torch is installed, and to show what an
adapter has to do. E = Σ_pairs Σ_k c[type, k]·φ_k(r), with φ_k Gaussians under a cosine cutoff.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

from mlpbench.frames import Float, Frames
from mlpbench.protocol import EventLog, Request, replacing, write_json
from mlpbench.worker.adapter import (
    Adapter,
    Potential,
    Prediction,
    TrainOutcome,
    Unusable,
    common_loss,
    first_line,
)
from mlpbench.worker.training import TrainingLog, label_scale, require_options


class Features:
    """The linear model's design: energies and forces are linear in the coefficients."""

    def __init__(self, elements: list[int], n_basis: int, cutoff: float) -> None:
        self.elements = elements
        self.n_basis = n_basis
        self.cutoff = cutoff
        self.centres = np.linspace(0.6, cutoff, n_basis)
        self.width = (cutoff - 0.6) / n_basis
        self.size = len(elements) * (len(elements) + 1) // 2 * n_basis

    def design(self, atoms: Atoms) -> tuple[Float, Float]:
        """(size,) energy row and (n, 3, size) force rows of one structure, periodic images included."""
        first, second, distance, bond = neighbor_list("ijdD", atoms, self.cutoff)
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.elements))
        if unknown:
            raise ValueError(f"the toy was not trained on the elements with the atomic numbers {unknown}")
        place = np.array([self.elements.index(int(z)) for z in atoms.numbers], dtype=int)
        low = np.minimum(place[first], place[second])
        high = np.maximum(place[first], place[second])
        pair = high * (high + 1) // 2 + low
        value, slope = self._basis(distance)
        n_pairs = self.size // self.n_basis
        energy = np.zeros((n_pairs, self.n_basis))
        np.add.at(energy, pair, 0.5 * value)  # each pair is listed from both ends
        forces = np.zeros((len(atoms), n_pairs, 3, self.n_basis))
        np.add.at(forces, (first, pair), (bond / distance[:, None])[:, :, None] * slope[:, None, :])
        return energy.ravel(), forces.transpose(0, 2, 1, 3).reshape(len(atoms), 3, self.size)

    def _basis(self, r: Float) -> tuple[Float, Float]:
        """(P, n_basis) values and slopes at P distances (Å)."""
        shift = (r[:, None] - self.centres) / self.width
        gauss = np.exp(-0.5 * shift**2)
        fade = 0.5 * (1 + np.cos(np.pi * r / self.cutoff))[:, None]
        fade_slope = (-0.5 * np.pi / self.cutoff * np.sin(np.pi * r / self.cutoff))[:, None]
        return gauss * fade, gauss * fade_slope - gauss * fade * shift / self.width


class ToyPotential(Potential):
    """A fitted pair potential."""

    def __init__(self, features: Features, coefficients: Float) -> None:
        self.features = features
        self.coefficients = coefficients
        self.n_parameters = coefficients.size

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`; stress is not available."""
        rows = [self.one(atoms) for atoms in frames.to_atoms()]
        return Prediction(np.array([e for e, _ in rows]), np.concatenate([f for _, f in rows]))

    def one(self, atoms: Atoms) -> tuple[float, Float]:
        """Energy (eV) and (n, 3) forces (eV/Å) of one structure."""
        energy, forces = self.features.design(atoms)
        return float(energy @ self.coefficients), forces @ self.coefficients

    def calculator(self) -> Calculator:
        """An ASE calculator for this potential."""
        return ToyCalculator(self)

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """The loss in this module's own words: sums over all targets, divided at the end."""
        prediction = self.predict(frames, len(frames))
        energy = ((prediction.energy - frames.target_energy) / frames.n_atoms) @ (
            (prediction.energy - frames.target_energy) / frames.n_atoms
        )
        off = (prediction.forces - frames.forces)[~frames.held]
        force = np.einsum("ij,ij->", off, off)
        return float(training["energy_weight"] * energy / len(frames) + training["force_weight"] * force / off.size)

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """Mean absolute errors, accumulated batch by batch."""
        energy, force = 0.0, 0.0
        for start in range(0, len(frames), batch_size):
            batch = frames.select(slice(start, start + batch_size))
            prediction = self.predict(batch, batch_size)
            energy += float(np.abs((prediction.energy - batch.target_energy) / batch.n_atoms).sum())
            force += float(np.abs(prediction.forces - batch.forces).sum())
        return {"energy_mae": energy / len(frames), "force_mae": force / frames.forces.size}


class ToyCalculator(Calculator):
    """ASE's view of a :class:`ToyPotential`."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  # as ASE declares it

    def __init__(self, potential: ToyPotential) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ASE has no annotations
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy and forces of ``atoms``."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure: Any = self.atoms
        energy, forces = self.potential.one(structure)
        self.results = {"energy": energy, "forces": forces}


EXPORT = """\
import json

Float = Atoms = object


{features}

class PairPotential(Calculator):
    implemented_properties = ["energy", "forces"]

    def __init__(self, path):
        super().__init__()
        with np.load(path) as arrays:
            meta, self.coefficients = json.loads(str(arrays["meta"])), arrays["coefficients"]
        self.features = Features(meta["elements"], meta["n_basis"], meta["cutoff"])

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.features.design(self.atoms)
        self.results = {{"energy": float(energy @ self.coefficients), "forces": forces @ self.coefficients}}


def package_calculator(folder, device):
    return PairPotential(folder / "potential.npz")
"""


class ToyAdapter(Adapter):
    """Ridge-regularised gradient descent with momentum on the common loss; resumes exactly."""

    packages = ()

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.best = self.checkpoints / "best.npz"
        self.last = self.checkpoints / "last.npz"

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`; the toy has no package, and no options of one."""
        require_options(self.request.architecture.get("native") or {}, {}, "the toy")

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        self.check_options(train, valid)
        settings, training = self.request.architecture, self.request.training
        elements = sorted(set(train.numbers.tolist()) | set(valid.numbers.tolist()))
        features = Features(elements, settings["n_basis"], settings["cutoff"])
        begun = None if self.start is None else self.start.load()
        if begun is not None:
            features = begun.features
        self.native.mkdir(exist_ok=True)
        write_json(self.native / "toy.json", {"architecture": settings, "training": training})
        matrix, target, weight = _linear_problem(features, train, training)
        hessian, gradient0 = (matrix.T * weight) @ matrix, (matrix.T * weight) @ target
        hessian += settings["ridge"] * np.eye(features.size)
        rate = training["lr"] / np.linalg.eigvalsh(hessian)[-1] * 100
        scale = label_scale(train, self.request.labels)
        coefficients = scale * np.random.default_rng(self.request.seed).normal(0, 1e-3, features.size)
        if begun is not None:
            coefficients = begun.coefficients
        velocity = np.zeros(features.size)
        log = TrainingLog(events, self.request, len(train))
        if self.last.exists():
            state = dict(np.load(self.last))
            coefficients, velocity = state["coefficients"], state["velocity"]
            log.restore(state)
        log.start_clock()
        steepest = min(rate, 1.0 / np.linalg.norm(hessian, 2))
        while log.stopped_by() is None:
            step = log.step
            for step in range(log.step, log.step + log.steps.interval):
                share = log.lr(step) / training["lr"] if log.anneals else 1.0
                velocity = 0.95 * velocity - share * steepest * (hessian @ coefficients - gradient0)
                coefficients = coefficients + velocity
            potential = ToyPotential(features, coefficients)
            prediction = potential.predict(valid, len(valid))
            off = np.abs(prediction.forces - valid.forces)
            better = log.validated(
                log.epoch + 1, step + 1, valid_loss=common_loss(prediction, valid, training),
                train_loss=float(weight @ (matrix @ coefficients - target) ** 2), lr=share * training["lr"],
                valid_energy_mae=float(np.mean(np.abs(prediction.energy - valid.target_energy) / valid.n_atoms))
                if np.isfinite(valid.target_energy).all() else None,
                valid_force_mae=float(np.nanmean(off)) if valid.has_forces else None,
            )  # fmt: skip
            if better:
                _save(self.best, potential)
            _save(self.last, potential, velocity=velocity, **log.state())
        return TrainOutcome.of(log, "none: the toy has no package of its own")

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """See :meth:`Adapter.adopt`: a file as this adapter writes it, read without pickle."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                meta, coefficients = json.loads(str(arrays["meta"])), arrays["coefficients"]
            features = Features(meta["elements"], meta["n_basis"], meta["cutoff"])
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise Unusable(f"{file.name} is no potential of the toy's: {first_line(error)}") from error
        if coefficients.shape != (features.size,):
            raise Unusable(f"{file.name} has {coefficients.size} coefficients, and {features.size} were expected")
        _save(self.best, ToyPotential(features, coefficients))

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: the coefficients, and this module's source of what they are multiplied with."""
        self.load()
        shutil.copyfile(self.best, folder / "potential.npz")
        return EXPORT.format(features=inspect.getsource(Features))

    def load(self, dtype: str | None = None) -> ToyPotential:
        """See :meth:`Adapter.load`; always float64."""
        with np.load(self.best) as arrays:
            meta = json.loads(str(arrays["meta"]))
            return ToyPotential(Features(meta["elements"], meta["n_basis"], meta["cutoff"]), arrays["coefficients"])


def _linear_problem(features: Features, frames: Frames, training: dict[str, Any]) -> tuple[Float, Float, Float]:
    """Rows, targets and weights whose weighted sum of squares is the common loss."""
    rows, targets, weights = [], [], []
    offsets = frames.offsets
    for i, atoms in enumerate(frames.to_atoms()):
        energy, forces = features.design(atoms)
        n = len(atoms)
        part = slice(offsets[i], offsets[i + 1])
        rows += [energy[None] / n, forces.reshape(3 * n, -1)]
        targets += [frames.target_energy[i : i + 1] / n, frames.forces[part].ravel()]
        each = training["force_weight"] / max(frames.known_forces.size, 1)
        of_forces = np.where(np.repeat(frames.held[part], 3), 0.0, each)
        weights += [np.array([training["energy_weight"] / len(frames)]), of_forces]
    return np.concatenate(rows), np.nan_to_num(np.concatenate(targets)), np.concatenate(weights)  # NaN: weight 0


def _save(path: Path, potential: ToyPotential, **state: Any) -> None:
    meta = {"elements": potential.features.elements, "n_basis": potential.features.n_basis,
            "cutoff": potential.features.cutoff}  # fmt: skip
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(stream, meta=np.array(json.dumps(meta)), coefficients=potential.coefficients, **state)
