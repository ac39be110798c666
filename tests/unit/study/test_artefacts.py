"""Whether a result still holds, and why not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read, write

from mlpbench import config, evaluators
from mlpbench.evaluators import Context, Row, Scorer
from mlpbench.metrics import metric_row
from mlpbench.protocol import Result
from mlpbench.records import RECORD, load_record
from mlpbench.run import run_trial
from mlpbench.scoring import rescore
from mlpbench.study import artefacts
from mlpbench.study.artefacts import examine, run_options, wanted
from mlpbench.study.difference import Found, Made, difference, outdated
from mlpbench.study.trial import Trial
from tests.support import ETHANOL
from tests.unit.study.conftest import PHYSICS, Plan


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    found = config.load_trial(["architecture=toy", "evaluation=dev"]).evaluation.md
    assert found is not None
    return found.model_dump()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"limits": {"bond_A": 0.4}}, True),
        ({"reference_splits": ["test_500K"], "reference_interval_fs": 1.0}, True),
        ({"own_trajectory": None}, True),
        ({"write_extxyz": True}, True),
        ({"an_option_of_a_later_version": None}, True),
        ({"npt": None}, True),
        ({"seed": 1}, False),
        ({"further_temperatures_K": [1000.0]}, False),
        ({"nve": None}, False),
    ],
)
def test_only_what_the_simulation_depends_on_runs_it_again(
    options: dict[str, Any], changes: dict[str, Any], same: bool
) -> None:
    assert (run_options("md", {**options, **changes}) == run_options("md", options)) == same


def test_inside_a_run_too(options: dict[str, Any]) -> None:
    longer = {**options, "nvt": {**options["nvt"], "length_ps": 9.0}}
    assert run_options("md", longer) != run_options("md", options)
    added = {**options, "nvt": {**options["nvt"], "of_a_later_version": None}}
    assert run_options("md", added) == run_options("md", options)


# --- the comparison itself, on made-up inputs ------------------------------------------------------------------------

INPUTS: dict[str, dict[str, Any]] = {
    "train": {"frames": "f", "training": {"lr": 0.01}},
    "predict": {"potential": "k", "frames": {"test": "t"}},
    "physics": {"potential": "k", "options": {"n_frames": 4}, "reference structures": {"scan": "g"}},
    "score:accuracy": {"task": "p", "version": 1},
    "score:physics": {"task": "h", "version": 1, "references": {"scan": "r"}},
}


def lies_there(**changes: Made) -> Found:
    made = {name: Made(inputs, stamp=name.removeprefix("score:")) for name, inputs in INPUTS.items()}
    made["score:accuracy"] = Made(INPUTS["score:accuracy"], stamp="predict")
    return Found({}, {**made, **{name.replace("__", ":"): value for name, value in changes.items()}})


def told(found: Found, **changes: dict[str, Any]) -> dict[str, tuple[str, str]]:
    now = {name: {**inputs, **changes.get(name.replace(":", "__"), {})} for name, inputs in INPUTS.items()}
    return {v.artefact: (v.action, v.reason) for v in difference(now, found) if v.action != "keep"}


def test_nothing_changed_is_nothing_to_do() -> None:
    assert told(lies_there()) == {}


def test_another_potential_makes_everything_anew() -> None:
    assert told(lies_there(), train={"training": {"lr": 0.02}}) == {
        "train": ("run", "made with lr = 0.01, now 0.02"),
        "predict": ("run", "the potential is retrained"),
        "physics": ("run", "the potential is retrained"),
        "score:accuracy": ("score", "predict is run"),
        "score:physics": ("score", "physics is run"),
    }


def test_a_changed_formula_or_reference_only_scores() -> None:
    assert told(lies_there(), score__accuracy={"version": 2}) == {
        "score:accuracy": ("score", "made with version 1 of the formulas, now 2")
    }
    assert told(lies_there(), score__physics={"references": {"scan": "s"}}) == {
        "score:physics": ("score", "made from another reference scan")
    }


def test_another_structure_in_a_reference_runs_the_task() -> None:
    found = told(lies_there(), physics={"reference structures": {"scan": "h"}})
    assert found["physics"] == ("run", "made from another structures of reference scan")
    assert set(found) == {"physics", "score:physics"}


def test_a_task_that_ran_again_is_scored_again() -> None:
    assert told(lies_there(predict=Made(INPUTS["predict"], stamp="later"))) == {
        "score:accuracy": ("score", "predict was run since")
    }


def test_damage_runs_the_task_and_a_deleted_checkpoint_only_what_needs_it() -> None:
    broken = Made(INPUTS["predict"], damage="predictions.npz is missing")
    assert set(told(lies_there(predict=broken))) == {"predict", "score:accuracy"}
    gone = Made(INPUTS["train"], damage="checkpoint/best.npz is missing")
    assert told(lies_there(train=gone)) == {}
    assert set(told(lies_there(train=gone, predict=broken))) == set(INPUTS)
    altered = Made(INPUTS["train"], damage="checkpoint/best.npz was altered since it was written")
    assert set(told(lies_there(train=altered))) == set(INPUTS)


def test_a_result_without_its_inputs_counts_by_its_key() -> None:
    from mlpbench.files import digest

    assert told(lies_there(predict=Made(None, digest(INPUTS["predict"]), stamp="predict"))) == {}
    assert told(lies_there(predict=Made(None, "other")))["predict"] == ("run", "made from other inputs")


# --- a finished toy trial --------------------------------------------------------------------------------------------


def trained(trial: Trial) -> int:
    return (trial.directory / "checkpoint" / "best.npz").stat().st_mtime_ns


def run_and_record(trial: Trial) -> dict[str, Any]:
    """Run it; training must not happen again."""
    before = trained(trial)
    record = run_trial(trial)
    assert trained(trial) == before
    assert examine(trial).state == "cached"
    assert outdated(record) == {}
    return record


def test_a_finished_trial_is_cached_and_every_score_says_what_it_is_from(finished: Trial) -> None:
    assert examine(finished).state == "cached"
    record = load_record(finished.directory)
    assert set(record["inputs"]) == {"train", "predict", "physics", "score:cost", "score:accuracy", "score:physics"}
    assert record["inputs"]["score:physics"]["references"].keys() == finished.dataset.references.keys()
    assert {row["scorer"] for row in record["metrics"]} == {"cost", "accuracy", "physics"}
    assert "curve" not in record


def added(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """A metric of a later version: the same every time."""
    return [metric_row("", "best_step", 7.0)]


def test_a_new_metric_reaches_finished_trials(finished: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Scorer("extra", 1, "predict", f"{__name__}:added", frames=False)
    monkeypatch.setitem(evaluators.SCORERS, "extra", extra)
    assert examine(finished).state == "to score"
    assert examine(finished).reasons == ["score:extra: not scored yet"]
    assert outdated(load_record(finished.directory)) == {"extra": "not scored yet"}
    record = run_and_record(finished)
    assert [row["value"] for row in record["metrics"] if row["scorer"] == "extra"] == [7.0]


def test_a_corrected_formula_scores_anew(finished: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    old = evaluators.SCORERS["accuracy"]
    monkeypatch.setitem(evaluators.SCORERS, "accuracy", Scorer("accuracy", old.version + 1, old.task, old.function))
    assert examine(finished).outstanding == []
    assert "version" in examine(finished).reasons[0]
    assert run_and_record(finished)["inputs"]["score:accuracy"]["version"] == old.version + 1


def shifted_scan(plan: Plan, shift: float, stretch: float = 0.0) -> Trial:
    scan = read(ETHANOL / "reference_stretch_OH.xyz", index=":")
    for number, atoms in enumerate(scan):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.positions[0] += stretch
        atoms.calc.results = {"energy": energy + shift * number, "forces": forces}
        atoms.calc.atoms = atoms.copy()
    write("scan.xyz", scan)
    return plan(*PHYSICS, "dataset.references.stretch_OH=${oc.env:PWD}/scan.xyz")


def scan_error(record: dict[str, Any]) -> float:
    (value,) = (r["value"] for r in record["metrics"] if r["metric"] == "scan_rmse_stretch_OH")
    return float(value)


def test_a_shifted_reference_scan_is_scored_anew_and_one_of_other_structures_run(
    finished: Trial, plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    before = scan_error(load_record(finished.directory))
    trial = shifted_scan(plan, 1.0)
    assert trial.directory == finished.directory
    standing = examine(trial)
    assert standing.state == "to score"
    assert standing.reasons == ["score:physics: made from another reference stretch_OH"]
    assert scan_error(run_and_record(trial)) > before + 100  # meV: each step of the scan is 1 eV higher
    moved = shifted_scan(plan, 1.0, stretch=0.01)
    assert [task.name for task in examine(moved).outstanding] == ["physics"]


def test_scores_of_an_edited_reference_are_named_and_made_anew_from_the_record(
    finished: Trial, plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    run_trial(shifted_scan(plan, 0.5))
    record = load_record(finished.directory)
    assert outdated(record) == {}
    shifted_scan(plan, 2.0)  # the file changes in place
    assert outdated(record) == {"physics": "made from another reference stretch_OH"}
    again = rescore(finished.study_root, record, ["physics"])
    assert again["status"] == "done"
    assert outdated(again) == {}
    assert scan_error(again) > scan_error(record) + 100
    assert [r for r in again["metrics"] if r["scorer"] == "accuracy"] == [
        r for r in record["metrics"] if r["scorer"] == "accuracy"
    ]


@pytest.mark.parametrize("how", ["truncate", "delete", "alter"])
@pytest.mark.parametrize("with_record", [True, False])
def test_damaged_predictions_are_made_again(finished: Trial, how: str, with_record: bool) -> None:
    path = finished.directory / "predictions.npz"
    before = load_record(finished.directory)["metrics"]
    if how == "truncate":
        os.truncate(path, 1000)
    elif how == "delete":
        path.unlink()
    else:  # a valid archive of other numbers
        with np.load(path) as arrays:
            content = {name: arrays[name] + 1.0 for name in arrays.files}
        np.savez(path, **content)
    if not with_record:
        (finished.directory / RECORD).unlink()
    standing = examine(finished)
    assert [task.name for task in standing.outstanding] == ["predict"]
    assert "predictions.npz" in standing.reasons[0]
    after = run_and_record(finished)["metrics"]
    assert [row["value"] for row in after if row["scorer"] == "accuracy"] == [
        row["value"] for row in before if row["scorer"] == "accuracy"
    ]


def test_an_altered_checkpoint_is_set_aside_and_trained_anew(finished: Trial) -> None:
    path = finished.directory / "checkpoint" / "best.npz"
    path.write_bytes(path.read_bytes()[:-10])
    assert examine(finished).outstanding[0].name == "train"
    assert run_trial(finished)["status"] == "done"
    assert (finished.directory / "checkpoint.damaged").is_dir()
    assert examine(finished).state == "cached"


def test_a_truncated_checkpoint_of_an_interrupted_training_does_not_fail_for_ever(
    finished: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (RECORD, "inputs.json", "tasks/train.json"):
        (finished.directory / name).unlink()
    os.truncate(finished.directory / "checkpoint" / "last.npz", 100)
    record = run_trial(finished)
    assert record["status"] == "done"
    assert record["training"]["epochs"] == 2
    assert "starts over" in capsys.readouterr().err


def test_a_deleted_checkpoint_does_not_train_what_is_finished(finished: Trial, plan: Plan) -> None:
    shutil.rmtree(finished.directory / "checkpoint")
    assert examine(finished).state == "cached"
    assert examine(plan(*PHYSICS, "evaluation.physics.n_frames=2")).outstanding[0].name == "train"


def test_a_command_that_asks_for_less_leaves_what_a_larger_one_measured(finished: Trial, plan: Plan) -> None:
    smaller = plan()
    assert smaller.directory == finished.directory
    (finished.directory / RECORD).unlink()
    record = run_and_record(smaller)
    assert record["status"] == "done"
    assert {row["scorer"] for row in record["metrics"]} == {"cost", "accuracy", "physics"}
    assert examine(finished).outstanding == []


def test_what_a_larger_command_measured_and_no_longer_holds_is_left_out(finished: Trial, plan: Plan) -> None:
    """Another file stands behind the test split that the physics checks were made on."""
    (finished.directory / RECORD).unlink()
    record = run_trial(plan("dataset.test_paths.test_500K=ethanol-pbe/test_300K.xyz"))
    assert record["status"] == "done"
    assert "physics" not in record["tasks"]


def test_a_fault_of_a_formula_fails_its_trial_and_keeps_the_other_scores(
    finished: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Scorer("accuracy", 99, "predict", "mlpbench.nowhere:score")
    monkeypatch.setitem(evaluators.SCORERS, "accuracy", broken)
    record = run_trial(finished)
    assert record["status"] == "failed"
    assert record["reason"].startswith("scoring accuracy: ModuleNotFoundError")
    assert {row["scorer"] for row in record["metrics"]} == {"cost", "physics"}
    assert "Traceback" in (finished.directory / "scoring.log").read_text()
    assert examine(finished).state == "to score"
    monkeypatch.undo()


def test_results_of_a_core_that_was_killed_before_it_wrote_are_kept(finished: Trial) -> None:
    (finished.directory / "inputs.json").unlink()
    (finished.directory / RECORD).unlink()
    assert examine(finished).state == "to score"
    os.truncate(finished.directory / "predictions.npz", 1000)
    assert [task.name for task in examine(finished).outstanding] == ["predict"]


@pytest.mark.parametrize("content", ["{", '{"format": 1}', ""])
def test_a_record_that_cannot_be_read_is_written_anew(finished: Trial, content: str) -> None:
    (finished.directory / RECORD).write_text(content)
    assert examine(finished).reasons == ["the record is missing, or cannot be read"]
    assert run_and_record(finished)["status"] == "done"


def test_states_of_a_trial_that_has_not_run_or_not_all(plan: Plan, finished: Trial) -> None:
    assert examine(plan("training.lr=0.5")).state == "new"
    more = examine(plan(*PHYSICS, "evaluation.physics.seed=5"))
    assert more.state == "partly done"
    assert more.reasons == ["physics: made with seed = 0, now 5"]
    half = plan("training.lr=0.5")
    (half.directory / "checkpoint").mkdir(parents=True)
    (half.directory / "checkpoint" / "last.npz").write_bytes(b"x")
    assert examine(half).state == "to resume"


def test_a_damaged_result_of_a_task_is_made_again(finished: Trial) -> None:
    for content in ("{", json.dumps({"version": 1}), "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
        (finished.directory / "tasks" / "predict.json").write_text(content)
        assert [task.name for task in examine(finished).outstanding] == ["predict"]


def test_what_is_wanted_depends_on_no_file_of_the_trial(finished: Trial) -> None:
    before = wanted(finished)
    shutil.rmtree(finished.directory)
    assert wanted(finished) == before
    assert artefacts.found(finished.directory).results == {}
    with pytest.raises(FileNotFoundError):
        Result.read(finished.directory, "train")
