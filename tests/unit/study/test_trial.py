"""What identifies a trial, how its folder is called, and what enters its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read, write
from pydantic import ValidationError

from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError
from mlpbench.study.trial import Trial, plan_trial
from tests.support import ETHANOL
from tests.unit.study.conftest import TOY, Plan


def test_what_determines_the_potential_is_its_key_and_nothing_else(plan: Plan) -> None:
    base = plan()
    for same in (
        ["training.ema_decay=0.99"], ["budget.interval=null"], ["results_dir=elsewhere"], ["threads=2"], ["device=cpu"],
        ["evaluation=dev"], ["study=other"], ["dataset.max_net_force=0.5"],
    ):  # fmt: skip
        assert plan(*same).key == base.key, same
    for other in (
        ["training.lr=0.02"], ["budget.epochs=3"], ["dataset.n_train=13"], ["dataset.n_valid=6"], ["repetition=1"],
        ["init_seed=3"], ["split_seed=3"], ["architecture.cutoff=3.5"], ["dtype=float64"], ["dataset.labels=[energy]"],
        ["backend.toy.adapter_version=99"],
    ):  # fmt: skip
        assert plan(*other).key != base.key, other
    assert plan("budget.epochs=3").ladder != base.ladder  # epochs are no steps
    steps = [plan("budget=default", f"budget.steps={n}", "budget.epochs=null") for n in (10, 20)]
    assert steps[0].ladder == steps[1].ladder
    assert steps[0].key != steps[1].key
    assert steps[0].with_steps(20).key == steps[1].key
    assert steps[0].with_steps(20).name == steps[1].name


def test_a_folder_is_named_by_the_trial_and_not_by_what_was_typed(plan: Plan) -> None:
    trial = plan("training.lr=0.01", "repetition=2")
    assert trial.name == f"toy-tiny-ethanol-n12-r2-{trial.key[:8]}"
    assert plan("repetition=2").name == trial.name  # 0.01 is the default
    assert trial.directory == Path("results").resolve() / "s" / trial.name


@pytest.mark.parametrize("name", ["a/b", "x" * 300, "..", ".hidden", "α β"])
def test_any_name_of_a_data_set_makes_one_folder(plan: Plan, name: str) -> None:
    folder = plan(f'dataset.name="{name}"').directory
    assert folder.parent == Path("results").resolve() / "s"
    assert len(folder.name.encode()) < 255
    assert "/" not in folder.name


def test_data_of_other_content_unit_or_labels_are_not_the_same_data(plan: Plan, tmp_path: Path) -> None:
    frames: Any = read(ETHANOL / "test_300K.xyz", index=":40")
    write("a.xyz", frames)
    (tmp_path / "b").mkdir()
    frames[7].positions[0, 0] += 1e-4
    write("b/a.xyz", frames)

    def both(*overrides: str) -> tuple[str, str]:
        file = ("dataset=file", "dataset.n_train=12", "dataset.n_valid=5", "dataset.on_leak=warn")
        identifiers = plan(*file, *overrides).identifiers
        return identifiers["data"], identifiers["frames"]

    def data(*overrides: str) -> str:
        return both(*overrides)[0]

    first = data("dataset.path=a.xyz")
    assert data("dataset.path=a.xyz", "repetition=1", "training.lr=0.1", "dataset.n_train=10") == first
    assert data("dataset.path=b/a.xyz") != first
    assert data("dataset.path=a.xyz", "dataset.energy_unit=kcal/mol") != first
    assert data("dataset.path=a.xyz", "dataset.labels=[energy]") != first
    frames = both("dataset.path=a.xyz")[1]
    assert both("dataset.path=a.xyz", "dataset.labels=[energy]")[1] == frames  # a setting of the same data set
    assert both("dataset.path=b/a.xyz")[1] != frames
    assert both("dataset.path=a.xyz", "dataset.energy_unit=kcal/mol")[1] != frames


def test_labels_and_weights_are_decided_together(plan: Plan) -> None:
    def loss(*overrides: str) -> tuple[list[str], tuple[float, float, float]]:
        trial: Trial = plan(*overrides)
        weights = trial.training
        return trial.labels, (weights["energy_weight"], weights["force_weight"], weights["stress_weight"])

    assert loss() == (["energy", "forces"], (1.0, 1.0, 0.0))
    assert loss("dataset.labels=[forces]") == (["forces"], (0.0, 1.0, 0.0))
    assert loss("training.energy_weight=0") == (["forces"], (0.0, 1.0, 0.0))
    assert loss("dataset.labels=[energy]", "training.force_weight=9") == (["energy"], (1.0, 0.0, 0.0))
    with pytest.raises(UserError, match="nothing enters the loss"):
        loss("dataset.labels=[forces]", "training.force_weight=0")


def test_the_weight_of_an_energy_per_frame_needs_no_split_file(tmp_path: Path, plan: Plan) -> None:
    weights = {"training.energy_per=frame": 81.0, "training.energy_per=atom": 1.0}  # ethanol has nine atoms
    for override, weight in weights.items():
        trial = plan_trial([*TOY, override], write=False)
        assert trial.training["energy_weight"] == weight
    assert not (tmp_path / "results").exists()


def test_a_label_that_some_frames_lack_is_counted_and_refused(plan: Plan) -> None:
    frames: Any = read(ETHANOL / "test_300K.xyz", index=":15")
    for atoms in frames:
        atoms.set_cell(np.eye(3) * 20)
        atoms.pbc = True
        atoms.calc.results["stress"] = np.full(6, 0.01)
    del frames[4].calc.results["stress"]
    write("partial.xyz", frames)
    own = ["dataset=file", "dataset.path=partial.xyz", "dataset.n_train=6", "dataset.n_valid=2", "dataset.on_leak=warn",
           "dataset.split.strategy=random"]  # fmt: skip
    assert plan(*own).labels == ["energy", "forces"]
    for repetition in range(4):  # whichever split the frame falls into
        with pytest.raises(UserError, match=r"\d+ of \d+ frames have stress") as caught:
            plan(*own, "training.stress_weight=1", f"repetition={repetition}")
        assert "training.stress_weight=0" in str(caught.value)


@pytest.mark.parametrize("name", ["train", "valid", "a/b", "md_500K", "", "x" * 61])
def test_test_splits_cannot_take_the_place_of_others(name: str) -> None:
    config = {"name": "d", "kind": "file", "path": "a.xyz", "n_train": 5, "n_valid": 2}
    with pytest.raises(ValidationError, match="cannot be called"):
        DatasetConfig.model_validate({**config, "test_paths": {name: "hot.xyz"}})
    with pytest.raises(ValidationError, match="two test splits"):
        DatasetConfig.model_validate({**config, "test_path": "a.xyz", "test_paths": {"test": "hot.xyz"}})


def test_an_environment_variable_is_stored_as_it_was_written(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_PLACE", "hunter2hunter2")
    trial = plan("dataset.citation=${oc.env:SECRET_PLACE}", "dataset.licence=${dataset.citation}")
    stored = str(trial.resolved_config)
    assert "hunter2" not in stored
    assert trial.resolved_config["dataset"]["citation"] == "${oc.env:SECRET_PLACE}"
    assert trial.config.dataset.citation == "hunter2hunter2"
    # Options of the package go in clear into request.json, native/ and checkpoints.
    for override in ("++architecture.native.token=${oc.env:SECRET_PLACE}",
                     "++training.native.logger={key: '${dataset.citation}'}"):  # fmt: skip
        with pytest.raises(UserError, match="stored in clear") as caught:
            plan("dataset.citation=${oc.env:SECRET_PLACE}", override)
        assert "hunter2" not in str(caught.value)


def test_what_a_backend_declares_impossible_is_skipped_in_the_plan(plan: Plan) -> None:
    frames: Any = read(ETHANOL / "test_300K.xyz", index=":40")
    for atoms in frames:
        atoms.set_cell([9, 9, 9])
        atoms.pbc = True
        atoms.info["stress"] = np.zeros(6)
    write("solid.xyz", frames)
    data = ["dataset=file", "dataset.path=solid.xyz", "dataset.n_train=12", "dataset.n_valid=5"]
    assert plan(*data).skip is None
    without = plan(*data, "backend.toy.periodic=false").skip
    assert without is not None
    assert "no periodic boundaries" in without
    stress = plan(*data, "dataset.stress_key=stress", "training.stress_weight=1").skip
    assert stress is not None
    assert "cannot train on stress" in stress


def test_what_is_solved_at_once_is_not_identified_by_budget_or_rate(plan: Plan) -> None:
    solved = "+backend.toy.iterations=false"
    base = plan(solved)
    for same in (
        ["training.lr=0.02"], ["training.schedule=linear"], ["training.batch_size=2"], ["budget.epochs=3"],
        ["budget=seconds", "budget.seconds=5", "budget.epochs=null"], ["budget=converge", "budget.epochs=null"],
    ):  # fmt: skip
        assert plan(solved, *same).key == base.key, same
    for other in (["training.energy_weight=3"], ["architecture.cutoff=3.5"], ["dataset.n_train=13"]):
        assert plan(solved, *other).key != base.key, other
    ladder = ["budget=converge", "budget.epochs=null"]
    assert plan(*ladder).converges is not None
    assert plan(solved, *ladder).converges is None


def test_a_trial_has_the_precision_and_device_that_its_backend_declares(plan: Plan) -> None:
    double = plan("+backend.toy.dtypes=[float64]")
    assert double.config.dtype == double.identity["dtype"] == double.resolved_config["dtype"] == "float64"
    assert plan("+backend.toy.dtypes=[float64]", "dtype=float64").key == double.key
    for asked in ("auto", "cuda", "cuda:1", "cpu"):
        assert plan("+backend.toy.devices=[cpu]", f"device={asked}").config.device == "cpu"
        assert plan(f"device={asked}").config.device == asked
