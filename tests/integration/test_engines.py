"""Engines around an ASE calculator: energies, pressures and trajectories are ASE's; what goes wrong is said.

LAMMPS and i-PI come from their own environments (``mlpbench env build lammps ipi``); without them they are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from mlpbench.backends.engines import places_of
from mlpbench.config import load_backends
from mlpbench.errors import UserError
from mlpbench.worker.adapter import Unavailable
from mlpbench.worker.adapters import _pair_styles
from mlpbench.worker.engines import ipi_md, lammps_md, native

PLACES = places_of(("lammps", "ipi", "ase"), load_backends([]), None)
needs_lammps = pytest.mark.skipif(bool(PLACES["lammps"].reason), reason=PLACES["lammps"].reason or "there")
needs_ipi = pytest.mark.skipif(bool(PLACES["ipi"].reason), reason=PLACES["ipi"].reason or "there")


def moving(name: str) -> Atoms:
    atoms = {"cubic": bulk("Cu", cubic=True) * (2, 2, 2), "sheared": bulk("Cu") * (2, 2, 2),
             "molecule": molecule("CH3CH2OH")}[name]  # fmt: skip
    atoms.rattle(0.05, seed=1)
    generator = np.random.default_rng(0)
    atoms.set_momenta(generator.standard_normal((len(atoms), 3)))
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    return atoms


def ase_energies(start: Atoms, steps: int) -> list[float]:
    atoms = start.copy()
    atoms.calc = EMT()
    dynamics, found = VelocityVerlet(atoms, units.fs), [atoms.get_potential_energy()]
    for _ in range(steps):
        dynamics.run(1)
        found.append(atoms.get_potential_energy())
    return found


def opened(calculator: Calculator, start: Atoms, folder: Path, stress: bool = True) -> lammps_md.Lammps:
    standing = lammps_md.standing(start)
    lammps_md.write_data(folder / "start.data", standing)
    lammps = lammps_md.Lammps(calculator, standing, stress=stress)
    for line in [*lammps_md.system_lines(standing, str(folder / "start.data"), 5.0), "timestep 0.001"]:
        lammps.command(line)
    return lammps


@pytest.fixture
def lammps_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, PLACES["lammps"].site])


@needs_lammps
@pytest.mark.usefixtures("lammps_site")
@pytest.mark.parametrize("name", ["cubic", "sheared", "molecule"])
def test_lammps_moves_the_atoms_as_ase_does(tmp_path: Path, name: str) -> None:
    start = moving(name)
    lammps = opened(EMT(), start, tmp_path)
    lammps.command("fix move all nve")
    lammps.command("run 0 post no")
    found = [lammps.value("pe")]
    if start.pbc.all():
        resting = start.copy()
        resting.calc = EMT()
        pressure = -resting.get_stress(include_ideal_gas=True)[:3].mean() / units.bar
        assert lammps.value("press") == pytest.approx(pressure, rel=1e-5)
    for _ in range(10):
        lammps.command("run 1 post no")
        found.append(lammps.value("pe"))
    lammps.close()
    np.testing.assert_allclose(found, ase_energies(start, 10), atol=1e-6)


class Failing(EMT):
    """A potential that fails at its third call."""

    calls = 0

    def calculate(self, *arguments: Any, **more: Any) -> None:
        self.calls += 1
        if self.calls == 3:
            raise ValueError("an element that I do not know")
        super().calculate(*arguments, **more)


@needs_lammps
@pytest.mark.usefixtures("lammps_site")
def test_an_error_of_the_potential_ends_the_run_and_constant_pressure_needs_a_stress(tmp_path: Path) -> None:
    lammps = opened(Failing(), moving("cubic"), tmp_path)
    lammps.command("fix move all nve")
    with pytest.raises(ValueError, match="an element that I do not know"):
        lammps.command("run 10")
    lammps.close()
    lammps = opened(EMT(), moving("cubic"), tmp_path, stress=False)
    with pytest.raises(RuntimeError, match="fix npt needs a stress"):
        lammps.command("fix bath all npt temp 300 300 0.1 iso 0 0 1")
    with pytest.raises(RuntimeError, match="'jump' cannot be used here"):
        lammps.command("jump SELF loop")
    lammps.close()


@needs_ipi
@pytest.mark.parametrize("name", ["sheared", "molecule"])
def test_ipi_moves_the_atoms_as_ase_does(tmp_path: Path, name: str) -> None:
    start = moving(name)
    atoms = lammps_md.standing(start) if start.pbc.any() else start.copy()
    ipi_md.write_positions(tmp_path / "start.xyz", atoms)
    address = f"test-{tmp_path.name}-{name}"
    text = ipi_md.system_input(
        atoms, address, steps=5, time_step_fs=1.0, temperature_K=300, friction_per_ps=None, velocities=True
    )
    (tmp_path / "input.xml").write_text(text, encoding="utf-8")
    atoms.calc = calculator = EMT()
    program = Path(PLACES["ipi"].python).with_name("i-pi")
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen([str(program), "input.xml"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        try:
            found = [float(calculator.results["energy"]) for _ in ipi_md.serve(atoms, address)]
            assert server.wait(60) == 0
        finally:
            server.kill()
    np.testing.assert_allclose(found, ase_energies(start, 5), atol=1e-5)  # its units have other digits


HELP = """#!/bin/sh
cat <<'END'
Large-scale Atomic/Molecular Massively Parallel Simulator - made up

Installed packages:

MANYBODY ML-IAP {python}

* Pair styles:

eam             lj/cut          mliap           {style}

* Bond styles:

none
END
"""


def made_up(folder: Path, style: str, python: str = "") -> list[str]:
    program = folder / "lmp"
    program.write_text(HELP.format(style=style, python=python), encoding="utf-8")
    program.chmod(0o755)
    return [str(program)]


def test_a_lammps_is_asked_for_its_pair_styles(tmp_path: Path) -> None:
    styles = ("mliap unified", "mace")
    assert _pair_styles.choose(styles, native.ask_styles(made_up(tmp_path, "mace"), {})) == "mace"
    assert _pair_styles.choose(styles, native.ask_styles(made_up(tmp_path, "mace", "PYTHON"), {})) == "mliap unified"
    with pytest.raises(Unavailable, match="none of the pair styles mliap unified, mace"):
        _pair_styles.choose(styles, native.ask_styles(made_up(tmp_path, "sw"), {}))
    with pytest.raises(Unavailable, match="cannot be asked"):
        native.ask_styles([str(tmp_path / "nothing")], {})


def test_an_engine_without_an_environment_has_a_reason_and_a_missing_lammps_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path))
    backends = load_backends(["backend.ipi.pythonpath=[/]"])  # another configuration than that which was asked before
    place = places_of(("ipi",), backends, None)["ipi"]
    assert "mlpbench env build ipi" in place.reason
    assert place.lock != PLACES["ipi"].lock
    with pytest.raises(UserError, match="there is no program"):
        places_of(("lammps",), backends, "/no/such/lmp -k on")
    found = places_of(("lammps",), backends, "/bin/sh -k on")["lammps"]
    assert found.to_dict()["command"] == "/bin/sh -k on"
