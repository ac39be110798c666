"""Trainings that start from a trial's potential: identity, what can be a start, and how tables call them."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.config.overrides import overrides_of
from mlpbench.errors import UserError
from mlpbench.exporting import export
from mlpbench.frames import Frames
from mlpbench.protocol import read_json, write_json
from mlpbench.run import run_trial
from mlpbench.study.study import Study
from mlpbench.study.trial import Trial
from mlpbench.worker.start import constant, fit_shifts, moved
from tests.support import ETHANOL
from tests.unit.study.conftest import Plan

FROM = ["start=potential", "start.potential=results/pre"]


@pytest.fixture
def pretrained(plan: Plan) -> Trial:
    """A finished trial in ``results/pre``."""
    trial = plan("study=pre", "repetition=5")
    assert run_trial(trial)["status"] == "done"
    return trial


def test_from_scratch_nothing_of_the_start_enters_the_key(plan: Plan) -> None:
    plain = plan()
    assert "start" not in plain.identity
    for same in (["start=scratch"], ["start.potential=results/nowhere"], ["start.lr_factor=0.5"]):
        assert plan(*same).key == plain.key, same
        assert plan(*same).resolved_config["start"]["potential"] is None


def test_the_weights_of_the_start_are_part_of_the_key(plan: Plan, pretrained: Trial) -> None:
    first = plan(*FROM)
    assert first.skip is None
    assert first.key != plan().key
    assert first.training["lr"] == pytest.approx(0.1 * plan().training["lr"])
    by_trial = plan("start=potential", f"start.potential={pretrained.directory}")
    assert by_trial.key == first.key  # the same weights, however they were named
    assert plan(*FROM, "start.lr_factor=1").key != first.key
    other = plan("study=pre", "repetition=6")
    assert run_trial(other)["status"] == "done"
    assert plan("start=potential", f"start.potential={other.directory}").key != first.key
    assert plan(*FROM, "repetition=6").origin.directory == other.directory  # that of the same repetition
    with pytest.raises(UserError, match="2 trials of toy tiny could be the start"):
        plan(*FROM)


def test_a_start_in_the_results_is_recorded_by_a_path_that_can_be_moved(
    plan: Plan, pretrained: Trial, tmp_path: Path
) -> None:
    trial = plan(*FROM)
    assert trial.config.start.potential == tmp_path / "results" / "pre"
    assert trial.resolved_config["start"]["potential"] == "results/pre"
    assert overrides_of(trial.resolved_config)["start.potential"] == "results/pre"
    named = plan("start=potential", f"start.potential={pretrained.directory}")
    assert named.resolved_config["start"]["potential"] == f"results/pre/{pretrained.name}"
    shutil.move(tmp_path / "results" / "pre", tmp_path / "elsewhere")
    outside = plan("start=potential", f"start.potential={tmp_path / 'elsewhere'}")
    assert outside.resolved_config["start"]["potential"] == str(tmp_path / "elsewhere")
    assert outside.key == trial.key


@pytest.mark.parametrize(
    ("path", "said"),
    [("results/per", "there is no such folder"), ("results", "neither a trial nor a study"), ("", "start.potential")],
)
def test_a_path_without_a_trial_is_a_mistake(plan: Plan, pretrained: Trial, path: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan("start=potential", *([f"start.potential={path}"] if path else []))


def test_a_misspelt_study_gets_the_close_match(plan: Plan, pretrained: Trial) -> None:
    with pytest.raises(UserError) as caught:
        plan("start=potential", "start.potential=results/prre")
    assert "Did you mean 'pre'" in str(caught.value)


def test_other_hyperparameters_sizes_or_architectures_are_skipped_with_the_reason(
    plan: Plan, pretrained: Trial
) -> None:
    assert "architecture.cutoff is" in str(plan(*FROM, "architecture.cutoff=3.5").skip)
    assert "it has no trial of toy small" in str(plan(*FROM, "size=small").skip)
    named = ["start=potential", f"start.potential={pretrained.directory}"]
    assert "is of the size tiny" in str(plan(*named, "size=small", *_tiny_as_small(plan)).skip)
    assert "version 1 of the adapter" in str(plan(*FROM, "backend.toy.adapter_version=9").skip).replace(
        f"version {pretrained.config.backend_config.adapter_version} ", "version 1 "
    )
    assert run_trial(plan(*FROM, "architecture.cutoff=3.5"))["status"] == "skipped"


def _tiny_as_small(plan: Plan) -> list[str]:
    """The hyperparameters of tiny, as overrides."""
    known = plan().config.architecture.model_extra or {}
    return [f"architecture.{key}={value}" for key, value in known.items()]


def test_elements_that_the_start_has_not_learnt_are_a_reason_to_skip(plan: Plan, pretrained: Trial) -> None:
    split = pretrained.split.directory
    for name in ("train", "valid"):  # as if it had been trained without oxygen
        frames = Frames.load(split / f"{name}.npz")
        frames.numbers[frames.numbers == 8] = 6
        frames.save(split / f"{name}.npz")
    assert "does not know O, which the data contain" in str(plan(*FROM).skip)


def test_a_trial_that_is_not_done_or_was_altered_is_no_start(plan: Plan, pretrained: Trial) -> None:
    best = pretrained.directory / "checkpoint" / "best.npz"
    content = best.read_bytes()
    best.write_bytes(content + b" ")
    assert "checkpoint/best.npz" in str(plan(*FROM).skip)
    assert "was altered" in str(plan(*FROM).skip)
    best.unlink()
    assert "best.npz" in str(plan(*FROM).skip)
    assert "is missing" in str(plan(*FROM).skip)
    best.write_bytes(content)
    assert plan(*FROM).skip is None
    record = read_json(pretrained.directory / "record.json")
    write_json(pretrained.directory / "record.json", {**record, "status": "failed", "reason": "train: x", "tasks": {}})
    assert "is not done: train: x" in str(plan(*FROM).skip)


def test_a_start_that_was_trained_on_test_frames_is_skipped_unless_leaks_may_pass(plan: Plan) -> None:
    seen = ["dataset=file", f"dataset.path={ETHANOL / 'test_500K.xyz'}", "dataset.name=seen", "study=pre"]
    assert run_trial(plan(*seen, "dataset.n_train=12", "dataset.n_valid=5"))["status"] == "done"
    assert "it was trained on 17 frames of test_500K" in str(plan(*FROM).skip)
    assert plan(*FROM, "dataset.on_leak=warn").skip is None


def test_a_backend_that_cannot_is_skipped(plan: Plan, pretrained: Trial) -> None:
    assert "a training of toy cannot start from a trial" in str(plan(*FROM, "backend.toy.starts=[]").skip)


def test_scratch_and_fine_tuned_are_candidates_and_the_record_says_where_it_began(
    plan: Plan, pretrained: Trial
) -> None:
    record = run_trial(plan(*FROM))
    assert record["status"] == "done", record["reason"]
    said = record["training"]["start"]
    assert said["kind"] == "potential"
    assert said["trial"] == f"pre/{pretrained.name}"
    assert said["weights"] == plan(*FROM).origin.weights
    assert set(said["shifts_eV"]) == {"H", "C", "O"}
    assert said["valid_force_mae"] > 0
    assert json.dumps(record["config"]["start"])
    assert run_trial(plan())["status"] == "done"
    study = Study.load("s", Path("results"))
    assert {one.name: one.start for one in study.candidates} == {
        "Toy pair potential": "scratch", "Toy pair potential (from pre)": "pre",
    }  # fmt: skip
    assert {one.setting.label for one in study.candidates} == {""}
    again: Any = run_trial(plan(*FROM))
    assert again["finished"] == record["finished"]  # cached


def test_the_exported_form_of_a_fine_tuned_potential_has_its_energy_zero(
    plan: Plan, pretrained: Trial, tmp_path: Path
) -> None:
    trial = plan(*FROM)
    record = run_trial(trial)
    assert abs(record["training"]["start"]["shifts_eV"]["O"]) > 1e-5
    export(trial.directory, tmp_path / "out")
    module = runpy.run_path(str(tmp_path / "out" / "potential.py"))
    frames = Frames.load(trial.split.files["test_500K"]).select([0])
    (atoms,) = frames.to_atoms()
    atoms.calc = module["calculator"]()
    with np.load(trial.directory / "predictions.npz") as arrays:
        expected = arrays["test_500K.energy"][0] + frames.baseline[0]
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-8)
    assert f"started from the potential of pre/{pretrained.name}" in (tmp_path / "out" / "CARD.md").read_text()


def test_shifts_are_a_least_squares_fit_and_the_smallest_where_it_is_not_determined() -> None:
    from ase.build import molecule

    frames = Frames.from_atoms([molecule(name) for name in ("H2O", "CH4", "CH3OH", "C2H6")])
    known = {1: -3.0, 6: 11.0, 8: 0.25}
    own = np.linspace(-1, 1, 4)
    labelled = moved(frames, known)
    targets = Frames.from_atoms([molecule(n) for n in ("H2O", "CH4", "CH3OH", "C2H6")], own + labelled.baseline)
    assert fit_shifts(targets, own) == pytest.approx(known)
    one = targets.select([2, 2])
    fitted = fit_shifts(one, own[[2, 2]])
    assert len(set(np.round(list(fitted.values()), 9))) == 1  # one composition: the same for each atom
    np.testing.assert_allclose(constant(one, fitted), one.target_energy - own[2])
    with pytest.raises(ValueError, match="hold no O"):
        constant(frames, {1: 0.0, 6: 0.0})
