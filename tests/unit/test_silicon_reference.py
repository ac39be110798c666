"""The silicon structures that ship: complete, and their values those of PBE silicon."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.datasets import embedded
from mlpbench.evaluators.properties import reference_sets, reference_values
from mlpbench.files import sha256

FILE = embedded.ROOT / "silicon-pbe" / "reference_properties.xyz"


def test_the_file_is_the_one_that_was_made() -> None:
    assert embedded.expected_digests(FILE.parent)[FILE.name] == sha256(FILE)
    assert FILE.stat().st_size < 200_000


def test_values_are_those_of_pbe_silicon() -> None:
    """Published PBE: a₀ 5.469 Å, B₀ 88.6, C11 153, C12 57, C44 75 GPa, Γ 15.1 THz; 3×3×3 k-points leave 1 to 6 %."""
    found = {name: float(value) for values in reference_values(FILE).values() for name, value in values.items()
             if np.ndim(value) == 0}  # fmt: skip
    published = {
        "eos_a0": (5.469, 0.003), "eos_b0": (88.6, 0.02), "elastic_c11": (153, 0.04), "elastic_c12": (57, 0.04),
        "elastic_c44": (75, 0.07), "phonon_top": (15.1, 0.02), "phonon_imaginary": (0, 0.0),
    }  # fmt: skip
    for name, (value, tolerance) in published.items():
        assert found[name] == pytest.approx(value, rel=tolerance, abs=1e-9), name
    # Two ways to the same modulus: curvature of the energy, and slope of the stress.
    assert found["elastic_bulk"] == pytest.approx(found["eos_b0"], rel=0.02)


def test_forces_balance() -> None:
    for labelled in reference_sets(FILE).values():
        for forces in labelled.forces:
            assert np.abs(forces.sum(axis=0)).max() < 0.02
