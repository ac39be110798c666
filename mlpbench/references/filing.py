"""Files of structures, labelled by a reference method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlpbench.backends.registry import BackendConfig
from mlpbench.datasets.dataset import LABEL_SECONDS, LEVEL, METHOD
from mlpbench.datasets.readers import geometries
from mlpbench.datasets.readers.ase_files import ENERGY_KEYS, FORCES_KEYS, STRESS_KEYS
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import replacing
from mlpbench.references.labels import Label, OnLabel, Unlabelled, label
from mlpbench.references.methods import level_of, parse_method

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
    found = label(
        Frames.from_atoms(structures), method, backend,
        seconds=seconds, threads=threads, jobs=jobs, cache=cache, on_label=on_label,
    )  # fmt: skip
    words = parse_method(method).words()
    labelled = [
        _labelled(atoms, i, answer, words, method)
        for i, (atoms, answer) in enumerate(zip(structures, found, strict=True))
        if isinstance(answer, Label)
    ]
    if labelled:
        with replacing(target) as part:
            write(part, labelled, format="extxyz")
    return Filed(target, found)


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
