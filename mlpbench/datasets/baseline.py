"""The energy that is taken off before training: reference energies and the mean residual per atom, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames


@dataclass(frozen=True)
class Baseline:
    """baseline(frame) = Σ E0(element) + N·mean.

    Attributes:
        source: where the element energies come from.
        elements: element -> E0 in eV.
        mean_per_atom: mean of (energy − Σ E0)/N over the training frames, eV.
    """

    source: Literal["isolated_atoms", "least_squares", "mean"]
    elements: dict[str, float]
    mean_per_atom: float

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
                "or choose training frames that hold every element.",
            )
        total = np.zeros(len(frames))
        np.add.at(total, frames.frame_of_atom, table[frames.numbers])
        return total + frames.n_atoms * self.mean_per_atom

    def describe(self) -> dict[str, Any]:
        """The baseline as JSON, eV."""
        return {"source": self.source, "elements_eV": self.elements, "mean_per_atom_eV": self.mean_per_atom}


def composition(frames: Frames) -> tuple[list[str], Float]:
    """The elements in ``frames`` and the (F, elements) count of each."""
    numbers = np.unique(frames.numbers)
    counts = np.zeros((len(frames), len(numbers)))
    np.add.at(counts, (frames.frame_of_atom, np.searchsorted(numbers, frames.numbers)), 1.0)
    return [chemical_symbols[z] for z in numbers], counts


def fit_baseline(train: Frames, isolated_atoms: dict[str, float] | None) -> Baseline:
    """The baseline from the training frames alone, so that no test frame leaks into it.

    Args:
        train: frames with energies (eV).
        isolated_atoms: element -> energy (eV), or None: least squares over the compositions, or, where those do not
            tell the elements apart, one mean per atom.

    Raises:
        UserError: an element of the training set is missing from ``isolated_atoms``.
    """
    symbols, counts = composition(train)
    if isolated_atoms is not None:
        missing = [s for s in symbols if s not in isolated_atoms]
        if missing:
            raise UserError(
                f"isolated_atoms has no energy for {', '.join(missing)}, which the training frames hold",
                f"It has {', '.join(isolated_atoms)}. Add the missing ones, or set dataset.isolated_atoms=null.",
            )
        source: Literal["isolated_atoms", "least_squares", "mean"] = "isolated_atoms"
        elements = {s: float(e) for s, e in isolated_atoms.items()}
    elif len(symbols) > 1 and np.linalg.matrix_rank(counts) == len(symbols):
        source = "least_squares"
        solution = np.linalg.lstsq(counts, train.energy, rcond=None)[0]
        elements = dict(zip(symbols, (float(e) for e in solution), strict=True))
    else:
        source, elements = "mean", dict.fromkeys(symbols, 0.0)
    energies = np.array([elements[s] for s in symbols])
    residual = (train.energy - counts @ energies) / train.n_atoms
    return Baseline(source, elements, float(residual.mean()))
