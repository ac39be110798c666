"""Each scorer on a stored input: another answer under the same version means that finished trials keep the old one.

After a change of formulas that is meant: raise ``version`` of the scorer in ``mlpbench/evaluators/__init__.py``, then
``MLPBENCH_STORE_ANSWERS=1 python -m pytest tests/unit/evaluators/test_scorers.py`` and look at the difference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mlpbench.evaluators import SCORERS, Context, Row
from mlpbench.frames import Frames
from mlpbench.properties import PROPERTIES
from mlpbench.protocol import write_json
from mlpbench.units import BOLTZMANN
from mlpbench.worker.reference.stillinger_weber import StillingerWeber
from tests.support import ETHANOL, ethanol_frames
from tests.unit.evaluators.test_md_scores import FRAMES, fabricate
from tests.unit.evaluators.test_speed import reference, timings

ANSWERS = Path(__file__).with_name("scorer_answers.json")
References = {path.stem.removeprefix("reference_"): path for path in sorted(ETHANOL.glob("reference_*"))}


def cost_rows(folder: Path) -> list[Row]:
    training = {"wall_seconds": 20.0, "on_device": False, "peak_memory_mb": 300.0, "n_parameters": 1000,
                "best_epoch": 2, "threads": 4, "n_labels": 60}  # fmt: skip
    curve = [{"epoch": e, "step": 10 * e, "seconds": float(e), "valid_loss": 1.0 / e} for e in (1, 2, 3)]
    return SCORERS["cost"](folder, {}, Context({}, training=training, curve=curve))


def accuracy_rows(folder: Path) -> list[Row]:
    frames, generator = ethanol_frames("test_300K", 30), np.random.default_rng(0)
    energy = frames.target_energy + 0.05 * generator.standard_normal(30)
    forces = frames.forces + 0.1 * generator.standard_normal(frames.forces.shape)
    arrays: dict[str, Any] = {"test.energy": energy, "test.forces": forces}
    np.savez(folder / "predictions.npz", **arrays)
    return SCORERS["accuracy"](folder, {"splits": ["test"]}, Context({"test": frames}, "test"))


def forgetting_rows(folder: Path) -> list[Row]:
    frames, generator = ethanol_frames("test_300K", 30), np.random.default_rng(0)
    noise = generator.standard_normal(frames.forces.shape)
    arrays: dict[str, Any] = {
        "reference": frames.forces, "before": frames.forces + 0.1 * noise, "after": frames.forces + 0.3 * noise,
        "n_atoms": frames.n_atoms, "group": frames.group,
    }  # fmt: skip
    np.savez(folder / "forgetting.npz", **arrays)
    rows = SCORERS["forgetting"](folder, {}, Context({}))
    values = {row["metric"]: row["value"] for row in rows}
    assert values["forgetting"] == pytest.approx(3)
    assert values["start_force_mae"] == pytest.approx(100 * np.abs(noise).mean())
    assert values["kept_force_mae"] == pytest.approx(300 * np.abs(noise).mean())
    return rows


def physics_rows(folder: Path) -> list[Row]:
    minimum: Any = read(References["minimum"])
    data = json.loads(References["hessian"].read_text())
    generator = np.random.default_rng(0)
    hessian = np.array(data["hessian_eV_per_A2"])
    noise = 0.1 * generator.standard_normal(hessian.shape)
    scans: dict[str, Any] = {name: read(path, index=":") for name, path in References.items()
                             if name not in ("minimum", "hessian")}  # fmt: skip
    arrays: dict[str, Any] = {
        f"scan.{name}": np.array([a.get_potential_energy() for a in scan]) * 1.001 for name, scan in scans.items()
    }
    np.savez(folder / "physics.npz", minimum=minimum.positions + 0.01 * generator.standard_normal((9, 3)),
             hessian=hessian + noise + noise.T, **arrays)  # fmt: skip
    values = {"n_frames": 4, "force_consistency": 1e-6, "rotation_force": 1e-5, "cutoff_jump_force": 1e-4}
    return SCORERS["physics"](folder, values, Context({}, references=dict(References)))


def md_rows(folder: Path) -> list[Row]:
    fabricate(folder, ended={1: ("non_finite", 50)}, broken={2: 30})
    fabricate(folder, "nve-0.5fs", replicas=3)
    options = {"temperature_K": 500.0, "limits": {}, "reference_splits": ["test_500K"]}
    values = {"runs": {"nvt": {}, "nve-0.5fs": {}}, "options": options}
    return SCORERS["md"](folder, values, Context({"test_500K": FRAMES}, "test_500K"))


def speed_rows(folder: Path) -> list[Row]:
    context = reference(folder, 5.0, 6.0, 8.0)
    latency = [2e-3, 2.1e-3, 1.9e-3, 2.2e-3, 2e-3]
    return SCORERS["speed"](folder, timings(latency=latency, latency_again=latency[::-1]), context)


def properties_rows(folder: Path) -> list[Row]:
    """Stillinger–Weber silicon as the reference, and the same with every label 2 % larger as the potential."""
    start, sets = bulk("Si", a=5.43, cubic=True), []
    for name in ("eos", "elastic", "phonons", "vacancy"):
        for atoms in PROPERTIES[name].structures(start):
            atoms.calc = StillingerWeber()
            energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
            sets.append(atoms)
    write(folder / "properties.xyz", sets, format="extxyz")
    arrays: dict[str, Any] = {
        "properties.energy": 1.02 * np.array([a.get_potential_energy() for a in sets]),
        "properties.forces": 1.02 * np.concatenate([a.get_forces() for a in sets]),
        "properties.stress": 1.02 * np.array([a.get_stress() for a in sets]),
    }
    np.savez(folder / "physics.npz", **arrays)
    return SCORERS["properties"](folder, {}, Context({}, references={"properties": folder / "properties.xyz"}))


def paths_rows(folder: Path) -> list[Row]:
    """A barrier of 300 meV that the potential has 59.5 meV too high: a tenth of the rate at 300 K."""
    share = np.linspace(0, 1, 5)
    structures = [Atoms("HF", positions=[[0, 0, 0], [0, 0, 0.9 + x]]) for x in share]
    hill = 4 * share * (1 - share)
    frames = Frames.from_atoms(structures, 0.3 * hill + 0.1 * share).with_baseline(np.full(5, -7.0))
    higher = 0.3 + BOLTZMANN * 300 * np.log(10)
    arrays: dict[str, Any] = {"saddle.energy": higher * hill + 0.1 * share + 7.0}
    np.savez(folder / "predictions.npz", **arrays)
    context = Context({"saddle": frames}, references={"path_saddle": "path.xyz", "minimum": "m.xyz"})
    rows = SCORERS["paths"](folder, {"splits": ["saddle"]}, context)
    values = {row["metric"]: row["value"] for row in rows}
    assert values["path_barrier_error"] == pytest.approx(59.5, abs=0.5)
    assert values["path_rate_300K_error"] == pytest.approx(-1, abs=0.01)
    assert values["path_reaction"] == pytest.approx(100)
    assert values["path_energy_error"] == pytest.approx(1e3 * np.sqrt((((higher - 0.3) * hill) ** 2).mean()))
    assert {row["split"] for row in rows} == {"saddle"}
    with pytest.raises(ValueError, match="names no test split"):
        SCORERS["paths"](folder, {"splits": []}, context)
    return rows


STORED: dict[str, Callable[[Path], list[Row]]] = {
    "cost": cost_rows, "accuracy": accuracy_rows, "forgetting": forgetting_rows, "physics": physics_rows,
    "md": md_rows, "speed": speed_rows, "properties": properties_rows, "paths": paths_rows,
}  # fmt: skip


def test_every_scorer_has_a_stored_input() -> None:
    assert set(STORED) == set(SCORERS)
    for scorer in SCORERS.values():
        module, _, name = scorer.function.partition(":")
        assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("name", sorted(STORED))
def test_a_changed_answer_needs_a_higher_version(name: str, tmp_path: Path) -> None:
    rows = STORED[name](tmp_path)
    assert len({(row["split"], row["metric"]) for row in rows}) == len(rows) > 0
    answer = {f"{r['metric']} {r['split']}".strip(): [r["value"], r["lower"], r["upper"], r["n"]] for r in rows}
    if os.environ.get("MLPBENCH_STORE_ANSWERS"):
        stored = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
        write_json(ANSWERS, {**stored, name: {"version": SCORERS[name].version, "rows": answer}})
    stored = json.loads(ANSWERS.read_text())[name]
    version = SCORERS[name].version
    assert stored["version"] == version, f"version {version} of {name} has no stored answer yet: see this file's head"
    changed = sorted({*answer, *stored["rows"]} - {k for k, v in answer.items() if same(v, stored["rows"].get(k))})
    assert not changed, (
        f"the scorer {name} gives other answers than its version {version} did ({', '.join(changed)}): raise its "
        "version in mlpbench/evaluators/__init__.py, so that finished trials are rescored"
    )


def same(now: list[Any], before: list[Any] | None) -> bool:
    """Equal to six digits: libraries of linear algebra differ in the last ones."""
    if before is None:
        return False
    pairs = zip(now, before, strict=True)
    return all(a is None and b is None if a is None or b is None else np.isclose(a, b, rtol=1e-6, atol=1e-9)
               for a, b in pairs)  # fmt: skip
