"""The error a user can correct, and the close match for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class UserError(Exception):
    """A mistake in a command, a configuration or a file.

    Printed as one or two lines without a traceback; the program ends with exit code 2.

    Args:
        message: what is wrong, naming the value and where it came from.
        hint: what to do next, as a sentence or a command.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


def close_match(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: ``did you mean ...?`` and the list of what there is.

    Args:
        name: what was typed.
        known: what would have been accepted.
    """
    options = sorted(set(known))
    listed = ", ".join(options) if len(options) <= 25 else ", ".join(options[:25]) + ", ..."
    match = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    start = f"Did you mean '{match[0]}'? " if match else ""
    return f"{start}Known: {listed}" if options else f"{start}None are known."
