"""Two studies side by side: which trials match, what changed between them, and what came of it."""

from mlpbench.comparison.judging import compare_studies
from mlpbench.comparison.matching import Side, load_side
from mlpbench.comparison.model import Change, Judged, StudyComparison
from mlpbench.comparison.wording import describe

__all__ = ["Change", "Judged", "Side", "StudyComparison", "compare_studies", "describe", "load_side"]
