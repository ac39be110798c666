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

from mlpbench.report import acquiring
from mlpbench.study.study import Study
from tests.integration.conftest import Run, environment

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
    sweep = ["run", *TOY, "acquisition=committee_farthest", *ROUNDS, "budget.steps=300"]
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
