"""Which setting to take: constraints first, then the best that passes, and how sure that is."""

from mlpbench.decision.choosing import select
from mlpbench.decision.model import Advice, Candidate, Check, Constraint, Decision, parse_constraint
from mlpbench.decision.wording import describe

__all__ = ["Advice", "Candidate", "Check", "Constraint", "Decision", "describe", "parse_constraint", "select"]
