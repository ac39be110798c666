"""What others published: the bibliography, and the errors that papers report, as data with their sources."""

from __future__ import annotations

from mlpbench.literature.bibliography import Reference, references_for
from mlpbench.literature.published import Published, published_values

__all__ = ["Published", "Reference", "published_values", "references_for"]
