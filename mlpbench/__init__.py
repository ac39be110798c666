"""mlpbench: which interatomic potential, at which size, with how many labels, and at what cost.

In a script or notebook::

    import mlpbench

    study = mlpbench.load_study("mystudy")          # trials, metrics, settings as data frames
    with mlpbench.open_potential("mystudy/mace-tiny-ethanol-n200-r0-1b2c3d4e") as potential:
        atoms.calc = potential.calculator()         # runs in the environment of its package
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpbench.potentials import open_potential as open_potential
    from mlpbench.study.study import load_study as load_study

__version__ = "0.1.0"
_FACE = {"load_study": "mlpbench.study.study", "open_potential": "mlpbench.potentials"}


def __getattr__(name: str) -> Any:
    """What is for users, imported when first used: ``import mlpbench`` itself costs nothing, in a worker too."""
    if name not in _FACE:
        raise AttributeError(f"module 'mlpbench' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_FACE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
