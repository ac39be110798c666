"""Speed from the command line: further deployments train nothing again, and each is a row or a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from tests.integration.conftest import Run

TRIAL = ["study=s", "architecture=toy", "size=tiny", "dataset.n_train=20", "dataset.n_valid=10", "budget.steps=3"]
SHORT = [
    "evaluation=speed", "evaluation.speed.blocks=3", "evaluation.speed.block_seconds=0.02",
    "evaluation.speed.batch_sizes=[1,4]", "evaluation.speed.md_block_steps=5", "evaluation.speed.copies=[1,2]",
    "evaluation.speed.reference=null", "evaluation.speed.max_seconds_per_call=0.3",
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
    assert "a call takes longer than 0.3 s" in values["scaling"][-1]["stopped"]
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


def test_a_reference_is_timed_on_a_data_sets_frames_and_on_growing_molecules(tmp_path: Path, mlpbench: Run) -> None:
    """ASE's EMT stands for DFT: it knows carbon, hydrogen and oxygen, and needs no package of its own."""
    own = {"MLPBENCH_TURNS": str(tmp_path / "turns"), "MLPBENCH_HOME": str(tmp_path / "home"),
           "MLPBENCH_ASE_PYTHON": sys.executable}  # fmt: skip
    done = mlpbench("dft", "time", "ethanol", "reference=ase", "--frames", "2", "--series", "water",
                    "--series-seconds", "2", **own)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "EMT" in done.stdout
    assert "time grows as N^" in done.stdout
    (kept,) = (tmp_path / "home" / "timings" / "dft-ethanol").glob("ase-*-threads1.json")
    found = json.loads(kept.read_text())
    assert len(found["seconds"]) == 2
    assert found["system"] == "C2H6O"
    assert [point["n_atoms"] for point in found["series"]["points"]][:3] == [3, 6, 9]
    assert found["conditions"]["cores"] >= 1
    missing = mlpbench("dft", "time", "nosuchstudy", **own)
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr
