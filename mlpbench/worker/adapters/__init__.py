"""One thin adapter for each package, with its pinned requirements beside it."""
