"""The statistics keep their word, over synthetic studies with fixed seeds (see tests/benchmarks/coverage.py)."""

from __future__ import annotations

import pytest

from tests.benchmarks.coverage import NOISES, PARTS, Noise, design_power, measure, promises


@pytest.mark.parametrize("noise", [NOISES[0], NOISES[2]], ids=lambda noise: noise.name)
def test_the_hardest_cases(noise: Noise) -> None:
    # Three repetitions, where nearly all the variance is the repetitions' own, and where hardly any is.
    assert promises(measure(noise, 3, 100), design_power(noise, 3), 100) == []


@pytest.mark.slow
@pytest.mark.parametrize("repetitions", [3, 5, 10])
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_every_promise_over_500_studies(noise: Noise, repetitions: int) -> None:
    assert promises(measure(noise, repetitions, 500), design_power(noise, repetitions), 500) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_other_promise_over_200_studies(part: str) -> None:
    assert PARTS[part](200) == []
