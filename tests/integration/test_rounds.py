"""Rounds from the command line with the toy: nested subsets, sharing, repetition, a kill in the middle, bad input."""

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
from ase.io import read, write

from mlpbench.report import acquiring
from mlpbench.study.study import Study
from tests.integration.conftest import Run, environment
from tests.support import ETHANOL

TOY = ["dataset=ethanol_mixed", "architecture=toy", "size=tiny", "dataset.n_valid=10", "budget.steps=5",
       "budget.interval=1", "study=s"]  # fmt: skip
ROUNDS = ["acquisition.start=10", "acquisition.batch=10", "acquisition.until=30", "acquisition.members=2"]


def records(root: Path, study: str = "s") -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((root / "results" / study).glob("*/record.json"))]


def manifests(root: Path, study: str = "s") -> dict[str, str]:
    folder = root / "results" / study / "acquisitions"
    return {path.name: path.read_text() for path in folder.glob("*.json") if "seconds" not in path.name}


def train_indices(root: Path, record: dict[str, Any]) -> list[int]:
    path = root / "results" / "s" / record["split"]["directory"] / "manifest.json"
    return json.loads(path.read_text())["splits"]["train"]["indices"]


def test_random_rounds_are_todays_nested_subsets_and_committees_share_their_start(
    tmp_path: Path, mlpbench: Run
) -> None:
    plain = mlpbench("run", "-m", *TOY, "dataset.n_train=10,20,30")
    assert plain.returncode == 0, plain.stderr
    before = {r["trial"]: r for r in records(tmp_path)}
    assert len(before) == 3
    rounds = mlpbench("run", *TOY, "acquisition=random", *ROUNDS)
    assert rounds.returncode == 0, rounds.stderr
    assert rounds.stdout.count("(cached)") == 3
    assert {r["trial"]: r for r in records(tmp_path)} == before

    sweep = ["-m", *TOY, "acquisition=random,committee,oracle", *ROUNDS]
    done = mlpbench("run", *sweep)
    assert done.returncode == 0, done.stderr
    after = records(tmp_path)
    kinds = sorted((r["identifiers"].get("acquisition", "random"), r["identifiers"]["n_train"],
                    r["identifiers"].get("member", 0)) for r in after)  # fmt: skip
    assert kinds == [
        ("committee", 20, 0), ("committee", 20, 1), ("committee", 30, 0), ("oracle", 20, 0), ("oracle", 30, 0),
        ("random", 10, 0), ("random", 10, 1), ("random", 20, 0), ("random", 30, 0),
    ]  # fmt: skip
    for kind in ("committee", "oracle"):
        mine = [r for r in after if r["identifiers"].get("acquisition") == kind and not r["identifiers"].get("member")]
        small, large = (train_indices(tmp_path, r) for r in sorted(mine, key=lambda r: r["identifiers"]["n_train"]))
        start = train_indices(tmp_path, next(r for r in before.values() if r["identifiers"]["n_train"] == 10))
        assert small[:10] == start
        assert large[:20] == small
        assert len(set(large)) == 30

    texts = manifests(tmp_path)
    assert len(texts) == 6
    again = mlpbench("run", *sweep)
    assert again.returncode == 0
    assert again.stdout.count("(cached)") == again.stdout.count("] toy-")
    assert manifests(tmp_path) == texts
    planned = mlpbench("plan", *sweep)
    assert "3 trials; nothing to train" in planned.stdout, planned.stdout
    longer = mlpbench("plan", *sweep, "acquisition.until=40")
    assert longer.stdout.count("; then rounds up to 40 training frames") == 3, longer.stdout

    study = Study.load("s", tmp_path / "results")
    series = {one.kind: one for one in acquiring.series_of(study, "ethanol-mixed")}
    assert {kind: sorted(one.trials[0]) for kind, one in series.items()} == {
        kind: [10, 20, 30] for kind in ("random", "committee", "oracle")
    }
    committees = acquiring.members_of(study, series["committee"])
    assert [len(members) for members in committees.values()] == [1, 1]
    assert mlpbench("report", "s").returncode == 0
    page = (tmp_path / "reports" / "s" / "index.html").read_text()
    assert "Which frames to label next" in page
    assert "could not be made" not in page


def test_the_same_study_elsewhere_has_the_same_manifests_also_after_a_kill(tmp_path: Path, mlpbench: Run) -> None:
    sweep = ["run", *TOY, "acquisition=committee_farthest", *ROUNDS, "budget.steps=40", "budget.interval=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert mlpbench(*sweep, cwd=whole).returncode == 0
    expected = manifests(whole)
    assert len(expected) == 2
    kills = 0
    for moment in ("*/record.json", "acquisitions/*.json", "*-n20-*/events.jsonl"):  # in a member, after a choice ...
        process = subprocess.Popen(
            [sys.executable, "-m", "mlpbench", *sweep], cwd=killed, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 120
        while not any((killed / "results" / "s").glob(moment)) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert kills > 0
    assert mlpbench(*sweep, cwd=killed).returncode == 0
    assert manifests(killed) == expected


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["acquisition=comittee"], "committee"),
        (["acquisition=committee", "acquisition.until=5000"], "can be chosen"),
        (["acquisition=committee", "acquisition.until=5"], "the last round has 5"),
        (["acquisition=committee", "acquisition.members=1"], "members"),
        (["acquisition=committee", "acquisition.batch=0"], "batch"),
        (["acquisition=farthest", "acquisition.bacth=5"], "batch"),
        (["acquisition=committee", "dataset.labels=[energy]"], "goes by forces"),
        (["acquisition=campaign", "dataset=ethanol"], "in which order"),
        (["acquisition=committee", "+backend.toy.iterations=false"], "are the same"),
    ],
)
def test_bad_input_ends_plan_and_run_before_anything_is_trained(
    tmp_path: Path, mlpbench: Run, overrides: list[str], said: str
) -> None:
    for command in ("plan", "run"):
        done = mlpbench(command, *TOY, *ROUNDS, *overrides)
        assert done.returncode == 2, done.stdout + done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not records(tmp_path)


def test_structures_of_a_file_are_chosen_by_the_committee_and_what_is_known_is_left_out(
    tmp_path: Path, mlpbench: Run
) -> None:
    assert mlpbench("run", "-m", *TOY, "dataset.n_train=20", "repetition=0,1").returncode == 0
    pool = read(ETHANOL / "pool_500K.xyz", ":60")
    known = set()
    for record in records(tmp_path):
        indices = json.loads((tmp_path / "results" / "s" / record["split"]["directory"] / "manifest.json").read_text())
        known |= {i for part in ("train", "valid") for i in indices["splits"][part]["indices"]}
    write(tmp_path / "mine.xyz", [*pool, pool[3]], format="extxyz")
    done = mlpbench("acquire", "s", "--from", "mine.xyz", "--n", "5", "--export", "out/frames.xyz")
    assert done.returncode == 0, done.stderr
    left_out = len(known & set(range(60))) + 1
    assert f"left out: {left_out} that were trained on or are twice in the file" in done.stdout
    frames = read(tmp_path / "out" / "frames.xyz", ":")
    numbers = [atoms.info["frame"] for atoms in frames]
    assert len(set(numbers)) == 5
    assert not set(numbers) & known
    for atoms in frames:
        assert atoms.calc is None
        assert atoms.positions == pytest.approx(pool[atoms.info["frame"]].positions, abs=1e-6)
        assert atoms.info["score_is"] == "disagreement, eV/Å"
    for wrong, said in (("--n=500", "are new"), ("--acquisition=oracle", "needs the labels"), ("--n=0", "are new")):
        again = mlpbench("acquire", "s", "--from", "mine.xyz", "--export", "other.xyz", wrong)
        assert again.returncode == 2
        assert said in again.stderr
    assert not (tmp_path / "other.xyz").exists()


LOUDEST = """
import numpy as np
from mlpbench.acquisition import Acquisition, Choice

class Loudest(Acquisition):
    kind = "loudest"
    score = ("mean force", "eV/Å")
    potentials = 1

    def choose(self, candidates, count):
        frames = candidates.frames
        force = np.bincount(frames.frame_of_atom, np.linalg.norm(candidates.forces[0], axis=1)) / frames.n_atoms
        order = np.argsort(-force, kind="stable")[:count]
        return Choice(order, force[order])
"""


def test_an_acquisition_of_another_package_runs_like_any_other(tmp_path: Path, mlpbench: Run) -> None:
    package = tmp_path / "site"
    (package / "loudest-1.0.dist-info").mkdir(parents=True)
    (package / "loudest.py").write_text(LOUDEST)
    (package / "loudest-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: loudest\nVersion: 1.0\n")
    points = "[mlpbench.acquisitions]\nloudest = loudest:Loudest\n"
    (package / "loudest-1.0.dist-info" / "entry_points.txt").write_text(points)
    (package / "test_mine.py").write_text("from mlpbench.testing.acquisitions import *\n\nKINDS = ('loudest',)\n")
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    done = mlpbench("run", *TOY, "acquisition=loudest", *ROUNDS, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert sum("loudest-n" in r["trial"] for r in records(tmp_path)) == 2
    contract = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"], cwd=package,
        env={**environment(), "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert contract.returncode == 0, contract.stdout
