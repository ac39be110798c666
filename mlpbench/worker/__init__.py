"""The half of mlpbench that runs inside a backend's environment.

It imports only the standard library, numpy, ASE, torch, the backend's own package, and of mlpbench
:mod:`mlpbench.protocol`, :mod:`mlpbench.frames` and :mod:`mlpbench.units`.
"""
