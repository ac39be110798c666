"""The experiments that repeat published protocols: each runs on a small stand-in of its data, and its page compares."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.units import kcal, mol

from tests.integration.conftest import Run
from tests.support import ETHANOL

# The files are there already, put by hand; one of them stands for all.
ONE = "{url: 'https://example.org/readme', filename: readme.txt, address: unverified, sha256: unverified}"
DOWNLOADS = f"dataset.downloads=[{ONE}]"
ETHANOL_DOWNLOADS = ["dataset.variant=ethanol", f"dataset.per_variant.ethanol.downloads=[{ONE}]"]
# The stand-in is no folder of that repository, and in it frames are not near copies of each other.
INP = [
    DOWNLOADS,
    "dataset.labels=[energy,forces]",
    "dataset.split.strategy=random",
    "dataset.split.test_fraction=0.2",
]
# experiment -> collection, split with a published value on the page, what makes it small enough
PROTOCOLS = {
    "acac_published": ("acac", "test_300K", [DOWNLOADS]),
    "3bpa_published": ("3bpa", "test_300K", [DOWNLOADS]),
    "rmd17_published": ("rmd17", "test", ETHANOL_DOWNLOADS),
    "rmd17_50": ("rmd17", "test", ETHANOL_DOWNLOADS),
    "inp_published": ("inp", "test", INP),
    "md17_stability": (
        "md17",
        "test",
        [
            DOWNLOADS,
            "dataset.split.blocks=5",
            "dataset.index=:",
            "evaluation.md.nvt.length_ps=0.05",
            "evaluation.md.starts=2",
        ],
    ),
}


def stand_in(folder: Path) -> None:
    """Files of the names and formats of the real data sets, with frames of ethanol."""
    frames = ase.io.read(ETHANOL / "pool_500K.xyz", index=":120")
    plain = {"energy": [f.get_potential_energy() for f in frames], "forces": [f.get_forces() for f in frames]}
    for collection, names in {
        "acac": ["train_300K", "test_MD_300K", "test_MD_600K", "test_H_transfer", "test_dihedral"],
        "3bpa": ["train_300K", "test_300K", "test_600K", "test_1200K", "test_dih"],
    }.items():
        (folder / collection).mkdir(parents=True)
        for i, name in enumerate(names):
            part = frames[:60] if i == 0 else frames[60 + 10 * i : 70 + 10 * i]
            ase.io.write(folder / collection / f"{name}.xyz", part)
        atoms = [ase.Atoms(s) for s in ("H", "C", "O")]
        for atom, energy in zip(atoms, (-13.6, -1030.0, -2042.0), strict=True):
            atom.info["energy"] = energy
        ase.io.write(folder / collection / f"{'isolated_atoms' if collection == 'acac' else 'iso_atoms'}.xyz", atoms)
    arrays = {
        "nuclear_charges": frames[0].numbers, "coords": np.array([f.positions for f in frames]),
        "energies": np.array(plain["energy"]) * mol / kcal, "forces": np.array(plain["forces"]) * mol / kcal,
    }  # fmt: skip
    (folder / "rmd17").mkdir()
    for part, chosen in {"train": slice(60), "test": slice(60, 100)}.items():
        halves = {name: values if name == "nuclear_charges" else values[chosen] for name, values in arrays.items()}
        np.savez(folder / "rmd17" / f"rmd17_ethanol_{part}_01.npz", **halves)
    for i, frame in enumerate(frames[:60]):
        place = folder / "inp" / "JSON" / ("bulk" if i < 40 else "vacancy") / f"run{i}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "Positions": frame.positions.tolist(), "AtomTypes": frame.get_chemical_symbols(),
            "Energy": plain["energy"][i], "Forces": plain["forces"][i].tolist(), "NumAtoms": len(frame),
        }  # fmt: skip
        place.write_text("# stand-in\n" + json.dumps({"Dataset": {"Data": [data]}}))
    (folder / "md17").mkdir()
    for collection in ("acac", "3bpa", "rmd17", "md17", "inp"):
        (folder / collection / "readme.txt").write_text("stand-in\n")
    np.savez(
        folder / "md17" / "md17_ethanol.npz",
        z=arrays["nuclear_charges"], R=arrays["coords"], E=arrays["energies"], F=arrays["forces"],
    )  # fmt: skip


SLOW = ("3bpa_published", "rmd17_published")  # alike another one


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PROTOCOLS]
)
def test_a_published_protocol_runs_and_is_compared(experiment: str, tmp_path: Path, mlpbench: Run) -> None:
    stand_in(tmp_path / "data")
    _, split, further = PROTOCOLS[experiment]
    small = ["architecture=toy", "repetition=0", "dataset.n_train=20", "dataset.n_valid=5"]
    small += ["dataset.on_leak=warn", "budget.epochs=3", *further]
    done = mlpbench("run", "-m", f"experiment={experiment}", *small, MLPBENCH_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next((tmp_path / "results" / experiment).glob("*/record.json")).read_text())
    assert record["config"]["dataset"]["n_train"] == 20
    assert record["training"]["passes"] == pytest.approx(3, abs=0.5)
    assert record["config"]["size"] == "medium" or record["identifiers"]["size"] == "medium"
    assert {row["split"] for row in record["metrics"]} >= {split}
    page = mlpbench("report", experiment)
    assert page.returncode == 0, page.stderr
    text = (tmp_path / "reports" / experiment / "index.html").read_text(encoding="utf-8")
    assert "Published values" in text
