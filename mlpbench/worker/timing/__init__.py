"""How a potential is timed: the clock, the machine's state, the systems, and processes for what may fail."""
