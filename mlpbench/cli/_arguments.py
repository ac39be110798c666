"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse


def share(text: str) -> float:
    """A number between 0 and 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a fraction between 0 and 1; for 5 % say 0.05")
    return value
