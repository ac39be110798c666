"""Values that come from environment variables: kept out of what is stored, and of what identifies a trial."""

from __future__ import annotations

from typing import Any

from mlpbench.errors import UserError
from mlpbench.files import digest


def keep_secrets(texts: dict[str, str]) -> None:
    """Options of a package are written in clear: to ``request.json``, to ``native/`` and into checkpoints.

    Raises:
        UserError: one of them is taken from an environment variable.
    """
    for key, text in texts.items():
        if key.startswith(("architecture.native.", "training.native.")):
            raise UserError(
                f"{key}={text}: the value of an environment variable would be stored in clear with the results",
                "Write the value itself if it is no secret; else let the package read the variable on its own.",
            )


def masked(identity: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    """``identity`` with a digest in place of each text that an environment variable gave."""
    plain: dict[str, Any] = {name: dict(v) if isinstance(v, dict) else v for name, v in identity.items()}
    for key, text in texts.items():
        path = key.split(".")
        value: Any = plain
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str):
            put_text(plain, path, f"{text} ({digest(value)[:12]})")
    return plain


def put_text(node: Any, path: list[str], text: str) -> None:
    """Put ``text`` at ``path`` of nested mappings and lists, where a text stands there now."""
    for part in path[:-1]:
        if isinstance(node, list):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    last: Any = path[-1]
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        last = int(last)
    elif not isinstance(node, dict) or last not in node:
        return
    if isinstance(node[last], str):
        node[last] = text
