"""Statistics of repeated trainings: pure functions of arrays and tables, usable alone."""
