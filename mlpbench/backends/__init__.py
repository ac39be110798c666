"""Backends: which packages there are, the environment each lives in, and the process that runs there."""
