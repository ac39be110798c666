"""Structures: cells, periodicity, overlapping atoms, compositions, copies."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy.spatial import cKDTree

from mlpbench.datasets.dataset import broken_cells, listed
from mlpbench.datasets.leaks import RELATED, duplicates
from mlpbench.datasets.superposition import with_images
from mlpbench.datasets.validation.finding import Finding, Subject
from mlpbench.frames import Frames

_TOO_CLOSE = 0.55  # of the sum of covalent radii; a C-H bond stretched by 1000 K stays above 0.75
_VACUUM = 6.0  # Å on every side of a molecule that needs no periodicity
_RARE = 0.02  # share of the frames below which a composition looks like an accident


def check_overlaps(subject: Subject) -> list[Finding]:
    """Atoms on top of each other, images included."""
    at_fault, worst = [], (1.0, 0, "")
    for i in range(len(subject.frames)):
        ratio, pair = closest_contact(subject.frames, i)
        if ratio < _TOO_CLOSE:
            at_fault.append(i)
            worst = min(worst, (ratio, i, pair))
    if not at_fault:
        return []
    text = f"atoms on top of each other in {len(at_fault)} frames: {listed(np.array(at_fault))}; worst {worst[2]}"
    return [Finding("overlaps", "error", text, at_fault, "Remove these frames, or check length_unit.")]


def closest_contact(frames: Frames, i: int) -> tuple[float, str]:
    """The shortest distance in frame ``i`` over the sum of covalent radii, and the pair in words (within 3 Å)."""
    part = slice(frames.offsets[i], frames.offsets[i + 1])
    numbers, positions = frames.numbers[part], frames.positions[part]
    if not np.isfinite(positions).all() or not np.isfinite(frames.cell[i]).all():
        return float("inf"), ""
    points, owners = with_images(positions, frames.cell[i], frames.pbc[i], 3.0)
    pairs = cKDTree(points).query_pairs(3.0 * float(covalent_radii[numbers].max()), output_type="ndarray")
    pairs = pairs[(pairs[:, 0] < len(numbers))]
    if len(pairs) == 0:
        return float("inf"), ""
    first, second = owners[pairs[:, 0]], owners[pairs[:, 1]]
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    ratio = distance / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    k = int(ratio.argmin())
    names = f"{chemical_symbols[numbers[first[k]]]}{first[k]} and {chemical_symbols[numbers[second[k]]]}{second[k]}"
    return float(ratio[k]), f"{names}, {distance[k]:.2f} Å"


def check_cells(subject: Subject) -> list[Finding]:
    """Cells that cannot be, molecules marked periodic, and cells that nothing uses."""
    frames, findings = subject.frames, []
    periodic = frames.pbc.any(axis=1)
    lengths = np.linalg.norm(frames.cell, axis=2)
    flat = broken_cells(frames)
    if len(flat):
        text = f"periodic but without a proper cell in {len(flat)} frames: {listed(flat)}"
        findings.append(Finding("cells", "error", text, flat.tolist(), "Give the cell, or set dataset.periodic=false."))
    whole = np.setdiff1d(np.flatnonzero(frames.pbc.all(axis=1)), flat)
    molecules = np.array([i for i in whole if _is_isolated(frames, int(i))], dtype=np.int64)
    if len(molecules):
        text = f"a molecule in a box, marked periodic, in {len(molecules)} frames: {listed(molecules)}"
        hint = "Set dataset.periodic=false, unless the reference was computed with periodic images."
        findings.append(Finding("periodicity", "warning", text, molecules.tolist(), hint))
    unused = np.flatnonzero(~periodic & (lengths > 0).any(axis=1))
    if len(unused):
        text = f"a cell that is not periodic along any vector in {len(unused)} frames"
        findings.append(Finding("cells", "note", text, [], "dataset.periodic=false drops it."))
    if periodic.any() and not periodic.all():
        text = f"{periodic.sum()} frames are periodic and {(~periodic).sum()} are not"
        findings.append(Finding("cells", "warning", text, np.flatnonzero(~periodic).tolist(), "Meant like this?"))
    return findings


def _is_isolated(frames: Frames, i: int) -> bool:
    """True if empty space of at least twice the vacuum separates the atoms from their images along every vector."""
    part = slice(frames.offsets[i], frames.offsets[i + 1])
    if not np.isfinite(frames.positions[part]).all():
        return False
    inverse = np.linalg.inv(frames.cell[i])
    heights = 1 / np.linalg.norm(inverse, axis=0)
    fractional = np.sort((frames.positions[part] @ inverse) % 1.0, axis=0)
    gaps = np.diff(np.concatenate([fractional, fractional[:1] + 1]), axis=0).max(axis=0)
    return bool((gaps * heights > 2 * _VACUUM).all())


def check_compositions(subject: Subject) -> list[Finding]:
    """A composition that only a few frames have, where nearly all share another."""
    families = subject.prints.families
    total = len(subject.frames)
    largest = max((len(f.frames) for f in families.values()), default=0)
    rare = sorted(int(i) for f in families.values() if len(f.frames) <= _RARE * total for i in f.frames)
    if len(families) == 1 or largest < 0.9 * total or not rare:
        return []
    text = f"{len(rare)} frames have another composition than the other {total - len(rare)}: {listed(np.array(rare))}"
    return [Finding("composition", "warning", text, rare, "Left over from another calculation?")]


def check_duplicates(subject: Subject) -> list[Finding]:
    """The same configuration twice, whatever its orientation and order of atoms; with other labels, an error."""
    findings = []
    copies = duplicates(subject.prints, subject.config.leak_tolerance)
    if copies:
        again = sorted({copy.second for copy in copies})
        pairs = ", ".join(f"{c.first} = {c.second}" for c in copies[:6])
        text = f"{len(again)} frames repeat an earlier one (same configuration): {pairs}"
        findings.append(
            Finding("duplicates", "warning", text, again, "Splits refuse or drop them across train and test.")
        )
        per_atom = np.array([abs(c.energy_difference) / subject.frames.n_atoms[c.second] for c in copies])
        differ = [c for c, d in zip(copies, per_atom, strict=True) if d > 0.005]
        if differ:
            text = f"{len(differ)} pairs of the same configuration have energies more than 5 meV/atom apart: "
            text += ", ".join(f"{c.first} and {c.second} ({1000 * c.energy_difference:.0f} meV)" for c in differ[:4])
            findings.append(
                Finding("duplicates", "error", text, sorted({c.second for c in differ}), "Which one is right?")
            )
    if subject.lag_ratio < RELATED:
        often = f"{subject.lag_ratio:.2f} times as much as random ones"
        text = f"frames that follow each other in the file differ only {often}"
        findings.append(Finding("time", "note", text, [], "Split with split.strategy=blocked; a random split leaks."))
    return findings
