"""Which score goes with which property: on a made-up study where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlpbench.report.section import Table
from mlpbench.report.sections.foretelling import associations, committee_spread, foretelling_section, words
from mlpbench.study.study import Study

ARCHITECTURES = ("a", "b", "c", "d", "e", "f")


@dataclass
class MadeUp:
    """As much of a study as the section reads: three repetitions of six architectures at two sizes."""

    trials: pd.DataFrame
    metrics: pd.DataFrame
    forces: dict[str, np.ndarray]
    memory: dict[Any, Any]

    datasets = ("ethanol",)

    def test_splits(self, dataset: str) -> list[str]:
        return ["test"]

    def predictions(self, trial: str) -> dict[str, Any]:
        return {"test.forces": self.forces[trial]}


def made_up() -> Any:
    generator = np.random.default_rng(0)
    trials, metrics, forces = [], [], {}
    for i, architecture in enumerate(ARCHITECTURES):
        for n_train in (50, 200):
            for repetition in range(3):
                name = f"{architecture}-{n_train}-{repetition}"
                error = (i + 1) * 200 / n_train * float(np.exp(0.05 * generator.normal()))
                trials.append({"trial": name, "dataset": "ethanol", "architecture": architecture, "name": architecture,
                               "n_train": n_train, "setting": "", "status": "done"})  # fmt: skip
                values = {("force_mae", "test"): error, ("energy_mae", "test"): generator.uniform(),
                          ("md_stable_time", "md_500K"): 10 / error,
                          ("path_barrier_error", "p"): error * (-1) ** repetition}  # fmt: skip
                metrics += [{"trial": name, "metric": m, "split": s, "value": v} for (m, s), v in values.items()]
                forces[name] = np.full((2, 3), error / 1e3 * (repetition - 1))
    return MadeUp(pd.DataFrame(trials), pd.DataFrame(metrics), forces, {})


def test_a_score_that_decides_survival_is_found_and_noise_is_not() -> None:
    study: Study = made_up()
    found = {(one.score, one.target): one.association for one in associations(study, "ethanol")}
    force, noise = (found[(name, "test"), ("md_stable_time", "md_500K")] for name in ("force_mae", "energy_mae"))
    assert force.value == pytest.approx(1)
    assert (force.n, force.clusters) == (36, 6)
    assert force.decided
    assert not noise.decided
    signed = found[("force_mae", "test"), ("path_barrier_error", "p")]
    assert signed.value == pytest.approx(1)  # the size of an error with a sign
    spread = found[("committee_spread", "test"), ("md_stable_time", "md_500K")]
    assert spread.n == 36


def test_the_spread_of_a_committee_by_hand() -> None:
    study = made_up()
    spread = committee_spread(study, "ethanol", "test")
    forces = np.stack([study.forces[f"a-50-{r}"] for r in range(3)])
    by_hand = 1e3 * np.sqrt(((forces[2] - forces.mean(axis=0)) ** 2).mean())
    assert spread["a-50-2"] == pytest.approx(by_hand)


def test_the_table_says_n_interval_and_what_was_drawn(tmp_path: Path) -> None:
    section = foretelling_section(made_up())
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert "6 architectures drawn as wholes" in table.caption
    first = [cell.text for cell in table.rows[0]]
    assert first[:2] == ["stable time, md 500K", "F MAE, test"]
    assert first[2] == "+1.00"
    assert first[4] == "36"
    assert words(("committee_spread", "test_1000K")) == "committee spread of F, test 1000K"
    few = made_up()
    few.trials = few.trials.iloc[:6]
    assert foretelling_section(few) is None
