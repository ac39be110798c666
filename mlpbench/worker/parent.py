"""A worker must not outlive the core that started it: nobody would read what it computes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

VARIABLE = "MLPBENCH_PARENT"  # process id of the core; not set when a worker is started by hand
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Arrange that this process is killed when its parent dies, even by SIGKILL.

    Linux does it by itself (``prctl``); elsewhere a thread looks every second. Done here and not between fork
    and exec in the parent, where running Python is not safe.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(int(named),), daemon=True).start()
    if os.getppid() != int(named):  # it died before the arrangement was made
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
