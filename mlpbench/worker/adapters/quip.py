"""QUIP's GAP (https://github.com/libAtoms/GAP): SOAP and pairs, fitted by ``gap_fit`` in one least-squares problem.

The standard deviations that ``gap_fit`` is given are those whose sum of squares is the common loss; see :func:`sigmas`.
QUIP has the GNU General Public Licence, GAP one for academic, non-commercial use (ASL).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import quippy
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.data import chemical_symbols
from ase.io import write
from ase.neighborlist import neighbor_list
from quippy.potential import Potential as QuipPotential

from mlpbench.frames import Float, Frames
from mlpbench.protocol import WEIGHTS, EventLog, read_json, replacing, write_json
from mlpbench.worker.adapter import Adapter, Potential, Prediction, TrainOutcome, Unavailable, common_loss
from mlpbench.worker.training import RefusedOption, label_scale, require_option

FACTS, MODEL = "facts.json", "gap.xml"  # in the folder of the checkpoints
COMMAND = "sh fit.sh"
# Keys of a preset -> gap_fit's options of SOAP.
NAMES = {
    "cutoff": "cutoff", "cutoff_width": "cutoff_transition_width", "max_angular": "l_max", "max_radial": "n_max",
    "gaussian_width": "atom_sigma", "sparse_points": "n_sparse", "zeta": "zeta",
}  # fmt: skip
FIXED = {"sparse_method": "cur_points", "covariance_type": "dot_product", "f0": 0.0, "add_species": True}
FURTHER = ("central_weight", "covariance_sigma0", "cutoff_dexp", "cutoff_rate", "cutoff_scale", "diagonal_radial")
EXPORTED = """\
def package_calculator(folder, device):
    from quippy.potential import Potential

    return Potential(param_filename=str(folder / "gap.xml"))
"""


class QuipCalculator(QuipPotential):  # type: ignore[misc]  # quippy has no annotations
    """quippy's calculator, with empty space around what does not repeat.

    Args:
        path: the fitted potential.
        facts: its ``elements`` and ``cutoff``.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(param_filename=str(path))
        self.facts = facts

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, *args: Any, **further: Any) -> None:
        """Energy and forces, and the stress of what repeats along all vectors.

        Raises:
            PropertyNotImplementedError: stress of what does not.
            ValueError: an element that it was not fitted to.
        """
        given: Any = self.atoms if atoms is None else atoms
        unknown = sorted(set(given.numbers.tolist()) - set(self.facts["elements"]))
        if unknown:
            raise ValueError(f"the potential was not trained on the elements with the atomic numbers {unknown}")
        whole = bool(given.pbc.all())
        if "stress" in (properties or ()) and not whole:
            raise PropertyNotImplementedError("stress: the structure is not periodic along all vectors")
        wanted = ["energy", "forces", *(["stress"] if whole else [])]
        super().calculate(boxed(given, self.facts["cutoff"]), wanted, *args, **further)
        self.atoms = given.copy()


class QuipGap(Potential):
    """A fitted GAP.

    Args:
        path: its file.
        facts: what it was fitted with.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.facts = path, facts
        self.n_parameters = int(facts["parameters"])
        self.own = QuipCalculator(path, facts)

    def calculator(self) -> Calculator:
        """quippy's."""
        return QuipCalculator(self.path, self.facts)

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`; quippy takes one frame at a time."""
        energy, forces, stresses = [], [np.zeros((0, 3))], []
        for atoms in frames.to_atoms():
            self.own.calculate(atoms)
            results = self.own.results
            energy.append(results["energy"])
            forces.append(np.array(results["forces"]))
            stresses.append(results["stress"] if atoms.pbc.all() else np.full(6, np.nan))
        return Prediction(
            np.array(energy, float), np.concatenate(forces), np.array(stresses).reshape(-1, 6) if stress else None
        )

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """See :meth:`Potential.package_loss`: the sum of squares that ``gap_fit`` minimises beside the kernel's."""
        labels = [label for label in WEIGHTS if label != "stress" or frames.has_stress]
        deviations, unit = sigmas(frames, labels, training, self.facts["scale"], self.facts["regularisation"])
        found = self.predict(frames, 1, "stress" in deviations)
        total = 0.0
        if "energy" in deviations:
            total += float(np.sum(((found.energy - frames.target_energy) / deviations["energy"]) ** 2))
        if "forces" in deviations:
            total += float(np.sum(((found.forces - frames.forces) / deviations["forces"][:, None]) ** 2))
        if "stress" in deviations and found.stress is not None:
            off = (found.stress - frames.stress) * volumes(frames)[:, None]
            total += float(np.sum((off / deviations["stress"][:, None]) ** 2))
        return total * unit

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: from quippy's calculator, frame by frame."""
        calculator, offsets, energy, forces = self.calculator(), frames.offsets, [], []
        for i, atoms in enumerate(frames.to_atoms()):
            atoms.calc = calculator
            energy.append(abs(atoms.get_potential_energy() - frames.target_energy[i]) / len(atoms))
            forces.append(np.abs(atoms.get_forces() - frames.forces[offsets[i] : offsets[i + 1]]).ravel())
        return {"energy_mae": float(np.mean(energy)), "force_mae": float(np.mean(np.concatenate(forces)))}


class QuipAdapter(Adapter):
    """``gap_fit``. There are no steps: neither budgets nor rates nor resumption apply."""

    packages = ("quippy-ase",)

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        soap_options(self.request.architecture, 1.0)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`: one run of ``gap_fit``, one event."""
        request, started = self.request, time.monotonic()
        facts = self._write_native(train, valid)
        env = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
        done = subprocess.run(
            shlex.split(COMMAND), cwd=self.native, capture_output=True, text=True, check=False, env=env
        )
        (self.native / "gap_fit.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode or not (self.native / MODEL).exists():
            lines = [line for line in done.stdout.splitlines() if line.strip()][-3:]
            raise RuntimeError(f"gap_fit ended with {done.returncode}: {' '.join(lines)} (native/gap_fit.log)")
        facts["parameters"] = (self.native / MODEL).read_text(encoding="utf-8").count("<sparseX ")
        write_json(self.checkpoints / FACTS, facts)
        with replacing(self.checkpoints / MODEL) as part:
            shutil.copyfile(self.native / MODEL, part)
        potential = QuipGap(self.checkpoints / MODEL, facts)
        prediction = potential.predict(valid, 1, "stress" in request.labels)
        loss = common_loss(prediction, valid, request.training)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the validation loss is {loss}: try a larger architecture.regularisation")
        energy = np.abs(prediction.energy - valid.target_energy) / valid.n_atoms
        own = potential.predict(train, 1, "stress" in request.labels)
        events.epoch(
            1, 0, time.monotonic() - started, passes=1.0, train_loss=common_loss(own, train, request.training),
            valid_loss=loss, valid_energy_mae=float(energy.mean()) if np.isfinite(energy).all() else None,
            valid_force_mae=float(np.abs(prediction.forces - valid.forces).mean()) if valid.has_forces else None,
        )  # fmt: skip
        return TrainOutcome(
            epochs=1, steps=None, passes=1.0, best_epoch=1, best_step=None, best_valid_loss=loss, stopped_by="solved",
            native_command=COMMAND,
        )  # fmt: skip

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`.

        Raises:
            Unavailable: float32 is asked for.
        """
        if dtype == "float32":
            raise Unavailable("QUIP computes in float64 alone")
        if not (self.checkpoints / MODEL).exists():
            raise FileNotFoundError(f"no trained GAP: {self.checkpoints / MODEL} does not exist")
        return QuipGap(self.checkpoints / MODEL, read_json(self.checkpoints / FACTS))

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: QUIP's own file."""
        shutil.copyfile(self.checkpoints / MODEL, folder / MODEL)
        return EXPORTED

    def _write_native(self, train: Frames, valid: Frames) -> dict[str, Any]:
        """``train.xyz`` and ``fit.sh``, which repeats the fit with QUIP alone."""
        request = self.request
        settings, scale = request.architecture, label_scale(train, request.labels)
        noise, cutoff = float(settings["regularisation"]), float(settings["cutoff"])
        elements = sorted(set(train.numbers.tolist()))
        deviations, _ = sigmas(train, request.labels, request.training, scale, noise)
        self.native.mkdir(parents=True, exist_ok=True)
        structures = [boxed(atoms, cutoff) for atoms in labelled(train, deviations)]
        write(self.native / "train.xyz", structures, format="extxyz")
        terms = [f"soap {spelled(soap_options(settings, scale))}"]
        if settings["pair_points"]:
            shared = {
                "cutoff": cutoff, "covariance_type": "ard_se", "theta_uniform": 1.0, "sparse_method": "uniform",
                "n_sparse": settings["pair_points"], "add_species": False, "delta": settings["delta"] * scale,
                "f0": 0.0,
            }  # fmt: skip
            pairs = close_pairs(structures, cutoff)
            terms = [f"distance_2b {spelled({'Z1': a, 'Z2': b, **shared})}" for a, b in pairs] + terms
        zeros = ":".join(f"{chemical_symbols[number]}:0.0" for number in elements)  # the baseline holds them
        words = [
            str(Path(quippy.__path__[0]) / "gap_fit"), "at_file=train.xyz", f"gap={{{' : '.join(terms)}}}",
            "default_sigma={1 1 1 1}", f"e0={{{zeros}}}", "energy_parameter_name=energy",
            "force_parameter_name=force", "virial_parameter_name=virial", f"gp_file={MODEL}", "do_copy_at_file=F",
            "sparse_separate_file=F", f"rnd_seed={request.seed % 2**31}",
        ]  # fmt: skip
        text = "# The fit of this trial, by QUIP alone; standard deviations of each frame are in train.xyz.\n"
        (self.native / "fit.sh").write_text(f"{text}{shlex.join(words)}\n", encoding="utf-8")
        return {"elements": elements, "cutoff": cutoff, "scale": scale, "regularisation": noise}


def sigmas(
    frames: Frames, labels: Sequence[str], training: Mapping[str, Any], scale: float, noise: float
) -> tuple[dict[str, Float], float]:
    """Standard deviations for ``gap_fit``: of F energies (eV), A forces (eV/Å) and F virials (eV), of the labels with a
    weight; and the common loss over the sum of squared residuals that are divided by them.

    The deviation of a force is ``noise`` times ``scale``; without forces, that of an energy is times the number of
    atoms. The others follow from the weights of the common loss and its means over frames and components.
    """
    weights = {label: float(training[WEIGHTS[label]] or 0.0) for label in labels}
    forces = weights.get("forces", 0.0) > 0
    count, weight = (3 * len(frames.numbers), weights["forces"]) if forces else (len(frames), weights["energy"])
    unit = (noise * scale) ** 2 * weight / count
    terms = {
        "energy": len(frames) * frames.n_atoms.astype(float) ** 2,
        "forces": np.full(len(frames.numbers), 3.0 * len(frames.numbers)),
        "stress": 6.0 * len(frames) * volumes(frames) ** 2,
    }
    return {label: np.sqrt(unit * terms[label] / weights[label]) for label in labels if weights[label]}, unit


def volumes(frames: Frames) -> Float:
    """(F,) of the cells, Å³."""
    volume: Float = np.abs(np.linalg.det(frames.cell))
    return volume


def labelled(frames: Frames, deviations: Mapping[str, Float]) -> list[Atoms]:
    """The frames with labels and deviations as ``gap_fit`` reads them; its virial is minus stress times volume."""
    structures, offsets = frames.to_atoms(), frames.offsets
    for i, atoms in enumerate(structures):
        atoms.calc = None
        atoms.info, part = {}, slice(offsets[i], offsets[i + 1])
        if "energy" in deviations:
            atoms.info |= {"energy": frames.target_energy[i], "energy_sigma": deviations["energy"][i]}
        if "forces" in deviations:
            atoms.info["force_sigma"] = deviations["forces"][offsets[i]]
            atoms.set_array("force", frames.forces[part])
        if "stress" in deviations:
            full = frames.stress[i][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
            atoms.info |= {"virial": -full * abs(atoms.cell.volume), "virial_sigma": deviations["stress"][i]}
    return structures


def boxed(atoms: Atoms, cutoff: float) -> Atoms:
    """A copy whose vectors that do not repeat are replaced by ones that leave room for no image within the cutoff."""
    copy = atoms.copy()
    copy.calc = None
    if atoms.pbc.all():
        return copy
    cell = atoms.cell.array.copy()
    cell[~atoms.pbc] = 0.0
    cell = Atoms(cell=cell).cell.complete().array
    for axis in np.flatnonzero(~atoms.pbc):
        along = atoms.positions @ (cell[axis] / np.linalg.norm(cell[axis]))
        cell[axis] *= (np.ptp(along) + 2 * cutoff + 1.0) / np.linalg.norm(cell[axis])
    copy.set_cell(cell, scale_atoms=False)
    return copy


def close_pairs(structures: Sequence[Atoms], cutoff: float) -> list[tuple[int, int]]:
    """Pairs of elements that occur within the cutoff; ``gap_fit`` cannot place sparse points for others."""
    pairs: set[tuple[int, int]] = set()
    for atoms in structures:
        first, second = neighbor_list("ij", atoms, cutoff - 1e-3)
        both = np.sort(np.stack([atoms.numbers[first], atoms.numbers[second]], axis=1), axis=1)
        pairs |= {(int(a), int(b)) for a, b in np.unique(both, axis=0)}
    return sorted(pairs)


def soap_options(settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """``gap_fit``'s options of SOAP, the user's ``native`` ones over them.

    Raises:
        RefusedOption: an option that is not among those that are known here, or a range that is empty.
    """
    options = {argument: settings[name] for name, argument in NAMES.items()}
    options |= {**FIXED, "delta": float(settings["delta"]) * scale}
    native = settings.get("native") or {}
    for option in native:
        require_option(option, [*options, *FURTHER], f"architecture.native.{option}", "SOAP of gap_fit")
    if float(settings["regularisation"]) <= 0 or float(settings["delta"]) <= 0:
        raise RefusedOption("architecture.regularisation and architecture.delta must be positive")
    return options | native


def spelled(options: Mapping[str, Any]) -> str:
    """Options as QUIP reads them."""
    shown = {name: ("FT"[value] if isinstance(value, bool) else value) for name, value in options.items()}
    return " ".join(f"{name}={value}" for name, value in shown.items())
