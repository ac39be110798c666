"""The scripts of an exported folder: what they say, and which packages they need."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mlpbench.worker.engines import ipi_md, lammps_md

ENGINES = ("ase", "lammps", "ipi", "torchsim")
DYNAMICS = '''\
"""Molecular dynamics from a structure: python md.py start.xyz [--temperature 300] [--steps 1000] [--device cpu]"""

import argparse

import numpy as np
from ase import units
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from potential import calculator, warnings_for

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("start")
parser.add_argument("--temperature", type=float, default=300.0, help="K")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--timestep", type=float, default={step:g}, help="fs; {step_word}")
parser.add_argument("--device", default="cpu")
parser.add_argument("--out", default="md.traj")
given = parser.parse_args()

atoms = read(given.start)
atoms.calc = calculator(given.device)
rng = np.random.default_rng(0)
MaxwellBoltzmannDistribution(atoms, temperature_K=given.temperature, rng=rng)
Stationary(atoms)
bath = {{"temperature_K": given.temperature, "friction": 0.01 / units.fs, "rng": rng}}
dynamics = Langevin(atoms, given.timestep * units.fs, **bath)
dynamics.attach(Trajectory(given.out, "w", atoms).write, interval=10)


def say():
    kelvin = atoms.get_temperature()
    energy = atoms.get_potential_energy()
    print(f"step {{dynamics.nsteps:6d}}  E {{energy:.4f}} eV  T {{kelvin:.0f}} K", *warnings_for(atoms))


dynamics.attach(say, interval=100)
dynamics.run(given.steps)
'''
RUN_LAMMPS = '''\
"""LAMMPS with this potential: python run_lammps.py start.xyz [in.lammps] [--var temperature 500] [--device cpu]

LAMMPS asks the potential's ASE calculator for forces (fix external), in one process. in.lammps is an ordinary input;
its commands are passed one by one, so that jump, label and next are not available.
"""

import argparse
from pathlib import Path

from ase.io import read
from lammps_md import Lammps, elements_of, standing, write_data
from potential import calculator, warnings_for

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("start")
parser.add_argument("input", nargs="?", default="in.lammps")
parser.add_argument("--var", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
parser.add_argument("--device", default="cpu")
given = parser.parse_args()

atoms = standing(read(given.start))
print(*warnings_for(atoms))
write_data(Path("start.data"), atoms)
variables = {
    "data": "start.data", "elements": '"' + " ".join(elements_of(atoms)) + '"',
    "boundary": '"' + " ".join("p" if periodic else "s" for periodic in atoms.pbc) + '"', **dict(given.var),
}
lammps = Lammps(calculator(given.device), atoms, screen=True)
lammps.file(Path(given.input), variables)
print(f"potential energy {lammps.value('pe'):.8f} eV at the last step")
lammps.close()
'''
IN_LAMMPS = """\
# {title}: molecular dynamics with LAMMPS. python run_lammps.py start.xyz in.lammps
# Energies in eV, distances in Å, times in ps. data, elements and boundary are set by run_lammps.py.
variable temperature index 300
variable steps index 1000
{system}
mass_line
velocity all create ${{temperature}} 4928459 mom yes rot no
timestep {step:g}
fix move all nve
fix bath all langevin ${{temperature}} ${{temperature}} 0.1 48279
thermo 100
thermo_style custom step time pe ke etotal temp press
dump frames all custom 100 md.lammpstrj id element x y z vx vy vz fx fy fz
dump_modify frames sort id element ${{elements}}
run ${{steps}}
""".replace("mass_line\n", "")
RUN_IPI = '''\
"""i-PI with this potential: python run_ipi.py start.xyz [--beads 1] [--steps 1000] [--temperature 300] [--i-pi PATH]

Writes ipi/start.xyz and ipi/input.xml for the structure, starts i-PI on them and answers it. With --beads 16 the nuclei
are quantum-mechanical (path integrals). i-PI may lie in an environment of its own: --i-pi /path/to/its/bin/i-pi.
ipi/input.xml is one for start.xyz; where an i-pi runs it already, python run_ipi.py start.xyz --answer potential
only answers it.
"""

import argparse
import subprocess
from pathlib import Path

from ase.io import read
from ipi_md import serve, system_input, write_positions
from lammps_md import standing
from potential import calculator, warnings_for

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("start")
parser.add_argument("--beads", type=int, default=1)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--temperature", type=float, default=300.0, help="K")
parser.add_argument("--timestep", type=float, default={step:g}, help="fs")
parser.add_argument("--i-pi", default="i-pi")
parser.add_argument("--device", default="cpu")
parser.add_argument("--answer", metavar="NAME", help="start no i-PI: answer the one at the socket /tmp/ipi_NAME")
given = parser.parse_args()

atoms = read(given.start)
print(*warnings_for(atoms))
atoms = standing(atoms) if atoms.pbc.any() else atoms
atoms.calc = calculator(given.device)
server = None
if given.answer is None:
    folder = Path("ipi")
    folder.mkdir(exist_ok=True)
    write_positions(folder / "start.xyz", atoms)
    text = system_input(
        atoms, "potential", steps=given.steps, time_step_fs=given.timestep, temperature_K=given.temperature,
        friction_per_ps=10.0, velocities=False, beads=given.beads, every=10, frames_every=100,
    )
    (folder / "input.xml").write_text(text, encoding="utf-8")
    server = subprocess.Popen([given.i_pi, "input.xml"], cwd=folder)
answered = sum(1 for _ in serve(atoms, given.answer or "potential", stress=bool(atoms.pbc.all())))
print(f"{{answered}} evaluations; see ipi/ipi.out and ipi/ipi.pos_*")
if server is not None:
    raise SystemExit(server.wait(60))
'''
RUN_TORCHSIM = '''\
"""torch-sim with this potential: python run_torchsim.py start.xyz [--replicas 1] [--steps 1000] [--temperature 300]

All replicas are computed {batched}.
"""

import argparse

import numpy as np
from ase.io import read, write
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from potential import HERE, REFERENCE
from torchsim_md import AseModel, Dynamics, Referenced  # noqa: F401  # one of the models is used

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("start")
parser.add_argument("--replicas", type=int, default=1)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--temperature", type=float, default=300.0, help="K")
parser.add_argument("--timestep", type=float, default={step:g}, help="fs")
parser.add_argument("--device", default="cpu")
parser.add_argument("--out", default="torchsim.xyz", help="last structures")


{code}

def model(device="cpu"):
    """A torch-sim model whose energies are those of the data set."""
    return Referenced(package_torchsim(HERE, device), REFERENCE)


if __name__ == "__main__":
    given = parser.parse_args()
    replicas = [read(given.start) for _ in range(given.replicas)]
    for number, atoms in enumerate(replicas):
        MaxwellBoltzmannDistribution(atoms, temperature_K=given.temperature, rng=np.random.default_rng(number))
        Stationary(atoms)
    dynamics = Dynamics(replicas, model(given.device), given.timestep, given.temperature, friction_per_ps=10.0)
    done = 0
    while done < given.steps:
        part = min(100, given.steps - done)
        dynamics.run(part)
        done += part
        print(f"step {{done:6d}}  E {{np.array2string(dynamics.potential_energies()[:8], precision=4)}} eV")
    write(given.out, dynamics.state.to_atoms())
'''
ONE_BY_ONE = """\
def package_torchsim(folder, device):
    from potential import package_calculator

    return AseModel(package_calculator(folder, device), device)
"""
REQUIREMENTS = {
    "lammps": ["lammps[mpi]==2025.7.22.2.0"],
    "ipi": ["ipi==3.3.1"],
    "torchsim": ["torch-sim-atomistic==0.6.2"],
}


@dataclass(frozen=True)
class Facts:
    """What the scripts are written for.

    Attributes:
        title: of the potential.
        step_fs: time step.
        step_word: what it rests on.
        torchsim: source of the package's own torch-sim model; empty: there is none.
    """

    title: str
    step_fs: float
    step_word: str
    torchsim: str


def _source(module: ModuleType | str) -> str:
    if isinstance(module, str):  # one that the core cannot import
        folder = Path(str(lammps_md.__file__)).parent
        return (folder / f"{module}.py").read_text(encoding="utf-8")
    return inspect.getsource(module)


def _ase(facts: Facts) -> dict[str, str]:
    return {"md.py": DYNAMICS.format(step=facts.step_fs, step_word=facts.step_word)}


def _lammps(facts: Facts) -> dict[str, str]:
    from ase import Atoms

    lines = lammps_md.system_lines(Atoms(), "${data}", 5.0)
    system = "\n".join("boundary ${boundary}" if line.startswith("boundary") else line for line in lines)
    text = IN_LAMMPS.format(title=facts.title, system=system, step=facts.step_fs / 1000)
    return {"in.lammps": text, "run_lammps.py": RUN_LAMMPS, "lammps_md.py": _source(lammps_md)}


def _ipi(facts: Facts) -> dict[str, str]:
    return {"run_ipi.py": RUN_IPI.format(step=facts.step_fs), "ipi_md.py": _source(ipi_md),
            "lammps_md.py": _source(lammps_md)}  # fmt: skip


def _torchsim(facts: Facts) -> dict[str, str]:
    batched = (
        "in one forward pass" if facts.torchsim else "one after the other, since the package has no torch-sim model"
    )
    code = facts.torchsim or ONE_BY_ONE
    return {"run_torchsim.py": RUN_TORCHSIM.format(step=facts.step_fs, batched=batched, code=code),
            "torchsim_md.py": _source("torchsim_md")}  # fmt: skip


FILES: dict[str, Callable[[Facts], dict[str, str]]] = {
    "ase": _ase, "lammps": _lammps, "ipi": _ipi, "torchsim": _torchsim,
}  # fmt: skip


def commands(engine: str) -> list[str]:
    """The command that installs what an engine needs beside the potential, and the one that runs it."""
    run = {
        "ase": "python md.py start.xyz --temperature 300 --steps 1000",
        "lammps": "python run_lammps.py start.xyz in.lammps",
        "ipi": "python run_ipi.py start.xyz --steps 1000",
        "torchsim": "python run_torchsim.py start.xyz --replicas 4",
    }[engine]
    install = "requirements.txt" if engine == "ase" else f"requirements-{engine}.txt"
    return [f"pip install -r {install}", run]
