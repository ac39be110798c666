"""From a resolved configuration back to overrides that compose it again."""

from __future__ import annotations

import pytest

from mlpbench.config import load_trial
from mlpbench.config.overrides import overrides_of

CASES = {
    "defaults": [],
    "own file": ["dataset=file", "dataset.path='/a b/my set.extxyz'", "dataset.energy_key=REF_energy",
                 "dataset.index=':400'", "dataset.isolated_atoms={H: -13.6, O: -2}", "architecture=toy",
                 "dataset.split.test_fraction=0.3", "dataset.n_train=20", "dataset.labels=[energy]"],
    "several files": ["dataset=file", "dataset.path=pool.xyz", "dataset.test_paths={cold: a.xyz, hot: b.xyz}",
                      "dataset.name=\"it's\"", "dataset.in_distribution=cold"],
    "a variant": ["dataset=rmd17", "dataset.variant=aspirin", "architecture=schnet", "size=small"],
    "groups and single values": ["budget=seconds", "evaluation=dev", "evaluation.md.starts=7", "training.lr=1e-5",
                                 "budget.seconds=60", "+architecture.native.foo=3", "dtype=float64", "device=cpu"],
    "an interpreter": ["backend.mace.python=/usr/bin/python3", "dataset.on_leak=drop", "training.ema_decay=null"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case: str) -> None:
    config = load_trial(["study=mine", "repetition=3", *CASES[case]]).model_dump(mode="json")
    found = overrides_of(config)
    again = load_trial(["study=mine", "repetition=3", *(f"{k}={v}" for k, v in found.items())]).model_dump(mode="json")
    assert again == config
    assert {"study", "repetition"}.isdisjoint(found)


def test_only_what_differs_is_said() -> None:
    config = load_trial(["architecture=toy", "budget.steps=5"]).model_dump(mode="json")
    assert overrides_of(config) == {
        "dataset": "ethanol", "architecture": "toy", "size": "tiny", "dataset.n_train": "200", "budget.steps": "5",
    }  # fmt: skip
    evaluated = load_trial(["architecture=toy", "evaluation=fast"]).model_dump(mode="json")
    assert overrides_of(evaluated)["evaluation"] == "fast"
    assert not any("evaluation" in key for key in overrides_of(evaluated, without=("evaluation",)))


def test_what_a_file_tells_its_reader_may_be_reworded() -> None:
    config = load_trial(["architecture=toy"]).model_dump(mode="json")
    config["dataset"]["traps"] = ["as it was said when the trial ran"]
    assert not any("traps" in key for key in overrides_of(config))
