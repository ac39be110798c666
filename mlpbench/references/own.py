"""The error a simulation really suffers: the reference method on frames of the potential's own trajectory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlpbench.backends.schema import BackendConfig
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.md_frames import FOLDER, fates, load_run
from mlpbench.frames import Float, Frames
from mlpbench.protocol import write_json
from mlpbench.references.labels import Label, label
from mlpbench.references.methods import complete_method, environment_of, require_open

OWN = "own_trajectory.npz"  # the worker's: geometries, energies and forces of the potential
LABELS = "own_labels.npz"
STATUS = "own_labels.json"

# A reference that gives other labels than the data set's would charge the potential with the difference of methods.
ENERGY_TOLERANCE = 1e-3  # eV per frame; PySCF on the embedded set repeats its labels to 1e-8
FORCE_TOLERANCE = 2e-3  # eV/Å, largest component; grids move it by 0.1 meV/Å between machines


def label_trial(
    directory: Path,
    values: dict[str, Any],
    context: Context,
    backends: dict[str, BackendConfig],
    *,
    threads: int = 1,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Label frames of the trial's own NVT run, where the configuration asks for it.

    Writes ``md/own_labels.npz`` (``picked`` (K,) among the candidates, ``energy`` (K,) eV, ``forces`` (K, N, 3) eV/Å,
    ``seconds`` (K,)) and ``md/own_labels.json`` (``status, reason, verified, frames, cached, seconds``), which is
    also returned; empty if it is not asked for. What hinders it becomes a status and a reason, no exception: the
    trial's other results do not depend on it.

    Args:
        directory: the trial's folder.
        values: what the ``md`` task returned.
        context: the data set's frames, on which the reference method is checked first.
        backends: all backends, for the environment of the code.
        threads: of the code.
        cache: folder of the labels; None: the shared one.
    """
    own = values["options"].get("own_trajectory")
    if not own or "nvt" not in values["runs"]:
        return {}
    try:
        status = _label(directory, values["options"], own, context, backends, threads, cache)
    except UserError as error:
        status = {"status": "skipped", "reason": str(error).replace("\n ", ";")}
    write_json(directory / FOLDER / STATUS, status)
    return status


def _label(
    directory: Path,
    options: dict[str, Any],
    own: dict[str, Any],
    context: Context,
    backends: dict[str, BackendConfig],
    threads: int,
    cache: Path | None,
) -> dict[str, Any]:
    (directory / FOLDER / LABELS).unlink(missing_ok=True)
    if not (directory / FOLDER / OWN).is_file():
        raise UserError("the own trajectory has no frame behind its start")
    method = complete_method(own["reference"])
    backend = environment_of(method, backends)
    with np.load(directory / FOLDER / OWN, allow_pickle=False) as stored:
        candidates = {name: stored[name] for name in stored.files}
    require_open(method, bool(candidates["pbc"].any()))
    verified = verify(candidates["numbers"], context, method, backend, threads=threads, cache=cache)
    picked = pick(candidates, directory, context, options, int(own["frames"]))
    found = label(
        _as_frames(candidates, picked), method, backend, seconds=own.get("seconds"), threads=threads, cache=cache
    )
    good = [k for k, answer in enumerate(found) if isinstance(answer, Label)]
    answers = [answer for answer in found if isinstance(answer, Label)]
    if not answers:
        raise UserError("no frame of the own trajectory could be labelled", "Raise own_trajectory.seconds.")
    _save(directory / FOLDER / LABELS, picked[good], answers)
    short = len(picked) - len(good)
    return {
        "status": "done",
        "reason": f"{short} of {len(picked)} frames have no label: not converged, or out of time" if short else "",
        "method": method,
        "verified": verified,
        "frames": len(good),
        "cached": sum(answer.cached for answer in answers),
        "seconds": sum(answer.seconds for answer in answers if not answer.cached),
    }


def pick(candidates: dict[str, Any], directory: Path, context: Context, options: dict[str, Any], count: int) -> Any:
    """(≤ count,) indices of candidates before the collapse of their replica, evenly over time and replicas.

    Raises:
        UserError: every replica collapsed before the first candidate.
    """
    ends = [fate.frames for fate in fates(load_run(directory, "nvt"), context, options)]
    sound = np.flatnonzero(candidates["frame"] < np.array(ends)[candidates["replica"]])
    if not len(sound):
        raise UserError("every replica collapsed before a frame could be drawn from it")
    # From the middle of equal shares: the first frames still remember the test frame they started from.
    share = (np.arange(min(count, len(sound))) + 0.5) * len(sound) / min(count, len(sound))
    return sound[share.astype(int)]


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


def _as_frames(candidates: dict[str, Any], picked: Any) -> Frames:
    numbers = candidates["numbers"]
    cells = candidates["cell"][picked] if "cell" in candidates else np.zeros((len(picked), 3, 3))
    return Frames.from_atoms(
        Atoms(numbers, positions=positions, cell=cell, pbc=candidates["pbc"])
        for positions, cell in zip(candidates["positions"][picked], cells, strict=True)
    )


def _first_with(frames: Frames, numbers: Any) -> int:
    offsets = frames.offsets
    for i in range(len(frames)):
        if np.array_equal(frames.numbers[offsets[i] : offsets[i + 1]], numbers):
            return i
    raise UserError("the data set has no frame of these atoms to check the reference method on")


def _save(path: Path, picked: Any, answers: list[Label]) -> None:
    forces: Float = np.stack([answer.forces for answer in answers])
    part = path.with_suffix(".part")
    with open(part, "wb") as stream:
        np.savez(
            stream, picked=picked, energy=[a.energy for a in answers], forces=forces,
            seconds=[a.seconds for a in answers],
        )  # fmt: skip
    os.replace(part, path)
