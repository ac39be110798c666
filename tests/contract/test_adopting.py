"""Every architecture that starts from a foundation model, see ``mlpbench.testing.adopting``."""

from mlpbench.testing.adopting import *  # noqa: F403
