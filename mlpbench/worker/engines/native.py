"""LAMMPS with a pair style of the package's own: that of the engine's environment, or one that the user compiled.

LAMMPS runs as a program of its own, in as many processes as asked for; energies and times are read from its log.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlpbench.frames import Float
from mlpbench.worker.adapter import Adapter, PairStyle, Unavailable
from mlpbench.worker.clock import Clock
from mlpbench.worker.engines import lammps_md

PAIR_STYLE = "pair style"
ADOPTED = "pair style of the LAMMPS named in engine.lammps.command"
LOG = "log.lammps"
SECONDS = 1800.0


def bath(kelvin: float, friction_per_ps: float) -> list[str]:
    """Commands of a Langevin bath."""
    return [f"fix bath all langevin {kelvin:g} {kelvin:g} {1 / friction_per_ps:g} 48279"]


def system(atoms: Atoms, data: str, pair: PairStyle) -> list[str]:
    """Commands that define the system with a pair style of the package's own."""
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    elements = " ".join(lammps_md.elements_of(atoms))
    return [
        "units metal", "atom_style atomic", f"newton {pair.newton}", "atom_modify map yes", f"boundary {boundary}",
        f"read_data {data}", *(line.format(elements=elements) for line in pair.lines), "neighbor 1.0 bin",
    ]  # fmt: skip


def ask_styles(command: Sequence[str], variables: dict[str, str]) -> set[str]:
    """Pair styles that a LAMMPS knows, from its own help; ``mliap unified`` where its ``mliap`` has Python.

    Raises:
        Unavailable: it cannot be started, or says nothing of pair styles.
    """
    try:
        done = subprocess.run(
            [*command, "-h"], capture_output=True, text=True, errors="replace", timeout=60, check=False,
            env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be asked for its styles: {error}") from error
    found = re.search(r"\* Pair styles\s*:?\s*\n(.*?)\n\s*\* ", done.stdout, re.DOTALL)
    if found is None:
        last = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{command[0]} -h lists no pair styles: {last[-1] if last else 'it printed nothing'}")
    styles = set(found[1].split())
    return styles | ({"mliap unified"} if "mliap" in styles and re.search(r"\bPYTHON\b", done.stdout) else set())


class NativeLammps:
    """See :class:`mlpbench.worker.tasks.engines.Engine`.

    Args:
        adapter: which writes the potential in the form of a pair style.
        start: the system.
        options: of the task ``speed_engine``; ``way`` has ``ranks`` and ``site``, or the user's ``command``.
        friction_per_ps: of the bath.

    Raises:
        Unavailable: the package has no pair style that this LAMMPS knows.
    """

    def __init__(self, adapter: Adapter, start: Atoms, options: dict[str, Any], friction_per_ps: float) -> None:
        way = options["way"]
        self.variables: dict[str, str]
        self.folder, self.options, self.friction = adapter.directory, options, friction_per_ps
        if way["means"] == ADOPTED:
            command, self.variables = shlex.split(way["command"]), {}
        else:
            command, self.variables = _program(Path(way["site"]))
        own: Collection[str] = adapter.pair_styles
        if not own:
            raise Unavailable("the package has no pair style that mlpbench writes")
        pair = adapter.pair_style(self.folder, ask_styles(command, self.variables))
        for name, value in pair.variables.items():
            before = self.variables.get(name) if name.startswith("LD_") else None  # lists of paths
            self.variables[name] = ":".join(part for part in (value, before) if part)
        self.variables["OMP_NUM_THREADS"] = str(adapter.request.threads)
        self.command = [*_launcher(way, self.variables), *command, *pair.arguments]
        self.start = lammps_md.standing(start)
        lammps_md.write_data(self.folder / "start.data", self.start)
        self.lines = [*system(self.start, "start.data", pair), f"timestep {options['timestep_fs'] / 1000:g}"]

    def energies(self, steps: int) -> Float:
        """Potential energies (steps + 1,) eV, from the log."""
        moves = ["fix move all nve", "thermo_style custom step pe etotal", "thermo_modify format float %.12g"]
        text = self._run([*self.lines, *moves, "thermo 1", f"run {steps}"])
        found = re.findall(r"^\s*(\d+)\s+(\S+)\s+\S+\s*$", text, re.MULTILINE)
        energies = np.array([float(energy) for _, energy in found][: steps + 1])
        if len(energies) != steps + 1:
            raise RuntimeError(f"LAMMPS wrote {len(energies)} of {steps + 1} energies: {text.strip().splitlines()[-1]}")
        return energies

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """By LAMMPS's own clock (``Loop time``)."""
        moves = ["fix move all nve", *bath(self.options["temperature_K"], self.friction), f"thermo {steps}"]
        runs = [f"run {steps}"] * (clock.blocks + 1)
        text = self._run([*self.lines, *moves, *runs])
        loops = re.findall(r"^Loop time of (\S+) on \d+ procs for (\d+) steps", text, re.MULTILINE)
        return [float(seconds) / int(count) for seconds, count in loops][1:]

    def _run(self, lines: list[str]) -> str:
        (self.folder / "in.lammps").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / LOG).unlink(missing_ok=True)
        arguments = [*self.command, "-in", "in.lammps", "-log", LOG, "-screen", "none"]
        done = subprocess.run(
            arguments, cwd=self.folder, env={**os.environ, **self.variables}, capture_output=True, text=True,
            errors="replace", timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        log = self.folder / LOG
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        if done.returncode != 0:
            said = [line for line in (text + done.stderr).splitlines() if "ERROR" in line] or done.stderr.splitlines()
            raise RuntimeError(f"LAMMPS ended with code {done.returncode}: {said[0] if said else 'it printed nothing'}")
        return text


def _program(site: Path) -> tuple[list[str], dict[str, str]]:
    """The LAMMPS of an engine's environment, and where it finds its libraries."""
    libraries = [str(site.parents[2] / "lib"), *(str(path) for path in site.glob("nvidia/*/lib"))]
    libraries += [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry]
    return [str(site / "lammps" / "lmp")], {"LD_LIBRARY_PATH": ":".join(libraries)}


def _launcher(way: dict[str, Any], variables: dict[str, str]) -> list[str]:
    if way["ranks"] == 1:
        return []
    own = Path(way["site"]).parents[2] / "bin" / "mpiexec" if way.get("site") else Path("mpiexec")
    return [str(own) if own.is_file() else "mpiexec", "-n", str(way["ranks"])]
