"""Cells, stress and mixed periodicity, tested on every architecture there is: see ``mlpbench.testing.periodic``."""

from mlpbench.testing.periodic import *  # noqa: F403
