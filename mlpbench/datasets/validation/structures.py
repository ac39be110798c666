"""Structures: cells, periodicity, overlapping atoms, compositions, copies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy.spatial import cKDTree

from mlpbench.datasets.dataset import broken_cells, listed
from mlpbench.datasets.leaks import RELATED, duplicates
from mlpbench.datasets.superposition import with_images
from mlpbench.datasets.validation.finding import Finding, Subject, unmade
from mlpbench.frames import Float, Frames, Int
from mlpbench.units import GPA, PRESSURE

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


_SAME_PLACES = 0.01  # of fractional coordinates between a cell and its strained copy; the forces' work is counted
_MAX_STRAIN = 0.06  # beyond it, the trapezoidal rule itself errs
_MIN_PAIRS = 8
Order = tuple[str, ...]
_NAMES: Order = ("yz", "xz", "xy")
_TRUSTED = 0.9  # of the variance of the energy differences, which the stress must explain to be judged
_MIN_FRAMES = 8  # of one kind, to compare stress with volume
_MIN_VOLUME = 0.01  # range of ln V among them
_CLEAR = 0.8  # correlation of stress with volume
_MODULI = (0.5, 1000.0)  # GPa: from solid argon to above diamond
_MARGIN = 0.25  # of the logarithm of the factor
_MEMBERS = 300  # frames of one kind that are compared, spread over the file
_CLEARLY_BETTER = 0.5  # another order of the shears must leave at most this share of the residual


def strained_pairs(frames: Frames, limit: int = 4000) -> tuple[Float, Float, list[tuple[int, int]]]:
    """Pairs of frames that differ by a homogeneous strain, and what the stress says of them.

    Returns:
        (P, 6) volume times Voigt strain between the two, dual to the mean of their stresses (Å³, engineering shears);
        (P,) difference of their energies less the work of the forces inside the cell, eV; and the pairs.
    """
    rows, differences, pairs = [], [], []
    offsets = frames.offsets
    for members, fractional in _families(frames):
        cells = frames.cell[members]
        for a, b in combinations(range(len(members)), 2):
            apart = fractional[a] - fractional[b]
            apart -= np.round(apart)
            if np.abs(apart).max() > _SAME_PLACES:
                continue
            mean = (cells[a] + cells[b]) / 2
            gradient = np.linalg.solve(mean, cells[b] - cells[a])
            strain = (gradient + gradient.T) / 2
            largest = np.abs(strain).max()
            if largest < 1e-6 or largest > _MAX_STRAIN:
                continue
            voigt = np.array([
                strain[0, 0], strain[1, 1], strain[2, 2], 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1],
            ])  # fmt: skip
            i, j = int(members[a]), int(members[b])
            rows.append(voigt * abs(np.linalg.det(mean)))
            shift = -(apart - apart.mean(axis=0)) @ mean
            pull = (frames.forces[offsets[i] : offsets[i + 1]] + frames.forces[offsets[j] : offsets[j + 1]]) / 2
            inner = float(np.nan_to_num(-(pull * shift).sum()))  # 0 where there are no forces
            differences.append(frames.energy[j] - frames.energy[i] - inner)
            pairs.append((i, j))
            if len(pairs) >= limit:
                break
    return np.array(rows).reshape(-1, 6), np.array(differences), pairs


def _families(frames: Frames) -> Iterator[tuple[Int, Float]]:
    """Periodic frames with the same elements in the same order, and their (M, N, 3) fractional coordinates."""
    offsets = frames.offsets
    groups: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(frames.pbc.all(axis=1) & np.isfinite(frames.stress).all(axis=1)):
        groups.setdefault(frames.numbers[offsets[i] : offsets[i + 1]].tobytes(), []).append(int(i))
    for everyone in groups.values():
        members = everyone[:: -(-len(everyone) // _MEMBERS)]
        fractional = [
            np.linalg.solve(frames.cell[i].T, frames.positions[offsets[i] : offsets[i + 1]].T).T for i in members
        ]
        yield np.array(members), np.array(fractional)


def check_stress(subject: Subject) -> list[Finding]:
    """dE = V σ:dε for pairs of cells that differ by a small strain (trapezoidal rule)."""
    frames = subject.frames
    if not np.isfinite(frames.stress).all(axis=1).any():
        return unmade("stress", "no frame has stress")
    work, difference, pairs = strained_pairs(frames)
    if len(pairs) < _MIN_PAIRS:
        return _by_volume(
            frames, f"{len(pairs)} pairs of frames differ by a small strain alone, {_MIN_PAIRS} are needed"
        )
    first, second = np.array(pairs).T
    stress = (frames.stress[first] + frames.stress[second]) / 2
    best, residuals = _orders(stress, work, difference)
    given = _NAMES
    findings = []
    if best != given and residuals[best] < _CLEARLY_BETTER * residuals[given]:
        findings.append(Finding(
            "stress", "error",
            f"the shear components are in another order: what is called {', '.join(given)} fits the energies of "
            f"{len(pairs)} strained pairs as {', '.join(best)} (residual {1000 * residuals[best]:.1f} instead of "
            f"{1000 * residuals[given]:.1f} meV)",
            sorted({*first.tolist(), *second.tolist()})[:20],
            f"Declare the order: dataset.stress_order='{_true_order(best, subject.stress_order)}'.",
        ))  # fmt: skip
        stress = stress[:, [0, 1, 2, *(3 + given.index(name) for name in best)]]
    slope = _slope(np.einsum("pi,pi->p", stress, work), difference, len(pairs))
    if slope is None:
        return findings or _by_volume(frames, "the stress explains too little of the energies of strained pairs")
    return findings + slope


def _by_volume(frames: Frames, why_not_strain: str) -> list[Finding]:
    """Where strain tells nothing: stress grows with the volume, at a rate that is a bulk modulus.

    For frames of one kind whose volumes differ: d(tr σ/3)/d ln V = B, 0.5 to 1000 GPa.
    """
    rates: list[tuple[int, float]] = []
    kinds: dict[bytes, list[int]] = {}
    periodic = frames.pbc.all(axis=1) & np.isfinite(frames.stress).all(axis=1)
    for i in np.flatnonzero(periodic):
        kinds.setdefault(np.sort(frames.numbers[frames.offsets[i] : frames.offsets[i + 1]]).tobytes(), []).append(
            int(i)
        )
    for members in kinds.values():
        if len(members) < _MIN_FRAMES:
            continue
        volume = np.log(np.abs(np.linalg.det(frames.cell[members])))
        pressure = frames.stress[members, :3].mean(axis=1)
        if np.ptp(volume) < _MIN_VOLUME or pressure.std() == 0:
            continue
        correlation = float(np.corrcoef(volume, pressure)[0, 1])
        if abs(correlation) > _CLEAR:
            rates.append((len(members), float(np.polyfit(volume, pressure, 1)[0]) / GPA))
    if not rates:
        return unmade("stress", f"{why_not_strain}; volumes say nothing either, so unit, sign and order are unknown")
    count, modulus = max(rates)
    size = abs(modulus)
    if modulus > 0 and _MODULI[0] < size < _MODULI[1]:
        return unmade(
            "stress", f"order of the shears: {why_not_strain}; sign and unit fit the volumes (B about {size:.2g} GPa)"
        )
    faults = ["of the opposite sign"] if modulus < 0 else []
    hints = ["declare the other dataset.stress_sign (tension or compression)"] if modulus < 0 else []
    if not _MODULI[0] < size < _MODULI[1]:
        faults.append(f"{'larger' if size > _MODULI[1] else 'smaller'} than any bulk modulus allows")
        fits = [u for u in ("GPa", "kbar", "bar") if _MODULI[0] < size * PRESSURE[u] < _MODULI[1]]
        hints.append(f"declare dataset.stress_unit={' or '.join(fits)}" if fits else "declare dataset.stress_unit")
    text = (
        f"the stress is {' and '.join(faults)}: over the volumes of {count} frames it changes as with a bulk modulus "
        f"of {modulus:.3g} GPa, which is {_MODULI[0]:g} to {_MODULI[1]:g} GPa in matter"
    )
    hint = "; ".join(hints)
    return [Finding("stress", "error", text, [], f"{hint[0].upper()}{hint[1:]}.")]


def _orders(stress: Float, work: Float, difference: Float) -> tuple[Order, dict[Order, float]]:
    """The order of the shears with the smallest residual, whatever sign and unit, and all residuals (eV)."""
    residuals: dict[Order, float] = {}
    for order in permutations(_NAMES):
        columns = [0, 1, 2, *(3 + _NAMES.index(name) for name in order)]
        predicted = np.einsum("pi,pi->p", stress[:, columns], work)
        slope = float(predicted @ difference) / max(float(predicted @ predicted), 1e-300)
        residuals[order] = float(np.sqrt(((difference - slope * predicted) ** 2).mean()))
    return min(residuals, key=lambda order: residuals[order]), residuals


def _true_order(best: Order, read_as: str) -> str:
    """The declaration with which the reader puts every component where ``best`` found it.

    ``best[k]`` names the component whose values lie where the k-th of yz, xz, xy belongs.
    """
    order = read_as.split()
    places = {"".join(sorted(name)): i for i, name in enumerate(order)}
    result = list(order)
    for belongs, lies in zip(_NAMES, best, strict=True):
        result[places[lies]] = belongs
    return " ".join(result)


def _slope(predicted: Float, difference: Float, count: int) -> list[Finding] | None:
    """What the factor between stress and energies says; None where too little is explained to judge."""
    slope = float(predicted @ difference) / max(float(predicted @ predicted), 1e-300)
    residual = difference - slope * predicted
    explained = 1 - float((residual**2).sum()) / max(float((difference**2).sum()), 1e-300)
    wrong_size = slope != 0 and abs(np.log(abs(slope))) > _MARGIN
    if explained < _TRUSTED:
        return None
    if slope > 0 and not wrong_size:
        return []
    faults = ["of the opposite sign"] if slope < 0 else []
    hints = ["declare the other dataset.stress_sign (tension or compression)"] if slope < 0 else []
    if wrong_size:
        unit = min(PRESSURE, key=lambda name: abs(np.log(abs(slope) / PRESSURE[name])))
        close = abs(np.log(abs(slope) / PRESSURE[unit])) < _MARGIN
        faults.append(f"too large by a factor of {1 / abs(slope):.4g}")
        hints.append(f"declare dataset.stress_unit={unit}" if close else "declare dataset.stress_unit")
    text = f"the stress is {' and '.join(faults)}: it was compared with the energies of {count} pairs of strained cells"
    hint = "; ".join(hints)
    return [Finding("stress", "error", text, [], f"{hint[0].upper()}{hint[1:]}.")]
