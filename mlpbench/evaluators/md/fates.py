"""When a replica stopped being a simulation of its system, and of what.

Every test names the first stored frame that fails it. The earliest frame decides; among tests that fail on the same
frame, the order of :data:`CAUSES` does. A replica stopped by the wall clock has not failed: it is censored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols, covalent_radii

from mlpbench.evaluators import Context
from mlpbench.evaluators.md.runs import CAUSES, SURVIVED, WALL_LIMIT, Fate, Replica, Run, matching, reference_frames
from mlpbench.evaluators.md.structure import largest_r, rdf, rdf_distance
from mlpbench.frames import Float, Int


@dataclass(frozen=True)
class Limits:
    """Thresholds of the tests.

    Attributes:
        cold: too cold below this fraction of the target temperature (Fu et al. stop at 0.1 K only).
        hot: too hot above this multiple of it.
        temperature_window_fs: the temperature is averaged over this time before it is judged.
        bond_factor: two atoms are bonded in the start frame up to this multiple of their covalent radii.
        bond_A: largest deviation of a bond from its mean length in the reference (Fu et al. 2022: 0.5 Å).
        overlap_factor: two atoms are too close below this multiple of their covalent radii.
        contact_A: two atoms without a bond are also too close when this much nearer than such elements ever are
            in the reference frames: false minima need not break a bond. None: no test.
        fragment_A: an atom farther than this from every other one has left.
        structure: largest ∫|g(r) − g_ref(r)|dr of a sliding window, Å (Fu et al.: water 3, LiPS 1); None: no test.
        structure_window_ps: that window.
        structure_r_A: upper end of the integral.
    """

    cold: float = 0.2
    hot: float = 5.0
    temperature_window_fs: float = 500.0
    bond_factor: float = 1.3
    bond_A: float = 0.5
    overlap_factor: float = 0.5
    contact_A: float | None = 0.3
    fragment_A: float = 3.0
    structure: float | None = None
    structure_window_ps: float = 1.0
    structure_r_A: float = 6.0


StructureTest = Callable[[Float], "int | None"]  # (T, N, 3) positions -> first frame that fails


def classify(
    replica: Replica,
    numbers: Int,
    kelvin: float,
    limits: Limits,
    *,
    molecule: bool,
    mean_distances: Float | None = None,
    closest: Float | None = None,
    structure: StructureTest | None = None,
) -> Fate:
    """The fate of one replica.

    Args:
        replica: its stored frames.
        numbers: (N,) atomic numbers.
        kelvin: target temperature.
        limits: thresholds.
        molecule: whether bonds are judged (not in a periodic system).
        mean_distances: (N, N) Å, mean over the reference's frames; None: the start frame's.
        closest: (N, N) Å, smallest over the reference's frames; None: :attr:`Limits.contact_A` is not tested.
        structure: the test on g(r) of a periodic system.
    """
    good = replica.frames
    failures: dict[str, tuple[int, str]] = {}
    times = replica.time_fs[:good]
    if good < len(replica.time_fs) and replica.ended != WALL_LIMIT:
        failures["exploded" if replica.ended == "exploded" else "non_finite"] = (good, "")
    failures |= _temperature(replica.temperature[:good], times, kelvin, limits)
    pairs: dict[str, tuple[int, int]] = {}
    if molecule and good:
        broken, pairs = _geometry(replica.positions[:good], numbers, limits, mean_distances, closest)
        failures |= broken
    if structure is not None and good:
        first = structure(replica.positions[:good])
        if first is not None:
            failures["structure"] = (first, "")
    # The engine may end a replica behind its last stored frame, or between two frames.
    if replica.ended in ("non_finite", "exploded"):
        failures.setdefault(replica.ended, (good, ""))
    if not failures:
        if replica.ended == WALL_LIMIT:
            return Fate(WALL_LIMIT, replica.ended_fs / 1000, good)
        return Fate(SURVIVED, replica.length_fs / 1000, good)
    cause = min(failures, key=lambda name: (failures[name][0], CAUSES.index(name)))
    frame, detail = failures[cause]
    at_engine = cause in ("non_finite", "exploded") and replica.ended == cause
    when = replica.ended_fs if at_engine else float(replica.time_fs[min(frame, len(replica.time_fs) - 1)])
    return Fate(cause, when / 1000, frame, detail, pairs.get(cause, pairs.get("bond")))


def _temperature(kelvins: Float, times: Float, target: float, limits: Limits) -> dict[str, tuple[int, str]]:
    """Frames at which the trailing mean over the window leaves the limits."""
    if len(kelvins) < 2:
        return {}
    width = max(1, round(limits.temperature_window_fs / (times[1] - times[0])))
    width = min(width, len(kelvins))
    total = np.concatenate([[0.0], np.cumsum(kelvins, dtype=np.float64)])
    mean = (total[width:] - total[:-width]) / width  # mean[k] ends with frame k + width − 1
    failures = {}
    for name, bad in (("too_cold", mean < limits.cold * target), ("too_hot", mean > limits.hot * target)):
        if bad.any():
            k = int(np.argmax(bad))
            failures[name] = (k + width - 1, f"{mean[k]:.0f} K over {limits.temperature_window_fs:g} fs")
    return failures


def bonds_of(positions: Float, numbers: Int, factor: float) -> Int:
    """(B, 2) pairs of atoms nearer than ``factor`` times the sum of their covalent radii; ``positions`` (N, 3) Å."""
    radii = covalent_radii[numbers]
    near = distances(positions[None])[0] < factor * (radii[:, None] + radii[None])
    return np.argwhere(np.triu(near, k=1))


def distances(positions: Float) -> Float:
    """(T, N, N) Å of (T, N, 3) positions, without periodicity."""
    return np.asarray(np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1), dtype=np.float64)


def _geometry(
    positions: Float, numbers: Int, limits: Limits, mean_distances: Float | None, closest: Float | None
) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, int]]]:
    """Frames at which a bond is off, two atoms overlap, or one has left, and which; in pieces, to keep memory small."""
    bonds = bonds_of(positions[0], numbers, limits.bond_factor)
    radii = covalent_radii[numbers]
    reach = radii[:, None] + radii[None]
    start = distances(positions[:1])[0]
    mean = start
    if mean_distances is not None:  # a pair bonded here but not in the reference keeps its own length
        mean = np.where(mean_distances < limits.bond_factor * reach, mean_distances, start)
    nearest = _nearest_allowed(bonds, numbers, limits, closest)
    failures: dict[str, tuple[int, str]] = {}
    pairs: dict[str, tuple[int, int]] = {}
    for begin in range(0, len(positions), 1000):
        r = distances(positions[begin : begin + 1000])
        r[:, np.arange(len(numbers)), np.arange(len(numbers))] = np.inf
        off = np.abs(r[:, bonds[:, 0], bonds[:, 1]] - mean[bonds[:, 0], bonds[:, 1]])
        tests: dict[str, npt.NDArray[np.bool_]] = {
            "bond": (off > limits.bond_A).any(axis=1) if len(bonds) else np.zeros(len(r), bool),
            "overlap": (r < nearest).any(axis=(1, 2)),
            "fragment": (r.min(axis=2) > limits.fragment_A).any(axis=1),
        }
        for name, bad in tests.items():
            if name not in failures and bad.any():
                k = int(np.argmax(bad))
                if name == "bond":
                    worst: tuple[int, ...] = tuple(int(i) for i in bonds[int(np.argmax(off[k]))])
                    detail = f"{_pair_words(worst, numbers, r[k])}, mean in the reference {mean[worst]:.2f} Å"
                elif name == "overlap":
                    worst = tuple(int(i) for i in np.unravel_index(np.argmin(r[k] / nearest), r[k].shape))
                    detail = _pair_words(worst, numbers, r[k])
                else:
                    loose = int(np.argmax(r[k].min(axis=1)))
                    worst = (loose, int(np.argmin(r[k, loose])))
                    detail = f"{_pair_words(worst, numbers, r[k])}, and no atom is nearer"
                pairs[name] = (worst[0], worst[1])
                failures[name] = (begin + k, detail)
        if len(failures) == len(tests):
            break
    return failures, pairs


def _nearest_allowed(bonds: Int, numbers: Int, limits: Limits, closest: Float | None) -> Float:
    """(N, N) Å: two atoms nearer than this are too close."""
    radii = covalent_radii[numbers]
    allowed: Float = limits.overlap_factor * (radii[:, None] + radii[None])
    if closest is None or limits.contact_A is None:
        return allowed
    apart = ~np.eye(len(numbers), dtype=bool)
    apart[bonds[:, 0], bonds[:, 1]] = apart[bonds[:, 1], bonds[:, 0]] = False
    for a in np.unique(numbers):
        for b in np.unique(numbers):
            kind = apart & (numbers[:, None] == a) & (numbers[None] == b)
            if kind.any():
                allowed[kind] = np.maximum(allowed[kind], closest[kind].min() - limits.contact_A)
    return allowed


def _pair_words(pair: tuple[int, ...], numbers: Int, r: Float) -> str:
    i, j = pair
    names = f"{chemical_symbols[numbers[i]]}{i}–{chemical_symbols[numbers[j]]}{j}"
    return f"{names} {r[i, j]:.2f} Å"


def mean_distances(context: Context, numbers: Int) -> Float | None:
    """(N, N) Å over the reference frames with these atoms: of the in-distribution split, else of all that there are."""
    chosen = context.in_distribution
    parts = [context.frames[chosen]] if chosen in context.frames else list(context.frames.values())
    positions = np.concatenate([matching(part, numbers)[0] for part in parts])
    return None if not len(positions) else distances(positions).mean(axis=0)


def closest_distances(context: Context, numbers: Int) -> Float | None:
    """(N, N) Å over the frames of all splits with these atoms, whatever their temperature."""
    positions = np.concatenate([matching(part, numbers)[0] for part in context.frames.values()])
    if not len(positions):
        return None
    smallest = np.full((len(numbers), len(numbers)), np.inf)
    for begin in range(0, len(positions), 1000):  # in pieces, to keep memory small
        smallest = np.minimum(smallest, distances(positions[begin : begin + 1000]).min(axis=0))
    return smallest


def fates(run: Run, context: Context, options: dict[str, Any]) -> list[Fate]:
    """What became of each replica.

    Args:
        run: a run at constant temperature or pressure.
        context: reference frames, for mean bond lengths and g(r).
        options: the ``md`` node: ``temperature_K, limits, reference_splits``.

    Raises:
        TypeError: a limit that is not known.
    """
    limits = Limits(**options.get("limits", {}))
    mean = None if run.periodic else mean_distances(context, run.numbers)
    closest = None if run.periodic else closest_distances(context, run.numbers)
    reference = reference_frames(context, options.get("reference_splits", []), run.numbers)
    outcomes = []
    for index in range(len(run)):
        test = None
        if run.periodic and reference is not None and limits.structure is not None:
            test = _structure_test(run, index, reference, limits)
        outcomes.append(
            classify(
                run.replica(index), run.numbers, run.kelvin(options), limits,
                molecule=not run.periodic, mean_distances=mean, closest=closest, structure=test,
            )
        )  # fmt: skip
    return outcomes


def _structure_test(run: Run, index: int, reference: tuple[Float, Float], limits: Limits) -> Any:
    """The first frame that ends a window whose g(r) is too far from the reference's; windows overlap by half."""
    every = np.arange(len(run.numbers))
    assert limits.structure is not None
    threshold = limits.structure

    def test(positions: Float) -> int | None:
        """The first frame whose radial distribution has left the reference's; None if it stays."""
        cells = run.cells(index, len(positions))
        r_max = min(limits.structure_r_A, *(largest_r(c) for c in (*reference[1], *cells)))
        bins = max(20, round(r_max / 0.1))
        expected = rdf(*reference, every, every, r_max, bins)
        width = max(1, round(limits.structure_window_ps * 1000 / run.interval_fs))
        for end in range(width, len(positions) + 1, max(1, width // 2)):
            window = slice(end - width, end)
            if rdf_distance(rdf(positions[window], cells[window], every, every, r_max, bins), expected) > threshold:
                return end - 1
        return None

    return test
