"""Two studies side by side: which trials match, what changed between them, and what came of it."""

from mlpbench.comparison.judging import compare_studies
from mlpbench.comparison.matching import load_side
from mlpbench.comparison.model import Change, Judged, StudyComparison, describe

__all__ = ["Change", "Judged", "StudyComparison", "compare_studies", "describe", "load_side"]
