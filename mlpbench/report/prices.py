"""What an hour of computing costs, from ``conf/prices.yaml``."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlpbench.config.places import conf_dirs
from mlpbench.errors import UserError

FILE = "prices.yaml"


class Prices(BaseModel):
    """The content of ``conf/prices.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = "EUR"
    cpu_core_hour: float | None = Field(default=None, ge=0, description="one core or thread for one hour")
    gpu_hour: float | None = Field(default=None, ge=0, description="one GPU for one hour")
    source: str | None = Field(default=None, description="where the prices come from")

    def per_second(self, on_gpu: bool, threads: int) -> float | None:
        """Price of one second on one GPU, or on ``threads`` threads of a CPU; None if it is not known."""
        price = self.gpu_hour if on_gpu else self.cpu_core_hour
        return None if price is None else price * (1 if on_gpu else threads) / 3600


def load_prices() -> Prices:
    """The prices of the first configuration folder that has them; without any nothing is said in money.

    Raises:
        UserError: the file is no YAML, or says something else than prices.
    """
    own = Path(os.environ.get("MLPBENCH_CONF") or "conf")  # one with nothing but prices in it is no Hydra folder
    path = next((folder / FILE for folder in [own, *conf_dirs()] if (folder / FILE).is_file()), None)
    if path is None:
        return Prices()
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValidationError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read: {text}", "Mend it, or remove it.") from error
