"""Trajectories for other tools: clips of deaths, and whole runs as extxyz, ASE's .traj or LAMMPS dumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from mlpbench.evaluators.md.runs import Fate, Run, atoms_of

CLIP_FS = 1000.0  # before a death ...
CLIP_FRAMES = 20  # ... but at least so many, so that one can look at how


def last_frames(folder: Path, run: Run, fates: list[Fate]) -> None:
    """``death-<run>-<replica>.xyz``: the last picosecond up to and with the frame that failed.

    Clips of an earlier scoring are removed.
    """
    _clear(folder, f"death-{run.name}", ("xyz",))
    for index, fate in enumerate(fates):
        if fate.died:
            replica = run.replica(index)
            stop = min(fate.frames + 1, replica.frames)
            begin = int(np.searchsorted(replica.time_fs[:stop], replica.time_fs[stop - 1] - CLIP_FS))
            frames = atoms_of(run, index, range(max(0, min(begin, stop - CLIP_FRAMES)), stop))
            frames[-1].info["cause"] = fate.cause
            write(folder / f"death-{run.name}-{index:03d}.xyz", frames, format="extxyz")


def whole_trajectories(folder: Path, run: Run, formats: Sequence[str]) -> None:
    """``trajectory-<run>-<replica>.<ending>``: every stored frame, in each of ``formats``.

    Args:
        folder: of the trial's runs.
        run: whose replicas are written.
        formats: of :data:`FORMATS`.
    """
    _clear(folder, f"trajectory-{run.name}", tuple(ending for ending, _ in FORMATS.values()))
    for index in range(len(run)):
        frames = atoms_of(run, index, range(run.replica(index).frames))
        for name in dict.fromkeys(formats):
            ending, write_to = FORMATS[name]
            write_to(folder / f"trajectory-{run.name}-{index:03d}.{ending}", frames)


def _extxyz(path: Path, frames: list[Atoms]) -> None:
    write(path, frames, format="extxyz")


def _traj(path: Path, frames: list[Atoms]) -> None:
    write(path, frames, format="traj")


def write_dump(path: Path, frames: list[Atoms]) -> None:
    """A LAMMPS text dump: id, type, element, unwrapped positions (Å) and, where they are known, forces (eV/Å).

    Types count the elements in alphabetic order, TIMESTEP is the time in fs. LAMMPS's boxes have their first vector
    along x and the second in xy: frames in another cell are rotated. What has no cell gets the box of its extent.

    Source of the layout: https://docs.lammps.org/dump.html
    """
    symbols = frames[0].get_chemical_symbols()
    types = {symbol: number for number, symbol in enumerate(sorted(set(symbols)), start=1)}
    with open(path, "w", encoding="utf-8") as stream:
        for atoms in frames:
            rows = [atoms.positions]
            forces = {} if atoms.calc is None else atoms.calc.results
            if "forces" in forces:
                rows.append(forces["forces"])
            box, rows = _box(atoms, rows)
            names = "id type element xu yu zu" + (" fx fy fz" if len(rows) > 1 else "")
            time = round(float(atoms.info["time_fs"]))
            stream.write(f"ITEM: TIMESTEP\n{time}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n{box}")
            stream.write(f"ITEM: ATOMS {names}\n")
            values = np.concatenate(rows, axis=1)
            for number, (symbol, row) in enumerate(zip(symbols, values, strict=True), start=1):
                shown = " ".join(f"{value:.8g}" for value in row)
                stream.write(f"{number} {types[symbol]} {symbol} {shown}\n")


def _box(atoms: Atoms, rows: list[np.ndarray]) -> tuple[str, list[np.ndarray]]:
    """The lines of the box, and ``rows`` (N, 3) turned into it."""
    ends = " ".join("pp" if periodic else "ss" for periodic in atoms.pbc)
    if atoms.cell.rank < 3:
        low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
        sides = "".join(f"{a:.10g} {b:.10g}\n" for a, b in zip(low, high, strict=True))
        return f"ITEM: BOX BOUNDS {ends}\n{sides}", rows
    cell, rotation = atoms.cell.standard_form()
    (x, _, _), (xy, y, _), (xz, yz, z) = np.asarray(cell)
    turned = [row @ np.asarray(rotation).T for row in rows]
    if abs(xy) + abs(xz) + abs(yz) < 1e-10:
        return f"ITEM: BOX BOUNDS {ends}\n0 {x:.10g}\n0 {y:.10g}\n0 {z:.10g}\n", turned
    lines = [
        (min(0, xy, xz, xy + xz), x + max(0, xy, xz, xy + xz), xy), (min(0, yz), y + max(0, yz), xz), (0, z, yz),
    ]  # fmt: skip
    sides = "".join(f"{low:.10g} {high:.10g} {tilt:.10g}\n" for low, high, tilt in lines)
    return f"ITEM: BOX BOUNDS xy xz yz {ends}\n{sides}", turned


# name -> ending of the file and what writes it
FORMATS: dict[str, tuple[str, Callable[[Path, list[Atoms]], None]]] = {
    "extxyz": ("xyz", _extxyz), "traj": ("traj", _traj), "dump": ("lammpstrj", write_dump),
}  # fmt: skip


def _clear(folder: Path, stem: str, endings: Sequence[str]) -> None:
    for ending in endings:
        for old in folder.glob(f"{stem}-[0-9][0-9][0-9].{ending}"):
            old.unlink()
