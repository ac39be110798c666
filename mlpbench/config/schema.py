"""What a resolved configuration may say: types and ranges of every node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlpbench.backends.schema import BackendConfig
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import close_match
from mlpbench.evaluators.schema import SpeedOptions


class Strict(BaseModel):
    """A node that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(BaseModel):
    """An architecture with the hyperparameters of its preset (further fields, checked against the preset)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="as in every table, e.g. mace")
    backend: str = Field(description="the package that runs it")
    cutoff: float = Field(gt=0, description="Å; atoms farther apart are no neighbours")
    native: dict[str, Any] = Field(default_factory=dict, description="merged verbatim over the package's configuration")


class Training(Strict):
    """Optimisation, common to all architectures. Loss: w_E·⟨(ΔE/N)²⟩ + w_F·⟨ΔF²⟩ + w_S·⟨Δσ²⟩."""

    batch_size: int = Field(gt=0, description="frames per optimiser step")
    lr: float = Field(gt=0, description="first learning rate of Adam")
    schedule: Literal["plateau", "exponential", "constant"] = Field(description="how lr falls")
    lr_gamma: float = Field(gt=0, le=1, description="exponential: lr is multiplied by it after every epoch")
    lr_factor: float = Field(gt=0, lt=1, description="factor at each plateau")
    lr_patience: int = Field(gt=0, description="epochs without improvement before lr falls")
    lr_min: float = Field(ge=0, description="lr never falls below")
    ema_decay: float | None = Field(gt=0, lt=1, description="moving average of the weights per step; None: none")
    gradient_clip: float | None = Field(gt=0, description="largest norm of the gradient; None: no limit")
    weight_decay: float = Field(ge=0, description="L2 term of Adam")
    energy_weight: float = Field(ge=0, description="w_E, 1/eV²")
    force_weight: float = Field(ge=0, description="w_F, (Å/eV)²")
    stress_weight: float = Field(ge=0, description="w_S, (Å³/eV)²")


class Budget(Strict):
    """How long a training may take; the first limit reached ends it."""

    epochs: int | None = Field(gt=0)
    steps: int | None = Field(gt=0)
    seconds: float | None = Field(gt=0)
    patience: int | None = Field(gt=0, description="epochs without a better validation loss")

    @model_validator(mode="after")
    def _limited(self) -> Budget:
        if self.epochs is None and self.steps is None and self.seconds is None:
            raise ValueError("a budget needs a limit: set budget.epochs, budget.steps or budget.seconds")
        return self


class Evaluation(Strict):
    """What is measured after training; a null part is not measured."""

    batch_size: int = Field(gt=0, description="frames in one forward pass")
    physics: dict[str, Any] | None
    md: dict[str, Any] | None
    speed: dict[str, Any] | None

    @field_validator("speed")
    @classmethod
    def _speed_options(cls, speed: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if speed is None else SpeedOptions.model_validate(speed).model_dump()


class TrialConfig(Strict):
    """All that one trial is made of, resolved."""

    study: str
    dataset: DatasetConfig
    architecture: Architecture
    size: str
    training: Training
    budget: Budget
    evaluation: Evaluation
    backend: dict[str, BackendConfig]
    repetition: int = Field(ge=0)
    split_seed: int | None = Field(ge=0)
    init_seed: int | None = Field(ge=0)
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "float64"]
    threads: int = Field(gt=0)
    timeout: float | None = Field(gt=0)
    results_dir: Path
    reports_dir: Path

    @field_validator("study")
    @classmethod
    def _folder_name(cls, study: str) -> str:
        if not re.fullmatch(r"[\w][\w.+-]*", study):
            raise ValueError("a study's name becomes a folder: use letters, digits, '-', '_', '.' and '+'")
        return study

    @model_validator(mode="after")
    def _known_backend(self) -> TrialConfig:
        if self.architecture.backend not in self.backend:
            raise ValueError(
                f"architecture '{self.architecture.name}' wants the backend '{self.architecture.backend}', "
                f"which has no file in conf/backend. {close_match(self.architecture.backend, self.backend)}"
            )
        return self

    @property
    def backend_config(self) -> BackendConfig:
        """The one backend this trial runs with."""
        return self.backend[self.architecture.backend]
