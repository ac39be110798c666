"""i-PI with the energies and forces of an ASE calculator, through a Unix socket.

i-PI itself (PyPI: ``ipi``) may lie in an environment of its own: the two processes share nothing but the socket.
"""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.socketio import SocketClient

BOX = 1000.0  # Å, of a system without periodicity: i-PI wants a cell
ATOMIC_TIME_FS = 0.02418884326509
PREFIX = "/tmp/ipi_"  # where i-PI and ASE keep Unix sockets


def write_positions(path: Path, atoms: Atoms) -> None:
    """Positions in i-PI's xyz form.

    Args:
        path: to write.
        atoms: in a cell whose first vector is along x and second in xy; one without periodicity needs none.
    """
    cell = atoms.cell if atoms.pbc.any() else Atoms(cell=[BOX] * 3).cell
    shown = " ".join(f"{value:.10f}" for value in cell.cellpar())
    lines = [str(len(atoms)), f"# CELL(abcABC): {shown} positions{{angstrom}} cell{{angstrom}}"]
    for symbol, (x, y, z) in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True):
        lines.append(f"{symbol} {x:.12f} {y:.12f} {z:.12f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def system_input(
    atoms: Atoms, address: str, *, steps: int, time_step_fs: float, temperature_K: float, friction_per_ps: float | None,
    velocities: bool, beads: int = 1, every: int = 1, frames_every: int = 0,
) -> str:  # fmt: skip
    """An ``input.xml``.

    Args:
        atoms: whose masses, and velocities if asked for, are used; positions are in ``start.xyz``.
        address: of the socket, below :data:`PREFIX`.
        steps: to take.
        time_step_fs: their length.
        temperature_K: of the bath, and of the start where ``velocities`` is False.
        friction_per_ps: of a Langevin bath; None: constant energy.
        velocities: start from those of ``atoms``, and not from drawn ones.
        beads: of the ring polymer; 1: classical nuclei.
        every: steps between lines of properties.
        frames_every: steps between written positions; 0: none.
    """
    start = f"<velocities mode='thermal' units='kelvin'> {temperature_K:g} </velocities>"
    if velocities:
        atomic = atoms.get_velocities() * (units.fs * ATOMIC_TIME_FS) / units.Bohr
        start = f"<velocities mode='manual'> {_array(atomic.ravel())} </velocities>"
    masses = f"<masses mode='manual' units='dalton'> {_array(atoms.get_masses())} </masses>"
    bath = "nve" if friction_per_ps is None else "nvt"
    thermostat = ""
    if friction_per_ps is not None:
        kind, tau = "langevin" if beads == 1 else "pile_l", 1000 / friction_per_ps
        thermostat = f"<thermostat mode='{kind}'> <tau units='femtosecond'> {tau:g} </tau> </thermostat>"
    shown = "[ step, time{femtosecond}, conserved{electronvolt}, potential{electronvolt}, temperature{kelvin} ]"
    frames = f"<trajectory filename='pos' stride='{frames_every}' format='xyz'> positions{{angstrom}} </trajectory>"
    return f"""<simulation verbosity='low'>
  <output prefix='ipi'>
    <properties stride='{every}' filename='out'> {shown} </properties>
    {frames if frames_every else ""}
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> 31415 </seed> </prng>
  <ffsocket mode='unix' name='driver' pbc='False'>
    <address> {address} </address>
    <latency> 1e-4 </latency>
    <timeout> 600 </timeout>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz'> start.xyz </file>
      {masses}
      {start}
    </initialize>
    <forces> <force forcefield='driver'/> </forces>
    <motion mode='dynamics'>
      <fixcom> False </fixcom>
      <dynamics mode='{bath}'> <timestep units='femtosecond'> {time_step_fs:g} </timestep> {thermostat} </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> {temperature_K:g} </temperature> </ensemble>
  </system>
</simulation>
"""


def _array(values: np.ndarray) -> str:
    return "[ " + ", ".join(f"{value:.12e}" for value in values) + " ]"


def serve(atoms: Atoms, address: str, wait_seconds: float = 60.0, stress: bool = False) -> Iterator[float]:
    """Answer i-PI until it ends; yields the time (s, of a running clock) after each evaluation.

    Args:
        atoms: with its calculator; the positions of the last evaluation stand in it.
        address: of the socket, below :data:`PREFIX`.
        wait_seconds: for i-PI to open it.
        stress: send the virial too, which constant pressure needs.

    Raises:
        TimeoutError: there is nobody at that address.
    """
    end = time.monotonic() + wait_seconds
    while not _listens(address):
        if time.monotonic() > end:
            raise TimeoutError(f"i-PI did not open {PREFIX}{address} within {wait_seconds:g} s")
        time.sleep(0.05)
    if not atoms.pbc.any():
        atoms.calc = _Unboxed(atoms.calc)
    client = SocketClient(unixsocket=address)
    for _ in client.irun(atoms, use_stress=stress):
        yield time.perf_counter()


class _Unboxed:
    """A calculator that sees no cell: i-PI's, around a structure without periodicity, is empty space to be searched."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator

    def get_potential_energy(self, atoms: Atoms) -> float:
        """See ASE."""
        return float(self.calculator.get_potential_energy(self._alone(atoms)))

    def get_forces(self, atoms: Atoms) -> np.ndarray:
        """See ASE."""
        forces: np.ndarray = self.calculator.get_forces(self._alone(atoms))
        return forces

    def _alone(self, atoms: Atoms) -> Atoms:
        return Atoms(atoms.numbers, positions=atoms.positions)


def _listens(address: str) -> bool:
    if not Path(PREFIX + address).exists():
        return False
    with socket.socket(socket.AF_UNIX) as end:
        return not end.connect_ex(PREFIX + address)
