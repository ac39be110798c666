"""Reference methods, sampling and recipes as conf/ has them."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from mlpbench.config import compose_raw, conf_dirs, load_trial, packaged_conf
from mlpbench.references.labels import label_key
from mlpbench.references.methods import METHODS, complete_method, level_of
from mlpbench.references.sampling import Sampling, start_structure
from tests.support import ETHANOL


def composed(*overrides: str) -> dict:
    return OmegaConf.to_container(compose_raw(overrides, name="data"), resolve=True)


@pytest.mark.parametrize("name", sorted(path.stem for path in (packaged_conf() / "reference").glob("*.yaml")))
def test_every_reference_method_is_sound(name: str) -> None:
    yours = {
        "espresso": ["arguments.profile.pseudo_dir=/upf", "arguments.pseudopotentials={Si: Si.upf}"],
    }.get(name, [])
    node = composed(f"reference={name}", *(f"reference.{setting}" for setting in yours))
    assert complete_method(node["reference"])["backend"] in node["backend"]
    assert set(node["reference"]) == set(METHODS[node["reference"]["code"]].model_fields)  # so each can be overridden
    as_sampler = composed(f"reference@sampler={name}", *(f"sampler.{setting}" for setting in yours))
    assert as_sampler["sampler"] == node["reference"]


def test_every_code_has_an_example() -> None:
    assert {composed(f"reference={path.stem}")["reference"]["code"]
            for folder in conf_dirs() for path in (folder / "reference").glob("*.yaml")} == set(METHODS)  # fmt: skip


def test_sampling_settings_can_all_be_overridden() -> None:
    node = composed("sampling.temperatures_K=[300,600]", "sampling.seeds=[1,2]")
    assert set(node["sampling"]) == set(Sampling.model_fields)
    assert len(Sampling.model_validate(node["sampling"]).planned()) == 4


def test_the_recipe_of_the_embedded_set_is_its_level_of_theory() -> None:
    node = composed("recipe=ethanol")
    recipe = complete_method(node["reference"])
    dataset = load_trial(["dataset=ethanol"]).dataset
    assert dataset.reference_method is not None
    assert level_of(recipe) == level_of(complete_method(dataset.reference_method))
    atoms = start_structure(node["sampling"]["start"])
    assert label_key(atoms.numbers, atoms.positions, recipe) == label_key(
        atoms.numbers, atoms.positions, complete_method(dataset.reference_method)
    )
    assert complete_method(node["sampler"])["hamiltonian"] == "GFN2-xTB"
    planned = Sampling.model_validate(node["sampling"]).planned()
    for name, trajectory in planned.items():
        lines = (ETHANOL / f"{name}.xyz").read_text().splitlines()
        assert len(lines) == trajectory.frames * (int(lines[0]) + 2)
        assert f"temperature_K={trajectory.temperature_K:g} " in lines[1]
