"""Options of a package are looked at once for each set of them, and not again where nothing is trained."""

from __future__ import annotations

from typing import Any

import pytest

from mlpbench import run
from mlpbench.errors import UserError
from mlpbench.protocol import Request, Result
from mlpbench.study.artefacts import examine
from mlpbench.study.trial import Trial
from tests.unit.study.conftest import Plan


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options that adapters were asked about; none is refused but ``wrong``."""
    seen: list[dict[str, Any]] = []

    def launch(request: Request, *rest: Any, **more: Any) -> dict[str, Result]:
        (task,) = request.tasks
        native = request.architecture["native"]
        seen.append(native)
        refused = "native.wrong: no such option" if "wrong" in native else None
        return {task.name: Result(task.name, "", "done", values={"refused": refused})}

    monkeypatch.setattr(run, "launch", launch)
    return seen


def test_a_sweep_over_numbers_asks_once_and_over_names_each_time(plan: Plan, asked: list[dict[str, Any]]) -> None:
    numbers = [plan(f"architecture.native={{ridge: {k}}}", f"training.lr=0.0{k}") for k in (1, 2, 3)]
    others = [plan("architecture.native={basis: 1}"), plan("architecture.native={basis: chebyshev}"), plan()]
    run.require_options(examine(trial) for trial in [*numbers, *others])
    assert asked == [{"ridge": 1}, {"basis": 1}, {"basis": "chebyshev"}]


def test_a_refusal_is_the_users_mistake(plan: Plan, asked: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"native\.wrong: no such option"):
        run.require_options([examine(plan("architecture.native={wrong: 1}"))])


def test_what_is_finished_is_not_asked_about(finished: Trial, asked: list[dict[str, Any]], plan: Plan) -> None:
    run.require_options([examine(finished)])
    assert asked == []
