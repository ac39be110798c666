"""What a backend's YAML may say."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

ADAPTERS = Path(__file__).parents[1] / "worker" / "adapters"


class BackendConfig(BaseModel):
    """One package that trains and runs architectures, and where its interpreter is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="as in conf/backend/<name>.yaml")
    adapter: str = Field(pattern=r"^[\w.]+:\w+$", description="module:Class, imported by the worker")
    adapter_version: int = Field(default=1, ge=1, description="raised when the adapter's results change")
    requirements: str | None = Field(
        default=None, description="pinned requirements: a file beside the adapters, or an absolute path"
    )
    python: str | None = Field(default=None, description="an interpreter that exists, used instead of a built one")
    pythonpath: list[str] = Field(default_factory=list, description="folders put first on the worker's path")
    torchsim: bool = Field(default=False, description="whether the environment has torch-sim for batched MD")

    def requirements_path(self) -> Path | None:
        """Where the pinned requirements stand, or None if the backend can only be adopted."""
        if self.requirements is None:
            return None
        path = Path(self.requirements).expanduser()
        return path if path.is_absolute() else ADAPTERS / path
