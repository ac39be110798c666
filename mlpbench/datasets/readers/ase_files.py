"""Whatever ASE reads: xyz, ASE and SchNetPack databases, outputs of VASP, Quantum ESPRESSO, CP2K, ORCA, GPAW ..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import iread
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.datasets.readers import extxyz
from mlpbench.datasets.readers.base import (
    CHUNK,
    Chunk,
    Factors,
    Labels,
    Notes,
    Selection,
    reorder,
    unconverged,
    unit_factors,
)
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames, Int

# What a reference calculation wrote under a name of its own comes before the plain name, which any model writes to.
_PREFIXES = ("REF_", "ref_", "dft_", "DFT_", "")
ENERGY_KEYS = (
    *(f"{p}energy" for p in _PREFIXES), "E", "Energy", "total_energy", "free_energy", extxyz.ENERGY_OF,
)  # fmt: skip
FORCES_KEYS = (*(f"{p}forces" for p in _PREFIXES), "force", "Forces", "F", "gradient", "gradients")
STRESS_KEYS = (
    *(f"{p}stress" for p in _PREFIXES), *(f"{p}virial" for p in _PREFIXES), "virials", "REF_virials",
)  # fmt: skip
_KNOWN = {"energy": ENERGY_KEYS, "forces": FORCES_KEYS, "stress": STRESS_KEYS}
_NO_FORCES = {"momenta", "velocities", "velo", "vel", "positions", "pos", "initial_magmoms", "magmoms", "dipoles"}
_AGREE = 1e-4  # eV, eV/Å, eV/Å³ in the file's own units: two candidates that differ by less are the same
_FREE_ENERGY = 1e-3  # eV/atom between energy and free energy, from which on forces and energies disagree
_UNIT_KEY = re.compile(r"(energy|length|distance|forces?|stress)_?units?|units?_?(energy|length|forces?|stress)", re.I)
_OTHER_UNIT_KEY = re.compile(r"units?", re.I)


def read_ase(path: Path, labels: Labels, notes: Notes, format: str | None = None) -> Iterator[Chunk]:
    """Chunks of the structures in ``path``.

    Args:
        path: a file.
        labels: names and units; its ``index`` chooses frames.
        notes: receives what was detected.
        format: ASE's name of the format; None: as ASE tells from name and content.

    Raises:
        UserError: ASE cannot read the file, it is empty, or it has no such key.
    """
    selection = Selection.of(labels.index)
    is_database = format == "db" or (format is None and path.suffix in (".db", ".aselmdb"))
    if is_database:
        structures, stated = _database(path, labels.index), _database_units(path)
    else:
        structures = iread(path, index=labels.index, format=format, do_not_split_by_at_sign=True)
        stated = {}
    start = 0
    try:
        for chunk in _chunks(path, structures, labels, notes, stated):
            yield chunk
            start += len(chunk.frames)
    except UserError:
        raise
    except Exception as error:  # ASE's readers raise almost anything on a file they do not understand
        raise UserError(
            f"{path}: ASE cannot read this file ({type(error).__name__}: {error})"
            if start == 0
            else f"{path}: reading stopped after frame {start} ({type(error).__name__}: {error})",
            "Name it: dataset.format=extxyz|sgdml|deepmd|fitsnap|mlearn|qm22|qm9|ani, or one of 'ase info --formats'.",
        ) from error  # fmt: skip
    faults = unconverged(path)
    chosen = [str(i) for i in faults.frames if selection.wants(i)] if not selection.counts_from_the_end else []
    if chosen or faults.somewhere:
        where = f"in frames {', '.join(chosen[:20])}" if chosen else "somewhere in this file"
        notes.add(f"warning: {path.name}: the electronic structure did not converge {where} ({faults.sign})")


def read_extxyz(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of an xyz file; its ``index`` is followed here.

    Raises:
        UserError: a frame is malformed (with its number and line), or the file has no such key.
    """
    yield from _chunks(path, extxyz.structures(path, Selection.of(labels.index), notes), labels, notes, {})


def _chunks(
    path: Path, structures: Iterator[Atoms], labels: Labels, notes: Notes, stated: Mapping[str, str]
) -> Iterator[Chunk]:
    keys, start = _Keys(path, labels, notes), 0
    for batch in batched(structures, CHUNK):
        entries = [_available(atoms) for atoms in batch]
        for number, atoms in enumerate(batch, start):
            if len(atoms) == 0:
                raise UserError(f"{path}, frame {number}: has no atoms", "Remove it, or choose dataset.index.")
        keys.look_at(batch, entries)
        factors = _factors(path, entries, keys, labels, notes, stated)
        yield _convert(path, start, batch, entries, keys, labels, factors, notes)
        start += len(batch)


def _available(atoms: Atoms) -> dict[str, Any]:
    """All labels and headers of one structure by name; a calculator's results come first."""
    there: dict[str, Any] = dict(atoms.info)
    there.update({k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")})
    if atoms.calc is not None:
        there.update({k: v for k, v in atoms.calc.results.items() if v is not None})
    return there


@dataclass
class _Keys:
    """Under which name each label lies; settled by all frames read so far, not by the first."""

    path: Path
    labels: Labels
    notes: Notes
    chosen: dict[str, str] = field(default_factory=dict)
    seen: int = 0

    def look_at(self, batch: Sequence[Atoms], entries: Sequence[dict[str, Any]]) -> None:
        """Choose the names that are still open.

        Raises:
            UserError: a declared energy key is nowhere, or no energy is found.
        """
        for label, known in _KNOWN.items():
            asked = getattr(self.labels, f"{label}_key")
            if asked is not None:
                self._asked(label, asked, entries)
            elif label not in self.chosen:
                self._detect(label, known, batch, entries)
            self._compare(label, known, batch, entries)
        if "energy" not in self.chosen:
            names = sorted({name for entry in entries for name in entry})
            raise UserError(
                f"{self.path}: no energy found among {', '.join(ENERGY_KEYS[:-1])}; the frames have "
                f"{', '.join(names) or 'no labels at all (looked at results, info, arrays, key-value pairs, data)'}",
                "Name it: dataset.energy_key=... (and dataset.forces_key=...).",
            )
        if "forces" not in self.chosen and self.seen == 0:
            self._say_what_might_be_forces(batch, entries)
        pairs = ((key.removesuffix(label), key) for label, key in self.chosen.items())
        sources = {start for start, key in pairs if start in _PREFIXES and start != key}
        if len(sources) > 1 and self.seen == 0:
            words = ", ".join(f"{label} from '{key}'" for label, key in self.chosen.items())
            self.notes.add(f"warning: {self.path.name}: {words}: do these come from one calculation?")
        self.seen += len(batch)

    def _asked(self, label: str, asked: str, entries: Sequence[dict[str, Any]]) -> None:
        if label == "energy" and label not in self.chosen and not any(asked in entry for entry in entries):
            text = f"{self.path}: none of the first {len(entries)} frames has '{asked}' ({label}_key)"
            raise UserError(text, close_match(asked, {name for entry in entries for name in entry}))
        self.chosen[label] = asked

    def _detect(
        self, label: str, known: Sequence[str], batch: Sequence[Atoms], entries: Sequence[dict[str, Any]]
    ) -> None:
        pairs = list(zip(batch, entries, strict=True))
        counts = {key: sum(_fits(label, entry.get(key), len(atoms)) for atoms, entry in pairs) for key in known}
        best = max(known, key=lambda key: counts[key])  # the first of those that most frames have
        misshapen = [key for key in known if counts[key] == 0 and any(key in entry for entry in entries)]
        if misshapen and label != "energy":
            self.notes.add(f"warning: {self.path.name}: '{misshapen[0]}' lacks the shape of {label} and is not read")
        if counts[best] == 0:
            return
        self.chosen[label] = best
        others = [key for key in known if counts[key] and key != best]
        also = f" (also there: {', '.join(others)})" if others else ""
        self.notes.add(f"{self.path.name}: {label} taken from '{best}'{also}")

    def _compare(
        self, label: str, known: Sequence[str], batch: Sequence[Atoms], entries: Sequence[dict[str, Any]]
    ) -> None:
        """Say where another candidate for a label differs from the chosen one."""
        own = self.chosen.get(label, "")
        for key in known if own and getattr(self.labels, f"{label}_key") is None else ():
            both = [(a, e) for a, e in zip(batch, entries, strict=True)
                    if key != own and all(_fits(label, e.get(k), len(a)) for k in (own, key))]  # fmt: skip
            if not both or np.shape(both[0][1][key]) != np.shape(both[0][1][own]):
                continue
            gaps = [(float(np.abs(np.subtract(e[own], e[key], dtype=np.float64)).max()), len(a)) for a, e in both]
            gap = max((g for g, _ in gaps), default=0.0)
            if label == "energy" and key == "free_energy":
                per_atom = max(g / n for g, n in gaps)
                if per_atom > _FREE_ENERGY:
                    self.notes.add(
                        f"warning: {self.path.name}: '{own}' and 'free_energy' differ by more than "
                        f"{1000 * _FREE_ENERGY:g} meV/atom (electronic smearing); the forces belong to free_energy: "
                        "dataset.energy_key=free_energy"
                    )
            elif gap > _AGREE and "gradient" not in key:
                self.notes.add(
                    f"warning: {self.path.name}: {label} is taken from '{own}'; '{key}' is there too and differs "
                    f"(by a model? name the right one with dataset.{label}_key)"
                )

    def _say_what_might_be_forces(self, batch: Sequence[Atoms], entries: Sequence[dict[str, Any]]) -> None:
        names = sorted({
            name for atoms, entry in zip(batch, entries, strict=True) for name, value in entry.items()
            if len(atoms) > 1 and np.shape(value) == (len(atoms), 3) and name not in _NO_FORCES
        })  # fmt: skip
        if names:
            self.notes.add(
                f"warning: {self.path.name}: no forces under a known name; per-atom (N, 3) arrays there: "
                f"{', '.join(names)}. Name them with dataset.forces_key=... (--forces-key)"
            )


def _fits(label: str, value: Any, n_atoms: int) -> bool:
    if value is None or isinstance(value, str | bool):
        return False
    shape = np.shape(value)
    if label == "energy":
        return int(np.prod(shape)) == 1 and np.asarray(value).dtype.kind in "fiu"
    return shape == (n_atoms, 3) if label == "forces" else shape in ((6,), (9,), (3, 3))


def _stated_units(path: Path, entries: Sequence[dict[str, Any]], notes: Notes) -> dict[str, str]:
    """Quantity -> unit, from header entries such as ``energy_unit``.

    Raises:
        UserError: the frames state different units.
    """
    units: dict[str, str] = {}
    for entry in entries:
        for key, value in entry.items():
            if "unit" not in key.lower():
                continue
            match = _UNIT_KEY.fullmatch(key)
            if match and isinstance(value, str):
                quantity = (match[1] or match[2]).lower().replace("distance", "length")
                quantity = "forces" if quantity.startswith("force") else quantity
                if units.setdefault(quantity, value) != value:
                    raise UserError(
                        f"{path}: frames state {key}={units[quantity]} and {key}={value}", "Split the file."
                    )
            elif _OTHER_UNIT_KEY.fullmatch(key):
                text = f"{path.name}: the header says {key}={value}, which is not understood"
                notes.add(f"warning: {text}; declare dataset.energy_unit and length_unit")
    return units


def _factors(
    path: Path, entries: Sequence[dict[str, Any]], keys: _Keys, labels: Labels, notes: Notes, stated: Mapping[str, str]
) -> Factors:
    """Units: as declared, as header or database state them, as a program's comment line implies, else eV and Å."""
    program = entries[0].get(extxyz.PROGRAM)
    if program is not None and labels.energy_unit is None:
        notes.add(f"{path.name}: comment lines as {program} writes them: energies in hartree, positions in Å")
    sign = "gradient" if "gradient" in keys.chosen.get("forces", "").lower() else "forces"
    own = "eV" if program is None else "hartree"
    units = {**stated, **_stated_units(path, entries, notes)}
    return unit_factors(labels, energy=own, forces_sign=sign, stated=units, where=path.name, notes=notes)


def _convert(
    path: Path,
    start: int,
    batch: Sequence[Atoms],
    entries: Sequence[dict[str, Any]],
    keys: _Keys,
    labels: Labels,
    factors: Factors,
    notes: Notes,
) -> Chunk:
    energy, forces, stress, headers, masked = [], [], [], [], []
    used = {*keys.chosen.values(), extxyz.PROGRAM}
    free = zeroed = 0
    for number, (atoms, entry) in enumerate(zip(batch, entries, strict=True), start):
        where = f"{path}, frame {number}"
        atoms.calc = None
        values = {label: entry.get(key) for label, key in keys.chosen.items()}
        energy.append(_number(values.get("energy"), where, keys.chosen["energy"]) * factors.energy)
        force = _array(values.get("forces"), (len(atoms), 3), where, keys.chosen.get("forces", ""))
        if len(atoms) == 1 and not atoms.pbc.any() and np.isnan(force).all() and "forces" in keys.chosen:
            force, free = np.zeros((1, 3)), free + 1  # by symmetry
        held, zero = np.isin(np.arange(len(atoms)), held_atoms(atoms)), (force == 0).all(axis=1)
        if held.any() and zero[held].all() and not zero.all():
            zeroed, force = zeroed + 1, np.where(held[:, None], np.nan, force)
        else:
            held[:] = False
        masked.append(held)
        forces.append(force * factors.forces)
        atoms.positions *= factors.length
        atoms.cell *= factors.length
        stress.append(_stress(values.get("stress"), keys.chosen.get("stress", ""), atoms, labels, where, factors))
        headers.append({k: v for k, v in entry.items() if k not in used and np.ndim(v) == 0})
    if free:
        notes.add(f"{path.name}: free atoms without forces, which are zero by symmetry")
    if zeroed:
        notes.add(
            f"warning: {path.name}: in {zeroed} frames from frame {start} the atoms that a constraint holds have "
            "forces of exactly zero: the constraint's, not the reference method's. They are left out of loss and "
            "metrics (masked); true ones come with get_forces(apply_constraint=False) where the file is written"
        )
    frames = Frames.from_atoms(batch, energy, forces, np.array(stress))
    return Chunk(replace(frames, held=np.concatenate(masked)), headers)


def held_atoms(atoms: Atoms) -> Int:
    """Numbers of the atoms that ASE's ``FixAtoms`` holds: its writers store their forces as zero."""
    held = [np.asarray(c.index) for c in atoms.constraints if isinstance(c, FixAtoms)]
    return np.unique(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)


def _number(value: Any, where: str, key: str) -> float:
    if value is None:
        return float("nan")
    try:
        return float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: '{key}' is {str(value)[:60]!r}, not a number") from error


def _array(value: Any, shape: tuple[int, int], where: str, key: str) -> Float:
    if value is None:
        return np.full(shape, np.nan)
    array = _floats(value, where, key)
    if array.shape != shape:
        raise UserError(f"{where}: '{key}' has shape {array.shape}, expected {shape}")
    return array


def _floats(value: Any, where: str, key: str) -> Float:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: '{key}' does not hold numbers ({str(value)[:40]!r})") from error


def _stress(value: Any, key: str, atoms: Atoms, labels: Labels, where: str, factors: Factors) -> Float:
    """(6,) eV/Å³, ASE's order and sign; a virial (eV) is −stress·volume."""
    if value is None:
        return np.full(6, np.nan)
    tensor = _floats(value, where, key)
    if tensor.size == 9:
        tensor = full_3x3_to_voigt_6_stress(tensor.reshape(3, 3))
    if tensor.shape != (6,):
        raise UserError(f"{where}: '{key}' has shape {tensor.shape}, expected (6,) or (3, 3)")
    if labels.stress_order is not None:
        tensor = reorder(tensor, labels.stress_order)
    if "virial" in key.lower():
        if atoms.cell.rank < 3:
            raise UserError(f"{where}: has a virial ('{key}') but no cell to turn it into a stress")
        sign = 1 if labels.stress_sign == "compression" else -1
        return np.asarray(sign * tensor * factors.energy / atoms.get_volume())
    return np.asarray(tensor * factors.stress)


def _database(path: Path, index: str) -> Iterator[Atoms]:
    """Rows of an ASE database, with their key-value pairs and ``data``, where SchNetPack keeps labels, as headers."""
    from ase.db import connect

    database = connect(path, use_lock_file=False)
    selection = Selection.of(index)
    if selection.counts_from_the_end:
        selection = selection.within(len(database))
    for number, row in enumerate(database.select()):
        if selection.ended(number):
            return
        if selection.wants(number):
            atoms = row.toatoms()
            atoms.info.update({k: v for k, v in {**row.key_value_pairs, **row.data}.items() if v is not None})
            yield atoms


def _database_units(path: Path) -> dict[str, str]:
    """Units that SchNetPack writes into the metadata of an ASE database."""
    from ase.db import connect

    try:
        metadata = connect(path, use_lock_file=False).metadata
    except Exception:  # not a database; reading it says so
        return {}
    units = {str(k): str(v) for k, v in dict(metadata.get("_property_unit_dict") or {}).items() if v}
    named = {label: next((units[k] for k in keys if k in units), None) for label, keys in _KNOWN.items()}
    named["length"] = metadata.get("_distance_unit")
    return {label: str(unit) for label, unit in named.items() if unit}


__all__ = ["ENERGY_KEYS", "FORCES_KEYS", "STRESS_KEYS", "read_ase", "read_extxyz"]
