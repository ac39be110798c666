"""What every acquisition must do. A package of one's own runs these tests with two lines::

    from mlpbench.testing.acquisitions import *

    KINDS = ("foo",)

Without ``KINDS`` every registered acquisition is tested, on made-up forces of embedded ethanol frames. Needs pytest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlpbench.acquisition import Acquisition, Candidates, Choice, Options, find_acquisition, known_acquisitions
from mlpbench.frames import Frames
from mlpbench.testing.subject import ethanol_frames

COUNT = 7


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each acquisition."""
    if "acquisition" in metafunc.fixturenames:
        kinds = getattr(metafunc.module, "KINDS", tuple(known_acquisitions()))
        metafunc.parametrize("acquisition", [find_acquisition(kind, Options()) for kind in kinds], ids=kinds)


def made_up(acquisition: Acquisition, seed: int = 0) -> Candidates:
    """40 candidates of two groups, 10 labelled frames, and forces that are wrong by an amount of each frame's own."""
    frames = ethanol_frames("pool_500K", 50)
    frames = replace(frames, group=np.arange(50) // 25)
    candidates, random = frames.select(slice(10, 50)), np.random.default_rng(seed)
    width = np.repeat(random.permutation(np.linspace(0.01, 0.5, 40)), candidates.n_atoms)[:, None]
    noise = random.normal(size=(acquisition.potentials, len(candidates.numbers), 3)) * width
    seen = candidates if acquisition.sees_labels else without_labels(candidates)
    return Candidates(seen, frames.select(slice(0, 10)), candidates.forces + noise)


def without_labels(frames: Frames) -> Frames:
    """``frames`` as an acquisition that sees no labels gets them."""
    gone = {name: np.full_like(getattr(frames, name), np.nan) for name in ("energy", "forces", "stress")}
    return replace(frames, **gone)


def chosen(choice: Choice) -> list[int]:
    return [int(index) for index in choice.indices]


def test_it_chooses_as_many_different_frames_as_asked(acquisition: Acquisition) -> None:
    for count in (1, COUNT, 40):
        choice = acquisition.choose(made_up(acquisition), count)
        assert len(set(chosen(choice))) == count == len(choice.scores)
        assert min(chosen(choice)) >= 0
        assert max(chosen(choice)) < 40


def test_the_same_question_has_the_same_answer(acquisition: Acquisition) -> None:
    first, again = (find_acquisition(acquisition.kind, Options()).choose(made_up(acquisition), COUNT) for _ in range(2))
    assert chosen(first) == chosen(again)
    assert np.array_equal(first.scores, again.scores, equal_nan=True)


def test_a_smaller_batch_is_the_start_of_a_larger_one_or_of_its_frames(acquisition: Acquisition) -> None:
    candidates = made_up(acquisition)
    if "shortlist" not in acquisition.reads:  # a shortlist grows with the batch
        assert chosen(acquisition.choose(candidates, 3)) == chosen(acquisition.choose(candidates, COUNT))[:3]


def test_what_it_is_given_is_left_as_it_was(acquisition: Acquisition) -> None:
    given, untouched = made_up(acquisition), made_up(acquisition)
    acquisition.choose(given, COUNT)
    assert np.array_equal(given.forces, untouched.forces)
    for name in ("frames", "labelled"):
        for field in vars(getattr(given, name)):
            before, after = getattr(getattr(untouched, name), field), getattr(getattr(given, name), field)
            assert np.array_equal(before, after, equal_nan=before.dtype.kind == "f"), field


def test_turning_the_candidates_changes_no_choice(acquisition: Acquisition) -> None:
    candidates = made_up(acquisition)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = [
        replace(frames, positions=frames.positions @ turn + 1.5, forces=frames.forces @ turn)
        for frames in (candidates.frames, candidates.labelled)
    ]
    again = acquisition.choose(Candidates(turned[0], turned[1], candidates.forces @ turn), COUNT)
    assert chosen(again) == chosen(acquisition.choose(candidates, COUNT))


def test_its_settings_are_ones_that_there_are(acquisition: Acquisition) -> None:
    assert set(acquisition.reads) <= set(vars(Options()))
    assert acquisition.potentials >= 0
    acquisition.require(_two_groups(), ["energy", "forces"])


def _two_groups() -> Frames:
    frames = ethanol_frames("pool_500K", 20)
    return replace(frames, group=np.arange(20) // 10)
