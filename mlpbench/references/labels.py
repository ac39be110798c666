"""Labels from a reference method, kept by geometry and method, so that no frame is ever paid for twice."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlpbench import turns
from mlpbench.backends.registry import BackendConfig, home
from mlpbench.datasets.dataset import LABEL_SECONDS, LEVEL, METHOD
from mlpbench.datasets.readers import geometries
from mlpbench.datasets.readers.ase_files import ENERGY_KEYS, FORCES_KEYS, STRESS_KEYS
from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import ProtocolError, read_json, replacing, write_json
from mlpbench.references.methods import level_of, parse_method, require_open
from mlpbench.references.running import request_frames, run_frames


@dataclass(frozen=True)
class Label:
    """What the reference method says of one frame.

    Attributes:
        energy: eV, total.
        forces: (N, 3) eV/Å.
        stress: (6,) eV/Å³, Voigt, ASE's sign; None where there is none.
        seconds: it took; what it cost when it was computed, also where it came from the cache.
        cached: True if it was there already.
        version: name and version of the code.
    """

    energy: float
    forces: Float
    stress: Float | None
    seconds: float
    cached: bool
    version: str


@dataclass(frozen=True)
class Unlabelled:
    """Why a frame has no label.

    Attributes:
        reason: as the code says it; ``out of time`` where it was never begun.
        final: True if another try would end the same way.
    """

    reason: str
    final: bool


OnLabel = Callable[[int, int], None]  # frames that need no more work, all frames


def label_key(
    numbers: Int, positions: Float, method: dict[str, Any], cell: Float | None = None, pbc: Any = False
) -> str:
    """sha256 of a structure and the level of a complete method; positions and cell in Å, to the last bit."""
    text = json.dumps(level_of(method), sort_keys=True)
    parts = [text.encode(), np.asarray(numbers, "<i8").tobytes(), np.ascontiguousarray(positions, "<f8").tobytes()]
    if np.any(pbc):
        parts += [np.ascontiguousarray(cell, "<f8").tobytes(), np.broadcast_to(np.asarray(pbc, bool), 3).tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def label_keys(frames: Frames, method: dict[str, Any]) -> list[str]:
    """:func:`label_key` of each frame."""
    offsets = frames.offsets
    return [
        label_key(frames.numbers[a:b], frames.positions[a:b], method, frames.cell[i], frames.pbc[i])
        for i, (a, b) in enumerate(pairwise(offsets))
    ]


def label(
    frames: Frames,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    seconds: float | None = None,
    threads: int = 1,
    jobs: int = 1,
    cache: Path | None = None,
    on_label: OnLabel | None = None,
) -> list[Label | Unlabelled]:
    """Labels of ``frames``; a reason where the method did not converge, broke down, or the time ran out.

    Every label is kept as soon as it is there: a call that is interrupted goes on where it was.

    Args:
        frames: their own labels are not looked at.
        method: as :func:`mlpbench.references.methods.complete_method` gives it.
        backend: whose environment has the code.
        seconds: no new calculation is begun after this; None: no limit.
        threads: of the code, in each process.
        jobs: processes at once.
        cache: folder of the labels; None: ``labels`` in mlpbench's home, shared by all studies.
        on_label: called at the start and on each frame (see ``OnLabel``).

    Raises:
        UserError: the environment is not built, the code could not be run or cannot compute such systems.
    """
    require_open(method, bool(frames.pbc.any()))
    folder = home() / "labels" if cache is None else cache
    keys = label_keys(frames, method)
    answers = {key: _read(folder, key) for key in keys}
    missing = list(dict.fromkeys(key for key in keys if answers[key] is None))
    broken: dict[str, str] = {}
    computed = 0
    if missing:
        first = {key: keys.index(key) for key in missing}
        request = request_frames(frames.select([first[key] for key in missing]), missing)
        by_id = {frame["id"]: frame for frame in request}
        settled = sum(key not in first for key in keys)

        def file(key: str, answer: dict[str, Any]) -> None:
            """Keep an answer, or note why there is none."""
            nonlocal computed
            computed += 1
            if answer["error"]:
                broken[key] = answer["reason"]
            else:
                frame = {k: v for k, v in by_id[key].items() if k != "id"}
                write_json(folder / key[:2] / f"{key}.json", {**answer, "method": level_of(method), **frame})
            if on_label is not None:
                on_label(settled + computed, len(keys))

        if on_label is not None:
            on_label(settled, len(keys))
        with turns.beside_others(), tempfile.TemporaryDirectory(prefix="mlpbench-label-") as scratch:
            run_frames(request, method, backend, seconds, threads, Path(scratch), jobs=jobs, on_answer=file)
    any_label = any(answer is not None and answer["converged"] for answer in answers.values())
    if broken and len(broken) == computed and (len(broken) >= 3 or not any_label):
        raise UserError(
            f"{method['code']} failed on every frame it was given: {next(iter(broken.values()))}",
            f"Correct the method's settings, or check its environment: mlpbench env check {backend.name}",
        )
    return [_answer(answers[key] or _read(folder, key), key in missing, broken.get(key)) for key in keys]


def _answer(data: dict[str, Any] | None, new: bool, error: str | None) -> Label | Unlabelled:
    if data is None:
        return Unlabelled(error or "out of time", final=False)
    if not data["converged"]:
        return Unlabelled(data.get("reason") or "did not converge", final=True)
    stress = data.get("stress")
    return Label(
        data["energy"], np.array(data["forces"]), None if stress is None else np.array(stress),
        data["seconds"], not new, data.get("version", ""),
    )  # fmt: skip


def _read(folder: Path, key: str) -> dict[str, Any] | None:
    try:
        return read_json(folder / key[:2] / f"{key}.json")
    except (FileNotFoundError, ProtocolError):
        return None  # not there, or cut short by a full disk: it is computed (again)


_LABELS = {*ENERGY_KEYS, *FORCES_KEYS, *STRESS_KEYS, LABEL_SECONDS, LEVEL, METHOD}


@dataclass(frozen=True)
class Filed:
    """What came of a file.

    Attributes:
        path: the labelled file; not written if no frame has a label.
        labels: of each frame of the input.
    """

    path: Path
    labels: list[Label | Unlabelled]

    @property
    def good(self) -> list[Label]:
        """The labels there are."""
        return [answer for answer in self.labels if isinstance(answer, Label)]

    @property
    def left_out(self) -> list[tuple[int, Unlabelled]]:
        """Number, from 0, and reason of each frame without a label."""
        return [(i, answer) for i, answer in enumerate(self.labels) if isinstance(answer, Unlabelled)]


def read_structures(path: Path) -> list[Atoms]:
    """All structures of a file, whatever ASE reads.

    Raises:
        UserError: there is no such file, or ASE cannot read it.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return geometries(path)


def label_file(
    source: Path,
    target: Path,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    jobs: int = 1,
    threads: int = 1,
    seconds: float | None = None,
    cache: Path | None = None,
    on_label: OnLabel | None = None,
) -> Filed:
    """Label the structures of ``source`` and write those that have a label to ``target``, in their order.

    The header keeps what ``source`` says of a frame, except labels; ``frame`` (number in ``source``, where the header
    has none), ``level_of_theory``, ``reference_method`` and ``label_seconds`` are added.

    Args:
        source: whatever ASE reads.
        target: extxyz, in eV, eV/Å and eV/Å³.
        method: as :func:`mlpbench.references.methods.complete_method` gives it.
        backend: whose environment has the code.
        jobs: processes at once.
        threads: of the code, in each.
        seconds: no new calculation is begun after this.
        cache: folder of the labels; None: the shared one.
        on_label: see :func:`mlpbench.references.labels.label`.

    Raises:
        UserError: see :func:`read_structures` and :func:`mlpbench.references.labels.label`.
    """
    if target.exists() and target.samefile(source):
        raise UserError(f"{target} would be overwritten by its own labels", "Give another file with --out.")
    structures = read_structures(source)
    answers = label(
        Frames.from_atoms(structures), method, backend,
        seconds=seconds, threads=threads, jobs=jobs, cache=cache, on_label=on_label,
    )  # fmt: skip
    words = parse_method(method).words()
    labelled = [
        _labelled(atoms, i, answer, words, method)
        for i, (atoms, answer) in enumerate(zip(structures, answers, strict=True))
        if isinstance(answer, Label)
    ]
    if labelled:
        with replacing(target) as part:
            write(part, labelled, format="extxyz")
    return Filed(target, answers)


def _labelled(atoms: Atoms, number: int, answer: Label, words: str, method: dict[str, Any]) -> Atoms:
    result = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    result.info = {"frame": number, **{k: v for k, v in atoms.info.items() if k not in _LABELS}}
    result.info |= {LEVEL: f"{words}, {answer.version}", LABEL_SECONDS: float(f"{answer.seconds:.3g}")}
    result.info[METHOD] = {**level_of(method), "backend": method["backend"]}
    labels: dict[str, Any] = {"energy": answer.energy, "forces": answer.forces}
    if answer.stress is not None:
        labels["stress"] = answer.stress
    result.calc = SinglePointCalculator(result, **labels)
    return result
