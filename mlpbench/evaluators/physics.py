"""Scores of the physics checks, against the data set's minimum, Hessian and scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.io import iread

from mlpbench.evaluators import Context, Row
from mlpbench.frames import Float
from mlpbench.metrics import metric_row
from mlpbench.protocol import read_json
from mlpbench.units import ASE_TIME_IN_FS

SPEED_OF_LIGHT_CM_PER_FS = 2.99792458e-5


def frequencies(hessian: Float, positions: Float, masses: Float) -> Float:
    """(3N−6,) cm⁻¹, ascending; an imaginary one as a negative number.

    Translation and rotation are projected out of the mass-weighted Hessian, so what is left are the internal modes
    (3N−5 for a linear molecule), whatever the Hessian's own residue along the others.

    Args:
        hessian: (3N, 3N) eV/Å².
        positions: (N, 3) Å, where it was taken.
        masses: (N,) u.
    """
    root = np.repeat(np.sqrt(masses), 3)
    weighted = hessian / np.outer(root, root)
    overall = _overall_motion(positions, masses)
    left, sizes, _ = np.linalg.svd(overall, full_matrices=True)
    inner = left[:, int((sizes > 1e-6 * sizes[0]).sum()) :]  # orthonormal complement
    eigenvalues = np.linalg.eigvalsh(inner.T @ (0.5 * (weighted + weighted.T)) @ inner)
    per_time = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))  # rad per Å·sqrt(u/eV)
    return np.asarray(per_time / ASE_TIME_IN_FS / (2 * np.pi * SPEED_OF_LIGHT_CM_PER_FS), dtype=np.float64)


def _overall_motion(positions: Float, masses: Float) -> Float:
    """(3N, 6) mass-weighted translations and rotations."""
    arms = positions - masses @ positions / masses.sum()
    root = np.sqrt(masses)[:, None]
    columns = [(root * axis).ravel() for axis in np.eye(3)]
    columns += [(root * np.cross(axis, arms)).ravel() for axis in np.eye(3)]
    return np.stack(columns, axis=1)


def superposed_rmsd(positions: Float, reference: Float) -> float:
    """RMSD in Å after the best rotation (Kabsch, Acta Cryst. A32, 922 (1976)); proper rotations only."""
    a, b = positions - positions.mean(axis=0), reference - reference.mean(axis=0)
    left, _, right = np.linalg.svd(a.T @ b)
    sign = np.sign(np.linalg.det(left @ right))
    turn = left @ np.diag([1.0, 1.0, sign]) @ right
    return float(np.sqrt(((a @ turn - b) ** 2).sum(axis=1).mean()))


ARRAYS = "physics.npz"
MEV = 1e3
SOFT_CM1 = 10.0  # a mode is imaginary below minus this

# What the worker found -> metric, and the factor from eV and eV/Å to the unit of the table.
CHECKS = {
    "force_consistency": ("force_consistency", 1.0),
    "rotation_force": ("rotation_error", MEV),
    "translation_force": ("translation_error", MEV),
    "permutation_force": ("permutation_error", MEV),
    "extensivity_energy": ("extensivity_error", MEV),
    "cutoff_jump_force": ("cutoff_jump", MEV),
}


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of the ``physics`` task.

    Args:
        directory: the trial's folder, with ``physics.npz``.
        values: what the task returned.
        context: ``references`` names the data set's minimum, Hessian and scans.

    Raises:
        ValueError: a reference file lacks energies, or does not match the arrays.
    """
    n = values["n_frames"]
    rows = [metric_row("", title, values[name] * scale, n) for name, (title, scale) in CHECKS.items() if name in values]
    if "crystal" in values:
        rows += crystal_rows(values["crystal"], read_json(Path(context.references["crystal"])))
    with np.load(directory / ARRAYS, allow_pickle=False) as arrays:
        if "minimum" in arrays:
            reference = read_one(context.references["minimum"])
            rows.append(metric_row("", "minimum_rmsd", superposed_rmsd(arrays["minimum"], reference.positions), 1))
        if "hessian" in arrays:
            ours, theirs = mode_pairs(arrays["hessian"], arrays["minimum"], context)
            rows.append(metric_row("", "imaginary_modes", max(imaginary(ours) - imaginary(theirs), 0), 1))
            errors = np.abs(ours - theirs)
            rows.append(metric_row("", "frequency_mae", float(errors.mean()), len(errors)))
            rows.append(metric_row("", "frequency_max", float(errors.max()), len(errors)))
        for name in (key.removeprefix("scan.") for key in arrays.files if key.startswith("scan.")):
            scan = list(iread(context.references[name], index=":"))
            rows += scan_rows(name, arrays[f"scan.{name}"], scan)
    return rows


def imaginary(wavenumbers: Float) -> int:
    """How many of (M,) cm⁻¹ are imaginary, beyond what finite differences leave of a soft mode."""
    return int((wavenumbers < -SOFT_CM1).sum())


def crystal_rows(measured: dict[str, Any], reference: dict[str, Any]) -> list[Row]:
    """Errors of the lattice constant and of the elastic constants; none of what the potential does not have.

    Args:
        measured: ``lattice_constant_A`` (None: no minimum near the reference), ``elastic_GPa`` where there is stress.
        reference: the same two.
    """
    rows = []
    length, expected = measured["lattice_constant_A"], float(reference["lattice_constant_A"])
    if length is not None:
        rows.append(metric_row("", "lattice_constant_error", 100 * abs(length - expected) / expected, 1))
    both = [n for n in reference.get("elastic_GPa", {}) if n in measured.get("elastic_GPa", {})]
    errors = {name: measured["elastic_GPa"][name] - float(reference["elastic_GPa"][name]) for name in both}
    rows += [metric_row("", f"elastic_error_{name}", error, 1) for name, error in errors.items()]
    if errors:
        rows.append(metric_row("", "elastic_mae", float(np.mean(np.abs(list(errors.values())))), len(errors)))
    return rows


def read_one(path: str | Path) -> Atoms:
    """The first structure in a file."""
    atoms: Atoms = next(iter(iread(path, index="0")))
    return atoms


def mode_pairs(hessian: Float, minimum: Float, context: Context) -> tuple[Float, Float]:
    """(3N−6,) cm⁻¹ of the potential and of the reference, ascending, both from their Hessians in the same way."""
    return (
        frequencies(hessian, minimum, atomic_masses[read_one(context.references["minimum"]).numbers]),
        reference_frequencies(Path(context.references["hessian"])),
    )


def reference_frequencies(path: Path) -> Float:
    """(3N−6,) cm⁻¹ from the reference's Hessian (``hessian_eV_per_A2, positions_A, symbols``)."""
    data = json.loads(path.read_text(encoding="utf-8"))
    masses = Atoms(data["symbols"]).get_masses()
    return frequencies(np.array(data["hessian_eV_per_A2"]), np.array(data["positions_A"]), masses)


def scan_rows(name: str, predicted: Float, scan: list[Atoms]) -> list[Row]:
    """RMSE of the relative energies, and the barrier's error where the scan has a barrier.

    Args:
        name: of the scan.
        predicted: (K,) eV, up to a constant.
        scan: the reference's frames, in order.

    Raises:
        ValueError: frames without energies, or of another number.
    """
    reference = np.array([atoms.get_potential_energy() for atoms in scan])
    if reference.shape != predicted.shape:
        raise ValueError(f"scan {name}: {len(predicted)} predicted energies for {len(reference)} frames")
    lowest = int(np.argmin(reference))
    error = ((predicted - predicted[lowest]) - (reference - reference[lowest])) * MEV
    rows = [metric_row("", f"scan_rmse_{name}", float(np.sqrt(np.mean(error**2))), len(error))]
    if has_barrier(reference, scan):
        # The potential's own highest point: its transition state need not lie where that of DFT does.
        barrier = float((predicted - predicted[lowest]).max() - (reference - reference[lowest]).max()) * MEV
        rows.append(metric_row("", f"barrier_error_{name}", barrier, len(error)))
    return rows


def has_barrier(reference: Float, scan: list[Atoms]) -> bool:
    """A scan over an angle has one; another only if its highest point lies inside, not on the wall at an end."""
    return "angle_deg" in scan[0].info or 0 < int(np.argmax(reference)) < len(reference) - 1
