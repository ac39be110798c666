"""Do the statistics keep their word? Synthetic studies with a known truth.

    python -m tests.benchmarks.coverage [--studies 2000] [--repetitions 3 5 10]

A synthetic study is errors of two architectures at four nested training sizes: a·N^(−b), times a shift of each
repetition that both architectures share (a hard split), times independent noise (initialisation). Prints, for each
number of repetitions, how often the 95 % intervals hold the truth (means: pooled over the four settings of one
architecture, and over sixteen of four), how often equal architectures are called different in at least one of four
comparisons, and how often a true 10 % difference is found, beside the power that was printed and what it is for a
spread that is known (design). Exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import product

import numpy as np

from mlpbench.statistics.curves import fit_learning_curve
from mlpbench.statistics.extrapolation import frames_needed
from mlpbench.statistics.intervals import intervals
from mlpbench.statistics.paired import Pair, compare, power

SIZES = np.array([50, 100, 200, 400])
A, B = 400.0, 0.5


@dataclass(frozen=True)
class Noise:
    """Relative standard deviations: of the repetition's shared shift, of each trial, of a repetition's slope."""

    name: str
    shared: float
    trial: float
    slope: float = 0.0
    falling: float = 1.0  # trial noise at the largest size over that at the smallest


NOISES = [
    Noise("seeds dominate", 0.02, 0.08),
    Noise("half and half", 0.06, 0.06),
    Noise("splits dominate", 0.10, 0.03),
    Noise("slopes vary", 0.05, 0.03, slope=0.05),
    Noise("noise halves with N", 0.04, 0.08, falling=0.5),
]


def study(
    rng: np.random.Generator, noise: Noise, repetitions: int, ratio: float = 1.0, architectures: int = 2
) -> np.ndarray:
    """(A, R, K) errors of A architectures, the second ``ratio`` times worse."""
    shape = (architectures, repetitions, len(SIZES))
    fall = noise.falling ** np.linspace(0, 1, len(SIZES))
    logs = np.log(A) - B * np.log(SIZES) + np.zeros(shape)
    logs += noise.shared * rng.standard_normal((1, repetitions, 1))
    logs += noise.trial * fall * rng.standard_normal(shape)
    logs += noise.slope * rng.standard_normal((architectures, repetitions, 1)) * (np.log(SIZES) - np.log(SIZES).mean())
    logs[1] += np.log(ratio)
    return np.exp(logs)


@dataclass
class Tally:
    """Sums over the studies of one kind."""

    exponent: float = 0
    means: float = 0
    many: float = 0
    needed: float = 0
    false: float = 0
    found: float = 0
    printed: float = 0
    found_family: float = 0
    printed_family: float = 0


def measure(noise: Noise, repetitions: int, studies: int, seed: int = 0) -> Tally:
    """Rates over ``studies`` synthetic studies."""
    rng = np.random.default_rng([seed, repetitions, NOISES.index(noise)])
    tally = Tally()
    sizes, labels = np.tile(SIZES, repetitions), np.repeat(np.arange(repetitions), len(SIZES))
    truth = A * SIZES**-B
    target = A * 600.0**-B
    for _ in range(studies):
        equal, different = study(rng, noise, repetitions), study(rng, noise, repetitions, 1.1)
        curve = fit_learning_curve(sizes, equal[0].ravel(), labels, at_rest=True)
        tally.exponent += curve.b_lower <= B <= curve.b_upper
        need = frames_needed(curve, target)
        tally.needed += need.lower <= 600 <= need.upper
        found = intervals(list(equal[0].T))
        tally.means += np.mean([i.lower <= t <= i.upper for i, t in zip(found, truth, strict=True)])
        many = study(rng, noise, repetitions, architectures=4)
        found = intervals(list(many.transpose(0, 2, 1).reshape(16, repetitions)))
        tally.many += np.mean([i.lower <= t <= i.upper for i, t in zip(found, np.tile(truth, 4), strict=True)])
        tally.false += any(c.verdict == "better" for c in compare(_pairs(equal), at=()))
        single = compare([Pair("a", "b", np.log(different[0, :, 1] / different[1, :, 1]))], at=(repetitions,))[0]
        tally.found += single.winner == "a"
        tally.printed += single.power[repetitions]
        family = compare(_pairs(different), at=(repetitions,))
        tally.found_family += np.mean([c.winner == "a" for c in family])
        tally.printed_family += np.mean([c.power[repetitions] for c in family])
    for name, value in vars(tally).items():
        setattr(tally, name, value / studies)
    return tally


def _pairs(errors: np.ndarray) -> list[Pair]:
    return [Pair("a", "b", np.log(errors[0, :, k] / errors[1, :, k]), family="a b") for k in range(len(SIZES))]


def design_power(noise: Noise, repetitions: int) -> float:
    """Chance to find 10 % at the second size, for the spread that the studies truly have."""
    lever = abs(np.log(SIZES[1]) - np.log(SIZES).mean())
    sd = np.sqrt(2) * np.hypot(noise.trial * noise.falling ** (1 / 3), noise.slope * lever)
    return power(0.1, float(sd), repetitions)


def promises(t: Tally, design: float, studies: int) -> list[str]:
    """Which promises the rates break, each by more than three standard errors (they are looked at a hundred times)."""
    slack = 3 * np.sqrt(0.05 * 0.95 / studies)
    coverages = {"exponent": t.exponent, "means": t.means, "means of 16": t.many}
    broken = [name for name, rate in coverages.items() if not 0.93 - slack <= rate <= 0.97 + slack]
    if t.false > 0.05 + slack:
        broken.append("A/A")
    unsure = 3 * np.sqrt(0.25 / studies)
    if abs(t.found - design) > 0.03 + unsure:  # the slope's noise is no normal one of the log-ratio alone
        broken.append("power")
    # What is printed rests on a spread that is itself an estimate: it may be less than what is found, not much more.
    if t.printed > t.found + 0.05 + unsure or t.printed_family > t.found_family + 0.05 + unsure:
        broken.append("printed power")
    return broken


def main() -> int:
    """Print the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, nargs="+", default=[3, 5, 10])
    arguments = parser.parse_args()
    print(f"{arguments.studies} studies each; rates in %; standard error of a coverage near 95 %: "
          f"{100 * np.sqrt(0.05 * 0.95 / arguments.studies):.1f}")  # fmt: skip
    print(f"{'noise':20s} {'R':>3s} {'exponent':>9s} {'means':>7s} {'of 16':>7s} {'N needed':>9s} {'A/A better':>11s} "
          f"{'10 % found':>11s} {'printed':>8s} {'design':>7s} {'family: found':>14s} {'printed':>8s}")  # fmt: skip
    broken = []
    for noise, repetitions in product(NOISES, arguments.repetitions):
        t = measure(noise, repetitions, arguments.studies)
        design = design_power(noise, repetitions)
        figures = [t.exponent, t.means, t.many, t.needed, t.false, t.found, t.printed, design, t.found_family,
                   t.printed_family]  # fmt: skip
        widths = [9, 7, 7, 9, 11, 11, 8, 7, 14, 8]
        row = " ".join(f"{100 * x:{w}.1f}" for x, w in zip(figures, widths, strict=True))
        print(f"{noise.name:20s} {repetitions:3d} {row}", flush=True)
        broken += [f"{noise.name}, R = {repetitions}: {what}" for what in promises(t, design, arguments.studies)]
    print("broken: " + "; ".join(broken) if broken else "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
