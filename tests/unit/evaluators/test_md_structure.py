"""Distances, RDF and angles, with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.evaluators.md.structure import (
    Distribution,
    adf_error,
    angle_histogram,
    distance_histogram,
    hr_error,
    largest_r,
    minimum_images,
    rdf,
    rdf_distance,
    rdf_error,
    wasserstein,
)

EVERY = np.arange


def test_distance_histogram_is_a_density() -> None:
    positions = np.array([[[0.0, 0, 0], [1.005, 0, 0], [0, 3.005, 0]]])
    h = distance_histogram(positions)
    assert len(h.density) == 500
    assert (h.density * np.diff(h.edges)).sum() == pytest.approx(1.0)
    assert set(np.flatnonzero(h.density)) == {50, 150, 158}


def test_hr_error_of_disjoint_and_of_same() -> None:
    near, far = np.zeros((1, 2, 3)), np.zeros((1, 2, 3))
    near[0, 1, 0], far[0, 1, 0] = 1.0, 4.0
    assert hr_error(distance_histogram(near), distance_histogram(near)) == 0.0
    assert hr_error(distance_histogram(near), distance_histogram(far)) == pytest.approx(2.0)


def test_ideal_gas_has_a_flat_rdf() -> None:
    generator = np.random.default_rng(0)
    cell = np.eye(3) * 12.0
    positions = generator.uniform(0, 12, (400, 40, 3))
    g = rdf(positions, np.repeat(cell[None], 400, 0), EVERY(40), EVERY(40), 6.0, bins=30)
    assert g.density[3:] == pytest.approx(1.0, abs=0.1)


def test_rdf_between_kinds_of_an_ideal_gas() -> None:
    generator = np.random.default_rng(1)
    positions = generator.uniform(0, 12, (400, 40, 3))
    g = rdf(positions, np.repeat(np.eye(3)[None] * 12, 400, 0), EVERY(10), EVERY(10, 40), 6.0, bins=20)
    assert g.density[3:] == pytest.approx(1.0, abs=0.07)


def test_rdf_against_ase_on_a_crystal() -> None:
    from ase.build import bulk
    from ase.geometry.rdf import get_rdf

    atoms = bulk("Si", cubic=True).repeat(2)
    atoms.rattle(0.1, seed=1)
    expected, _ = get_rdf(atoms, 5.0, 50)
    ours = rdf(atoms.positions[None], atoms.cell.array[None], EVERY(64), EVERY(64), 5.0, bins=50)
    assert ours.density == pytest.approx(expected, rel=0.02, abs=0.02)  # ASE counts N, not N − 1, partners


def test_rdf_error_scale() -> None:
    reference = Distribution(np.linspace(0, 6, 61), np.where(np.arange(60) < 20, 0.0, 1.0))
    gas = Distribution(reference.edges, np.ones(60))
    assert rdf_error(reference, reference) == 0.0
    assert rdf_error(gas, reference) == pytest.approx(100.0)  # no structure at all: as wrong as an ideal gas
    assert rdf_distance(gas, reference) == pytest.approx(2.0)


def test_rdf_refuses_more_than_half_the_cell() -> None:
    with pytest.raises(ValueError, match="the cell only holds 5"):
        rdf(np.zeros((1, 2, 3)), np.eye(3)[None] * 10, EVERY(2), EVERY(2), 6.0)


def test_half_the_smallest_width_of_a_slanted_cell() -> None:
    cell = np.array([[4.0, 0, 0], [3.0, 4.0, 0], [0, 0, 10.0]])
    assert largest_r(cell) == pytest.approx(0.5 * 16 / 5)
    positions = np.array([[0.05, 0.05, 0.05], [3.95, 0.05, 9.95]])
    found = minimum_images(positions, cell, (np.array([0]), np.array([1])))
    assert found == pytest.approx(np.hypot(0.1, 0.1))


def test_angles_of_a_bent_molecule() -> None:
    theta = np.radians(104.5)
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [0.96 * np.cos(theta), 0.96 * np.sin(theta), 0]])
    histogram = angle_histogram(water[None], np.array([8, 1, 1]))
    assert np.flatnonzero(histogram.density).tolist() == [104]


def test_angles_across_the_boundary() -> None:
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]])
    wrapped = (water + np.array([9.8, 9.8, 0.0])) % 10.0
    cells = np.eye(3)[None] * 10.0
    found = angle_histogram(wrapped[None], np.array([8, 1, 1]), cells)
    assert np.flatnonzero(found.density).tolist() in ([89], [90])


def test_no_angles() -> None:
    with pytest.raises(ValueError, match="no bond angles"):
        angle_histogram(np.array([[[0.0, 0, 0], [1.1, 0, 0]]]), np.array([7, 7]))


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    edges = np.linspace(0, 180, 181)
    peak = np.exp(-0.5 * ((edges[:-1] + 0.5 - 90) / 5) ** 2)
    shifted = np.exp(-0.5 * ((edges[:-1] + 0.5 - 97) / 5) ** 2)
    assert wasserstein(Distribution(edges, peak), Distribution(edges, shifted)) == pytest.approx(7.0, rel=1e-6)


def test_no_preference_of_angle_scores_100() -> None:
    edges = np.linspace(0, 180, 181)
    centres = edges[:-1] + 0.5
    reference = Distribution(edges, np.exp(-0.5 * ((centres - 109.5) / 4) ** 2))
    assert adf_error(reference, reference) == 0.0
    assert adf_error(Distribution(edges, np.sin(np.radians(centres))), reference) == pytest.approx(100.0)
