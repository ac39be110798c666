"""Which frames of its own trajectory a potential is judged on, and what hinders that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.md.runs import Fate, Run
from mlpbench.references import own

BACKEND = BackendConfig(adapter="x:y", adapter_version=1, requirements="pyscf.requirements.txt", name="pyscf")
METHOD = {"code": "pyscf", "xc": "pbe", "basis": "def2-svp"}
OPTIONS = {"nvt": {"length_ps": 1.0}, "own_trajectory": {"frames": 3, "reference": METHOD}}


def ends(*frames: int, cause: str = "survived") -> list[Fate]:
    return [Fate(cause, 1.0, count) for count in frames]


def test_frames_are_spread_over_time_and_replicas_before_any_collapse() -> None:
    run = Run("nvt", {})
    picked = own.choose_own(run, ends(101, 101, 30, 101, 1), 4)
    assert [c.replica for c in picked] == [0, 1, 2, 3] or len({c.replica for c in picked}) >= 3
    assert all(c.frame < ends(101, 101, 30, 101, 1)[c.replica].frames for c in picked)
    times = [c.frame for c in picked]
    assert times == sorted(times)
    assert times[0] > 5
    assert times[-1] > 60
    assert {c.kind for c in picked} == {"own"}


def test_the_start_frame_is_none_of_its_own() -> None:
    assert [c.frame for c in own.choose_own(Run("nvt", {}), ends(2, 2), 9)] == [1, 1]
    with pytest.raises(UserError, match="every replica collapsed"):
        own.choose_own(Run("nvt", {}), ends(1, 0), 3)


def test_last_sound_frames_of_the_colder_run_come_first() -> None:
    found = {
        "nvt": [*ends(101), *ends(40, cause="bond"), *ends(1, cause="bond")],  # the last one never left its start
        "nvt-1000K": [*ends(20, 30, 50, cause="exploded"), Fate("wall_limit", 0.5, 50)],
    }
    picked = own.choose_last(found, 3)
    assert [(c.run, c.replica, c.frame) for c in picked] == [("nvt", 1, 39), ("nvt-1000K", 0, 19), ("nvt-1000K", 2, 49)]
    assert own.choose_last(found, 0) == []


def test_labels_are_pending_until_their_environment_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run made while PySCF was missing is labelled later, once its environment is built, and not before."""

    def missing(_: BackendConfig) -> None:
        raise UserError("the environment of pyscf is not built", "mlpbench env build pyscf")

    (tmp_path / "md").mkdir()
    arrays = {"positions": np.zeros((1, 5, 1, 3)), "pbc": np.zeros(3, bool)}
    np.savez(tmp_path / "md" / "nvt.npz", **arrays)
    values = {"runs": {"nvt": {}}, "options": OPTIONS}
    assert own.pending(tmp_path, OPTIONS, {"pyscf": BACKEND})  # never tried
    monkeypatch.setattr(own, "resolve", missing)
    status = own.label_trial(tmp_path, values, Context({}), {"pyscf": BACKEND})
    assert (status["status"], status["retry"]) == ("skipped", True)
    assert "mlpbench env build pyscf" in status["reason"]
    assert json.loads((tmp_path / "md" / "own_labels.json").read_text()) == status
    assert not own.pending(tmp_path, OPTIONS, {"pyscf": BACKEND})  # still missing: asking again would change nothing
    monkeypatch.setattr(own, "resolve", lambda backend: backend)
    assert own.pending(tmp_path, OPTIONS, {"pyscf": BACKEND})


def test_what_no_environment_can_mend_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "md").mkdir()
    np.savez(tmp_path / "md" / "nvt.npz", positions=np.zeros((1, 5, 1, 3)), pbc=np.ones(3, bool))
    values = {"runs": {"nvt": {}}, "options": OPTIONS}
    status = own.label_trial(tmp_path, values, Context({}), {"pyscf": BACKEND})
    assert "this system is periodic" in status["reason"]
    assert not own.pending(tmp_path, OPTIONS, {"pyscf": BACKEND})
    assert own.label_trial(tmp_path, {**values, "options": {"own_trajectory": None}}, Context({}), {}) == {}
    assert not own.pending(tmp_path, {"own_trajectory": None}, {})
