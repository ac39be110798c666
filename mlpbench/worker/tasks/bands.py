"""Nudged elastic bands relaxed with a potential, between the ends of the reference's own path."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.mep import NEB
from ase.optimize import FIRE

from mlpbench.frames import Float

BAND = "neb"  # header ``property`` of such structures: "neb:NAME"
IMAGES = 9  # at most, ends included: of a longer path as many, evenly spaced along it
FMAX = 0.05  # eV/Å, of the force on the band
STEPS = 200  # of the plain band, and again of the climbing one
SPRING = 1.0  # eV/Å² between images


def bands(structures: Iterable[Atoms], calculator: Calculator) -> tuple[dict[str, Float], dict[str, Any]]:
    """Relax a band for each set of structures whose header ``property`` begins with ``neb``.

    Args:
        structures: those of the reference, in order; other properties are passed over.
        calculator: of the potential, shared by all images.

    Returns:
        ``<set>.positions`` (K, N, 3) Å and ``<set>.energy`` (K,) eV of each set; and of each whether it converged,
        after how many steps, and its largest force in eV/Å.
    """
    sets: dict[str, list[Atoms]] = {}
    for atoms in structures:
        name = str(atoms.info.get("property", ""))
        if name.partition(":")[0] == BAND:
            sets.setdefault(name, []).append(atoms)
    arrays: dict[str, Float] = {}
    ended: dict[str, Any] = {}
    for name, path in sets.items():
        images, ended[name] = relaxed(path, calculator)
        arrays[f"{name}.positions"] = np.array([image.positions for image in images])
        arrays[f"{name}.energy"] = np.array([image.get_potential_energy() for image in images])
    return arrays, ended


def relaxed(path: list[Atoms], calculator: Calculator) -> tuple[list[Atoms], dict[str, Any]]:
    """The band relaxed from ``path``, ends fixed: first as it is, then with a climbing image, both with FIRE.

    Raises:
        ValueError: fewer than three structures.
    """
    images = [_bare(atoms, calculator) for atoms in spread(path, IMAGES)]
    band = NEB(images, k=SPRING, method="improvedtangent", allow_shared_calculator=True,
               remove_rotation_and_translation=not images[0].pbc.any())  # fmt: skip
    steps = 0
    for climb in (False, True):
        band.climb = climb
        optimiser = FIRE(band, logfile=None)
        converged = bool(optimiser.run(fmax=FMAX if climb else 2 * FMAX, steps=STEPS))
        steps += int(optimiser.nsteps)
    force = float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max())
    return images, {"converged": converged, "steps": steps, "fmax": force}


def spread(path: list[Atoms], count: int) -> list[Atoms]:
    """At most ``count`` of the structures, ends included, as evenly spaced along the path as they are there."""
    if len(path) < 3:
        raise ValueError("a band needs three structures or more")
    if len(path) <= count:
        return path
    steps = [float(np.linalg.norm(other.positions - one.positions)) for one, other in pairwise(path)]
    places = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0, places[-1], count)
    chosen = sorted({int(np.argmin(np.abs(places - place))) for place in wanted})
    return [path[i] for i in chosen]


def _bare(atoms: Atoms, calculator: Calculator) -> Atoms:
    image = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    image.calc = calculator
    return image
