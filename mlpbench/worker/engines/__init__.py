"""Engines of molecular dynamics around an ASE calculator.

The modules here whose names end in ``_md`` import nothing of mlpbench: ``mlpbench export`` copies them beside the
potential, so that what a user runs is what was timed.
"""
