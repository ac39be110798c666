"""After how many MD steps a potential has paid back its labels and its training, in any kind of cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Payback:
    """What was invested, and when it is back.

    Attributes:
        labels: cost of all labels.
        training: cost of the training.
        saved: by each MD step that the potential takes in place of the reference; not positive: it saves nothing.
    """

    labels: float
    training: float
    saved: float

    @property
    def invested(self) -> float:
        """Labels and training together."""
        return self.labels + self.training

    @property
    def steps(self) -> float | None:
        """MD steps until the investment is back; None if it never is."""
        return self.invested / self.saved if self.saved > 0 else None


def payback(
    n_labels: int,
    reference_seconds: float,
    training_seconds: float,
    step_seconds: float,
    *,
    reference_rate: float = 1.0,
    training_rate: float = 1.0,
    step_rate: float = 1.0,
) -> Payback:
    """Break-even (labels × reference + training) / (reference − MD step).

    Args:
        n_labels: training and validation frames.
        reference_seconds: of one label, and of one MD step with the reference, s.
        training_seconds: s.
        step_seconds: of one MD step with the potential, s.
        reference_rate: cost of one second of the reference: 1 for wall time, its cores for core-seconds, a price.
        training_rate: likewise of the training.
        step_rate: likewise of MD with the potential.
    """
    label = reference_seconds * reference_rate
    return Payback(n_labels * label, training_seconds * training_rate, label - step_seconds * step_rate)
