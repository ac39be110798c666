"""Labels: there, finite, plausible, and without outliers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlpbench.datasets.baseline import all_electron_unit, composition
from mlpbench.datasets.dataset import LEVEL, frames_without, listed
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.validation.finding import Finding, Severity, Subject, unmade
from mlpbench.frames import Float, Frames, Int
from mlpbench.units import GPA, PRESSURE

_OUTLIER = 12.0  # robust standard deviations; a gaussian has none, MD and strained cells stay below
_LARGEST_FORCE = 100.0  # eV/Å, on one atom: beyond anything that a trajectory meets
_USUAL_RMS = (0.005, 20.0)  # eV/Å, of force components
_USUAL_SPREAD = 3.0  # eV/atom of robust standard deviation; strongly compressed cells reach 1
_SUSPECT_STRESS = 0.5  # eV/Å³ = 80 GPa, rms of components
_IMPOSSIBLE_STRESS = 6.0  # eV/Å³ = 1000 GPa
_USUAL_STRESS = (0.05, 80.0)  # GPa, rms of components
_ENOUGH, _MANY = 5, 20  # energies: below the first nothing is judged, above the second by their own spread alone
_FAR = 1.0  # eV/atom; of few frames, the spread is not known well enough
_CHARGES = ("charge", "total_charge", "Charge", "spin", "total_spin", "multiplicity", "spin_multiplicity")


def check_labels(subject: Subject) -> list[Finding]:
    """Missing, non-finite and placeholder labels."""
    frames, findings = subject.frames, []
    for label in ("positions", "cell"):
        at_fault = frames_without(frames, label)
        if len(at_fault):
            findings.append(_missing(label, at_fault, len(frames)))
    for label in ("energy", "forces", "stress"):
        at_fault = frames_without(frames, label)
        needed = label == "energy" or (subject.is_pool and label in subject.config.labels)
        if len(at_fault) == len(frames):
            if label == "stress" and not needed:
                continue
            hint = f"Name the key: --{label}-key ..."
            if label != "energy":
                rest = ",".join(name for name in subject.config.labels if name != label)
                hint += f" (dataset.{label}_key), or train without: --labels {rest} (dataset.labels=[{rest}])"
            findings.append(Finding("labels", "error" if needed else "note", f"no frame has {label}", [], f"{hint}."))
        elif len(at_fault):
            partly: Severity = "error" if needed else "note" if label == "stress" else "warning"
            findings.append(_missing(label, at_fault, len(frames), partly))
    return findings + _placeholders(frames)


def _missing(label: str, at_fault: Int, total: int, severity: Severity = "error") -> Finding:
    text = f"{label} missing or not finite in {len(at_fault)} of {total} frames: {listed(at_fault)}"
    return Finding("labels", severity, text, at_fault.tolist(), "Remove or recompute these frames.")


def _placeholders(frames: Frames) -> list[Finding]:
    findings = []
    norms = frame_max(frames, np.abs(frames.forces).max(axis=1))
    several = frames.n_atoms > 1
    zero = np.flatnonzero((norms == 0) & several)
    # A strained crystal may have no forces by symmetry, a molecule in motion never.
    suspect = zero if len(zero) == several.sum() else zero[~frames.pbc[zero].any(axis=1)]
    zero = suspect if len(suspect) > 2 else suspect[:0]
    if len(zero):
        text = f"all forces are exactly zero in {len(zero)} frames: {listed(zero)}"
        findings.append(Finding("labels", "error", text, zero.tolist(), "Zeros usually stand for missing labels."))
    energy = frames.energy[np.isfinite(frames.energy)]
    if len(energy) > 2 and np.ptp(energy) == 0:
        text = f"every frame has the same energy, {energy[0]:.6g} eV"
        findings.append(Finding("labels", "error", text, [], "Check energy_key."))
    return findings


def check_energy_unit(subject: Subject) -> list[Finding]:
    """The unit of the energies, from their size against free atoms with all electrons."""
    frames = subject.frames
    unit = all_electron_unit(frames.numbers, frames.n_atoms, frames.energy)
    declared = subject.config.energy_unit is not None or any(LEVEL in header for header in subject.headers[:1])
    if unit is None:
        return unmade(
            "units",
            "not all-electron energies of H to Ar; their unit is as declared, stated or assumed",
        )
    if unit == "eV":
        return []
    text = f"taken as eV, the energies are {unit} by their size against free atoms"
    hint = f"Declare dataset.energy_unit={unit} (--energy-unit {unit}), or eV where core electrons are left out."
    # Of a declared unit, or in a file that mlpbench wrote, it is a coincidence (xTB, pseudopotentials).
    return [Finding("units", "note" if declared else "error", text, [], hint)]


def check_sizes(subject: Subject) -> list[Finding]:
    """Bounds of plausibility for each label, whatever its unit is said to be."""
    frames = subject.frames
    energy, forces, stress = _size_of_energies(frames), _size_of_forces(frames), _size_of_stress(frames)
    return [*energy, *forces, *stress]


def _size_of_energies(frames: Frames) -> list[Finding]:
    finite = frames.select(np.flatnonzero(np.isfinite(frames.energy)))
    if len(finite) < _ENOUGH:
        return []
    spread = 1.4826 * float(np.median(np.abs(_residual(finite))))
    if spread < _USUAL_SPREAD:
        return []
    text = f"energies spread by {spread:.3g} eV/atom beyond what the composition explains; usual is below 1"
    return [Finding("units", "warning", text, [], "Check energy_unit, or whether the energies are of one method.")]


def _size_of_forces(frames: Frames) -> list[Finding]:
    finite = frames.forces[np.isfinite(frames.forces).all(axis=1)]
    if len(finite) == 0:
        return []
    rms = float(np.sqrt((finite**2).mean()))
    if _USUAL_RMS[0] < rms < _USUAL_RMS[1] or np.abs(finite).max() <= 1e-6:
        return []
    text = f"force components have an rms of {rms:.3g} eV/Å, usual are 0.1 to 3"
    return [Finding("units", "warning", text, [], "Check forces_unit.")]


def _size_of_stress(frames: Frames) -> list[Finding]:
    finite = frames.stress[np.isfinite(frames.stress).all(axis=1)]
    rms = float(np.sqrt((finite**2).mean())) if len(finite) else 0.0
    if rms < _SUSPECT_STRESS:
        return []
    fits = [unit for unit in ("GPa", "kbar", "bar") if _USUAL_STRESS[0] < rms * PRESSURE[unit] / GPA < _USUAL_STRESS[1]]
    units = " or ".join(f"dataset.stress_unit={unit} (rms then {rms * PRESSURE[unit] / GPA:.3g} GPa)" for unit in fits)
    severity: Severity = "error" if rms > _IMPOSSIBLE_STRESS else "warning"
    text = f"stress components have an rms of {rms:.3g} eV/Å³ = {rms / GPA:.3g} GPa, " + (
        "which no bulk matter withstands" if severity == "error" else "as in strong compression only"
    )
    hint = f"Declare {units}; VASP's and LAMMPS' pressures also need dataset.stress_sign=compression." if units else (
        "Check stress_unit."
    )  # fmt: skip
    return [Finding("units", severity, text, [], hint)]


def unit_warnings(frames: Frames, config: DatasetConfig, headers: Sequence[dict[str, Any]]) -> list[str]:
    """What the sizes of the labels say against their units, for those who train without validating first."""
    stated = config.energy_unit is not None or any(LEVEL in header for header in headers[:1])
    unit = None if stated else all_electron_unit(frames.numbers, frames.n_atoms, frames.energy)
    findings = [*_size_of_energies(frames), *_size_of_forces(frames), *_size_of_stress(frames)]
    texts = [f"{finding.message}. {finding.hint}" for finding in findings]
    if unit not in (None, "eV"):
        texts.append(f"taken as eV, the energies are {unit} by their size against free atoms (dataset.energy_unit)")
    return texts


def check_charges(subject: Subject) -> list[Finding]:
    """Frames of different charge or spin: no potential here takes them into account."""
    findings = []
    for key in _CHARGES:
        values = [str(header[key]) for header in subject.headers if key in header]
        counts = Counter(values)
        if len(counts) > 1:
            listing = ", ".join(f"{value} ({count})" for value, count in counts.most_common(6))
            text = f"{key} varies among the frames: {listing}"
            hint = "The architectures here do not see it: train on one value (split.key, or separate files)."
            findings.append(Finding("charges", "warning", text, [], hint))
    return findings


def check_outliers(subject: Subject) -> list[Finding]:
    """Energies far from those of the same composition, and forces beyond reason."""
    frames, findings = subject.frames, []
    largest = frame_max(frames, np.linalg.norm(np.nan_to_num(frames.forces), axis=1))
    wild = np.flatnonzero(largest > _LARGEST_FORCE)
    if len(wild):
        text = f"a force above {_LARGEST_FORCE:g} eV/Å in {len(wild)} frames: {listed(wild)}"
        findings.append(Finding("outliers", "warning", text, wild.tolist(), "Look at these frames."))
    finite = np.flatnonzero(np.isfinite(frames.energy))
    kinds = len(np.unique(composition(frames)[1], axis=0))
    if len(finite) < max(_ENOUGH, 2 * kinds):
        return findings or unmade("outliers", f"{len(finite)} energies of {kinds} compositions are too few")
    residual = _residual(frames.select(finite))
    spread = 1.4826 * float(np.median(np.abs(residual)))
    limit = max(_OUTLIER * spread, 0.0 if len(finite) > _MANY else _FAR)
    far = finite[np.abs(residual) > limit] if limit > 0 else finite[:0]
    if len(far):
        worst = float(np.abs(residual).max())
        text = f"energy up to {worst:.3g} eV/atom from that of the other frames in {len(far)} frames: {listed(far)}"
        findings.append(Finding("outliers", "warning", text, far.tolist(), "Not converged, or another composition?"))
    return findings


def _residual(frames: Frames) -> Float:
    """(F,) eV, deviation of the energy per atom from what the composition explains, about its median.

    Fitted again without the farthest tenth, so that an outlier does not hide itself.
    """
    _, counts = composition(frames)
    design = counts / frames.n_atoms[:, None]
    per_atom = frames.energy / frames.n_atoms
    kept = np.ones(len(frames), dtype=bool)
    residual = per_atom
    for _ in range(2):
        residual = per_atom - design @ np.linalg.lstsq(design[kept], per_atom[kept], rcond=None)[0]
        residual = residual - np.median(residual)
        kept = np.abs(residual) <= np.quantile(np.abs(residual), 0.9)
    return np.asarray(residual)


def frame_max(frames: Frames, per_atom: Float) -> Float:
    """(F,) the largest of (A,) ``per_atom`` in each frame."""
    return np.asarray(np.maximum.reduceat(per_atom, frames.offsets[:-1]))
