"""Nudged elastic bands, and what is read of them, against potentials whose saddles are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read, write

from mlpbench.cli import main
from mlpbench.cli.properties import taken
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.properties import both, reference_values, score
from mlpbench.properties import PROPERTIES, Labelled, compare
from mlpbench.quantities import QUANTITIES
from mlpbench.units import BOLTZMANN
from mlpbench.worker.tasks.bands import bands, spread

SCALE = 0.01  # eV for one unit of Müller and Brown's surface
MINIMA = (-0.558224, 1.441726), (-0.050011, 0.466694)
HEIGHTS = -146.699517, -80.767818
SADDLE, TOP = (-0.822002, 0.624313), -40.664844


class MullerBrown(Calculator):
    """Müller & Brown, Theor. Chim. Acta 53, 75 (1979), with a spring that keeps the atom in the plane."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        x, y, z = atoms.positions[0] - np.array([5.0, 5.0, 5.0])
        height = np.array([-200.0, -100.0, -170.0, 15.0])
        a, b, c = np.array([-1, -1, -6.5, 0.7]), np.array([0, 0, 11, 0.6]), np.array([-10, -10, -6.5, 0.7])
        dx, dy = x - np.array([1, 0, -0.5, -1]), y - np.array([0, 0.5, 1.5, 1])
        terms = height * np.exp(a * dx**2 + b * dx * dy + c * dy**2)
        energy = SCALE * float(terms.sum()) + z**2
        slope = SCALE * np.array([(terms * (2 * a * dx + b * dy)).sum(), (terms * (b * dx + 2 * c * dy)).sum()])
        self.results = {"energy": energy, "free_energy": energy, "forces": np.array([[*-slope, -2 * z]])}


def method() -> Any:
    """The calculator, untyped as ASE's are."""
    return MullerBrown()  # type: ignore[no-untyped-call]


def straight(count: int = 9) -> list[Atoms]:
    """Structures on the straight line between the two minima."""
    made = []
    for share in np.linspace(0, 1, count):
        x, y = (1 - share) * np.array(MINIMA[0]) + share * np.array(MINIMA[1])
        made.append(Atoms("H", positions=[[5 + x, 5 + y, 5]], cell=[10.0] * 3, pbc=True, info={"property": "neb:mb"}))
    return made


def test_the_band_finds_the_saddle_of_muller_and_brown() -> None:
    arrays, ended = bands([*straight(), Atoms("H", info={"property": "path:other"})], method())
    assert set(arrays) == {"neb:mb.positions", "neb:mb.energy"}
    assert ended["neb:mb"]["converged"]
    energy = arrays["neb:mb.energy"]
    top = int(np.argmax(energy))
    assert energy[top] - energy[0] == pytest.approx(SCALE * (TOP - HEIGHTS[0]), abs=2e-3)
    assert energy[-1] == pytest.approx(SCALE * HEIGHTS[1], abs=1e-4)
    np.testing.assert_allclose(arrays["neb:mb.positions"][top, 0, :2] - 5, SADDLE, atol=0.02)
    line = [method().get_potential_energy(atoms) for atoms in straight()]
    assert max(line) > energy[top] + 0.05  # the straight line goes over a higher pass


def test_values_of_a_band_and_its_rate() -> None:
    """A barrier that is 59.5 meV too high makes the rate ten times too small at 300 K."""
    path = straight(3)
    nothing = [np.zeros((1, 3))] * 3
    reference = Labelled(path, np.array([0.0, 0.3, 0.1]), nothing, np.full((3, 6), np.nan))
    higher = Labelled(path, np.array([0.0, 0.3 + BOLTZMANN * 300 * np.log(10), 0.1]), nothing, reference.stress)
    assert set(PROPERTIES["neb"].values(reference)) <= set(QUANTITIES)
    for kind in ("neb", "path"):
        ours, theirs = PROPERTIES[kind].values(higher), PROPERTIES[kind].values(reference)
        errors = compare(ours, theirs)
        by_hand = errors[f"{kind}_barrier"] / 1e3 / (BOLTZMANN * 300) / np.log(10)
        assert errors[f"{kind}_rate_300K"] == pytest.approx(-by_hand)
        assert errors[f"{kind}_rate_1000K"] == pytest.approx(-0.3 * by_hand)
    flat = Labelled(path, np.array([0.0, 0.1, 0.3]), nothing, reference.stress)
    assert PROPERTIES["neb"].values(flat) == {}
    single = compare({"neb_barrier": np.float64(310)}, {"neb_barrier": np.float64(300)})
    assert single == {"neb_barrier": 10}


def test_long_paths_are_thinned_evenly() -> None:
    path = straight(100)
    chosen = spread(path, 9)
    assert len(chosen) == 9
    assert chosen[0] is path[0]
    assert chosen[-1] is path[-1]
    gaps = np.diff([atoms.positions[0, 1] for atoms in chosen])
    assert gaps.max() / gaps.min() == pytest.approx(1, abs=0.2)
    with pytest.raises(ValueError, match="three"):
        spread(path[:2], 9)


def test_smooth_and_rough_bonds() -> None:
    """A Morse curve has one minimum and tortuosity 1; a ripple adds minima and way."""
    lengths = np.linspace(0.8, 2.0, 25)
    energy = 4 * (1 - np.exp(-2 * (lengths - 1.1))) ** 2
    slope = 16 * (1 - np.exp(-2 * (lengths - 1.1))) * np.exp(-2 * (lengths - 1.1))
    structures, forces = [], []
    for length, pull in zip(lengths, slope, strict=True):
        info = {"property": "smooth", "distance_A": float(length), "atoms": "0 1"}
        structures.append(Atoms("H2", positions=[[0, 0, 0], [0, 0, length]], info=info))
        forces.append(np.array([[0, 0, pull], [0, 0, -pull]]))
    plain = Labelled(structures, energy, forces, np.full((25, 6), np.nan))
    found = PROPERTIES["smooth"].values(plain)
    assert found["smooth_minima"] == 1
    assert found["smooth_tortuosity"] == pytest.approx(1)
    np.testing.assert_allclose(found["smooth_force"], -1e3 * slope, rtol=1e-9)
    ripple = Labelled(structures, energy + 0.3 * np.cos(40 * lengths), forces, plain.stress)
    rough = PROPERTIES["smooth"].values(ripple)
    assert float(rough["smooth_minima"]) > 2
    assert float(rough["smooth_tortuosity"]) > 1.5
    assert set(rough) <= set(QUANTITIES)


def test_binding_energy_of_a_dimer() -> None:
    parts = [Atoms("HF", positions=[[0, 0, 0], [0, 0, 0.92]], info={"property": "dimer", "role": "part"}) for _ in "ab"]
    both_parts = parts[0] + parts[1]
    both_parts.info = {"property": "dimer", "role": "dimer"}
    nothing = [np.full((2, 3), np.nan)] * 2 + [np.full((4, 3), np.nan)]
    labelled = Labelled([*parts, both_parts], np.array([-1.0, -1.0, -2.19]), nothing, np.full((3, 6), np.nan))
    assert PROPERTIES["dimer"].values(labelled)["dimer_binding"] == pytest.approx(-190)
    wrong = Labelled(
        [parts[0], Atoms("H", info={"role": "part"}), both_parts], labelled.energy, nothing, labelled.stress
    )
    with pytest.raises(ValueError, match="atoms"):
        PROPERTIES["dimer"].values(wrong)


def labelled_path(folder: Path) -> Path:
    """A file of the straight path with energies alone."""
    from ase.calculators.singlepoint import SinglePointCalculator

    path = straight()
    for atoms in path:
        energy = method().get_potential_energy(atoms)
        atoms.info = {}
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    write(folder / "path.xyz", path, format="extxyz")
    return folder / "path.xyz"


def test_files_become_properties_and_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``data properties --take`` on energies alone; the potential's band is read where it relaxed one."""
    source, target = labelled_path(tmp_path), tmp_path / "properties.xyz"
    command = ["data", "properties", "--take", f"path:mb={source}", "--out", str(target)]
    assert main(command) == 0
    assert main([*command[:2], "--take", f"neb:mb={source}", "--out", str(target)]) == 0
    assert "beside 9 that were there" in capsys.readouterr().out
    assert set(reference_values(target)) == {"path:mb", "neb:mb"}
    structures: Any = read(target, index=":")
    relaxed, _ = bands(structures, method())
    energy = np.array([method().get_potential_energy(a) for a in structures])
    arrays: dict[str, Any] = {
        "properties.energy": energy, "properties.forces": np.zeros((18, 3)),
        "properties.stress": np.full((18, 6), np.nan),
    }  # fmt: skip
    np.savez(tmp_path / "old.npz", **arrays)
    assert set(both(tmp_path / "old.npz", target)) == {"path:mb"}
    arrays |= {f"properties.{name}": array for name, array in relaxed.items()}
    np.savez(tmp_path / "physics.npz", **arrays)
    sets = both(tmp_path / "physics.npz", target)
    ours, theirs = (PROPERTIES["neb"].values(one) for one in sets["neb:mb"])
    context = Context({}, references={"properties": target})
    for converged in (True, False):
        rows = score(tmp_path, {"bands": {"neb:mb": {"converged": converged}}}, context)
        assert ("neb_barrier_error" in {row["metric"] for row in rows}) == converged
    barrier = 1e3 * SCALE * (TOP - HEIGHTS[0])
    assert ours["neb_barrier"] == pytest.approx(barrier, abs=15)  # a parabola through three images
    assert float(theirs["neb_barrier"]) > barrier + 50
    with pytest.raises(UserError, match="KIND:NAME=FILE"):
        raise_of(["data", "properties", "--take", f"pth:mb={source}", "--out", str(target)])


def raise_of(command: list[str]) -> None:
    from mlpbench.cli.data import execute_data, register_data

    parser = argparse.ArgumentParser()
    register_data(parser)
    execute_data(parser.parse_args(command[1:]))


def test_frames_without_energy_are_refused(tmp_path: Path) -> None:
    from mlpbench.cli.data import register_data

    file = tmp_path / "bare.xyz"
    file.write_text("1\nProperties=species:S:1:pos:R:3 energy=nan\nH 0 0 0\n")
    parser = argparse.ArgumentParser()
    register_data(parser)
    given = parser.parse_args(["properties", "--take", f"path:a={file}", "--out", "x.xyz"])
    with pytest.raises(UserError, match="without an energy"):
        taken("path:a", file, given)


def test_two_paths_in_one_file_have_no_barrier() -> None:
    """Neighbours that lie far apart are the ends of two paths: energies are compared, and nothing else."""
    one = [Atoms("HF", positions=[[0, 0, 0], [0, 0, 0.9 + 0.05 * i]]) for i in range(10)]
    far = [Atoms("HF", positions=[[0, 0, 0], [0, 3.0, 0.9 + 0.05 * i]]) for i in range(10)]
    hill = np.sin(np.linspace(0, np.pi, 10))
    nothing = [np.zeros((2, 3))] * 20
    single = Labelled(one, hill, nothing[:10], np.full((10, 6), np.nan))
    assert "path_barrier" in PROPERTIES["path"].values(single)
    double = Labelled([*one, *far], np.concatenate([hill, hill]), nothing, np.full((20, 6), np.nan))
    assert set(PROPERTIES["path"].values(double)) == {"path_energy"}
