"""Probe the potential itself, in float64: symmetries, smoothness, its minimum, Hessian and energy along scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import iread
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS

from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import EventLog, replacing
from mlpbench.units import GPA
from mlpbench.worker.adapter import Adapter, Potential, Prediction
from mlpbench.worker.tasks.bands import bands

ARRAYS = "physics.npz"
NOT_A_SCAN = ("minimum", "hessian", "crystal", "properties")
PROPERTY_BATCH = 16  # structures of properties in one forward pass
CROSSING = 1e-4  # Å, the first points on either side of the cutoff
COORDINATES = 30  # of each frame, at most, for the check of forces: a large cell has hundreds, and each costs two calls
FAR = 50.0  # Å between two copies that must not feel each other


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``n_frames``, ``displacement_A`` (of the consistency check), ``hessian_displacement_A``, ``fmax``
    (eV/Å, of the relaxation), ``relax_steps``, ``seed``, and ``references`` (name -> path of the data set's files).

    Writes ``physics.npz``: ``minimum`` (N, 3) Å, ``hessian`` (3N, 3N) eV/Å², ``scan.<name>`` (K,) eV and what
    :func:`on_structures` and :func:`mlpbench.worker.tasks.bands.bands` give.
    Returns the errors of the symmetry checks in eV and eV/Å, how relaxations ended (``bands``: of nudged elastic
    bands), and ``crystal`` (see :func:`mlpbench.worker.tasks.physics.cubic`) where the data set has one.
    """
    potential = adapter.load(dtype="float64")
    frames = _frames(adapter, options["n_frames"])
    generator = np.random.default_rng(options["seed"])
    values: dict[str, Any] = symmetries(potential, frames, generator, options["displacement_A"])
    values |= cutoff_jump(potential, frames.select([0]), float(adapter.request.architecture["cutoff"]))
    events.write("physics", check="symmetries")
    arrays: dict[str, Float] = {}
    references = options.get("references", {})
    if "minimum" in references:
        atoms = read_one(references["minimum"])
        arrays["minimum"], values["relaxation"] = relax(potential, atoms, options["fmax"], options["relax_steps"])
        events.write("physics", check="minimum", **values["relaxation"])
        if "hessian" in references:
            atoms.positions = arrays["minimum"]
            arrays["hessian"] = hessian(potential, atoms, options["hessian_displacement_A"])
    if "crystal" in references:
        values["crystal"] = cubic(potential, Path(references["crystal"]), PredictCalculator)
        events.write("physics", check="crystal")
    if "properties" in references:
        structures = list(iread(references["properties"], index=":"))
        arrays |= on_structures(potential, Frames.from_atoms(structures))
        made, ended = bands(structures, PredictCalculator(potential))
        arrays |= {f"properties.{name}": array for name, array in made.items()}
        values |= {"bands": ended} if ended else {}
        events.write("physics", check="properties")
    for name, path in references.items():
        if name not in NOT_A_SCAN and not name.startswith("path_") and str(path).endswith("xyz"):
            scan = Frames.from_atoms(iread(path, index=":"))
            arrays[f"scan.{name}"] = potential.predict(scan, len(scan)).energy
    with replacing(adapter.directory / ARRAYS) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for allow_pickle
    return values


def on_structures(potential: Potential, frames: Frames) -> dict[str, Float]:
    """``properties.energy`` (F,) eV, ``.forces`` (A, 3) eV/Å and ``.stress`` (F, 6) eV/Å³ (NaN: none) of structures.

    Stress is asked for where all structures are periodic in three directions.
    """
    made = potential.predict(frames, PROPERTY_BATCH, stress=bool(frames.pbc.all()))
    stress = np.full((len(frames), 6), np.nan) if made.stress is None else made.stress
    return {"properties.energy": made.energy, "properties.forces": made.forces, "properties.stress": stress}


def symmetries(
    potential: Potential, frames: Frames, generator: np.random.Generator, displacement: float
) -> dict[str, Any]:
    """Force–energy consistency (relative), and the errors of rotation, translation, permutation and extensivity.

    Args:
        potential: in float64.
        frames: to test on; the largest error over them counts.
        generator: of rotations, shifts and orders.
        displacement: Å, of the central differences.
    """
    plain = potential.predict(frames, len(frames))
    atoms, offsets = frames.to_atoms(), frames.offsets
    turns = [_rotation(generator) for _ in atoms]
    orders = [generator.permutation(len(a)) for a in atoms]
    shifts = [generator.uniform(-5, 5, 3) for _ in atoms]

    rotated = _predict(potential, [_rotated(a, turn) for a, turn in zip(atoms, turns, strict=True)])
    shifted = _predict(potential, [_moved(a, a.positions + s) for a, s in zip(atoms, shifts, strict=True)])
    permuted = _predict(potential, [a[order] for a, order in zip(atoms, orders, strict=True)])

    rotation, translation, permutation = [0.0], [0.0], [0.0]
    for i, (turn, order) in enumerate(zip(turns, orders, strict=True)):
        part = slice(offsets[i], offsets[i + 1])
        force = plain.forces[part]
        rotation.append(_largest(rotated.forces[part] - force @ turn.T))
        translation.append(_largest(shifted.forces[part] - force))
        permutation.append(_largest(permuted.forces[part] - force[order]))
    return {
        "force_consistency": consistency(potential, frames, plain, displacement, generator),
        "rotation_force": max(rotation),
        "rotation_energy": _largest(rotated.energy - plain.energy),
        "translation_force": max(translation),
        "permutation_force": max(permutation),
        "extensivity_energy": _extensivity(potential, atoms, plain),
        "n_frames": len(frames),
    }


def consistency(
    potential: Potential, frames: Frames, plain: Prediction, displacement: float, generator: np.random.Generator
) -> float:
    """|F + ∇E| / |F| over components, ∇E by central differences of ``displacement`` Å.

    All components of a small frame, 30 drawn at random of a large one.
    """
    offsets = frames.offsets
    square, scale = 0.0, 0.0
    for i, atoms in enumerate(frames.to_atoms()):
        which = np.sort(generator.permutation(3 * len(atoms))[:COORDINATES])
        energies = _predict(potential, displaced(atoms, displacement, which)).energy.reshape(-1, 2)
        gradient = (energies[:, 0] - energies[:, 1]) / (2 * displacement)
        force = plain.forces[offsets[i] : offsets[i + 1]].ravel()[which]
        square += float(((force + gradient) ** 2).sum())
        scale += float((force**2).sum())
    return float(np.sqrt(square / scale)) if scale > 0 else float(np.sqrt(square))


def displaced(atoms: Atoms, displacement: float, which: Int | None = None) -> list[Atoms]:
    """Two structures for each coordinate (of ``which``, or all 3N), first up, then down, by ``displacement`` Å."""
    moved = []
    for index in range(3 * len(atoms)) if which is None else which:
        for sign in (1, -1):
            positions = atoms.positions.copy()
            positions.flat[index] += sign * displacement
            moved.append(_moved(atoms, positions))
    return moved


def hessian(potential: Potential, atoms: Atoms, displacement: float) -> Float:
    """(3N, 3N) eV/Å², symmetrised, from central differences of forces at all 6N displacements in one forward pass."""
    size = 3 * len(atoms)
    forces = _predict(potential, displaced(atoms, displacement)).forces.reshape(size, 2, size)
    rows = -(forces[:, 0] - forces[:, 1]) / (2 * displacement)
    return 0.5 * (rows + rows.T)


def relax(potential: Potential, atoms: Atoms, fmax: float, steps: int) -> tuple[Float, dict[str, Any]]:
    """(N, 3) Å of the minimum reached from ``atoms``, and whether it is one: largest force, steps, converged."""
    work = _moved(atoms, atoms.positions)
    work.calc = PredictCalculator(potential)
    optimiser = BFGS(work, logfile=None, maxstep=0.1)
    converged = bool(optimiser.run(fmax=fmax, steps=steps))
    force = float(np.linalg.norm(work.get_forces(), axis=1).max())
    return work.positions, {"converged": converged, "steps": int(optimiser.nsteps), "fmax": force}


def cutoff_jump(potential: Potential, frame: Frames, cutoff: float) -> dict[str, Any]:
    """Largest jump of energy (eV) and of a force component (eV/Å) as one atom crosses the cutoff of another.

    For a molecule a further atom comes in from outside, nearest to the outermost atom. In a periodic system, an atom
    whose distance to another is nearest to the cutoff is moved to it. Empty if no pair is near.
    """
    atoms = frame.to_atoms()[0]
    pair = _outside(atoms, cutoff) if not atoms.pbc.any() else _at_cutoff(atoms, cutoff)
    if pair is None:
        return {}
    predictions = _predict(potential, [pair(cutoff + k * CROSSING) for k in (-3, -1, 1, 3)])
    return {
        "cutoff_jump_energy": _largest(_jump(predictions.energy.reshape(4, -1))),
        "cutoff_jump_force": _largest(_jump(predictions.forces.reshape(4, -1))),
    }


def _jump(values: Float) -> Float:
    """The change between the two middle rows of four, less the mean of the changes before and behind it.

    In a stiff crystal every force changes by meV/Å as one atom moves by 2e-4 Å; only what is more than that is a jump.
    """
    before, across, behind = np.diff(values, axis=0)
    return np.asarray(across - 0.5 * (before + behind), dtype=np.float64)


def _outside(atoms: Atoms, cutoff: float) -> Any:
    """A function of a distance: the molecule with one more atom at that distance from its outermost atom."""
    direction = np.array([1.0, 0.3, 0.2]) / np.linalg.norm([1.0, 0.3, 0.2])
    outermost = int(np.argmax(atoms.positions @ direction))

    def at(distance: float) -> Atoms:
        """The structure with a probe atom at this distance."""
        probe = Atoms([int(atoms.numbers[0])], positions=[atoms.positions[outermost] + distance * direction])
        both: Atoms = Atoms(atoms.numbers, positions=atoms.positions) + probe
        return both

    return at


def _at_cutoff(atoms: Atoms, cutoff: float) -> Any:
    first, second, lengths, vectors = neighbor_list("ijdD", atoms, cutoff + 0.3)
    apart = np.flatnonzero((first != second) & (lengths > cutoff - 0.3))
    if not len(apart):
        return None
    best = apart[np.argmin(np.abs(lengths[apart] - cutoff))]

    def at(distance: float) -> Atoms:
        """The structure with the pair at this distance."""
        positions = atoms.positions.copy()
        positions[second[best]] += vectors[best] * (distance / lengths[best] - 1.0)
        return _moved(atoms, positions)

    return at


def _extensivity(potential: Potential, atoms: list[Atoms], plain: Prediction) -> float:
    """Largest |E₂ − 2·E₁| in eV: of two molecules far apart, or of a doubled cell."""
    doubled = []
    for one in atoms:
        if one.pbc.any():
            axis = int(np.argmax(one.pbc))
            doubled.append(one.repeat([2 if k == axis else 1 for k in range(3)]))
        else:
            shift = np.ptp(one.positions[:, 0]) + FAR
            doubled.append(one + _moved(one, one.positions + np.array([shift, 0.0, 0.0])))
    return _largest(_predict(potential, doubled).energy - 2 * plain.energy)


def _frames(adapter: Adapter, count: int) -> Frames:
    """The first frames of the first test split, else of the validation split."""
    names = [name for name in adapter.request.frames if name not in ("train", "valid")]
    frames = Frames.load(adapter.request.frames[names[0] if names else "valid"])
    return frames.select(slice(count))


def _predict(potential: Potential, structures: list[Atoms]) -> Prediction:
    return potential.predict(Frames.from_atoms(structures), len(structures))


def _moved(atoms: Atoms, positions: Float) -> Atoms:
    return Atoms(atoms.numbers, positions=positions, cell=atoms.cell, pbc=atoms.pbc)


def _rotated(atoms: Atoms, turn: Float) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions @ turn.T, cell=atoms.cell.array @ turn.T, pbc=atoms.pbc)


def _rotation(generator: np.random.Generator) -> Float:
    """A random proper rotation."""
    turn, triangle = np.linalg.qr(generator.standard_normal((3, 3)))
    turn = turn * np.sign(np.diag(triangle))
    if np.linalg.det(turn) < 0:
        turn[:, 0] *= -1
    return np.asarray(turn, dtype=np.float64)


def _largest(values: Float) -> float:
    return float(np.abs(values).max())


def read_one(path: str) -> Atoms:
    """The first structure in a file."""
    atoms: Atoms = next(iter(iread(path, index="0")))
    return atoms


class PredictCalculator(Calculator):
    """ASE's view of :meth:`Potential.predict`, so that relaxation uses the very function that is judged."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]  # type: ignore[misc]  # as ASE's own do

    def __init__(self, potential: Potential) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy and forces of ``atoms``."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        prediction = _predict(self.potential, [self.atoms])
        self.results = {"energy": float(prediction.energy[0]), "forces": prediction.forces}


WIDTHS = (0.04, 0.01)  # relative, of the two rounds in which the energy is fitted around its minimum
STRAIN = 0.005  # Voigt; stress is linear in it to a few tenths of a per cent
FMAX = 1e-4  # eV/Å, of the atoms' positions inside a sheared cell


def cubic(potential: Potential, reference: Path, relaxed: Any) -> dict[str, Any]:
    """``lattice_constant_A`` and ``elastic_GPa`` (C11, C12, C44) of the crystal in ``reference``.

    Args:
        potential: in float64.
        reference: JSON with ``symbols``, ``scaled_positions`` of the cubic cell and ``lattice_constant_A``.
        relaxed: an ASE calculator class over a potential, for the positions inside a strained cell.

    Returns:
        Without ``elastic_GPa`` where the potential has no stress; ``lattice_constant_A`` None where the energy has no
        minimum within 4 % of the reference's.
    """
    data = json.loads(reference.read_text(encoding="utf-8"))
    start = Atoms(data["symbols"], scaled_positions=data["scaled_positions"], cell=np.eye(3), pbc=True)
    lattice = lattice_constant(potential, start, float(data["lattice_constant_A"]))
    if lattice is None:
        return {"lattice_constant_A": None}
    values: dict[str, Any] = {"lattice_constant_A": lattice}
    columns = {index: _response(potential, _scaled(start, lattice), index, relaxed) for index in (0, 3)}
    if all(column is not None for column in columns.values()):
        first, shear = columns[0], columns[3]
        assert first is not None
        assert shear is not None
        values["elastic_GPa"] = {"C11": float(first[0]), "C12": float(first[1:3].mean()), "C44": float(shear[3])}
    return values


def lattice_constant(potential: Potential, start: Atoms, guess: float) -> float | None:
    """Å, where a cubic polynomial through the energies of seven cells has its minimum; None if that is at the edge."""
    for width in WIDTHS:
        lengths = guess * (1 + width * np.linspace(-1, 1, 7))
        cells = [_scaled(start, a) for a in lengths]
        energy = potential.predict(Frames.from_atoms(cells), len(cells)).energy
        x = (lengths - guess) / (width * guess)
        fine = np.linspace(-1, 1, 20001)
        best = float(fine[np.argmin(np.polyval(np.polyfit(x, energy - energy.min(), 3), fine))])
        if abs(best) >= 1:
            return None
        guess *= 1 + width * best
    return guess


def strain_tensor(index: int, size: float) -> Float:
    """(3, 3) symmetric, of one Voigt component (xx, yy, zz, yz, xz, xy); a shear has ``size`` = 2ε."""
    strain = np.zeros((3, 3))
    i, j = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))[index]
    strain[i, j] = strain[j, i] = size if i == j else size / 2
    return strain


def _response(potential: Potential, crystal: Atoms, index: int, relaxed: Any) -> Float | None:
    """(6,) GPa, derivative of the stress by one strain, atoms relaxed; None where the potential has no stress."""
    stresses = []
    for size in (STRAIN, -STRAIN):
        work = crystal.copy()
        work.set_cell(crystal.cell.array @ (np.eye(3) + strain_tensor(index, size)), scale_atoms=True)
        work.calc = relaxed(potential)
        BFGS(work, logfile=None, maxstep=0.05).run(fmax=FMAX, steps=200)
        plain = Atoms(work.numbers, positions=work.positions, cell=work.cell, pbc=True)
        stress = potential.predict(Frames.from_atoms([plain]), 1, stress=True).stress
        if stress is None or not np.isfinite(stress).all():
            return None
        stresses.append(stress[0])
    return np.asarray((stresses[0] - stresses[1]) / (2 * STRAIN) / GPA, dtype=np.float64)


def _scaled(start: Atoms, length: float) -> Atoms:
    made: Atoms = start.copy()
    made.set_cell(np.eye(3) * length, scale_atoms=True)
    return made
