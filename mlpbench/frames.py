"""Labelled structures as flat arrays: what datasets write, workers read and evaluators score."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def packed(**values: Any) -> bytes:
    """Arrays, numbers and texts as the bytes of an ``.npz``: what two processes with different packages both read."""
    stream = io.BytesIO()
    np.savez(stream, **values)
    return stream.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What :func:`packed` was given, as arrays; nothing in it is executed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@dataclass(frozen=True)
class Frames:
    """F frames with A atoms in all, concatenated. A label that is missing is NaN, never zero.

    ========== ========= ======= =============================================================
    field      shape     unit    meaning
    ========== ========= ======= =============================================================
    n_atoms    (F,)              atoms of each frame; A is their sum
    numbers    (A,)              atomic numbers
    positions  (A, 3)    Å
    cell       (F, 3, 3) Å       rows are lattice vectors; zero where there is none
    pbc        (F, 3)            periodic along each lattice vector
    energy     (F,)      eV      total energy as the reference method gives it
    forces     (A, 3)    eV/Å    minus the gradient of the energy
    stress     (F, 6)    eV/Å³   Voigt xx yy zz yz xz xy, ASE's sign (positive under tension)
    baseline   (F,)      eV      reference energies + mean residual; what a potential learns is energy − baseline
    group      (F,)              trajectory or block each frame belongs to (for block bootstrap), from 0
    held       (A,)              held by a constraint, true force not known: forces NaN, left out of loss and metrics
    ========== ========= ======= =============================================================
    """

    n_atoms: Int
    numbers: Int
    positions: Float
    cell: Float
    pbc: Bool
    energy: Float
    forces: Float
    stress: Float
    baseline: Float
    group: Int
    held: Bool = None  # type: ignore[assignment]  # None: no atom is

    def __post_init__(self) -> None:
        n_frames, n_atoms = len(self.n_atoms), int(self.n_atoms.sum())
        if self.held is None:
            object.__setattr__(self, "held", np.zeros(n_atoms, dtype=bool))
        shapes = {
            "numbers": (n_atoms,), "positions": (n_atoms, 3), "cell": (n_frames, 3, 3), "pbc": (n_frames, 3),
            "energy": (n_frames,), "forces": (n_atoms, 3), "stress": (n_frames, 6), "baseline": (n_frames,),
            "group": (n_frames,), "held": (n_atoms,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Frames.{name} has shape {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def offsets(self) -> Int:
        """(F+1,) where each frame's atoms start in the flat arrays."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    @property
    def frame_of_atom(self) -> Int:
        """(A,) the frame each atom belongs to."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @property
    def target_energy(self) -> Float:
        """(F,) eV, energy − baseline: what the worker trains on and predicts."""
        return self.energy - self.baseline

    @property
    def has_forces(self) -> bool:
        """True if every force component is labelled, but for atoms that a constraint holds, and there is one."""
        return not self.held.all() and bool(np.isfinite(self.forces[~self.held]).all())

    @property
    def known_forces(self) -> Float:
        """(K,) eV/Å, the force components of all atoms that no constraint holds."""
        return self.forces[~self.held].ravel()

    @property
    def has_stress(self) -> bool:
        """True if every stress component is labelled."""
        return len(self) > 0 and bool(np.isfinite(self.stress).all())

    def select(self, indices: Sequence[int] | Int | slice) -> Frames:
        """The frames at ``indices``, in that order."""
        frames = np.arange(len(self))[indices]
        offsets = self.offsets
        atoms = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in frames] or [np.zeros(0, int)])
        values: dict[str, Any] = {}
        for field in fields(self):
            per_atom = field.name in ("numbers", "positions", "forces", "held")
            values[field.name] = getattr(self, field.name)[atoms if per_atom else frames]
        return Frames(**values)

    def with_baseline(self, baseline: Float) -> Frames:
        """The same frames with (F,) ``baseline`` in eV."""
        return replace(self, baseline=np.asarray(baseline, dtype=np.float64))

    def to_atoms(self) -> list[Atoms]:
        """ASE structures; labels that exist hang on a single-point calculator (total energy, not the target)."""
        return list(self._iterate_atoms())

    def _iterate_atoms(self) -> Iterator[Atoms]:
        offsets = self.offsets
        for i in range(len(self)):
            part = slice(offsets[i], offsets[i + 1])
            atoms = Atoms(self.numbers[part], positions=self.positions[part], cell=self.cell[i], pbc=self.pbc[i])
            labels: dict[str, Any] = {}
            if np.isfinite(self.energy[i]):
                labels["energy"] = float(self.energy[i])
            if np.isfinite(self.forces[part]).all():
                labels["forces"] = self.forces[part].copy()
            if np.isfinite(self.stress[i]).all():
                labels["stress"] = self.stress[i].copy()
            if labels:
                atoms.calc = SinglePointCalculator(atoms, **labels)
            yield atoms

    @classmethod
    def from_atoms(
        cls,
        structures: Iterable[Atoms],
        energy: Sequence[float] | Float | None = None,
        forces: Sequence[Float] | None = None,
        stress: Sequence[Float] | Float | None = None,
        group: Sequence[int] | Int | None = None,
    ) -> Frames:
        """Frames from ASE structures and labels already in eV, eV/Å and eV/Å³ (one entry per frame; None: missing)."""
        atoms = list(structures)
        n_atoms = np.array([len(a) for a in atoms], dtype=np.int64)
        total = int(n_atoms.sum())

        def flat(rows: Sequence[Any], shape: tuple[int, ...], dtype: type) -> Any:
            """One array of all rows, empty of the right shape where there are none."""
            return np.concatenate(rows).astype(dtype) if rows else np.zeros(shape, dtype)

        n = len(atoms)
        return cls(
            n_atoms=n_atoms,
            numbers=flat([a.numbers for a in atoms], (0,), np.int64),
            positions=flat([a.positions for a in atoms], (0, 3), np.float64),
            cell=np.array([a.cell.array for a in atoms], dtype=np.float64).reshape(n, 3, 3),
            pbc=np.array([a.pbc for a in atoms], dtype=bool).reshape(n, 3),
            energy=np.full(n, np.nan) if energy is None else np.asarray(energy, dtype=np.float64),
            forces=np.full((total, 3), np.nan) if forces is None else flat(list(forces), (0, 3), np.float64),
            stress=np.full((n, 6), np.nan) if stress is None else np.asarray(stress, dtype=np.float64).reshape(n, 6),
            baseline=np.zeros(n),
            group=np.zeros(n, np.int64) if group is None else np.asarray(group, dtype=np.int64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Frames]) -> Frames:
        """All frames of ``parts``, one after another."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def save(self, path: Path) -> None:
        """Write to ``path`` as an uncompressed ``.npz`` of float64 arrays (exact; no pickle)."""
        with open(path, "wb") as stream:
            names = [f.name for f in fields(self) if f.name != "held" or self.held.any()]
            np.savez(stream, **{name: getattr(self, name) for name in names})  # as before there were any

    @classmethod
    def load(cls, path: Path | str) -> Frames:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            KeyError: the file lacks one of the arrays.
        """
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls) if f.name != "held" or "held" in arrays})
