"""Wall times of DFT calculations that others published or left in a log: for codes that cannot run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlpbench.errors import UserError

PACKAGED = Path(__file__).with_name("recorded_wall_times.csv")
COLUMNS = ("system", "n_atoms", "code", "cores", "seconds_per_step", "source")


def read_recorded(path: Path = PACKAGED) -> list[dict[str, Any]]:
    """One mapping a row: ``system``, ``n_atoms``, ``code``, ``cores`` (None: not recorded), ``seconds_per_step`` (wall
    time of one self-consistent energy with forces, s) and ``source``, which none may lack.

    Raises:
        UserError: no such file, a column is missing, or a row has no source or no positive number.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}", f"It needs: {', '.join(COLUMNS)}")
    rows = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        size, seconds = pd.to_numeric([row["n_atoms"], row["seconds_per_step"]], errors="coerce")
        if not (size > 0 and seconds > 0):
            raise UserError(f"{path}, line {number}: n_atoms and seconds_per_step must be positive numbers")
        if not isinstance(row["source"], str) or not row["source"].strip():
            raise UserError(f"{path}, line {number}: a recorded time needs its source")
        cores = None if pd.isna(row["cores"]) else int(row["cores"])
        rows.append({"system": str(row["system"]), "n_atoms": int(size), "code": str(row["code"]), "cores": cores,
                     "seconds_per_step": float(seconds), "source": row["source"]})  # fmt: skip
    return rows
