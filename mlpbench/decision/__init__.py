"""Which candidate to take: constraints first, then the best that passes, and how sure that is."""

from mlpbench.decision.choosing import select
from mlpbench.decision.model import Advice, Assessment, Check, Constraint, Decision, describe, parse_constraint

__all__ = ["Advice", "Assessment", "Check", "Constraint", "Decision", "describe", "parse_constraint", "select"]
