"""Frames as NequIP reads them, and what its model wants to know about a training set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list

from mlpbench.frames import Frames

# The six Voigt components of a stress lie in the upper triangle; the lower one is NaN and left out of the mean,
# so that a shear component counts once, as in the common loss, and not twice.
STRESS_KEY = "stress_upper"


def average_neighbours(frames: Frames, cutoff: float) -> float:
    """Neighbours within ``cutoff`` (Å) of an atom, averaged over all atoms of ``frames``.

    Raises:
        ValueError: no atom has any.
    """
    pairs = sum(len(neighbour_list("i", atoms, cutoff)) for atoms in _boxed(frames))
    if pairs == 0:
        raise ValueError(f"no two atoms of the training set are closer than the cutoff of {cutoff} Å")
    return pairs / len(frames.numbers)


def _boxed(frames: Frames) -> Iterable[Atoms]:
    """Structures whose missing lattice vectors are completed, as NequIP's neighbour list does."""
    for atoms in frames.to_atoms():
        atoms.cell = atoms.cell.complete()
        yield atoms


def energy_scale(frames: Frames) -> float:
    """eV: root mean square of the force components (times 1 Å), NequIP's usual scale of the atomic energies.

    Without forces, the deviation of the target energy over the square root of the number of atoms; 1 where both vanish.
    """
    if frames.has_forces:
        scale = float(np.sqrt(np.mean(frames.forces**2)))
    else:
        scale = float(np.std(frames.target_energy / np.sqrt(frames.n_atoms)))
    return scale if scale > 0 else 1.0


def write_frames(path: Path, frames: Frames, labels: tuple[str, ...]) -> None:
    """Write extended XYZ with every float64 exact (ASE's own writer keeps eight decimals of positions and forces).

    The energy is the target: without the baseline.
    """
    offsets, energy = frames.offsets, frames.target_energy
    columns = "species:S:1:pos:R:3" + (":forces:R:3" if "forces" in labels else "")
    with open(path, "w", encoding="utf-8") as stream:
        for i in range(len(frames)):
            part = slice(offsets[i], offsets[i + 1])
            comment = [
                f'Lattice="{_numbers(frames.cell[i])}"',
                f"Properties={columns}",
                f"energy={float(energy[i])!r}",
                'pbc="' + " ".join("T" if p else "F" for p in frames.pbc[i]) + '"',
            ]
            if "stress" in labels:
                comment.append(f'{STRESS_KEY}="{_numbers(upper_triangle(frames.stress[i]))}"')
            stream.write(f"{frames.n_atoms[i]}\n{' '.join(comment)}\n")
            values = frames.positions[part]
            if "forces" in labels:
                values = np.concatenate([values, frames.forces[part]], axis=1)
            for number, row in zip(frames.numbers[part], values, strict=True):
                stream.write(f"{chemical_symbols[number]} {_numbers(row)}\n")


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in np.ravel(values))


def upper_triangle(voigt: Any) -> Any:
    """(3, 3) from six Voigt components (xx yy zz yz xz xy), NaN below the diagonal."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [np.nan, yy, yz], [np.nan, np.nan, zz]])


def target_atoms(frames: Frames) -> list[Atoms]:
    """ASE structures whose labelled energy is the target (without the baseline)."""
    return replace(frames, energy=frames.target_energy, baseline=np.zeros(len(frames))).to_atoms()
