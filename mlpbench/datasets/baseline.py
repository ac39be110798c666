"""Reference energies: what is taken off before training, what a trivial predictor is worth, and all-electron sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames, Int
from mlpbench.units import ENERGY, GPA, HARTREE

# Non-relativistic energies of free atoms in hartree, H to Ar: Chakravorty and co-workers, Phys. Rev. A 47, 3649 (1993).
_ATOMS = (
    -0.500, -2.904, -7.478, -14.667, -24.654, -37.845, -54.589, -75.067, -99.734, -128.938,
    -162.255, -200.053, -242.346, -289.359, -341.259, -398.110, -460.148, -527.540,
)  # fmt: skip
_TOLERANCE = 0.03  # binding, functional and relativity change a total energy by less; the units lie far apart
_BOUND = (-20.0, 2.0)  # eV/atom: what atoms gain by binding lies well inside, W (-8.9) and CO (-5.6) included
_DETERMINED = 1e-6  # relative part of a composition outside the span of the training set's


@dataclass(frozen=True)
class Baseline:
    """baseline(frame) = Σ E0(element) + N·mean.

    Attributes:
        source: where the element energies come from.
        elements: element -> E0 in eV.
        mean_per_atom: mean of (energy − Σ E0)/N over the training frames, eV.
        rank: independent compositions in the training set; fewer than elements leave the E0s undetermined.
    """

    source: Literal["isolated_atoms", "least_squares", "mean"]
    elements: dict[str, float]
    mean_per_atom: float
    rank: int = 0

    def evaluate(self, frames: Frames) -> Float:
        """(F,) eV for each frame.

        Raises:
            UserError: a frame holds an element the baseline does not know.
        """
        table = np.full(len(chemical_symbols), np.nan)
        for symbol, energy in self.elements.items():
            table[atomic_numbers[symbol]] = energy
        unknown = np.unique(frames.numbers[np.isnan(table[frames.numbers])])
        if len(unknown):
            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise UserError(
                f"{names} is in the frames but neither in the training set nor in the isolated atoms",
                f"Give dataset.isolated_atoms='{{{', '.join(f'{chemical_symbols[z]}: ...' for z in unknown)}, ...}}' "
                "or choose training frames that contain every element.",
            )
        total = np.zeros(len(frames))
        np.add.at(total, frames.frame_of_atom, table[frames.numbers])
        return total + frames.n_atoms * self.mean_per_atom

    def describe(self) -> dict[str, Any]:
        """The baseline as JSON, eV."""
        return {
            "source": self.source, "elements_eV": self.elements, "mean_per_atom_eV": self.mean_per_atom,
            "independent_compositions": self.rank,
        }  # fmt: skip


def composition(frames: Frames) -> tuple[list[str], Float]:
    """The elements in ``frames`` and the (F, elements) count of each."""
    numbers = np.unique(frames.numbers)
    counts = np.zeros((len(frames), len(numbers)))
    np.add.at(counts, (frames.frame_of_atom, np.searchsorted(numbers, frames.numbers)), 1.0)
    return [chemical_symbols[z] for z in numbers], counts


def fit_baseline(train: Frames, isolated_atoms: dict[str, float] | None) -> Baseline:
    """The baseline from the training frames alone, so that no test frame leaks into it.

    Without energies of isolated atoms: the least-squares solution of smallest norm over the compositions. It fits the
    compositions of the training set also where they are too few to separate the elements (``rank`` below their number).

    Args:
        train: frames with energies (eV).
        isolated_atoms: element -> energy (eV), or None.

    Raises:
        UserError: an element of the training set is missing from ``isolated_atoms``.
    """
    symbols, counts = composition(train)
    rank = int(np.linalg.matrix_rank(counts))
    if isolated_atoms is not None:
        missing = [s for s in symbols if s not in isolated_atoms]
        if missing:
            raise UserError(
                f"isolated_atoms has no energy for {', '.join(missing)}, which the training frames contain",
                f"It has {', '.join(isolated_atoms)}. Add the missing ones, or set dataset.isolated_atoms=null.",
            )
        source: Literal["isolated_atoms", "least_squares", "mean"] = "isolated_atoms"
        elements = {s: float(e) for s, e in isolated_atoms.items()}
    elif rank > 1:
        source = "least_squares"
        shift = train.energy.mean() / train.n_atoms.mean()  # per atom, so that the smallest norm is that of the rest
        solution = shift + np.linalg.lstsq(counts, train.energy - shift * train.n_atoms, rcond=None)[0]
        elements = dict(zip(symbols, (float(e) for e in solution), strict=True))
    else:
        source, elements = "mean", dict.fromkeys(symbols, 0.0)
    energies = np.array([elements[s] for s in symbols])
    residual = (train.energy - counts @ energies) / train.n_atoms
    return Baseline(source, elements, float(residual.mean()), rank)


def baseline_warnings(baseline: Baseline, train: Frames, others: dict[str, Frames]) -> list[str]:
    """What makes reference energies doubtful: implausible isolated atoms, compositions that training cannot determine.

    Args:
        baseline: fitted on ``train``.
        train: the training frames.
        others: validation and test splits by name.
    """
    warnings = []
    if baseline.source == "isolated_atoms" and not _BOUND[0] < baseline.mean_per_atom < _BOUND[1]:
        warnings.append(
            f"with these isolated_atoms the training frames lie {baseline.mean_per_atom:+.1f} eV/atom from free atoms, "
            f"where binding accounts for {_BOUND[0]:g} to {_BOUND[1]:g}: another unit, code or level of theory?"
        )
    if baseline.source == "isolated_atoms":
        return warnings + _inconsistent(baseline, train)
    symbols, counts = composition(train)
    _, values, axes = np.linalg.svd(counts, full_matrices=False)
    span = axes[values > values.max() * 1e-9]
    for name, frames in others.items():
        present, there = composition(frames)
        if not set(present) <= set(symbols):
            continue  # refused elsewhere
        rows = np.zeros((len(frames), len(symbols)))
        rows[:, [symbols.index(s) for s in present]] = there
        outside = np.linalg.norm(rows - rows @ span.T @ span, axis=1) > _DETERMINED * np.linalg.norm(rows, axis=1)
        if outside.any():
            warnings.append(
                f"the training frames have {len(span)} independent compositions of {len(symbols)} elements, which does "
                f"not determine the reference energies of {outside.sum()} of {len(frames)} frames in split {name}: "
                "their energies may be off by a constant; give dataset.isolated_atoms"
            )
    return warnings


def _inconsistent(baseline: Baseline, train: Frames) -> list[str]:
    """Compositions whose binding energies differ by more than chemistry allows: an E0 of another level of theory."""
    residual = (train.energy - replace(baseline, mean_per_atom=0.0).evaluate(train)) / train.n_atoms
    spread = float(np.ptp(residual))
    if spread <= _BOUND[1] - _BOUND[0]:
        return []
    return [
        f"with these isolated_atoms the binding energy per atom ranges over {spread:.1f} eV/atom among the training "
        "frames: the energies of free atoms do not agree with each other or with the data"
    ]


def trivial_errors(train: Frames, test: Frames) -> dict[str, float]:
    """Errors of a predictor that knows no geometry, in the units of the metrics; what a potential must beat.

    Energy: reference energies fitted to the training compositions (their mean, where all are alike). Forces: zero.
    Stress: the training mean of each component. A label that the training or test frames lack has no entry.

    Args:
        train: training frames.
        test: the frames predicted; their elements must occur in ``train``.

    Returns:
        energy_mae, energy_rmse (meV/atom), force_mae, force_rmse, force_mae_<element> (meV/Å), stress_mae (GPa).
    """
    errors: dict[str, float] = {}
    known = np.isfinite(train.energy)
    if known.any():
        baseline = fit_baseline(train.select(np.flatnonzero(known)), None)
        energy = 1000 * (test.energy - baseline.evaluate(test)) / test.n_atoms
        _add_errors(errors, "energy", energy)
    if np.isfinite(train.forces).any():
        _add_errors(errors, "force", 1000 * test.known_forces)
        for z in np.unique(test.numbers).tolist():
            own = np.abs(1000 * test.forces[test.numbers == z])
            if np.isfinite(own).any():
                errors[f"force_mae_{chemical_symbols[z]}"] = float(np.nanmean(own))
    labelled = np.isfinite(train.stress).all(axis=1)
    if labelled.any():
        _add_errors(errors, "stress", (test.stress - train.stress[labelled].mean(axis=0)).ravel() / GPA)
        errors.pop("stress_rmse", None)
    return errors


def _add_errors(errors: dict[str, float], label: str, deviations: Float) -> None:
    finite = deviations[np.isfinite(deviations)]
    if len(finite):
        errors[f"{label}_mae"] = float(np.abs(finite).mean())
        errors[f"{label}_rmse"] = float(np.sqrt((finite**2).mean()))


def all_electron_unit(numbers: Int, n_atoms: Int, energy: Float) -> str | None:
    """The unit in which ``energy`` agrees with the sum of all-electron atomic energies; None if none does.

    Args:
        numbers: (A,) atomic numbers of all frames, concatenated.
        n_atoms: (F,) atoms of each frame.
        energy: (F,) values of unknown unit.
    """
    finite = np.isfinite(energy)
    if not finite.any() or numbers.max(initial=1) > len(_ATOMS):
        return None
    atomic = np.array((np.nan, *_ATOMS))[numbers]
    total = np.add.reduceat(atomic, np.concatenate([[0], np.cumsum(n_atoms)[:-1]]))
    hartrees = float(np.median(total[finite] / energy[finite]))  # in one of the unknown unit
    for name, value in ENERGY.items():
        if abs(hartrees * HARTREE / value - 1) < _TOLERANCE:
            return name
    return None
