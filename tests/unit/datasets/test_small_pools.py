"""What is said where a file has too few frames for what is asked of it."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest

from mlpbench.datasets import load
from mlpbench.datasets.splits import prepare_split
from mlpbench.errors import UserError
from tests.support import ETHANOL
from tests.unit.datasets.support import file_config


@pytest.mark.parametrize(("n_train", "n_valid", "advice"), [
    (50, 5, "Take dataset.n_train=25 or fewer, or fewer for dataset.n_valid."),
    (10, 50, "Validation alone takes all: take dataset.n_valid=6 and n_train from the rest."),
])  # fmt: skip
def test_the_advice_can_be_followed(tmp_path: Path, n_train: int, n_valid: int, advice: str) -> None:
    frames = ase.io.read(ETHANOL / "pool_500K.xyz", index=":40")
    ase.io.write(tmp_path / "pool.xyz", frames[:30])
    ase.io.write(tmp_path / "test.xyz", frames[30:])
    config = file_config(tmp_path / "pool.xyz", test_path=str(tmp_path / "test.xyz"), n_train=n_train, n_valid=n_valid)
    with pytest.raises(UserError, match="the pool has 30") as refused:
        prepare_split(load(config), config, 0, tmp_path / "splits", write=False)
    assert advice in str(refused.value)
