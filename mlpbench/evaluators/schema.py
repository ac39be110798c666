"""What ``evaluation.speed`` may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class SpeedOptions(BaseModel):
    """The node ``speed`` of ``conf/evaluation/*.yaml``; its comments there say what each is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str | None = Field(description="whose frames are the inputs; None: the first test split")
    n_frames: int = Field(gt=0, description="frames of it, in turn")
    blocks: int = Field(ge=2, description="timed repeats; an interval needs at least 2, and 5 to be of use")
    block_seconds: float = Field(gt=0, description="length of a block, s")
    batch_sizes: list[int] = Field(description="frames in one forward pass, for the throughput")
    md_block_steps: int = Field(gt=0, description="velocity-Verlet steps in a block")
    timestep_fs: float = Field(gt=0, description="of those steps, fs")
    temperature_K: float = Field(gt=0, description="of their start, K")
    copies: list[int] = Field(min_length=1, description="copies of the system side by side, ascending")
    max_seconds_per_call: float = Field(gt=0, description="the scaling series ends at a call that takes longer, s")
    memory_fraction: float | None = Field(
        gt=0, le=1, description="then doubled up to this share of the memory; on a GPU to the end of its own"
    )
    deployments: list[Literal["eager", "compiled", "accelerated"]] = Field(description="how the potential is run")
    dtypes: list[Literal["float32", "float64"]] | None = Field(description="of weights and forward pass; None: trial's")
    tf32: list[bool] = Field(min_length=1, description="whether float32 products may be rounded to TF32 (NVIDIA GPUs)")
    path_seconds: float = Field(gt=0, description="limit for one deployment, compilation included, s")
    reference: dict[str, Any] | None = Field(description="the reference method on the same frames; None: do not")
