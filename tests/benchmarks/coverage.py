"""Do the statistics keep their word? Synthetic studies with a known truth.

    python -m tests.benchmarks.coverage [--only repetitions survival frames pooling drift diffusion] [--studies 2000]

``repetitions``: errors of two architectures at four nested training sizes, a·N^(−b), times a shift of each repetition
that both share (a hard split), times independent noise (initialisation). Prints, for each number of repetitions, how
often the 95 % intervals hold the truth (means: pooled over the four settings of one architecture, and over sixteen of
four), how often equal architectures are called different in at least one of four comparisons, how often a straight
curve is called bent, and how often a true 10 % difference is found, beside the power that was printed and what it is
for a spread that is known (design).

``survival``: survival and restricted mean of 8 to 32 replicas. ``frames``: the block bootstrap on correlated frames.
``pooling``: one noisy architecture among four. ``drift``: the NVE drift of four replicas. ``diffusion``: from few
blocks. Exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.signal import lfilter

from mlpbench.evaluators.md.motion import diffusion, nve_drift, over_replicas
from mlpbench.statistics.bootstrap import block_interval
from mlpbench.statistics.curves import BENT, fit_learning_curve
from mlpbench.statistics.extrapolation import frames_needed
from mlpbench.statistics.intervals import intervals
from mlpbench.statistics.paired import Pair, compare, power
from mlpbench.statistics.survival import kaplan_meier, restricted_mean, survival_interval
from tests.unit.evaluators.test_md_motion import fluctuation

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
    bent: float = 0
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
        tally.bent += curve.curvature_p < BENT
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


def repetitions(studies: int, counts: list[int]) -> list[str]:
    """Print the table of intervals and comparisons; the promises that are broken."""
    print(f"{'noise':20s} {'R':>3s} {'exponent':>9s} {'bent':>5s} {'means':>7s} {'of 16':>7s} {'N needed':>9s} "
          f"{'A/A better':>11s} {'10 % found':>11s} {'printed':>8s} {'design':>7s} {'family: found':>14s} "
          f"{'printed':>8s}")  # fmt: skip
    broken = []
    for noise, count in product(NOISES, counts):
        t = measure(noise, count, studies)
        design = design_power(noise, count)
        figures = [t.exponent, t.bent, t.means, t.many, t.needed, t.false, t.found, t.printed, design, t.found_family,
                   t.printed_family]  # fmt: skip
        widths = [9, 5, 7, 7, 9, 11, 11, 8, 7, 14, 8]
        row = " ".join(f"{100 * x:{w}.1f}" for x, w in zip(figures, widths, strict=True))
        print(f"{noise.name:20s} {count:3d} {row}", flush=True)
        broken += [f"{noise.name}, R = {count}: {what}" for what in promises(t, design, studies)]
    return broken


def survival(studies: int) -> list[str]:
    """Deaths at a constant rate, wearing out, in infancy, and of a part of the replicas only."""
    broken = []
    kinds = (("constant", 0.9), ("constant", 0.5), ("constant", 0.1), ("late", 0.9), ("late", 0.5), ("early", 0.5),
             ("some", 0.9), ("some", 0.5))  # fmt: skip
    for n, (kind, alive) in product((8, 16, 32), kinds):
        rng, inside, stable = np.random.default_rng([n, int(100 * alive)]), 0, 0
        shape = {"constant": 1.0, "late": 3.0, "early": 0.5, "some": 1.0}[kind]
        scale = 0.2 if kind == "some" else (-np.log(alive)) ** (-1 / shape)

        def times(size: int, rng=rng, shape=shape, scale=scale, mortal=1 - alive if kind == "some" else 1.0):  # type: ignore[no-untyped-def]
            return np.where(rng.random(size) < mortal, scale * rng.weibull(shape, size), np.inf)

        many = times(1_000_000)
        share, mean = float((many > 1).mean()), float(np.minimum(many, 1).mean())
        for _ in range(studies):
            t = times(n)
            curve = kaplan_meier(np.minimum(t, 1.0), t < 1)
            low, high = survival_interval(curve, 1.0)
            inside += low <= share <= high
            _, low, high = restricted_mean(curve, 1.0)
            stable += low <= mean <= high
        rates = {"survival": inside / studies, "stable time": stable / studies}
        print(f"{n:3d} replicas, {kind:8s} {100 * alive:.0f} % alive: " + _rates(rates), flush=True)
        broken += [f"{what}, {kind}, n = {n}" for what, rate in rates.items() if rate < 0.95 - _slack(studies)]
    return broken


def frames(studies: int) -> list[str]:
    """Mean of a positive error along a first-order autoregression."""
    broken = []
    for (n, k), phi in product(((50, 1), (200, 1), (200, 4)), (0.0, 0.5, 0.7, 0.9, 0.97)):
        rng, inside, width = np.random.default_rng([n, k, int(100 * phi)]), 0, []
        group = np.repeat(np.arange(k), n // k)
        for _ in range(studies):
            noise = np.sqrt(1 - phi**2) * rng.standard_normal((k, n // k + 200))
            x = lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 200:]
            found = block_interval(np.exp(0.3 * x.ravel()), group, n_resamples=500)
            inside += found.lower <= np.exp(0.045) <= found.upper
            width.append((found.upper - found.lower) / found.value)
        enough = n * (1 - phi) / (1 + phi) > 2  # independent frames; with fewer nothing can be promised
        rate = f"{100 * inside / studies:.1f} %, width {np.median(width):.2f}"
        print(f"{n} frames of {k} trajectories, φ = {phi}: {rate}", flush=True)
        if enough and inside / studies < 0.9 - _slack(studies):
            broken.append(f"frames, n = {n}, φ = {phi}")
    return broken


def pooling(studies: int) -> list[str]:
    """Four architectures at four sizes, three repetitions; the first has another noise than the rest."""
    broken, groups = [], np.repeat(np.arange(4), 4)
    for factor, shared in product((1.0, 2.0, 3.0, 1 / 3), (0.02, 0.06)):
        rng, inside = np.random.default_rng([int(10 * factor), int(100 * shared)]), np.zeros(16)
        sd = 0.08 * np.where(groups == 0, factor, 1.0)
        for _ in range(studies):
            logs = shared * rng.standard_normal((3, 1)) + sd * rng.standard_normal((3, 16))
            inside += [i.lower <= 1 <= i.upper for i in intervals(list(np.exp(logs).T), groups=groups.tolist())]
        rates = inside.reshape(4, 4).mean(axis=1) / studies
        print(f"noise times {factor:.2g}, shared {shared}: it {100 * rates[0]:.1f} %, the others "
              f"{100 * rates[1:].mean():.1f} %", flush=True)  # fmt: skip
        if min(rates[0], rates[1:].mean()) < 0.93 - _slack(studies):
            broken.append(f"pooling, noise times {factor:.2g}")
    return broken


def drift(studies: int) -> list[str]:
    """Four replicas whose energy fluctuates as ethanol's under velocity Verlet, without a drift and with one."""
    broken = []
    for length, truth in product((1.0, 2.0, 5.0), (0.0, 0.1)):
        rng, inside, told, values = np.random.default_rng(int(10 * length)), 0, 0, []
        for _ in range(studies):
            found = []
            for sign in (1, -1, 1, -1):
                times, total = fluctuation(rng, 1000 * length)
                one = nve_drift(times, total + sign * truth * 9 * times * 1e-6, np.zeros_like(total), 9)
                assert one is not None
                found.append((one.slope, one.slope_error))
            value, low, high = over_replicas(*np.array(found).T)
            inside, told = inside + (low <= truth <= high), told + (low > 0)
            values.append(value)
        print(f"{length:g} ps, drift {truth:g}: interval holds it in {100 * inside / studies:.1f} %, excludes 0 in "
              f"{100 * told / studies:.1f} %; mean value {np.mean(values):.3f} meV/atom/ps", flush=True)  # fmt: skip
        if inside / studies < 0.95 - _slack(studies):
            broken.append(f"drift of {truth:g} over {length:g} ps")
    return broken


def diffusion_of_walkers(studies: int) -> list[str]:
    """Ten walkers, one trajectory cut into blocks; from four blocks the figure is what is refused now."""
    broken = []
    for blocks in (4, 8, 16):
        rng, inside = np.random.default_rng(blocks), 0
        for _ in range(studies):
            steps = rng.standard_normal((50 * blocks + 1, 10, 3)) * np.sqrt(2 * 0.5 * 0.1)
            found = diffusion([np.cumsum(steps, axis=0)], 100.0, np.ones(10), min_blocks=blocks)
            assert not isinstance(found, str)
            inside += found.lower <= 0.5 * 0.9 <= found.upper
        print(f"{blocks} blocks: {100 * inside / studies:.1f} %", flush=True)
        if blocks >= 8 and inside / studies < 0.93 - _slack(studies):
            broken.append(f"diffusion, {blocks} blocks")
    return broken


def _slack(studies: int) -> float:
    return float(3 * np.sqrt(0.05 * 0.95 / studies))


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in rates.items())


PARTS = {"survival": survival, "frames": frames, "pooling": pooling, "drift": drift, "diffusion": diffusion_of_walkers}


def main() -> int:
    """Print the tables; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--only", nargs="+", choices=["repetitions", *PARTS], default=["repetitions", *PARTS])
    arguments = parser.parse_args()
    print(f"{arguments.studies} studies each; rates in %; standard error of a coverage near 95 %: "
          f"{100 * np.sqrt(0.05 * 0.95 / arguments.studies):.1f}")  # fmt: skip
    broken = []
    for name in arguments.only:
        print(f"== {name}")
        one = PARTS.get(name)
        broken += one(arguments.studies) if one else repetitions(arguments.studies, arguments.repetitions)
    print("broken: " + "; ".join(broken) if broken else "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
