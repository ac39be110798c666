"""Every registered acquisition, against the contract."""

from mlpbench.testing.acquisitions import *  # noqa: F403
