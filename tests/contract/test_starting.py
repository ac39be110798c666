"""Trainings that start from a potential, for every architecture there is: see ``mlpbench.testing.starting``."""

from mlpbench.testing.starting import *  # noqa: F403
