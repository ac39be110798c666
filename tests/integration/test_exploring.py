"""``mlpbench explore`` with the toy and EMT: rounds, the data set that grows, kills, budgets, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from tests.integration.conftest import Run, environment

EXPLORE = [
    "explore", "study=s", "dataset=file", "dataset.path=start.xyz", "dataset.n_train=10", "dataset.n_valid=8",
    "architecture=toy", "size=tiny", "budget.steps=5", "budget.interval=5", "reference=ase",
    "reference.calculator=ase.calculators.emt.EMT", "explore.temperatures_K=[300,900]", "explore.length_ps=0.05",
    "explore.interval_fs=5", "explore.replicas=2", "explore.members=2", "explore.batch=3", "explore.labels=5",
    "explore.lower=1e-5", "explore.upper=10", "explore.near_A=1e-4",
]  # fmt: skip


def labelled(atoms: Atoms) -> Atoms:
    """With EMT's energy and forces."""
    asked = atoms.copy()
    asked.calc = EMT()
    labels = {"energy": asked.get_potential_energy(), "forces": asked.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``start.xyz``: 30 cells of rattled copper; EMT runs in this interpreter, labels are kept in this folder."""
    frames = []
    for seed in range(30):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.12, seed=seed)
        frames.append(labelled(atoms))
    write(tmp_path / "start.xyz", frames, format="extxyz")
    monkeypatch.setenv("MLPBENCH_ASE_PYTHON", sys.executable)
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def manifests(root: Path) -> dict[str, str]:
    folder = root / "results" / "s" / "acquired"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.glob("round-*/manifest.json")}


def chosen(root: Path) -> list[dict[str, Any]]:
    return [one for text in manifests(root).values() for one in json.loads(text)["chosen"]]


def test_an_exploration_labels_what_it_found_and_anyone_can_train_on_it(start: Path, mlpbench: Run) -> None:
    done = mlpbench(*EXPLORE)
    assert done.returncode == 0, done.stderr
    assert "ended: the budget of 5 labels is spent. 5 labels in 2 rounds" in done.stdout
    folder = start / "results" / "s" / "acquired"
    first, second = (read(folder / f"round-{k}.xyz", ":") for k in (1, 2))
    assert [len(first), len(second)] == [3, 2]
    for atoms in [*first, *second]:
        own = atoms.copy()
        own.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(own.get_potential_energy(), abs=1e-6)
        assert atoms.get_forces() == pytest.approx(own.get_forces(), abs=1e-6)
    manifest = json.loads((folder / "round-1" / "manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["frames"] == 2 * 2 * 10 == counts["sound"] + counts["collapsed"]
    assert counts["sound"] == counts["accurate"] + counts["candidates"] + counts["failed"]
    for one, atoms in zip(manifest["chosen"], first, strict=True):
        assert manifest["levels"][0] <= one["deviation_eV_A"] < manifest["levels"][1]
        assert max(one["atom_deviations_eV_A"]) == pytest.approx(one["deviation_eV_A"], abs=1e-5)
        assert len(one["atom_deviations_eV_A"]) == len(atoms)
        assert one["temperature_K"] == atoms.info["temperature_K"]
    kept = len(list((start / "home" / "labels").glob("*/*.json")))
    assert kept == 6  # and the frame on which the method was checked

    before = manifests(start)
    again = mlpbench(*EXPLORE)
    assert again.returncode == 0
    assert manifests(start) == before
    assert again.stdout.count("(cached)") == again.stdout.count("done; ") == 5
    planned = mlpbench("plan", "study=s", "dataset=s/acquired", *EXPLORE[6:10])
    assert planned.returncode == 0, planned.stderr
    assert "cached" in planned.stdout
    trained = mlpbench("run", "study=other", "dataset=s/acquired", *EXPLORE[6:10], "repetition=1")
    assert trained.returncode == 0, trained.stderr
    record = json.loads(next((start / "results" / "other").glob("*/record.json")).read_text())
    assert record["identifiers"]["n_train"] == 15
    refused = mlpbench(*EXPLORE, "explore.batch=4")
    assert refused.returncode == 2
    assert "was begun with another start" in refused.stderr
    more = mlpbench(*EXPLORE, "explore.labels=6")
    assert more.returncode == 0, more.stderr
    assert len(chosen(start)) == 6
    assert manifests(start)["round-1/manifest.json"] == before["round-1/manifest.json"]


def test_a_killed_exploration_goes_on_to_the_same_manifests_and_pays_no_label_twice(start: Path, mlpbench: Run) -> None:
    whole, killed = start / "whole", start / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "start.xyz").write_bytes((start / "start.xyz").read_bytes())
    assert mlpbench(*EXPLORE, cwd=whole, MLPBENCH_HOME=str(start / "other")).returncode == 0
    expected = manifests(whole)
    assert len(expected) == 2
    labels = start / "home" / "labels"
    kills = 0
    # in dynamics, with a first label of a round there and not the others, and in the second round
    for moment in ("results/s/acquired/round-1/md", LABEL, "results/s/acquired/round-2/request.json"):
        process = subprocess.Popen(
            [sys.executable, "-m", "mlpbench", *EXPLORE], cwd=killed, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end:
            there = len(list(labels.glob("*/*.json"))) >= 2 if moment == LABEL else (killed / moment).exists()
            if there:
                break
            time.sleep(0.01)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert kills >= 2
    paid = {path: path.read_bytes() for path in labels.glob("*/*.json")}
    assert mlpbench(*EXPLORE, cwd=killed).returncode == 0
    assert manifests(killed) == expected
    assert all(path.read_bytes() == content for path, content in paid.items())
    for k in (1, 2):
        ours, theirs = (read(root / f"results/s/acquired/round-{k}.xyz", ":") for root in (killed, whole))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.positions == pytest.approx(other.positions, abs=0)
            assert mine.get_potential_energy() == other.get_potential_energy()


LABEL = "a label"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["explore.lable=3"], "explore.labels"),
        (["explore.upper=1e-6"], "is not above lower"),
        (["explore.interval_fs=0.7"], "not a multiple"),
        (["explore.temperatures_K=[-1]"], "above 0 K"),
        (["explore.acquisition=oracle"], "needs the labels"),
        (["explore.acquisition=comittee"], "committee"),
        (["acquisition=random", "acquisition.start=5"], "rounds of its own"),
        (["dataset.labels=[energy]"], "goes by forces"),
        (["reference.arguments={asap_cutoff: true}"], "is not that of start"),
        (["reference=gromacs"], "no such file"),
    ],
)
def test_bad_input_ends_before_anything_is_trained(start: Path, mlpbench: Run, overrides: list[str], said: str) -> None:
    done = mlpbench(*EXPLORE, *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((start / "results").glob("s/*/record.json"))
