"""Labels: there, finite, plausible, and without outliers."""

from __future__ import annotations

import numpy as np

from mlpbench.datasets.baseline import all_electron_unit, composition
from mlpbench.datasets.labels import LEVEL, frames_without, listed
from mlpbench.datasets.validation.finding import Finding, Subject
from mlpbench.frames import Float, Frames, Int

_OUTLIER = 12.0  # robust standard deviations; a gaussian has none, MD and strained cells stay below
_LARGEST_FORCE = 100.0  # eV/Å, on one atom: beyond anything that a trajectory meets
_USUAL_RMS = (0.005, 20.0)  # eV/Å, of force components


def check_labels(subject: Subject) -> list[Finding]:
    """Missing, non-finite and placeholder labels."""
    frames, findings = subject.frames, []
    for label in ("positions", "cell"):
        at_fault = frames_without(frames, label)
        if len(at_fault):
            findings.append(_missing(label, at_fault, len(frames)))
    for label in ("energy", "forces", "stress"):
        at_fault = frames_without(frames, label)
        if len(at_fault) == len(frames):
            if label == "stress":
                continue
            severity = "error" if label == "energy" else "note"
            text = f"no frame has {label}"
            hint = f"Name the key: --{label}-key ..." if label == "energy" else "Train with dataset.labels=[energy]."
            findings.append(Finding("labels", severity, text, [], hint))  # type: ignore[arg-type]
        elif len(at_fault):
            findings.append(_missing(label, at_fault, len(frames), "note" if label == "stress" else "error"))
    return findings + _placeholders(frames)


def _missing(label: str, at_fault: Int, total: int, severity: str = "error") -> Finding:
    text = f"{label} missing or not finite in {len(at_fault)} of {total} frames: {listed(at_fault)}"
    return Finding("labels", severity, text, at_fault.tolist(), "Remove or recompute these frames.")  # type: ignore[arg-type]


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


def check_plausible(subject: Subject) -> list[Finding]:
    """Units, from the size of energies and forces."""
    frames, findings = subject.frames, []
    unit = all_electron_unit(frames.numbers, frames.n_atoms, frames.energy)
    if unit not in (None, "eV"):
        text = f"taken as eV, the energies are {unit} by their size against free atoms"
        hint = f"Declare dataset.energy_unit={unit} (--energy-unit {unit}), or eV where core electrons are left out."
        # Of a declared unit, or in a file that mlpbench wrote, it is a coincidence (xTB, pseudopotentials).
        declared = subject.config.energy_unit is not None or any(LEVEL in header for header in subject.headers[:1])
        findings.append(Finding("units", "note" if declared else "error", text, [], hint))
    finite = frames.forces[np.isfinite(frames.forces).all(axis=1)]
    if len(finite):
        rms = float(np.sqrt((finite**2).mean()))
        if not _USUAL_RMS[0] < rms < _USUAL_RMS[1] and np.abs(finite).max() > 1e-6:
            text = f"force components have an rms of {rms:.3g} eV/Å, usual are 0.1 to 3"
            findings.append(Finding("units", "warning", text, [], "Check forces_unit."))
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
    score = _robust_score(frames.select(finite)) if len(finite) > 20 else np.zeros(0)
    far = finite[np.abs(score) > _OUTLIER] if len(score) else np.zeros(0, dtype=np.int64)
    if len(far):
        text = (
            f"energy per atom {_OUTLIER:g} robust standard deviations away or more in {len(far)} frames: {listed(far)}"
        )
        findings.append(Finding("outliers", "warning", text, far.tolist(), "Not converged, or another composition?"))
    return findings


def _robust_score(frames: Frames) -> Float:
    """(F,) deviation of the energy per atom from what the composition explains, in robust standard deviations."""
    _, counts = composition(frames)
    design = counts / frames.n_atoms[:, None]
    per_atom = frames.energy / frames.n_atoms
    residual = per_atom - design @ np.linalg.lstsq(design, per_atom, rcond=None)[0]
    residual = residual - np.median(residual)
    spread = 1.4826 * float(np.median(np.abs(residual)))
    return residual / spread if spread > 0 else np.zeros(len(frames))


def frame_max(frames: Frames, per_atom: Float) -> Float:
    """(F,) the largest of (A,) ``per_atom`` in each frame."""
    return np.asarray(np.maximum.reduceat(per_atom, frames.offsets[:-1]))
