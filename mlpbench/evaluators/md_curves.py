"""Distributions behind the MD scores, kept beside them so that a report can draw what was scored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators.md_structure import Distribution

CURVES = "curves.npz"

# Name of the observable -> the potential's distribution, and the reference's where there is one.
Curves = dict[str, tuple[Distribution, Distribution | None]]


def save_curves(path: Path, curves: Curves) -> None:
    """Write ``curves`` as ``<name>|edges`` (B+1,), ``<name>|found`` (B,) and ``<name>|reference`` (B,)."""
    arrays: dict[str, Any] = {}
    for name, (found, reference) in curves.items():
        arrays |= {f"{name}|edges": found.edges, f"{name}|found": found.density}
        if reference is not None:
            arrays[f"{name}|reference"] = reference.density
    part = path.with_suffix(".part")
    with open(part, "wb") as stream:
        np.savez_compressed(stream, **arrays)
    os.replace(part, path)


def load_curves(path: Path) -> Curves:
    """What :func:`save_curves` wrote; empty where there is no file."""
    if not path.is_file():
        return {}
    curves: Curves = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in (key.removesuffix("|edges") for key in stored.files if key.endswith("|edges")):
            edges, theirs = stored[f"{name}|edges"], f"{name}|reference"
            reference = Distribution(edges, stored[theirs]) if theirs in stored.files else None
            curves[name] = (Distribution(edges, stored[f"{name}|found"]), reference)
    return curves
