"""One training procedure for all packages, for every architecture there is: see ``mlpbench.testing.procedure``."""

from mlpbench.testing.procedure import *  # noqa: F403
