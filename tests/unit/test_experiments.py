"""Every experiment that is shipped composes, with the last value of each of its parameters."""

from __future__ import annotations

import pytest
import yaml

from mlpbench import config
from mlpbench.errors import UserError

# What is given with it by hand.
GIVEN = {"foundation": ["architecture=chgnet", "start.foundation=chgnet-0.3.0"]}
EXPERIMENTS = sorted((config.packaged_conf() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.stem))
def test_an_experiment_composes(path) -> None:
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    grid = stated["hydra"]["sweeper"]["params"]
    assert grid
    if path.stem != "finetune":  # its potentials are pretrained first
        chosen = [f"{key}={str(values).split(',')[-1]}" for key, values in grid.items()]
        trial = config.load_trial([f"experiment={path.stem}", *chosen, *GIVEN.get(path.stem, [])])
        assert trial.study.startswith(path.stem.removesuffix("_beyond"))


def test_the_reference_study_has_every_architecture() -> None:
    stated = yaml.safe_load((config.packaged_conf() / "experiment" / "reference.yaml").read_text(encoding="utf-8"))
    known = {path.stem for path in (config.packaged_conf() / "architecture").glob("*.yaml")} - {"toy"}
    assert set(stated["hydra"]["sweeper"]["params"]["architecture"].split(",")) >= known - {"chgnet", "so3krates"}


def test_no_evaluation_beside_an_experiment_that_sets_a_part_of_one_says_what_to_add() -> None:
    with pytest.raises(UserError, match=r"evaluation\.md=null leaves that out"):
        config.load_trial(["experiment=stability", "architecture=schnet", "evaluation=none"])
    trial = config.load_trial(["experiment=stability", "architecture=schnet", "evaluation=none", "evaluation.md=null"])
    assert trial.evaluation.md is None
    assert config.load_trial(["experiment=reference", "architecture=gap", "evaluation=none"]).evaluation.md is None
