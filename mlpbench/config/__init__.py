"""Configuration: where it is found, how Hydra composes it, and what it may say.

Hydra composes ``conf/``; pydantic then holds the result to types and ranges, so that a mistake ends the command before
anything is trained.
"""

from mlpbench.config.checks import environment_texts, validate
from mlpbench.config.composing import SweepPlan, compose_each, compose_raw, expand, load_backends, load_trial
from mlpbench.config.schema import (
    AcquisitionConfig,
    Architecture,
    Budget,
    Evaluation,
    Strict,
    Training,
    TrialConfig,
)
from mlpbench.config.setup import CONFIG_NAME, acquired_conf, conf_dirs, packaged_conf, prepare_hydra

__all__ = [
    "CONFIG_NAME",
    "AcquisitionConfig",
    "Architecture",
    "Budget",
    "Evaluation",
    "Strict",
    "SweepPlan",
    "Training",
    "TrialConfig",
    "acquired_conf",
    "compose_each",
    "compose_raw",
    "conf_dirs",
    "environment_texts",
    "expand",
    "load_backends",
    "load_trial",
    "packaged_conf",
    "prepare_hydra",
    "validate",
]
