"""What all tests share."""

from __future__ import annotations

import os
import signal
import tempfile

# A shell that starts a job in the background lets it ignore Ctrl-C, and every child inherits that: the tests of Ctrl-C
# would then send a signal that nobody hears.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Timings wait until nothing of ours works on this machine; the tests must not wait for a long training beside them.
os.environ["MLPBENCH_TURNS"] = tempfile.mkdtemp(prefix="mlpbench-turns-")
