"""Forces against energies: sign and unit, from pairs of similar frames; and the net force."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from scipy.spatial import cKDTree

from mlpbench.datasets.baseline import all_electron_unit
from mlpbench.datasets.dataset import listed
from mlpbench.datasets.superposition import with_images
from mlpbench.datasets.validation.finding import Finding, Subject, unmade
from mlpbench.frames import Bool, Float, Frames, Int
from mlpbench.units import ENERGY, LENGTH

_MIN_PAIRS = 12
_PAIRS = 3000  # looked at; spread over the file
_MOST_SIMILAR = 300  # of them, at most so many and at most a quarter: those with the smallest displacement
_FRAMES_PER_BLOCK = 150  # among which similar frames are looked for
_MARGIN = 1.3  # for the trapezoidal rule; the closest units, eV/Å and eV/bohr, lie a factor of 1.9 apart
_PULLS_BACK = 0.3  # correlation of bond length and opening force; −0.5 to −1 in real data
_GRADIENT = "these are gradients: declare dataset.forces_sign=gradient (--forces-sign gradient)"
_USUAL_FORCE = (0.03, 10.0)  # eV/Å, rms of components
_TRUSTED = 0.5  # of the variance of the energy differences, which the forces must explain to be judged


@dataclass(frozen=True)
class Agreement:
    """How energy differences between similar frames follow from the forces.

    Attributes:
        pairs: how many were compared.
        slope: energy difference over the work of the forces; 1 if sign and units are right.
        explained: share of the variance of the energy differences that the fit explains.
        displacement: median root-mean-square displacement between the two frames of a pair, Å.
    """

    pairs: int
    slope: float
    explained: float
    displacement: float


def check_forces(subject: Subject) -> list[Finding]:
    """E₂ − E₁ ≈ −½(F₁ + F₂)·(R₂ − R₁) for the most similar frames with the same atoms in the same cell.

    Where frames are too far apart for that, the sign alone: a bond that is longer than others pulls back.
    """
    if not _finite_forces(subject.frames).any():
        return unmade("forces", "no frame has forces")
    measured = agreement(subject.frames)
    if measured is None or measured.explained < _TRUSTED:
        return _by_bonds(subject.frames)
    sign = "of the opposite sign" if measured.slope < 0 else ""
    # The work has an error of its own, which flattens the fit: the true factor lies between slope and slope/explained.
    low, high = abs(measured.slope) / _MARGIN, abs(measured.slope) / measured.explained * _MARGIN
    wrong_unit = not low < 1 < high
    if not sign and not wrong_unit:
        return []
    factor = abs(measured.slope) / np.sqrt(measured.explained)
    size = f"too large by a factor of about {1 / factor:.3g}, or the energies too small" if wrong_unit else ""
    text = (
        f"the forces are {' and '.join(part for part in (sign, size) if part)}, measured on {measured.pairs} pairs of "
        f"similar frames ({100 * measured.explained:.0f} % of their energy differences explained)"
    )
    hints = [_GRADIENT] if sign else []
    if wrong_unit:
        hints.append(_unit_hint(subject, factor, low, high))
    hint = "; ".join(hints)
    return [Finding("forces", "error", text, [], f"{hint[0].upper()}{hint[1:]}.")]


def _by_bonds(frames: Frames) -> list[Finding]:
    correlation, pair = bond_response(frames)
    few = f"fewer than {_MIN_PAIRS} pairs of frames are similar enough to compare energies with the forces' work"
    if correlation <= -_PULLS_BACK:
        return unmade("forces", f"unit: {few}; the sign is right, {pair} bonds that are longer pull back")
    if correlation < _PULLS_BACK:
        return unmade("forces", few)
    text = (
        f"the forces are of the opposite sign: {pair} bonds that are longer than others are pushed further apart "
        f"(correlation {correlation:+.2f}; it is negative for forces)"
    )
    return [Finding("forces", "error", text, [], f"{_GRADIENT[0].upper()}{_GRADIENT[1:]}.")]


def bond_response(frames: Frames, limit: int = 200) -> tuple[float, str]:
    """Correlation of the lengths of the shortest contacts with the force that opens them, and the elements.

    Of all pairs of elements, the one with the strongest correlation; 0 where there are too few contacts.
    """
    usable = np.flatnonzero(_finite_forces(frames) & (frames.n_atoms > 1))
    lengths: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for i in usable[:: max(1, len(usable) // limit)]:
        part = slice(frames.offsets[i], frames.offsets[i + 1])
        numbers, forces = frames.numbers[part], frames.forces[part]
        points, owners = with_images(frames.positions[part], frames.cell[i], frames.pbc[i], 3.0)
        distance, nearest = cKDTree(points).query(points[: len(numbers)], k=2)
        for atom, (d, other) in enumerate(zip(distance[:, 1], nearest[:, 1], strict=True)):
            direction = (points[other] - points[atom]) / d
            opening = float((forces[owners[other]] - forces[atom]) @ direction)
            key = tuple(sorted((int(numbers[atom]), int(numbers[owners[other]]))))
            lengths.setdefault(key, []).append((float(d), opening))  # type: ignore[arg-type]
    best, pair = 0.0, ""
    for (a, b), values in lengths.items():
        d, opening = np.array(values).T
        if len(values) < 50 or d.std() == 0 or opening.std() == 0:
            continue
        correlation = float(np.corrcoef(d, opening)[0, 1])
        if abs(correlation) > abs(best):
            best, pair = correlation, f"{chemical_symbols[a]}-{chemical_symbols[b]}"
    return best, pair


def _unit_hint(subject: Subject, size: float, low: float, high: float) -> str:
    """What explains energies that follow from the forces with a slope of ``size``: either side may be wrong."""
    frames = subject.frames
    rms = float(np.sqrt(np.nanmean(frames.forces**2)))
    explanations: list[tuple[float, str]] = []

    def consider(slope: float, force: float, text: str) -> None:
        """Note what would explain the slope, and how far it is from what was measured."""
        if low < slope < high:  # a size of forces that nothing has counts against an explanation
            implausible = 0.0 if _USUAL_FORCE[0] < rms * force < _USUAL_FORCE[1] else 1.0
            factor = f"{slope:.4g}" if slope >= 1 else f"1/{1 / slope:.4g}"
            explanations.append((round(abs(np.log(size / slope)) + implausible, 6), f"{text} (factor {factor})"))

    for energy, value in ENERGY.items():
        for length in ("Å", "bohr"):
            unit = value / LENGTH[length]
            if unit != 1.0:
                name = f"{energy}/{length}"
                consider(unit, unit, f"forces in {name}: dataset.forces_unit={name}")
    if all_electron_unit(frames.numbers, frames.n_atoms, frames.energy) != "eV":  # else the energies are right
        for energy, value in ENERGY.items():
            if value == 1.0:
                continue
            text = f"energies in {energy}: dataset.energy_unit={energy}"
            consider(1 / value, 1.0, f"{text} dataset.forces_unit=eV/Å")
            if energy not in ("hartree", "Ry"):
                continue
            both = f"both in {energy} and bohr: dataset.energy_unit={energy} dataset.forces_unit={energy}/bohr"
            consider(1 / LENGTH["bohr"], value / LENGTH["bohr"], both)
        atoms = float(np.median(frames.n_atoms))
        consider(1 / atoms, 1.0, f"energies per atom: multiply them by the number of atoms, {atoms:g}")
    if not explanations:
        return "either may be wrong, no common unit explains the factor: check energy_unit and forces_unit"
    best = [text for _, text in sorted(explanations, key=lambda one: one[0])[:4]]
    declared = subject.config.energy_unit or subject.config.forces_unit
    start = "besides what is declared now, " if declared else "either may be wrong; "
    return f"{start}most likely: {'; or '.join(best)}"


def agreement(frames: Frames) -> Agreement | None:
    """Compare energy differences with the work of the forces; None with too few comparable pairs."""
    usable = np.isfinite(frames.energy) & _finite_forces(frames)
    works: list[float] = []
    differences: list[float] = []
    displacements: list[float] = []
    for members in _alike(frames, np.flatnonzero(usable)):
        positions, forces = _stack(frames, members)
        periodic = frames.pbc[members[0]].any()
        for first, second in _similar(positions, frames.cell[members[0]], frames.pbc[members[0]]):
            moved, done = _work(
                positions[first], positions[second], forces[first], forces[second],
                frames.cell[members[0]] if periodic else None, frames.pbc[members[0]],
            )  # fmt: skip
            works.append(done)
            displacements.append(moved)
            differences.append(frames.energy[members[second]] - frames.energy[members[first]])
        if len(works) >= _PAIRS:
            break
    if len(works) < _MIN_PAIRS:
        return None
    count = min(_MOST_SIMILAR, max(_MIN_PAIRS, len(works) // 4))
    nearest = np.argsort(displacements)[:count]
    work, difference = np.array(works)[nearest], np.array(differences)[nearest]
    if not work.any() or not difference.any():
        return None
    slope = float(work @ difference / (work @ work))
    explained = float(1 - ((difference - slope * work) ** 2).sum() / (difference**2).sum())
    return Agreement(len(nearest), slope, explained, float(np.median(np.array(displacements)[nearest])))


def _finite_forces(frames: Frames) -> Bool:
    finite = np.isfinite(frames.forces).all(axis=1)
    return np.asarray(np.logical_and.reduceat(finite, frames.offsets[:-1]))


def _alike(frames: Frames, usable: Int) -> list[Int]:
    """Frames with the same atoms in the same order and the same cell, most frequent kind first, in blocks in time."""
    kinds: dict[bytes, list[int]] = {}
    for i in usable:
        numbers = frames.numbers[frames.offsets[i] : frames.offsets[i + 1]]
        cell = np.round(frames.cell[i] * frames.pbc[i][:, None], 4) + 0.0
        kinds.setdefault(numbers.tobytes() + cell.tobytes() + frames.pbc[i].tobytes(), []).append(int(i))
    blocks = []
    for members in sorted(kinds.values(), key=len, reverse=True):
        starts = range(0, len(members) - 1, _FRAMES_PER_BLOCK)
        blocks += [np.array(members[s : s + _FRAMES_PER_BLOCK]) for s in starts]
    step = max(1, len(blocks) // 20)
    return [block for block in blocks[::step] if len(block) > 1]


def _stack(frames: Frames, members: Int) -> tuple[Float, Float]:
    n_atoms = int(frames.n_atoms[members[0]])
    rows = frames.offsets[members][:, None] + np.arange(n_atoms)
    return frames.positions[rows], frames.forces[rows]


def _similar(positions: Float, cell: Float, pbc: Bool) -> list[tuple[int, int]]:
    """For each frame, the frame before it that differs least (all atoms in place, no relabelling)."""
    if pbc.any():
        flat = positions - positions.mean(axis=1, keepdims=True)
    else:
        first, second = np.triu_indices(positions.shape[1], k=1)
        flat = np.linalg.norm(positions[:, first] - positions[:, second], axis=2)
    flat = flat.reshape(len(positions), -1)
    squares = (flat**2).sum(axis=1)
    apart = squares[:, None] + squares[None] - 2 * flat @ flat.T
    apart[np.triu_indices(len(apart))] = np.inf
    return [(int(apart[i].argmin()), i) for i in range(1, len(apart))]


def _work(a: Float, b: Float, forces_a: Float, forces_b: Float, cell: Float | None, pbc: Bool) -> tuple[float, float]:
    """Root-mean-square displacement (Å) from ``a`` to ``b`` without rigid motion, and −½(F_a + F_b)·ΔR (eV)."""
    if cell is None:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        u, _, vt = np.linalg.svd(b.T @ a)
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        b, forces_b = b @ turn, forces_b @ turn
        moved = b - a
    else:
        full = np.where(pbc[:, None], cell, np.eye(3))
        fractional = np.linalg.solve(full.T, (b - a).T).T
        moved = np.where(pbc, fractional - np.round(fractional), fractional) @ full
        moved -= moved.mean(axis=0)
    return float(np.sqrt((moved**2).sum(axis=1).mean())), float(-0.5 * ((forces_a + forces_b) * moved).sum())


def check_net_force(subject: Subject) -> list[Finding]:
    """Forces that do not add up to zero: integration grids, constraints, missing atoms."""
    frames = subject.frames
    if not _finite_forces(frames).any():
        return unmade("net force", "no frame has forces")
    net = np.zeros((len(frames), 3))
    np.add.at(net, frames.frame_of_atom, np.nan_to_num(frames.forces))
    size = np.linalg.norm(net, axis=1)
    limit = subject.config.max_net_force
    at_fault = np.flatnonzero(size > limit)
    if len(at_fault) == 0:
        return []
    worst = int(size.argmax())
    text = (
        f"net force above {1000 * limit:g} meV/Å in {len(at_fault)} of {len(frames)} frames: {listed(at_fault)}; "
        f"largest {1000 * size[worst]:.0f} meV/Å in frame {worst}"
    )
    hint = "No potential that conserves momentum can follow it; a finer grid, or accept it with dataset.max_net_force."
    return [Finding("net force", "warning", text, at_fault.tolist(), hint)]
