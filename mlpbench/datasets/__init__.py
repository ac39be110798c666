"""Data sets: where frames come from, what their labels mean, and splits that cannot leak."""

from mlpbench.datasets.dataset import Dataset, Split
from mlpbench.datasets.loading import load
from mlpbench.datasets.splits import prepare_split

__all__ = ["Dataset", "Split", "load", "prepare_split"]
