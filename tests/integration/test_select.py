"""The commands that ``mlpbench select`` prints are run, on a study of one's own file with settings of all kinds."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
from ase.io import read, write

from tests.integration.conftest import Run
from tests.support import ETHANOL

STUDY = [
    "run", "-m", "study=s", "dataset=file", "dataset.path=my frames.xyz", "dataset.energy_key=ref_e",
    "dataset.forces_key=ref_f", "dataset.split.test_fraction=0.3", "dataset.n_valid=10", "dataset.n_train=10,20",
    "architecture=toy", "size=tiny", "budget.steps=2", "training.lr=0.02,0.03", "repetition=0",
]  # fmt: skip


def commands(text: str) -> list[list[str]]:
    found = [line.strip() for line in text.splitlines() if line.strip().startswith("mlpbench run")]
    return [shlex.split(line)[1:] for line in found]


def trials(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "results" / "s" / "trials.parquet")


def test_the_printed_commands_settle_the_doubt_and_measure_what_lacks(tmp_path: Path, mlpbench: Run) -> None:
    frames = read(ETHANOL / "pool_500K.xyz", index=":80")
    for atoms in frames:
        atoms.info["ref_e"], atoms.arrays["ref_f"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    write(tmp_path / "my frames.xyz", frames)
    assert mlpbench(*STUDY).returncode == 0
    before = trials(tmp_path)
    doubtful = mlpbench("select", "s", "--max", "force_mae=5000")
    assert "too few repetitions" in doubtful.stdout, doubtful.stdout + doubtful.stderr
    more = commands(doubtful.stdout)
    assert "repetition=1,2" in more[0]
    command = [word if not word.startswith("repetition=") else "repetition=1" for word in more[0] if word != "-m"]
    run = mlpbench(*command)
    assert run.returncode == 0, run.stderr
    after = trials(tmp_path)
    new = after[~after["trial"].isin(before["trial"])]
    assert len(new) == 1
    # It is a further repetition of a setting that was there: everything but the repetition is the same.
    same = ["dataset", "n_train", "n_valid", "training.lr", "architecture", "size", "environment"]
    assert len(new[same].astype(str).merge(before[same].astype(str))) == 1

    lacking = mlpbench("select", "s", "--max", "us_per_atom=1e9", "--max", "nve_drift=1")
    assert "nve_drift" in lacking.stdout
    measure = commands(lacking.stdout)
    assert all(any(word.startswith("evaluation=") for word in one) for one in measure)
    planned = mlpbench("plan", *[word for word in measure[0] if word != "run"])
    assert planned.returncode == 0, planned.stderr
    lines = [line for line in planned.stdout.splitlines() if line.startswith("toy-")]
    assert lines
    assert all("partly done" in line and "train" not in line.split(":")[1] for line in lines)
