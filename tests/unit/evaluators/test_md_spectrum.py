"""The vibrational spectrum of a run against reference MD of known frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.evaluators.md.motion import INVERSE_FS_IN_CM1, NAME, spectrum_rows, stretches, velocities_of
from mlpbench.evaluators.md.runs import Fate, Run

MASSES = np.array([1.0, 12.0])
STEP, LENGTH = 2.0, 2000.0
SOUND = [Fate("survived", 2.0, 201)]


def positions(times: np.ndarray, *wavenumbers: float) -> np.ndarray:
    """(T, 2, 3) Å: each oscillation along an axis of its own, the centre of mass at rest."""
    found = np.zeros((len(times), 2, 3))
    for axis, wavenumber in enumerate(wavenumbers):
        omega = 2 * np.pi * wavenumber / INVERSE_FS_IN_CM1
        swing = np.sin(omega * times) / omega  # the same power in each
        found[:, 0, axis] = swing * MASSES[1] / MASSES.sum()
        found[:, 1, axis] = -swing * MASSES[0] / MASSES.sum()
    return found


def run_of(*wavenumbers: float) -> Run:
    times = np.arange(0.0, LENGTH + STEP, STEP)
    fine = positions(np.arange(0, LENGTH + STEP, 0.02), *wavenumbers)
    velocities = np.gradient(fine, 0.02, axis=0)[:: round(STEP / 0.02)]
    return Run(
        "nve-0.5fs",
        {
            "velocities": velocities[None, : len(times)].astype(np.float32),
            "time_fs": np.arange(0.0, LENGTH + 1, 10.0), "masses": MASSES, "length_fs": np.array(LENGTH),
        },
    )  # fmt: skip


def test_the_same_oscillation_has_no_error_though_the_reference_has_positions_only() -> None:
    reference = positions(np.arange(0.0, LENGTH + 3, 1.0), 1000.0, 3000.0)
    curves, reasons = {}, {}
    (row,) = spectrum_rows("md_500K", run_of(1000.0, 3000.0), SOUND, STEP, reference, 1.0, reasons, curves)
    assert (row["metric"], row["unit"], row["n"]) == ("vdos_error", "%", 1)
    assert row["value"] < 0.5
    assert not reasons
    (far,) = spectrum_rows("md_500K", run_of(1200.0, 3000.0), SOUND, STEP, reference, 1.0, reasons, curves)
    assert far["value"] == pytest.approx(100 * 100 / 1000, rel=0.1)  # half the power is 200 cm⁻¹ off, width 1000
    ours, theirs = curves[NAME]
    assert ours.centres[np.argmax(ours.density[:200])] == pytest.approx(1200, abs=20)
    assert theirs is not None
    assert theirs.centres[np.argmax(theirs.density[:200])] == pytest.approx(1000, abs=20)


def test_without_a_reference_the_spectrum_is_drawn_and_not_scored() -> None:
    curves, reasons = {}, {}
    assert spectrum_rows("md_500K", run_of(1000.0), SOUND, STEP, None, None, reasons, curves) == []
    assert curves[NAME][1] is None
    assert "no consecutive reference MD" in reasons["vdos_error"]


def test_what_lies_behind_a_collapse_is_not_used() -> None:
    curves, reasons = {}, {}
    early = [Fate("bond", 0.1, 11)]
    assert spectrum_rows("md_500K", run_of(1000.0), early, STEP, None, None, reasons, curves) == []
    assert "no replica was sound for 2000 fs" in reasons["vdos_error"]
    assert curves == {}


def test_frames_that_are_no_neighbours_in_time_are_cut_apart() -> None:
    one = positions(np.arange(0.0, 500.0), 1000.0)
    joined = np.concatenate([one[:200], one[:300] + 20.0])
    assert [len(part) for part in stretches(joined)] == [200, 300]
    assert velocities_of(one, 1.0)[0, 0, 0] == pytest.approx((one[2, 0, 0] - one[0, 0, 0]) / 2)


def test_positions_too_far_apart_give_a_reason() -> None:
    curves, reasons = {}, {}
    reference = positions(np.arange(0.0, LENGTH, 10.0), 1000.0)
    assert spectrum_rows("md_500K", run_of(1000.0), SOUND, STEP, reference, 10.0, reasons, curves) == []
    assert "show nothing above" in reasons["vdos_error"]


def test_without_hydrogen_velocities_may_be_stored_more_rarely() -> None:
    heavy = run_of(500.0)
    heavy.arrays["velocities"], heavy.arrays["masses"] = heavy.arrays["velocities"][:, ::2], np.array([28.0, 28.0])
    curves, reasons = {}, {}
    assert spectrum_rows("md_800K", heavy, SOUND, 2 * STEP, None, None, reasons, curves) == []
    found = curves[NAME][0]
    assert found.centres[np.argmax(found.density)] == pytest.approx(500, abs=20)
    assert found.edges[-1] == pytest.approx(4169.6, abs=0.1)
    assert "5 fs" not in reasons["vdos_error"]
    spectrum_rows("md_800K", heavy, SOUND, 8.0, None, None, reasons, {})
    assert reasons["vdos_error"] == "velocities every 8 fs show nothing above 2085 cm⁻¹"
