"""Speed from the command line: further deployments train nothing again, and each is a row or a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from tests.integration.conftest import Run

TRIAL = ["study=s", "architecture=toy", "size=tiny", "dataset.n_train=20", "dataset.n_valid=10", "budget.epochs=3"]
SHORT = [
    "evaluation=speed", "evaluation.speed.blocks=3", "evaluation.speed.block_seconds=0.02",
    "evaluation.speed.batch_sizes=[1,4]", "evaluation.speed.md_block_steps=5", "evaluation.speed.copies=[1,2]",
    "evaluation.speed.reference=null", "evaluation.speed.max_seconds_per_call=0.02",
]  # fmt: skip


def test_another_deployment_trains_nothing_again(tmp_path: Path, mlpbench: Run) -> None:
    own_room = {"MLPBENCH_TURNS": str(tmp_path / "turns")}  # whoever else works on this machine
    first = mlpbench("run", *TRIAL, *SHORT, "evaluation.speed.deployments=[eager]", **own_room)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "results" / "s").glob("toy-*")
    trained = (folder / "tasks" / "train.json").stat().st_mtime_ns
    planned = mlpbench("plan", *TRIAL, *SHORT, "evaluation.speed.deployments=[eager,compiled]")
    assert "partly done: speed" in planned.stdout
    wider = mlpbench("run", *TRIAL, *SHORT, "evaluation.speed.deployments=[eager,compiled]",
                     "evaluation.speed.dtypes=[float32,float64]", **own_room)  # fmt: skip
    assert wider.returncode == 0, wider.stderr
    assert (folder / "tasks" / "train.json").stat().st_mtime_ns == trained
    table = pd.read_csv(tmp_path / "results" / "s" / "speed.csv")
    skipped = table[table["status"] == "skipped"]
    assert set(skipped["deployment"]) == {"compiled"}
    assert set(skipped["reason"]) == {"the backend has no compiled path"}
    done = table[table["metric"] == "us_per_atom"]
    assert sorted(done["dtype"]) == ["float32", "float64"]
    assert (done["value"] > 0).all()
    values = json.loads((folder / "tasks" / "speed.json").read_text())["values"]
    assert "a call takes longer than 0.02 s" in values["scaling"][-1]["stopped"]
    assert max(size["n_atoms"] for size in values["scaling"]) > 18  # it went on doubling after the listed copies
    shown = mlpbench("table", "s", "--speed")
    assert shown.returncode == 0, shown.stderr
    assert "the backend has no compiled path" in shown.stdout


def test_mistakes_are_told_before_anything_runs(tmp_path: Path, mlpbench: Run) -> None:
    wrong = mlpbench("run", *TRIAL, *SHORT, "evaluation.speed.deployments=[fast]")
    assert wrong.returncode == 2
    assert "'eager', 'compiled' or 'accelerated'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    wrong = mlpbench("run", *TRIAL, *SHORT, "evaluation.speed.memory_fraction=2")
    assert wrong.returncode == 2
    assert "memory_fraction" in wrong.stderr
    assert not (tmp_path / "results" / "s").exists()
