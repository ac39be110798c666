"""The learning rate that validation error chooses for each architecture, over several systems.

    mlpbench run -m experiment=tuning
    mlpbench run -m experiment=tuning study=tuning_si dataset=mlearn dataset.variant=Si dataset.n_train=50 \\
        dataset.n_valid=20 budget.steps=200 budget.interval=20
    python -m tests.benchmarks.tuning results/tuning_ethanol results/tuning_si --out results/reference/tuning

Writes ``response.csv`` (validation force error of each architecture, rate and system) and ``response.svg``, and prints
the choice: of the rates of which twice the rate was tried too, and still trains on every system, the one with the
lowest geometric mean over the systems. A preset must not stand next to the edge beyond which its trainings diverge.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from mlpbench.records import load_all

TRAINS = 2.0  # twice the rate still trains: its error is at most so many times as large


def response(roots: list[Path]) -> pd.DataFrame:
    """One row for each architecture, rate and study: the geometric mean over repetitions of the validation error."""
    rows = []
    for root in roots:
        for record in load_all(root):
            if record["status"] == "done":
                error = next(
                    row["value"] for row in record["metrics"] if (row["split"], row["metric"]) == ("valid", "force_mae")
                )
                rows.append({
                    "architecture": record["identifiers"]["architecture"], "lr": record["config"]["training"]["lr"],
                    "study": root.name, "log": math.log(error), "at_rest": record["training"]["at_rest"],
                })  # fmt: skip
    grouped = pd.DataFrame(rows).groupby(["architecture", "study", "lr"])
    table = grouped.agg(log=("log", "mean"), trials=("log", "size"), at_rest=("at_rest", "sum")).reset_index()
    table["valid_force_mae_meV_per_A"] = table.pop("log").map(math.exp).round(1)
    return table


def choose(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Architecture -> the rate, and its geometric mean error over the systems (meV/Å)."""
    chosen = {}
    for architecture, part in table.groupby("architecture"):
        errors = part.pivot(index="lr", columns="study", values="valid_force_mae_meV_per_A").dropna()
        twice = [lr for lr in errors.index if 2 * lr in errors.index]
        safe = [lr for lr in twice if (errors.loc[2 * lr] < TRAINS * errors.loc[lr]).all()]
        means = errors.loc[safe].map(math.log).mean(axis=1).map(math.exp)
        chosen[str(architecture)] = (float(means.idxmin()), float(means.min()))
    return chosen


def draw(table: pd.DataFrame, path: Path) -> None:
    """Error against rate, one panel for each system."""
    studies = sorted(table["study"].unique())
    figure, panels = plt.subplots(1, len(studies), figsize=(4.6 * len(studies), 3.4), squeeze=False)
    for axes, study in zip(panels[0], studies, strict=True):
        for architecture, part in table[table["study"] == study].groupby("architecture"):
            axes.loglog(part["lr"], part["valid_force_mae_meV_per_A"], marker="o", label=architecture)
        axes.set(title=study, xlabel="largest learning rate", ylabel="validation force MAE (meV/Å)")
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Write the response and print the choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = response(arguments.studies)
    table.to_csv(arguments.out / "response.csv", index=False)
    draw(table, arguments.out / "response.svg")
    for architecture, (rate, error) in choose(table).items():
        print(f"{architecture:10s} lr {rate:g}, {error:.1f} meV/Å over {table['study'].nunique()} systems")


if __name__ == "__main__":
    main()
