"""The error a simulation really suffers: the reference method on frames of the potential's own trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.backends.environment import resolve
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.md import LABELS, LAST, OWN, STATUS
from mlpbench.evaluators.md.fates import fates
from mlpbench.evaluators.md.runs import FOLDER, Fate, Run, atoms_of, load_run
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json, replacing, write_json
from mlpbench.references.labels import Label, label
from mlpbench.references.methods import complete_method, environment_of, require_open

# A reference that gives other labels than the data set's would charge the potential with the difference of methods.
ENERGY_TOLERANCE = 1e-3  # eV per frame; PySCF on the embedded set repeats its labels to 1e-8
FORCE_TOLERANCE = 2e-3  # eV/Å, largest component; grids move it by 0.1 meV/Å between machines

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Chosen:
    """A frame to be labelled: ``kind`` is ``own`` or ``last``, ``frame`` counts the stored ones of a replica."""

    run: str
    replica: int
    frame: int
    kind: str


def label_trial(
    directory: Path,
    values: dict[str, Any],
    context: Context,
    backends: dict[str, BackendConfig],
    *,
    threads: int = 1,
    cache: Path | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Label frames of the trial's own NVT runs, where the configuration asks for it.

    Writes ``md/own_labels.npz`` (for K frames ``run, replica, frame, kind`` as in :class:`Chosen`, ``energy`` (K,) eV,
    ``forces`` (K, N, 3) eV/Å, ``seconds`` (K,)) and ``md/own_labels.json`` (``status, reason, verified, frames, cached,
    seconds, unlabelled``), which is also returned; empty if it is not asked for. What hinders it becomes a status and
    a reason, no exception: the trial's other results do not depend on it.

    Args:
        directory: the trial's folder.
        values: what the ``md`` task returned.
        context: the data set's frames, on which the reference method is checked first.
        backends: all backends, for the environment of the code.
        threads: of the code.
        cache: folder of the labels; None: the shared one.
        on_event: called with progress.
    """
    own = values["options"].get("own_trajectory")
    if not own or "nvt" not in values["runs"]:
        return {}
    try:
        status = _label(directory, values, own, context, backends, threads, cache, on_event)
    except UserError as error:
        status = {"status": "skipped", "reason": str(error).replace("\n ", ";"), "retry": False}
    write_json(directory / FOLDER / STATUS, status)
    return status


def pending(directory: Path, options: dict[str, Any], backends: dict[str, BackendConfig]) -> bool:
    """Whether labels are wanted that could be had now: never tried, or tried while the reference's environment was
    missing, and it is there now.
    """
    own = options.get("own_trajectory")
    if not own or not options.get("nvt"):
        return False
    try:
        status = read_json(directory / FOLDER / STATUS)
    except (FileNotFoundError, ProtocolError):
        return True
    # Records of an earlier version have no 'retry'; their reason names the command that builds the environment.
    if status["status"] != "skipped" or not status.get("retry", "env build" in status["reason"]):
        return False
    try:
        resolve(environment_of(complete_method(own["reference"]), backends))
    except UserError:
        return False
    return True


def _label(
    directory: Path,
    values: dict[str, Any],
    own: dict[str, Any],
    context: Context,
    backends: dict[str, BackendConfig],
    threads: int,
    cache: Path | None,
    on_event: OnEvent | None,
) -> dict[str, Any]:
    (directory / FOLDER / LABELS).unlink(missing_ok=True)
    method = complete_method(own["reference"])
    backend = environment_of(method, backends)
    runs = {name: load_run(directory, name) for name in values["runs"] if name.startswith("nvt")}
    require_open(method, runs["nvt"].periodic)
    try:
        resolve(backend)
    except UserError as error:
        return {"status": "skipped", "reason": str(error).replace("\n ", ";"), "retry": True}
    verified = verify(runs["nvt"].numbers, context, method, backend, threads=threads, cache=cache)
    ends = {name: fates(run, context, values["options"]) for name, run in runs.items()}
    picked = choose_own(runs["nvt"], ends["nvt"], int(own["frames"])) + choose_last(ends, int(own.get("deaths") or 0))
    frames = Frames.from_atoms(atoms_of(runs[c.run], c.replica, range(c.frame, c.frame + 1))[0] for c in picked)

    def told(settled: int, _: int) -> None:
        """Pass on how many labels are there."""
        if on_event is not None:
            on_event({"event": "progress", "text": f"labels of its own trajectory: {settled} of {len(picked)}"})

    answers = label(
        frames, method, backend, seconds=own.get("seconds"), threads=threads, cache=cache, on_label=told
    )  # fmt: skip
    pairs = list(zip(picked, answers, strict=True))
    good = [(chosen, answer) for chosen, answer in pairs if isinstance(answer, Label)]
    reasons = sorted({f"{c.kind}: {answer.reason}" for c, answer in pairs if not isinstance(answer, Label)})
    if not good:
        raise UserError(f"no frame of the own trajectory could be labelled ({'; '.join(reasons)})")
    _save(directory / FOLDER / LABELS, good)
    short = len(pairs) - len(good)
    return {
        "status": "done",
        "reason": f"{short} of {len(pairs)} frames have no label ({'; '.join(reasons)})" if short else "",
        "method": method,
        "verified": verified,
        "frames": len(good),
        "cached": sum(answer.cached for _, answer in good),
        "seconds": sum(answer.seconds for _, answer in good if not answer.cached),
        "unlabelled": short,
    }


def choose_own(run: Run, ends: list[Fate], count: int) -> list[Chosen]:
    """``count`` frames before the collapse of their replica, from equal shares of time and of the replicas.

    Frame 0 is a frame of the data set and none of the potential's own. The middle of a share is taken: early frames
    still remember where they started.

    Raises:
        UserError: every replica collapsed before a frame could be drawn from it.
    """
    sound = [(frame, replica) for replica, fate in enumerate(ends) for frame in range(1, fate.frames)]
    if not sound:
        raise UserError("every replica collapsed before a frame could be drawn from it")
    sound.sort()
    count = min(count, len(sound))
    picked = []
    for k in range(count):
        share = (k + 0.5) / count
        frame = sound[int(share * len(sound))][0]
        alive = [replica for replica, fate in enumerate(ends) if fate.frames > frame]
        picked.append(Chosen(run.name, alive[int(share * len(alive))], frame, OWN))
    return picked


def choose_last(ends: dict[str, list[Fate]], count: int) -> list[Chosen]:
    """The last sound frame of ``count`` replicas that died, of the first run's before those of further temperatures."""
    picked: list[Chosen] = []
    for name, ended in ends.items():
        dead = [Chosen(name, r, fate.frames - 1, LAST) for r, fate in enumerate(ended) if fate.died and fate.frames > 1]
        wanted = min(count - len(picked), len(dead))
        picked += [dead[int((k + 0.5) * len(dead) / wanted)] for k in range(wanted)]
    return picked


def verify(
    numbers: Any,
    context: Context,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    threads: int = 1,
    cache: Path | None = None,
) -> dict[str, float]:
    """Label one frame of the data set again and hold the result to what the data set says.

    Raises:
        UserError: they differ: this is not the level of theory of the data set; or no frame has these atoms.
    """
    name = context.in_distribution if context.in_distribution in context.frames else next(iter(context.frames), "")
    frames = context.frames.get(name)
    if frames is None:
        raise UserError("the data set has no frame to check the reference method on")
    index = _first_with(frames, numbers)
    part = frames.select([index])
    answer = label(part, method, backend, threads=threads, cache=cache)[0]
    if not isinstance(answer, Label):
        raise UserError(f"the reference method does not label frame {index} of {name}: {answer.reason}")
    energy = abs(answer.energy - float(part.energy[0]))
    force = float(np.abs(answer.forces - part.forces).max())
    if energy > ENERGY_TOLERANCE or force > FORCE_TOLERANCE:
        raise UserError(
            f"the reference method is not the data set's: on frame {index} of {name} its energy differs by "
            f"{energy * 1e3:.3g} meV and its forces by up to {force * 1e3:.3g} meV/Å",
            "Set evaluation.md.own_trajectory.reference to the data set's level of theory, or own_trajectory=null.",
        )
    return {"energy_meV": energy * 1e3, "force_meV_per_A": force * 1e3, "seconds": answer.seconds}


def _first_with(frames: Frames, numbers: Any) -> int:
    offsets = frames.offsets
    for i in range(len(frames)):
        if np.array_equal(frames.numbers[offsets[i] : offsets[i + 1]], numbers):
            return i
    raise UserError("the data set has no frame of these atoms to check the reference method on")


def _save(path: Path, good: list[tuple[Chosen, Label]]) -> None:
    names: dict[str, Any] = {f.name: np.array([getattr(chosen, f.name) for chosen, _ in good]) for f in fields(Chosen)}
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(
            stream, **names, energy=[a.energy for _, a in good], forces=np.stack([a.forces for _, a in good]),
            seconds=[a.seconds for _, a in good],
        )  # fmt: skip
