"""The contract suite: what every backend must do, for the authors of a backend as for mlpbench itself.

A test module of one's own with two lines runs it all (see ``CONTRIBUTING.md``)::

    from mlpbench.testing import *

    ARCHITECTURES = ("foo",)

Each test runs for each of the architectures, trained for seconds in the environment that ``mlpbench env build foo``
made, on the embedded ethanol frames and on small crystals. Without ``ARCHITECTURES`` those of all backends are tested,
and the ones without an environment skipped. Needs pytest.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"mlpbench.testing.{name}" for name in ("adopting", "contract", "periodic", "procedure", "starting"))
)

from mlpbench.testing.adopting import *  # noqa: E402, F403
from mlpbench.testing.contract import *  # noqa: E402, F403
from mlpbench.testing.periodic import *  # noqa: E402, F403
from mlpbench.testing.procedure import *  # noqa: E402, F403
from mlpbench.testing.starting import *  # noqa: E402, F403
from mlpbench.testing.subject import Subject as Subject  # noqa: E402
from mlpbench.testing.subject import ethanol_frames as ethanol_frames  # noqa: E402
from mlpbench.testing.subject import split_frames as split_frames  # noqa: E402
