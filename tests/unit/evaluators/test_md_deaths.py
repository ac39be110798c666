"""Made-up trajectories of every kind of death, each told from the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlpbench.evaluators.md.fates import Limits, bonds_of, classify, distances
from mlpbench.evaluators.md.runs import Fate, Replica
from tests.support import ethanol_frames

FRAMES = ethanol_frames("test_500K", 100)
NUMBERS = FRAMES.numbers[:9]
GEOMETRIES = FRAMES.positions.reshape(-1, 9, 3)
MEAN = distances(GEOMETRIES).mean(axis=0)
T = 200
STEP = 10.0  # fs


def replica(ended: str = "finished", ended_fs: float | None = None, **changes) -> Replica:
    """2 ps of a perfectly stable ethanol, changed where the test says so."""
    generator = np.random.default_rng(0)
    arrays = {
        "positions": GEOMETRIES[np.arange(T) % 100].copy(),
        "temperature": 500 + 100 * generator.standard_normal(T),
        "potential": generator.standard_normal(T) * 0.1,
        **changes,
    }
    length = (T - 1) * STEP
    return Replica(
        np.arange(T) * STEP, ended=ended, ended_fs=length if ended_fs is None else ended_fs, length_fs=length, **arrays
    )


def fate(which: Replica, **limits):
    return classify(which, NUMBERS, 500.0, Limits(**limits), molecule=True, mean_distances=MEAN)


def stable() -> np.ndarray:
    return replica().positions


def test_perfectly_stable() -> None:
    found = fate(replica())
    assert (found.cause, found.time_ps, found.frames, found.died) == ("survived", 1.99, T, False)


@pytest.mark.parametrize("array", ["positions", "temperature", "potential"])
def test_nan_between_two_frames(array: str) -> None:
    """The engine saw it at 1.007 ps, between two stored frames; everything behind is NaN and never 'stable'."""
    values = getattr(replica(), array).copy()
    values[101:] = np.nan
    found = fate(replica("non_finite", 1007.0, **{array: values}))
    assert (found.cause, found.frames, found.died) == ("non_finite", 101, True)
    assert found.time_ps == pytest.approx(1.007)


def test_nan_from_the_first_frame() -> None:
    found = fate(replica("non_finite", 0.5, positions=np.full((T, 9, 3), np.nan)))
    assert (found.cause, found.frames) == ("non_finite", 0)
    assert found.time_ps == pytest.approx(0.0005)


def test_nan_that_no_one_reported_is_a_death_all_the_same() -> None:
    positions = stable()
    positions[150] = np.nan
    assert fate(replica("finished", positions=positions)).cause == "non_finite"


def test_exploded() -> None:
    positions = stable()
    positions[120:] = np.nan
    found = fate(replica("exploded", 1195.0, positions=positions))
    assert (found.cause, found.time_ps) == ("exploded", pytest.approx(1.195))


def test_ejected_hydrogen() -> None:
    """A hydrogen leaves at frame 80: a broken bond first, whatever the temperature does later."""
    positions = stable()
    for k in range(80, T):
        positions[k, 3] += np.array([0.3, 0.0, 0.0]) * (k - 79)
    kelvins = replica().temperature
    kelvins[120:] = 1e4
    found = fate(replica(positions=positions, temperature=kelvins))
    assert found.cause == "bond"
    assert 80 <= found.frames <= 83
    assert found.detail.startswith("O2–H3")


def test_slow_drift_of_the_temperature() -> None:
    """Heating slowly and evenly: too hot once the window's mean passes 5·T₀, not at the first hot frame."""
    kelvins = 500 + 20.0 * np.arange(T)
    found = fate(replica(temperature=kelvins), temperature_window_fs=500.0)
    mean_at_end = kelvins[found.frames - 49 : found.frames + 1].mean()
    assert found.cause == "too_hot"
    assert 2500 < mean_at_end < 2540
    assert kelvins[found.frames - 1] > 2500  # single frames were hotter before


def test_frozen() -> None:
    kelvins = replica().temperature
    kelvins[50:] = 0.01
    positions = stable()
    positions[50:] = positions[50]
    found = fate(replica(positions=positions, temperature=kelvins))
    assert found.cause == "too_cold"
    assert 50 < found.frames < 100


def test_one_hot_frame_is_a_fluctuation() -> None:
    kelvins = replica().temperature
    kelvins[77] = 4000.0
    assert fate(replica(temperature=kelvins)).cause == "survived"


def test_wall_clock_stop_is_censored_not_failed() -> None:
    positions, kelvins, potential = stable(), replica().temperature, replica().potential
    for array in (positions, kelvins, potential):
        array[90:] = np.nan
    which = replica("wall_limit", 895.0, positions=positions, temperature=kelvins, potential=potential)
    found = fate(which)
    assert (found.cause, found.frames, found.died) == ("wall_limit", 90, False)
    assert found.time_ps == pytest.approx(0.895)


def test_a_replica_that_broke_before_the_clock_ran_out_has_failed() -> None:
    positions = stable()
    positions[40:, 3] += 1.0
    positions[90:] = np.nan
    assert fate(replica("wall_limit", 895.0, positions=positions)).cause == "bond"


def test_overlap_of_atoms_that_are_not_bonded() -> None:
    positions = stable()
    bonds = {tuple(b) for b in bonds_of(positions[0], NUMBERS, 1.3)}
    assert len(bonds) == 8
    assert (3, 6) not in bonds
    # bring everything bonded to nothing of it close: only the pair moves, and only for one frame
    found = classify(
        replica(positions=positions),
        NUMBERS,
        500.0,
        Limits(overlap_factor=3.0, bond_A=9.0),
        molecule=True,
        mean_distances=MEAN,
    )
    assert found.cause == "overlap"


def test_two_hydrogens_that_stick_together_are_too_close_though_no_bond_broke() -> None:
    """H4 and H5 at 1.05 Å, as a false minimum of a potential had them; no reference frame has hydrogens below 1.4 Å."""
    positions = stable()
    middle = 0.5 * (positions[60:, 4] + positions[60:, 5])
    along = positions[60:, 5] - positions[60:, 4]
    along /= np.linalg.norm(along, axis=-1)[:, None]
    positions[60:, 4], positions[60:, 5] = middle - 0.525 * along, middle + 0.525 * along
    closest = distances(stable()).min(axis=0)
    assert 1.35 < closest[3:, 3:][np.triu_indices(6, 1)].min() < 1.8

    def found(**limits: Any) -> Fate:
        return classify(
            replica(positions=positions), NUMBERS, 500.0, Limits(**limits), molecule=True, mean_distances=MEAN,
            closest=closest,
        )  # fmt: skip

    assert (found().cause, found().frames, found().pair) == ("overlap", 60, (4, 5))
    assert found().detail == "H4–H5 1.05 Å"
    assert found(contact_A=None).cause == "survived"


def test_first_failure_decides_and_order_breaks_ties() -> None:
    positions = stable()
    positions[60:, 3] += 5.0  # bond, and a fragment, both at frame 60
    assert fate(replica(positions=positions)).cause == "bond"
    assert fate(replica(positions=positions), bond_A=99.0).cause == "fragment"


def test_a_shorter_run_than_the_window_is_judged_on_what_there_is() -> None:
    which = replica()
    short = Replica(
        which.time_fs[:5], which.positions[:5], np.full(5, 1e4), which.potential[:5], "finished", 40.0, 40.0
    )
    assert fate(short).cause == "too_hot"


def test_bonds_of_a_periodic_system_are_not_judged() -> None:
    positions = stable()
    positions[60:, 3] += 5.0
    found = classify(replica(positions=positions), NUMBERS, 500.0, Limits(), molecule=False)
    assert found.cause == "survived"


def test_structure() -> None:
    found = classify(replica(), NUMBERS, 500.0, Limits(), molecule=False, structure=lambda positions: 120)
    assert (found.cause, found.frames) == ("structure", 120)
