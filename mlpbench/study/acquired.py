"""The trials of a series of rounds: the next one after a manifest, the members of a committee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlpbench.acquisition import NONE, Manifest
from mlpbench.config import AcquisitionConfig
from mlpbench.datasets.splits import drawable
from mlpbench.files import derive
from mlpbench.frames import Int
from mlpbench.study.settings import RANDOM
from mlpbench.study.trial import Trial, split_of


def random_order(trial: Trial) -> Int:
    """Pool indices of all frames that may be trained on, in the random order of the trial's split."""
    return drawable(trial.dataset, trial.config.dataset, trial.split_seed)[1]


def next_round(trial: Trial, manifest: Manifest, *, write: bool = True) -> Trial:
    """The trial that is trained on what ``manifest`` chose.

    If these are the frames that a trial without rounds has, it is that trial: rounds of ``random``, and every first
    round, are shared with all others.

    Args:
        trial: of the round before.
        manifest: of this round.
        write: write the split's files.
    """
    rounds, count = trial.rounds, len(manifest.train)
    assert rounds is not None, "a trial that stands alone has no next round"
    plain = manifest.train == random_order(trial)[:count].tolist()
    own = (
        AcquisitionConfig()
        if plain
        else rounds.model_copy(update={"until": count, "margin": None, "beyond_noise": False})
    )
    data = trial.config.dataset.model_copy(update={"n_train": count})
    config = trial.config.model_copy(update={"dataset": data, "acquisition": own})
    split = split_of(config, trial.dataset, trial.split_seed, write, None if plain else manifest.train)
    return replace(trial, config=config, split=split, manifest=None if plain else manifest)


def member_of(trial: Trial, member: int) -> Trial:
    """The trial with other initial weights and another batch order: a member of its committee, from 1.

    It is asked for forces alone, so nothing but its accuracy is measured.
    """
    seed = derive("member", trial.init_seed, member)
    return replace(trial.for_accuracy(), init_seed=seed, member=member, rounds=None)


def acquisitions_of(configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Overrides that bring back the rounds of some trials, as one sweep; empty if nothing chose their frames."""
    nodes = [config.get("acquisition") or {} for config in configs]
    kinds = list(dict.fromkeys(RANDOM if node.get("kind", NONE) == NONE else str(node["kind"]) for node in nodes))
    asked = next((node for node in nodes if node.get("kind", NONE) != NONE), None)
    if asked is None:
        return {}
    default = AcquisitionConfig(kind=RANDOM).model_dump()
    keys = [
        k
        for k in ("start", "batch", "members", "shortlist", "chosen_by")
        if k == "start" or asked.get(k, default[k]) != default[k]
    ]
    return {"acquisition": ",".join(kinds), **{f"acquisition.{key}": str(asked[key]) for key in keys}}
