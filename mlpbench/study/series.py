"""The opening of a series of rounds: its first trial, and what must be there before that is trained."""

from __future__ import annotations

from mlpbench.acquisition import NONE
from mlpbench.config import AcquisitionConfig, TrialConfig
from mlpbench.datasets import Dataset
from mlpbench.datasets.splits import drawable
from mlpbench.errors import UserError
from mlpbench.study.settings import ZERO_SHOT


def first_round(config: TrialConfig) -> tuple[TrialConfig, AcquisitionConfig | None]:
    """The configuration of the first round, whose frames are drawn at random as in any trial, and what follows it."""
    if config.acquisition.kind == NONE:
        return config, None
    until = config.acquisition.until or config.dataset.n_train
    own = config.acquisition.chosen_by == config.architecture.name
    rounds = config.acquisition.model_copy(update={"until": until, **({"chosen_by": None} if own else {})})
    first = config.dataset.model_copy(update={"n_train": min(rounds.start, until)})
    return config.model_copy(update={"dataset": first, "acquisition": AcquisitionConfig()}), rounds


def require_rounds(
    rounds: AcquisitionConfig, config: TrialConfig, dataset: Dataset, split_seed: int, labels: list[str]
) -> None:
    """Everything that a later round needs must be there before the first one is trained.

    Raises:
        UserError: too few frames for the last round, data that the acquisition cannot choose from, or a committee of
            potentials that would all be the same.
    """
    order = drawable(dataset, config.dataset, split_seed)[1]
    if int(rounds.until or 0) > len(order):
        raise UserError(
            f"{dataset.name}: the rounds go up to {rounds.until} training frames, but {len(order)} can be chosen",
            f"Set acquisition.until={len(order)} or fewer.",
        )
    if int(rounds.until or 0) < rounds.start:
        raise UserError(
            f"acquisition.start={rounds.start}, but the last round has {rounds.until} training frames",
            "Set a larger acquisition.until (null: dataset.n_train), or a smaller acquisition.start.",
        )
    if rounds.chosen_by is not None:
        if not rounds.chooser.potentials:
            raise UserError(
                f"acquisition.chosen_by={rounds.chosen_by}: acquisition={rounds.kind} asks no potentials, so that all "
                "architectures have the same frames",
                "Leave acquisition.chosen_by out.",
            )
        return rounds.chooser.require(dataset.pool.select(order), labels)
    alike = not config.backend_config.iterations or config.start.kind == ZERO_SHOT
    if alike and rounds.chooser.potentials > 1:
        raise UserError(
            f"acquisition={rounds.kind}: potentials of {config.architecture.name} that differ in their initialisation "
            "alone are the same, since nothing is trained step by step",
            "Choose acquisition=farthest, oracle or random.",
        )
    if rounds.beyond_noise and rounds.chooser.potentials < 2:
        raise UserError(
            f"acquisition.beyond_noise: acquisition={rounds.kind} trains no committee, which says how large noise is",
            "Set acquisition.margin instead, or choose acquisition=committee.",
        )
    rounds.chooser.require(dataset.pool.select(order), labels)
