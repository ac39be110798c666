"""What every backend must do, tested on every architecture there is: see ``mlpbench.testing.contract``."""

from mlpbench.testing.contract import *  # noqa: F403
