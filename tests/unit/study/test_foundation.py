"""Foundation models: what is known of them, trials that start from one or take it as it is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlpbench.backends import foundation
from mlpbench.backends.foundation import Foundation, elements_in, foundations
from mlpbench.backends.registry import Environment
from mlpbench.cli.foundation import execute_foundation
from mlpbench.config import conf_dirs, load_backends
from mlpbench.config.overrides import overrides_of
from mlpbench.errors import UserError
from mlpbench.exporting import export
from mlpbench.files import sha256
from mlpbench.protocol import read_json
from mlpbench.run import require_options, run_trial
from mlpbench.study.artefacts import examine
from mlpbench.study.study import Study
from mlpbench.study.trial import Trial
from tests.unit.study.conftest import Plan


@pytest.fixture
def weights(plan: Plan, tmp_path: Path) -> Path:
    """The toy's file of a trained potential, as somebody might publish it."""
    trial = plan("study=pre", "repetition=5", "dataset.n_train=40", "budget.epochs=30")
    assert run_trial(trial)["status"] == "done"
    (trial.directory / "checkpoint" / "best.npz").rename(tmp_path / "toy-0.npz")
    return tmp_path / "toy-0.npz"


def known(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """The catalogue with one model of the toy's."""
    values = {
        "name": "toy-0", "title": "Toy 0", "architecture": "toy", "package": "toy", "elements": "H-Ne", "level": "PBE",
        "licence": "ASL", "commercial": False, "cutoff": 4.0, "source": "https://example.org", **changes,
    }  # fmt: skip
    monkeypatch.setattr(foundation, "foundations", lambda _: {"toy-0": Foundation.model_validate(values)})


def test_the_catalogue_is_complete() -> None:
    backends = load_backends()
    architectures = {name for backend in backends.values() for name in backend.architectures}
    for model in foundations(conf_dirs()).values():
        assert model.architecture is None or model.architecture in architectures, model.name
        assert not model.inside or model.sha256, f"{model.name}: what a package brings has a digest that is checked"
        assert model.numbers
        if model.architecture is not None:
            backend = next(one for one in backends.values() if model.architecture in one.architectures)
            assert "foundation" in backend.starts, model.name
            assert model.cutoff is not None or not model.inside, model.name  # None: not known, and said so


def test_elements_are_ranges_by_atomic_number() -> None:
    assert elements_in("H Li-B") == {1, 3, 4, 5}
    with pytest.raises(ValueError, match="'X-Yy' is neither"):
        elements_in("H X-Yy")


def test_as_it_is_and_fine_tuned_from_a_file(plan: Plan, weights: Path) -> None:
    given = f"start.file={weights}"
    as_it_is, tuned = plan("start=zero_shot", given), plan("start=foundation", given)
    assert as_it_is.origin.weights == sha256(weights)
    assert as_it_is.skip is tuned.skip is None
    assert as_it_is.key != tuned.key
    # Nothing that belongs to a training or to a size identifies what is not trained.
    for same in ("training.lr=0.5", "budget.epochs=9", "init_seed=3", "size=small"):
        assert plan("start=zero_shot", given, same).key == as_it_is.key, same
    records = [run_trial(trial) for trial in (as_it_is, tuned)]
    assert [record["status"] for record in records] == ["done", "done"], records[0]["reason"]
    zero, fine = (record["training"] for record in records)
    assert (zero["steps"], zero["stopped_by"], zero["at_rest"]) == (0, "zero_shot", True)
    assert zero["start"]["foundation"] == "toy-0"
    assert zero["start"]["file"] == "toy-0.npz"
    assert set(zero["start"]["shifts_eV"]) == {"H", "C", "O"}
    errors = [
        {row["metric"]: row["value"] for row in record["metrics"] if row["split"] == "valid"} for record in records
    ]
    # The error of what is taken as it is, is that before the first step of the fine-tuning.
    assert errors[0]["force_mae"] == pytest.approx(1e3 * fine["start"]["valid_force_mae"])
    assert errors[0]["energy_mae"] == pytest.approx(1e3 * fine["start"]["valid_energy_mae"])
    assert fine["best_valid_loss"] < zero["best_valid_loss"]
    assert not (tuned.directory / "start").exists()
    assert {one.name for one in Study.load("s", Path("results")).candidates} == {
        "Toy pair potential (toy-0 as it is)", "Toy pair potential (from toy-0)",
    }  # fmt: skip
    assert overrides_of(records[1]["config"])["start.file"].strip('"') == str(weights)
    assert run_trial(tuned)["finished"] == records[1]["finished"]  # cached
    export(tuned.directory, Path("out"))
    assert "started from the foundation model toy-0 (licence not stated); " in Path("out/CARD.md").read_text()


def test_a_trial_can_be_taken_as_it_is(plan: Plan) -> None:
    assert run_trial(plan("study=pre", "repetition=5"))["status"] == "done"
    record = run_trial(plan("start=zero_shot", "start.potential=results/pre"))
    assert record["status"] == "done", record["reason"]
    assert record["training"]["steps"] == 0
    assert record["identifiers"]["start"] == "zero_shot pre"
    assert record["identifiers"]["size"] == "tiny"


def test_what_fine_tuning_forgets_is_measured_on_the_starts_own_frames(plan: Plan) -> None:
    assert run_trial(plan("study=pre", "repetition=5", "budget.epochs=30"))["status"] == "done"
    trial = plan("start=potential", "start.potential=results/pre", "start.lr_factor=1")
    record = run_trial(trial)
    values = {row["metric"]: row["value"] for row in record["metrics"]}
    with np.load(trial.directory / "forgetting.npz") as arrays:
        off = {name: np.abs(arrays[name] - arrays["reference"]).mean() for name in ("before", "after")}
    assert values["start_force_mae"] == pytest.approx(1e3 * off["before"])
    assert values["forgetting"] == pytest.approx(off["after"] / off["before"])
    assert record["training"]["start"]["pretraining_labels"] == 17
    assert record["training"]["start"]["pretraining_seconds"] > 0


def test_weights_that_cannot_be_are_skipped_with_the_reason(
    plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("start=foundation", "start.foundation=toy-0", f"start.file={weights}")

    def reason(*overrides: str) -> str:
        return str(plan(*named, *overrides).skip)

    known(monkeypatch)
    assert reason() == "None"
    assert "the licence of toy-0 (ASL) forbids commercial use" in reason("start.use=commercial")
    known(monkeypatch, commercial=None)
    assert "does not say that it allows" in reason("start.use=commercial")
    known(monkeypatch, elements="H C")
    assert "toy-0 does not know O, which the data contain" in reason()
    known(monkeypatch, sha256="0" * 64)
    assert "toy-0.npz is not the published file of toy-0" in reason()
    known(monkeypatch, architecture="mace")
    assert "toy-0 is of the architecture mace, not toy" in reason()
    known(monkeypatch)
    absent = plan("start=foundation", "start.foundation=toy-0")
    assert "are not here: get them from https://example.org and give start.file=PATH" in str(absent.skip)
    assert "has hyperparameters of its own" in reason("architecture.native={x: 1}")
    assert "cannot start from a foundation model" in reason("backend.toy.starts=[potential]")
    assert "start.freeze=representation is not known" in reason("start.freeze=representation")
    assert "start.trust=true loads it all the same" in reason("+backend.toy.pickled=true")
    assert reason("+backend.toy.pickled=true", "start.trust=true") == "None"


def test_mistakes_in_the_command(plan: Plan, weights: Path) -> None:
    for overrides, said in (
        (["start=foundation"], "start=foundation needs start.foundation=NAME"),
        (["start=zero_shot"], "start=zero_shot needs one of"),
        (["start=zero_shot", "start.foundation=x", "start.potential=y"], "start=zero_shot needs one of"),
        (["start=foundation", "start.foundation=7net"], "there is no foundation model '7net'"),
        (["start=foundation", "start.file=nowhere.pth"], "there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            plan(*overrides)


def test_weights_brought_by_hand_are_looked_at_before_anything_is_trained(
    plan: Plan, weights: Path, tmp_path: Path
) -> None:
    def check(path: Path) -> None:
        require_options([examine(plan("start=foundation", f"start.file={path}"))])

    check(weights)
    (tmp_path / "broken.npz").write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match=r"broken\.npz is no potential of the toy's"):
        check(tmp_path / "broken.npz")
    with np.load(weights) as arrays:
        meta = str(arrays["meta"]).replace("[1, 6, 8]", "[1, 6]")
        size = arrays["coefficients"].size
        np.savez(tmp_path / "wrong.npz", meta=np.array(meta), coefficients=arrays["coefficients"])
        np.savez(tmp_path / "lacking.npz", meta=np.array(meta), coefficients=arrays["coefficients"][: size // 2])
    with pytest.raises(UserError, match="coefficients, and"):
        check(tmp_path / "wrong.npz")
    with pytest.raises(UserError, match=r"was not trained on the elements with the atomic numbers \[8\]"):
        check(tmp_path / "lacking.npz")


def test_weights_that_change_between_plan_and_run_are_not_taken(plan: Plan, weights: Path) -> None:
    trial: Trial = plan("start=zero_shot", f"start.file={weights}")
    weights.write_bytes(weights.read_bytes() + b" ")
    record = run_trial(trial)
    assert record["status"] == "failed"


def test_where_a_package_brings_its_weights(tmp_path: Path) -> None:
    model = foundations(conf_dirs())["7net-0"]
    inside = tmp_path / "lib" / "python3.12" / "site-packages" / str(model.inside)
    environment = Environment("sevennet", tmp_path / "bin" / "python", (), "x", False)
    assert model.weights(environment, None) is None
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert model.weights(environment, None) == inside
    assert model.weights(environment, tmp_path) == tmp_path
    assert model.weights(None, None) is None


def test_the_list_and_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    assert execute_foundation(argparse.Namespace(action="list")) == 0
    assert "7net-0" in capsys.readouterr().out
    assert execute_foundation(argparse.Namespace(action="show", name="7net-0")) == 0
    text = capsys.readouterr().out
    assert "sha256 7052cb42" in text
    assert "commercial use allowed" in text
    with pytest.raises(UserError, match="no foundation model"):
        execute_foundation(argparse.Namespace(action="show", name="7net"))


def test_a_fine_tuning_that_failed_before_its_first_validation_is_no_damaged_checkpoint(
    plan: Plan, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = plan("start=foundation", f"start.file={weights}")
    (trial.directory / "checkpoint").mkdir(parents=True)
    (trial.directory / "checkpoint" / "start.json").write_text("{")
    record = run_trial(trial)
    assert record["status"] == "failed"
    assert "could not go on from its checkpoint" not in capsys.readouterr().err
    (trial.directory / "checkpoint" / "start.json").unlink()
    assert run_trial(trial)["status"] == "done"
    assert read_json(trial.directory / "record.json")["training"]["start"]["foundation"] == "toy-0"


@pytest.mark.parametrize("kind", ["potential", "foundation"])
def test_an_interrupted_fine_tuning_goes_on_and_ends_as_an_undisturbed_one(
    plan: Plan, weights: Path, kind: str
) -> None:
    begun = {"potential": "start.potential=results/from", "foundation": f"start.file={weights}"}
    if kind == "potential":
        assert run_trial(plan("study=from", "repetition=5"))["status"] == "done"
    long = (f"start={kind}", begun[kind], "start.lr_factor=1", "budget.epochs=60")

    def stop(event: dict[str, object]) -> None:
        if event.get("event") == "epoch" and int(str(event["epoch"])) > 1:  # the first has left its checkpoint by then
            raise KeyboardInterrupt

    broken = plan("study=broken", *long)
    with pytest.raises(KeyboardInterrupt):
        run_trial(broken, stop)
    assert examine(broken).state == "to resume"
    resumed, straight = run_trial(broken), run_trial(plan("study=straight", *long))
    assert (resumed["status"], straight["status"]) == ("done", "done")
    assert resumed["training"]["epochs"] == 60
    assert resumed["training"]["resumed"]
    numbers = [
        {(row["metric"], row["split"]): row["value"] for row in record["metrics"] if row["scorer"] != "cost"}
        for record in (resumed, straight)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)
    assert ("forgetting", "") in numbers[0] or kind == "foundation"
    assert resumed["training"]["start"]["shifts_eV"] == straight["training"]["start"]["shifts_eV"]
