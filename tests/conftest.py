"""What all tests share."""

from __future__ import annotations

import signal

# A shell that starts a job in the background lets it ignore Ctrl-C, and every child inherits that: the tests of Ctrl-C
# would then send a signal that nobody hears.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
