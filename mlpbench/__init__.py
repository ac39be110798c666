"""mlpbench: which interatomic potential, at which size, with how many labels, and at what cost."""

__version__ = "0.1.0"
