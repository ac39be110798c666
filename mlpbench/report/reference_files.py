"""The data set's reference files, as far as this machine has them."""

from __future__ import annotations

from pathlib import Path

from mlpbench.evaluators.physics import reference_frequencies
from mlpbench.frames import Float
from mlpbench.study.study import Study


def references_of(study: Study, trial: str) -> dict[str, Path]:
    """Name -> file of the reference's minimum, Hessian and scans."""
    config = ((study.record[trial].get("config") or {}).get("dataset")) or {}
    embedded = Path(__file__).parents[1] / "datasets" / "embedded"
    named = {name: Path(str(path)) for name, path in (config.get("references") or {}).items()}
    found = {name: path if path.is_absolute() else embedded / path for name, path in named.items()}
    return {name: path for name, path in found.items() if path.is_file()}


def reference_modes(study: Study, trial: str) -> Float | None:
    """(3N−6,) cm⁻¹ of the reference's Hessian; None where there is none."""
    path = references_of(study, trial).get("hessian")
    return None if path is None else reference_frequencies(path)
