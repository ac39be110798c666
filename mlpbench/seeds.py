"""Seeds derived for each axis, so that adding a trial alters no other."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def derive(*parts: object) -> int:
    """A seed in [0, 2³¹) from the parts' text; the same parts always give the same seed."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def digest(content: Any) -> str:
    """sha256 (hex) of JSON ``content`` with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
