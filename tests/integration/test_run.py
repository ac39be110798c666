"""A sweep from the command line to the tables: cached, resumed, interrupted, failed, mistaken."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import mlpbench as package
from mlpbench.report.facts import run_again
from mlpbench.study.study import Study
from tests.integration.conftest import Run, environment

SMALL = ["architecture=toy", "dataset.n_train=20", "dataset.n_valid=10", "budget.interval=1"]
TOY = [*SMALL, "size=tiny", "budget.steps=5"]
LONG = [*SMALL, "size=large", "budget.steps=4000"]


def trials(root: Path, study: str = "s") -> pd.DataFrame:
    return pd.read_csv(root / "results" / study / "trials.csv").set_index("trial", drop=False)


def test_a_sweep_its_tables_and_what_is_cached(tmp_path: Path, mlpbench: Run) -> None:
    sweep = ["run", "-m", "study=s", *TOY, "training.lr=0.01,0.003", "repetition=0,1"]
    first = mlpbench(*sweep)
    assert first.returncode == 0, first.stderr
    table = trials(tmp_path)
    assert len(table) == 4
    assert set(table["training.lr"]) == {0.01, 0.003}
    assert set(table["status"]) == {"done"}
    assert table["at_rest"].notna().all()
    metrics = pd.read_parquet(tmp_path / "results" / "s" / "metrics.parquet")
    assert set(metrics["split"]) == {"", "valid", "test_300K", "test_500K", "test_1000K"}
    assert {"trial", "dataset", "architecture", "size", "backend", "n_train", "repetition", "split", "metric", "value",
            "unit"} <= set(metrics.columns)  # fmt: skip
    assert {"force_mae", "energy_mae", "energy_rmse_total", "force_mae_O", "train_seconds"} <= set(metrics["metric"])
    folder = tmp_path / "results" / "s" / table["trial"].iloc[0]
    counts = json.loads((folder / "record.json").read_text())["split"]["counts"]
    assert counts["train"] == table["n_train"].iloc[0]
    assert {"valid", "test_500K"} <= set(counts)
    assert {"record.json", "config.yaml", "worker.log", "predictions.npz", "checkpoint", "native"} <= {
        path.name for path in folder.iterdir()
    }

    checkpoints = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").glob("s/*/checkpoint/*")}
    assert len(checkpoints) == 8
    again = mlpbench(*sweep)
    assert again.returncode == 0
    assert "4 cached" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in checkpoints} == checkpoints

    other_words = mlpbench("plan", "-m", "repetition=0,1", "training.ema_decay=0.99", *TOY[::-1], "study=s")
    assert other_words.stdout.count(" cached") >= 2, other_words.stdout

    planned = mlpbench("plan", "-m", "study=s", *TOY, "training.lr=0.01,0.002", "repetition=0,1")
    states = [line.split()[1].rstrip(":") for line in planned.stdout.splitlines() if line.startswith("toy-")]
    assert states == ["cached", "cached", "new", "new"]  # a changed learning rate, and nothing else


def test_the_command_on_the_page_finds_the_finished_trials_again(tmp_path: Path, mlpbench: Run) -> None:
    """With the data, budget and batch that they had, not the defaults: else it would train anew."""
    frames = Path(package.__file__).parent / "datasets" / "embedded" / "ethanol-pbe" / "pool_500K.xyz"
    mine = ["dataset=file", f"dataset.path={frames}", "training.batch_size=4"]
    assert mlpbench("run", "study=s", *TOY, *mine).returncode == 0
    study = Study.load("s", tmp_path / "results")
    command = run_again(study, study.datasets[0], "evaluation=dev", "evaluation.md=null")
    planned = mlpbench("plan", *shlex.split(command)[2:])
    assert "partly done: physics" in planned.stdout, command + planned.stdout + planned.stderr


def test_converge_doubles_the_steps_until_two_trainings_agree(tmp_path: Path, mlpbench: Run) -> None:
    """The toy's loss is convex: long enough trainings end at one error. A second command finds everything cached."""
    sweep = ["run", "study=s", *SMALL[:-1], "size=tiny", "budget=converge", "budget.steps=40", "budget.interval=2",
             "budget.converge.max_steps=640"]  # fmt: skip
    planned = mlpbench("plan", *sweep[1:]).stdout
    assert "; then twice the steps until it converges, at most 640" in planned
    first = mlpbench(*sweep)
    assert first.returncode == 0, first.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "s").glob("*/record.json")]
    records.sort(key=lambda record: record["training"]["steps"])
    steps = [record["training"]["steps"] for record in records]
    assert len(records) >= 2
    assert steps == [40 * 2**i for i in range(len(steps))]
    assert len({record["ladder"] for record in records}) == 1
    last = records[-1]["training"]
    assert [rung["steps"] for rung in last["rungs"]] == steps
    errors = [rung["error"] for rung in last["rungs"]]
    agree = abs(errors[-1] / errors[-2] - 1) < 0.02
    assert last["converged"] == (agree and all(rung["at_rest"] for rung in last["rungs"][-2:]))
    assert last["converged"] or steps[-1] == 640
    assert records[0]["training"]["converged"] is None
    again = mlpbench(*sweep)
    assert again.stdout.count("(cached)") == len(records)
    planned = mlpbench("plan", *sweep[1:]).stdout
    assert f"{records[-1]['trial']:<60} cached" in planned
    assert "1 trial; nothing to train" in planned
    one = mlpbench("run", "study=s", *SMALL[:-1], "size=tiny", "budget.steps=50", "budget.interval=2")
    assert one.returncode == 0, one.stderr  # the tables hold a number of steps beside "until converged"


def test_of_a_series_the_last_training_alone_is_evaluated_further(tmp_path: Path, mlpbench: Run) -> None:
    sweep = ["study=s", *SMALL[:-1], "size=tiny", "budget=converge", "budget.steps=10", "budget.interval=2",
             "budget.converge.max_steps=20", "budget.converge.margin=0.0001"]  # fmt: skip
    assert mlpbench("run", *sweep, "evaluation=none").returncode == 0
    physics = ["evaluation=dev", "evaluation.md=null", "evaluation.speed=null"]
    planned = mlpbench("plan", *sweep, *physics).stdout
    assert "partly done: physics" in planned
    assert "then twice the steps" not in planned
    for _ in range(2):
        done = mlpbench("run", *sweep, *physics)
        assert done.returncode == 0, done.stdout + done.stderr
        records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "s").glob("*/record.json")]
        checked = {r["training"]["steps"]: "physics" in r["tasks"] for r in records}
        assert checked == {10: False, 20: True}
        assert all("converged" in record["training"] for record in records)
    assert done.stdout.count("(cached)") == 3
    assert "cached" in mlpbench("plan", *sweep, *physics).stdout


def test_repetitions_share_nothing_and_architectures_share_splits(tmp_path: Path, mlpbench: Run) -> None:
    assert mlpbench("run", "-m", "study=s", *TOY, "size=tiny,small", "repetition=0,1").returncode == 0
    table = trials(tmp_path)
    assert table.groupby("repetition")["split"].nunique().tolist() == [1, 1]
    assert table["split"].nunique() == 2
    assert table.groupby("repetition")["init_seed"].nunique().tolist() == [1, 1]


def test_a_timeout_is_recorded_and_the_sweep_goes_on(tmp_path: Path, mlpbench: Run) -> None:
    done = mlpbench("run", "-m", "study=s", *LONG[:-1], "budget.steps=5,40000", "timeout=20")
    assert done.returncode == 1, done.stderr
    table = trials(tmp_path).set_index("budget.steps")
    assert table.loc[40000, "status"] == "timeout"
    assert table.loc[5, "status"] == "done"
    assert "timeout" in done.stdout


MD = [
    "evaluation=dev", "evaluation.physics=null", "evaluation.speed=null", "evaluation.md.own_trajectory=null",
    "evaluation.md.nve=null", "evaluation.md.nvt.length_ps=0.05", "evaluation.md.further_temperatures_K=[900]",
]  # fmt: skip


def test_a_changed_limit_scores_anew_and_runs_nothing(tmp_path: Path, mlpbench: Run) -> None:
    first = mlpbench("run", "study=s", *TOY, *MD)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "results" / "s").glob("toy-*")
    before = json.loads((folder / "record.json").read_text())
    survival = {r["split"]: r["value"] for r in before["metrics"] if r["metric"] == "md_survival"}
    assert set(survival) == {"md_500K", "md_900K"}
    trajectory = (folder / "md" / "nvt.npz").stat().st_mtime_ns
    assert not list((folder / "md").glob("trajectory-*"))

    other = [*TOY, *MD, "evaluation.md.limits.bond_A=0.0001", "evaluation.md.write_extxyz=true"]
    assert "to score" in mlpbench("plan", "study=s", *other).stdout
    again = mlpbench("run", "study=s", *other)
    assert again.returncode == 0, again.stderr
    assert "rescored" in again.stdout
    after = json.loads((folder / "record.json").read_text())
    assert {r["value"] for r in after["metrics"] if r["metric"] == "md_survival"} == {0.0}
    assert (folder / "md" / "nvt.npz").stat().st_mtime_ns == trajectory
    assert after["provenance"] == before["provenance"]  # of the machine that ran it, not of the one that scored it
    assert after["config"]["evaluation"]["md"]["limits"]["bond_A"] == 0.0001
    assert len(list((folder / "md").glob("trajectory-nvt-*.xyz"))) == 16
    assert "1 cached" in mlpbench("run", "study=s", *other).stdout


@pytest.fixture
def background(tmp_path: Path) -> subprocess.Popen[str]:
    """A long trial and a short one, started and left running until the first has trained a few epochs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlpbench", "run", "-m", "study=s", *LONG[:-1], "budget.steps=400,5"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        events = list((tmp_path / "results").glob("s/*/events.jsonl"))
        if events and events[0].read_text().count('"epoch"') > 6:
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the trial did not start")


def test_a_killed_worker_fails_its_trial_and_is_resumed(
    tmp_path: Path, mlpbench: Run, background: subprocess.Popen[str]
) -> None:
    (hello,) = (tmp_path / "results").glob("s/*/tasks/hello.json")
    os.kill(json.loads(hello.read_text())["pid"], signal.SIGKILL)
    output, _ = background.communicate(timeout=120)
    assert background.returncode == 1
    table = trials(tmp_path).set_index("budget.steps")
    assert table.loc[400, "status"] == "failed"
    assert "SIGKILL" in table.loc[400, "reason"]
    assert table.loc[5, "status"] == "done"  # the sweep went on
    assert "SIGKILL" in output

    again = mlpbench("run", "-m", "study=s", *LONG[:-1], "budget.steps=400,5")
    assert again.returncode == 0, again.stderr
    table = trials(tmp_path).set_index("budget.steps")
    assert table.loc[400, "status"] == "done"
    assert bool(table.loc[400, "resumed"])
    assert table.loc[400, "epochs"] == 400
    assert not bool(table.loc[5, "resumed"])


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, background: subprocess.Popen[str]) -> None:
    background.send_signal(signal.SIGINT)
    _, errors = background.communicate(timeout=60)
    assert background.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    table = trials(tmp_path)
    assert table["status"].tolist() == ["interrupted"]
    (hello,) = (tmp_path / "results").glob("s/*/tasks/hello.json")
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads(hello.read_text())["pid"], 0)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["architecture=toy", "trainig.lr=1"], ["trainig.lr", "training.lr"]),
        (["architecture=tooy"], ["no such architecture", "'toy'"]),
        (["architecture=toy", "size=tinny"], ["no such size", "'tiny'"]),
        (["architecture=toy", "training.lr=fast"], ["training.lr", "number"]),
        (["architecture=toy", "architecture.n_basis=lots"], ["architecture.n_basis", "int"]),
        (["architecture=toy", "budget.steps=null"], ["needs a limit"]),
        (["architecture=toy", "repetition=0,1"], ["-m"]),
        (["architecture=toy", "dataset.n_train=5000"], ["5000"]),
        (["architecture=toy", "dataset=file", "dataset.path=nope.xyz"], ["nope.xyz"]),
        (["architecture=toy", "--cfg", "job", "trainig.lr=1"], ["training.lr"]),
        (["-m", "architecture=toy", "training.lr=0.1,-1"], ["greater than 0"]),
        (["study=x", "architecture"], ["'architecture' is not KEY=VALUE", "architecture=..."]),
        (["architecture=toy", "evaluation=dev", "+evaluation.md.limits.bond_a=0.4"], ["bond_a", "bond_A"]),
    ],
)
def test_mistakes_end_with_2_and_leave_nothing(
    tmp_path: Path, mlpbench: Run, arguments: list[str], messages: list[str]
) -> None:
    found = mlpbench("run", *arguments)
    assert found.returncode == 2, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    for message in messages:
        assert message in found.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_an_option_that_the_package_does_not_have_ends_plan_and_run(tmp_path: Path, mlpbench: Run) -> None:
    for command in ("plan", "run"):
        refused = mlpbench(command, "study=s", *TOY, "architecture.native={ridge: 1}")
        assert refused.returncode == 2, refused.stdout
        assert "architecture.native.ridge: the toy has no such option" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "toy-" not in refused.stdout
    assert not list(tmp_path.rglob("events.jsonl"))


def test_hydra_is_all_there(tmp_path: Path, mlpbench: Run) -> None:
    shown = mlpbench("run", "architecture=toy", "--cfg", "job")
    assert shown.returncode == 0
    assert "n_basis: 8" in shown.stdout
    text = mlpbench("run", "--help").stdout
    assert "experiment" in text
    assert "mlpbench run -m" in text
    assert mlpbench("run", "architecture=toy", "--info", "searchpath").returncode == 0
    assert not (tmp_path / "results").exists()


def test_own_conf_wins_over_the_packaged(tmp_path: Path, mlpbench: Run) -> None:
    assert mlpbench("init", ".").returncode == 0
    preset = tmp_path / "conf" / "preset" / "toy" / "tiny.yaml"
    preset.write_text(preset.read_text().replace("n_basis: 8", "n_basis: 5"))
    assert "n_basis: 5" in mlpbench("run", "architecture=toy", "--cfg", "job").stdout
    refused = mlpbench("init", ".")
    assert refused.returncode == 2
    assert "exists already" in refused.stderr


def test_an_unbuilt_backend_names_the_command(tmp_path: Path, mlpbench: Run) -> None:
    found = mlpbench("run", "architecture=toy", MLPBENCH_TOY_PYTHON="", MLPBENCH_HOME=str(tmp_path / "home"))
    assert found.returncode == 2
    assert "mlpbench env build toy" in found.stderr


def test_a_device_that_is_not_there_ends_the_command_before_it_starts(tmp_path: Path, mlpbench: Run) -> None:
    assert mlpbench("run", "study=s", *TOY).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "s").rglob("*") if path.is_file()}
    refused = mlpbench("run", "-m", "study=s", *TOY, "device=cuda:99", "training.lr=0.01,0.02")
    assert refused.returncode == 2, refused.stderr
    assert "device=cuda:99" in refused.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not list((tmp_path / "results" / "s").glob("*/record.json"))[1:]
    cached = mlpbench("run", "study=s", *TOY, "device=cuda:99")
    assert cached.returncode == 0, "what is finished needs no device"
    assert len(trials(tmp_path)) == 1


def test_a_sweep_that_holds_a_trial_twice_is_refused_by_plan_as_by_run(mlpbench: Run) -> None:
    said = [mlpbench(command, "-m", "architecture=toy", "training.lr=0.1,0.1") for command in ("plan", "run")]
    assert [done.returncode for done in said] == [2, 2]
    assert said[0].stderr == said[1].stderr
    assert "twice" in said[0].stderr
