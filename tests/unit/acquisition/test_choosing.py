"""What each acquisition chooses, where the right answer is known; descriptors, manifests, and bad input."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from mlpbench.acquisition import Acquisition, Candidates, Choice, Manifest, Options, choosing, find_acquisition
from mlpbench.acquisition.descriptor import describe, farthest_points
from mlpbench.acquisition.manifest import manifest_path, read_manifest, write_manifest
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.testing.acquisitions import made_up
from tests.support import ethanol_frames


def spread(candidates: Candidates) -> np.ndarray:
    deviation = candidates.forces.std(axis=0, ddof=1).reshape(len(candidates.frames), -1)
    return np.sqrt((deviation**2).mean(axis=1))


def test_committee_takes_the_largest_disagreement() -> None:
    committee = find_acquisition("committee", Options(members=3))
    candidates = made_up(committee)
    choice = committee.choose(candidates, 5)
    expected = np.argsort(-spread(candidates))[:5]
    assert choice.indices.tolist() == expected.tolist()
    assert choice.scores == pytest.approx(spread(candidates)[expected])


def test_oracle_takes_the_largest_true_error() -> None:
    oracle = find_acquisition("oracle", Options())
    candidates = made_up(oracle)
    error = (candidates.forces[0] - candidates.frames.forces).reshape(len(candidates.frames), -1)
    choice = oracle.choose(candidates, 5)
    assert choice.indices.tolist() == np.argsort(-(error**2).mean(axis=1))[:5].tolist()
    assert choice.scores == pytest.approx(np.sqrt((error**2).mean(axis=1))[choice.indices])


def test_committee_farthest_stays_on_the_shortlist_and_is_spread_out() -> None:
    both = find_acquisition("committee_farthest", Options(members=3, shortlist=2.0))
    candidates = made_up(both)
    choice = both.choose(candidates, 5)
    listed = set(np.argsort(-spread(candidates))[:10].tolist())
    assert set(choice.indices.tolist()) <= listed
    points = describe(Frames.concatenate([candidates.labelled, candidates.frames]))[10:]

    def closest(indices: list[int]) -> float:
        return min(float(np.linalg.norm(points[i] - points[j])) for i in indices for j in indices if i < j)

    top = np.argsort(-spread(candidates))[:5].tolist()
    assert closest(choice.indices.tolist()) >= closest(top)


def test_campaign_goes_group_by_group_and_needs_two() -> None:
    campaign = find_acquisition("campaign", Options())
    candidates = made_up(campaign)
    choice = campaign.choose(candidates, 20)
    assert candidates.frames.group[choice.indices].tolist() == [0] * 15 + [1] * 5
    with pytest.raises(UserError, match="in which order"):
        campaign.require(ethanol_frames("pool_500K", 10), ["energy", "forces"])


@pytest.mark.parametrize("kind", ["committee", "committee_farthest", "oracle"])
def test_disagreement_of_forces_needs_forces(kind: str) -> None:
    with pytest.raises(UserError, match="goes by forces"):
        find_acquisition(kind, Options()).require(ethanol_frames("pool_500K", 10), ["energy"])


def test_farthest_points_on_a_line() -> None:
    points = np.array([[0.0], [1.0], [4.0], [10.0], [6.5]])
    indices, distances = farthest_points(points, np.array([[0.0]]), 4)
    assert indices.tolist() == [3, 2, 4, 1]
    assert distances.tolist() == [10.0, 4.0, 2.5, 1.0]


def test_descriptor_does_not_see_rotation_shift_order_or_the_choice_of_cell() -> None:
    frames = ethanol_frames("pool_500K", 12)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    moved = replace(frames, positions=frames.positions @ turn - 3.0)
    assert describe(moved) == pytest.approx(describe(frames), abs=1e-9)
    shuffled = [atoms[np.random.default_rng(2).permutation(len(atoms))] for atoms in frames.to_atoms()]
    assert describe(Frames.from_atoms(shuffled)) == pytest.approx(describe(frames), abs=1e-9)
    cells = [
        bulk("Cu", a=a, cubic=cubic).repeat(r) for a, cubic, r in ((3.6, False, 1), (3.6, True, 2), (3.7, False, 1))
    ]
    first, same, other = describe(Frames.from_atoms(cells))
    assert first == pytest.approx(same, abs=1e-9)
    assert np.linalg.norm(first - other) > 1.0


def test_an_unknown_acquisition_has_a_close_match() -> None:
    with pytest.raises(UserError, match="no such acquisition") as caught:
        find_acquisition("comittee", Options())
    assert "committee" in str(caught.value.hint)


class Worst(Acquisition):
    kind = "worst"

    def choose(self, candidates: Candidates, count: int) -> Choice:
        return Choice(np.arange(count), np.zeros(count))


class Half(Acquisition):
    kind = "half"


def _point(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, choosing.ENTRY_POINTS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    def put(*points: metadata.EntryPoint) -> None:
        monkeypatch.setattr(choosing.metadata, "entry_points", lambda group: list(points))
        choosing._known.cache_clear()

    yield put
    monkeypatch.undo()
    choosing._known.cache_clear()


def test_a_package_outside_brings_an_acquisition(installed) -> None:
    installed(_point("worst", f"{__name__}:Worst"))
    assert type(find_acquisition("worst", Options())) is Worst


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("worst", "no_such_module:Worst", "cannot be loaded"),
        ("other", f"{__name__}:Worst", "no Acquisition whose 'kind' is 'other'"),
        ("worst", f"{__name__}:spread", "no Acquisition"),
        ("half", f"{__name__}:Half", "does not define choose"),
    ],
)
def test_an_entry_point_that_is_wrong_is_named(installed, name: str, value: str, said: str) -> None:
    installed(_point(name, value))
    with pytest.raises(UserError, match=said):
        find_acquisition("random", Options())


def manifest() -> Manifest:
    return Manifest(
        kind="committee", round=1, repetition=0, asked={"count": 2}, train=[5, 3, 9, 1], chosen=[9, 1],
        scores=[0.5, None], score=("disagreement", "eV/Å"), frames_sha256=["a", "b"], potentials=[],
    )  # fmt: skip


def test_a_manifest_is_read_as_it_was_written_and_an_altered_one_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = manifest()
    path = manifest_path(tmp_path, "ethanol", "committee", 4, 0, one.key)
    assert read_manifest(path) is None
    assert capsys.readouterr().err == ""
    write_manifest(path, one)
    assert read_manifest(path, one.key) == one
    assert read_manifest(path, "another") is None
    path.write_text(path.read_text().replace("0.5", "0.25"))
    assert read_manifest(path, one.key) is None
    assert "not as it was written" in capsys.readouterr().err
