"""What a resolved configuration may say: types and ranges of every node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlpbench.acquisition import NONE, Acquisition, Options, find_acquisition, known_acquisitions
from mlpbench.backends.registry import BackendConfig
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import close_match
from mlpbench.evaluators.schema import MdOptions, PhysicsOptions, SpeedOptions


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

    @field_validator("native", mode="before")
    @classmethod
    def _none_is_empty(cls, native: Any) -> Any:
        return {} if native is None else native  # an empty mapping in a YAML could not be overridden; null can


class Training(Strict):
    """Optimisation, in the same words for all architectures. Loss: w_E·⟨(ΔE/N)²⟩ + w_F·⟨ΔF²⟩ + w_S·⟨Δσ²⟩."""

    batch_size: int = Field(gt=0, description="frames per optimiser step")
    optimizer: Literal["adam", "amsgrad", "adamw"] = Field(description="the same for every package")
    lr: float = Field(gt=0, description="largest learning rate")
    schedule: Literal["cosine", "linear", "plateau", "exponential", "constant"] = Field(description="how lr falls")
    warmup_steps: int = Field(ge=0, description="cosine, linear: steps over which lr rises from zero")
    lr_gamma: float = Field(gt=0, le=1, description="exponential: lr is multiplied by it after every validation")
    lr_factor: float = Field(gt=0, lt=1, description="plateau: factor at each plateau")
    lr_patience: int = Field(gt=0, description="plateau: validations without improvement before lr falls")
    lr_min: float = Field(ge=0, description="lr never falls below")
    ema_decay: float | None = Field(gt=0, lt=1, description="moving average of the weights per step; None: none")
    gradient_clip: float | None = Field(gt=0, description="largest norm of the gradient of loss / (RMS force)²")
    weight_decay: float = Field(ge=0, description="L2 term of Adam; decoupled with adamw")
    energy_weight: float = Field(ge=0, description="w_E, 1/eV²")
    energy_per: Literal["atom", "frame"] = Field(description="what the energy error of w_E is: per atom, or of a frame")
    force_weight: float = Field(ge=0, description="w_F, (Å/eV)²")
    stress_weight: float = Field(ge=0, description="w_S, (Å³/eV)²")
    native: dict[str, Any] = Field(description="options of the package that belong to the training")

    @field_validator("native", mode="before")
    @classmethod
    def _none_is_empty(cls, native: Any) -> Any:
        return {} if native is None else native


class Start(Strict):
    """Where a training starts. With ``kind: scratch`` the other keys have no effect, so that starts can be swept."""

    kind: Literal["scratch", "potential", "foundation", "zero_shot"] = Field(
        default="scratch", description="fresh weights, a trial's, a foundation model's; zero_shot: nothing is trained"
    )
    potential: Path | None = Field(default=None, description="a trial's folder, or a study's; absolute once it is read")
    foundation: str | None = Field(default=None, description="name of a foundation model: mlpbench foundation list")
    file: Path | None = Field(default=None, description="its weights, where they were brought by hand")
    options: dict[str, Any] = Field(default_factory=dict, description="of the package for these weights")
    freeze: Literal["none", "representation"] = Field(default="none", description="which weights are not trained")
    lr_factor: float = Field(default=1.0, gt=0, le=1, description="training.lr is multiplied by it")
    use: Literal["research", "commercial"] = Field(
        default="research", description="the use that the licence must allow"
    )
    trust: bool = Field(default=False, description="file may be a pickle, which can run code when it is loaded")

    @model_validator(mode="before")
    @classmethod
    def _from_scratch(cls, node: Any) -> Any:
        if isinstance(node, dict) and node.get("kind", "scratch") == "scratch":
            return {key: value for key, value in node.items() if key not in cls.model_fields}  # unknown keys: refused
        return node

    @field_validator("options", mode="before")
    @classmethod
    def _none_is_empty(cls, options: Any) -> Any:
        return {} if options is None else options

    @field_validator("potential", "file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().resolve()

    @model_validator(mode="after")
    def _named(self) -> Start:
        if self.kind == "potential" and self.potential is None:
            raise ValueError("start=potential needs start.potential=results/<study> or results/<study>/<trial>")
        if self.kind == "foundation" and not self.is_foundation:
            raise ValueError(
                "start=foundation needs start.foundation=NAME (mlpbench foundation list) or start.file=PATH"
            )
        if self.kind == "zero_shot" and self.is_foundation == (self.potential is not None):
            raise ValueError(
                "start=zero_shot needs one of start.foundation=NAME (or start.file=PATH) and start.potential=PATH"
            )
        return self

    @property
    def is_foundation(self) -> bool:
        """Whether the weights are a foundation model's."""
        return self.foundation is not None or self.file is not None


class AcquisitionConfig(Strict):
    """Which frames are labelled next, in rounds. With ``kind: none`` the other keys have no effect."""

    kind: str = Field(default=NONE, description="none, or how a batch is chosen: a class of mlpbench.acquisition")
    start: int = Field(default=25, gt=0, description="training frames of the first round, at random")
    batch: int = Field(default=25, gt=0, description="frames that each further round adds")
    until: int | None = Field(default=None, gt=0, description="training frames of the last round; None: n_train")
    margin: float | None = Field(default=None, gt=0, lt=1, description="end once a round gains less than this")
    chosen_by: str | None = Field(default=None, description="architecture whose rounds chose the frames; None: its own")
    beyond_noise: bool = Field(default=False, description="end once a round's gain is within the committee's noise")
    members: int = Field(default=4, ge=2, description="potentials of a committee")
    shortlist: float = Field(default=5.0, ge=1, description="candidates for a second criterion, in batches")
    options: dict[str, Any] = Field(default_factory=dict, description="of an acquisition from another package")

    @model_validator(mode="before")
    @classmethod
    def _no_rounds(cls, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        node = {key: {} if key == "options" and value is None else value for key, value in node.items()}
        if node.get("kind", NONE) == NONE:
            return {key: value for key, value in node.items() if key not in cls.model_fields}  # unknown keys: refused
        return node

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind != NONE and kind not in known_acquisitions():
            raise ValueError(f"there is no acquisition '{kind}'. {close_match(kind, [NONE, *known_acquisitions()])}")
        return kind

    @property
    def chooser(self) -> Acquisition:
        """The class that chooses, with these options."""
        return find_acquisition(self.kind, Options(self.members, self.shortlist, self.options))


class Convergence(Strict):
    """When a training is repeated with twice the steps, and when that ends."""

    margin: float = Field(gt=0, lt=1, description="converged: twice the steps lower the validation error by less")
    max_steps: int = Field(gt=0, description="no training is longer than this")


class Budget(Strict):
    """How long a training takes: one of ``steps``, ``epochs`` and ``seconds``."""

    epochs: int | None = Field(gt=0, description="passes over the training set")
    steps: int | None = Field(gt=0, description="optimiser steps")
    seconds: float | None = Field(gt=0, description="wall time of training")
    interval: int | None = Field(gt=0, description="steps between validations; None: one pass over the training set")
    patience: int | None = Field(gt=0, description="validations without a better loss")
    converge: Convergence | None = Field(description="repeat with twice the steps until the error no longer falls")

    @model_validator(mode="after")
    def _limited(self) -> Budget:
        limits = [name for name in ("steps", "epochs", "seconds") if getattr(self, name) is not None]
        if not limits:
            raise ValueError("a budget needs a limit: set budget.steps, or choose budget=epochs or budget=seconds")
        if len(limits) > 1:
            raise ValueError(
                f"budget.{limits[0]} and budget.{limits[1]} are both set, and only one can be meant: choose "
                f"budget={limits[-1]}, which leaves the others out, or set one of them to null"
            )
        if self.converge is not None:
            if self.steps is None:
                raise ValueError("budget.converge doubles budget.steps: set it instead of epochs or seconds")
            if self.converge.max_steps < self.steps:
                raise ValueError("budget.converge.max_steps is less than budget.steps: it must allow longer trainings")
        return self


class Evaluation(Strict):
    """What is measured after training; a null part is not measured."""

    batch_size: int = Field(gt=0, description="frames in one forward pass")
    physics: PhysicsOptions | None
    md: MdOptions | None
    speed: SpeedOptions | None


class LammpsEngine(Strict):
    """A LAMMPS of the user's own."""

    command: str | None = Field(default=None, description="what starts it, e.g. /opt/lammps/bin/lmp -k on -sf kk")


class EngineConfig(Strict):
    """Engines of molecular dynamics beside those that mlpbench has environments for."""

    lammps: LammpsEngine = Field(default_factory=LammpsEngine)


class TrialConfig(Strict):
    """All that one trial is made of, resolved."""

    study: str
    dataset: DatasetConfig
    architecture: Architecture
    size: str
    start: Start = Field(default_factory=Start)
    acquisition: AcquisitionConfig = Field(default_factory=AcquisitionConfig)
    training: Training
    budget: Budget
    evaluation: Evaluation
    backend: dict[str, BackendConfig]
    engine: EngineConfig = Field(default_factory=EngineConfig)
    repetition: int = Field(ge=0)
    split_seed: int | None = Field(ge=0)
    init_seed: int | None = Field(ge=0)
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "float64"]
    threads: int = Field(gt=0)
    timeout: float | None = Field(gt=0)
    results_dir: Path
    reports_dir: Path
    logging: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default_factory=list)

    @field_validator("logging", mode="before")
    @classmethod
    def _one_or_more(cls, logging: Any) -> Any:
        return [] if logging is None else [logging] if isinstance(logging, str) else logging

    @field_validator("study")
    @classmethod
    def _folder_name(cls, study: str) -> str:
        return study_name(study)

    @model_validator(mode="after")
    def _known_backend(self) -> TrialConfig:
        if self.architecture.backend not in self.backend:
            raise ValueError(
                f"architecture '{self.architecture.name}' needs the backend '{self.architecture.backend}', "
                f"which has no file in conf/backend. {close_match(self.architecture.backend, self.backend)}"
            )
        return self

    @property
    def backend_config(self) -> BackendConfig:
        """The one backend this trial runs with."""
        return self.backend[self.architecture.backend]


def study_name(name: str) -> str:
    """``name``, if it can be a study's.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise ValueError("a study's name becomes a folder: use letters, digits, '-', '_', '.' and '+'")
    return name
