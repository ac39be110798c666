"""When rounds end for noise, and how they take up what another architecture's potentials chose."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlpbench import rounds
from mlpbench.acquisition import Manifest, write_manifest
from mlpbench.config import AcquisitionConfig
from mlpbench.errors import UserError
from mlpbench.protocol import write_json
from mlpbench.records import RECORD


def committee(*errors: float) -> list[dict[str, Any]]:
    return [{"training": {"best_valid_loss": error**2}} for error in errors]


@pytest.mark.parametrize(
    ("before", "now", "ends"),
    [
        ((1.00, 1.02, 0.98), (0.80, 0.82, 0.78), False),  # ten times the scatter
        ((1.00, 1.10, 0.90), (0.98, 1.08, 0.88), True),
        ((1.00, 1.02, 0.98), (1.20, 1.22, 1.18), True),  # worse
        ((1.00, 1.02, float("nan")), (1.0, 1.0, 1.0), False),  # not known: ends nothing
    ],
)
def test_a_series_ends_once_a_round_gains_nothing_beyond_the_scatter_of_its_committee(
    before: tuple[float, ...], now: tuple[float, ...], ends: bool
) -> None:
    asked: Any = SimpleNamespace(rounds=AcquisitionConfig(kind="committee", beyond_noise=True, members=3))
    assert rounds._within_noise(asked, committee(*before), committee(*now)) == ends
    assert not rounds._within_noise(asked, [], committee(*now))
    unasked: Any = SimpleNamespace(rounds=AcquisitionConfig(kind="committee", members=3))
    assert not rounds._within_noise(unasked, committee(*before), committee(*now))


ASKED = {"kind": "committee", "version": 1, "options": {"members": 3}, "count": 2, "labelled": "a", "candidates": "b"}


def chosen(root: Path, architecture: str, number: int, **more: Any) -> Manifest:
    """A manifest of rounds of ``architecture``, and the record of the potential that it asked."""
    trial = f"{architecture}-{number}"
    asked = {**ASKED, "potentials": [f"key of {trial}"], **more}
    manifest = Manifest(
        "committee", 1, 0, asked, [1, 2, 3, 4], [3, 4], [0.2, 0.1], ("disagreement", "eV/Å"), ["x", "y"],
        [{"trial": trial, "key": f"key of {trial}", "forces_sha256": "f"}],
    )  # fmt: skip
    write_manifest(root / "acquisitions" / f"{trial}.json", manifest)
    (root / trial).mkdir()
    write_json(root / trial / RECORD, record(trial, architecture))
    return manifest


def record(trial: str, architecture: str) -> dict[str, Any]:
    return {"trial": trial, "identifiers": {"architecture": architecture}}


def test_what_another_architecture_chose_after_the_same_frames_is_taken_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_asked", lambda trial, finished: {**ASKED, "potentials": []})
    monkeypatch.setattr(rounds, "load_record", lambda folder: record(folder.name, folder.name.split("-")[0]))
    trial: Any = SimpleNamespace(
        study_root=tmp_path, rounds=AcquisitionConfig(kind="committee", chosen_by="painn"),
        config=SimpleNamespace(dataset=SimpleNamespace(n_train=2), repetition=0),
    )  # fmt: skip
    chosen(tmp_path, "mace", 1)
    chosen(tmp_path, "painn", 1, labelled="other frames")
    chosen(tmp_path, "painn", 2, count=5)
    assert rounds._chosen_elsewhere(trial) is None
    with pytest.raises(UserError, match="no potentials of that architecture"):
        rounds._manifest(trial, [], lambda *_: pytest.fail("nothing is predicted"))
    wanted = chosen(tmp_path, "painn", 3)
    assert rounds._chosen_elsewhere(trial) == wanted
    assert rounds._manifest(trial, [], lambda *_: pytest.fail("nothing is predicted")) == wanted
    chosen(tmp_path, "painn", 4)
    with pytest.raises(UserError, match="several committees chose"):
        rounds._chosen_elsewhere(trial)
