"""What makes a task's result another one."""

from __future__ import annotations

from typing import Any

import pytest

from mlpbench import config
from mlpbench.study.artefacts import run_options


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
