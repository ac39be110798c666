"""A trained potential to work with: energies, forces and stress of any structure, and an ASE calculator.

The potential runs in its backend's own environment, in a process that stays for as long as it is open, so that
potentials of packages that cannot be installed together can be used side by side::

    with mlpbench.open_potential("mystudy/mace-tiny-ethanol-n200-r0-1b2c3d4e") as potential:
        atoms.calc = potential.calculator()
        energies = potential.predict([atoms, other]).energy
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols

from mlpbench.backends import processes
from mlpbench.backends.environment import Environment, resolve
from mlpbench.config import load_backends
from mlpbench.datasets.baseline import Baseline
from mlpbench.devices import one_device, resolve_device
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames, packed, unpacked
from mlpbench.protocol import CHECKPOINT, LOG, REQUEST, TASKS, ProtocolError, Request, Task, read_json
from mlpbench.records import RECORD, load_record, usable
from mlpbench.study.study import find_study

BATCH = 32  # frames in one forward pass
LONGEST = 70  # characters of the temporary folder's path
SECONDS = 600.0  # to import a package and load a potential, on a busy machine


@dataclass(frozen=True)
class Prediction:
    """What a potential says of frames; energies are those of the data set it was trained on, reference included.

    Attributes:
        energy: (F,) eV.
        forces: of each frame (N, 3) eV/Å.
        stress: (F, 6) eV/Å³, Voigt order xx yy zz yz xz xy, positive under tension; NaN where a frame has no volume;
            None if it was not asked for or the potential has none.
    """

    energy: Float
    forces: list[Float]
    stress: Float | None


def find_trial(name: str, results: Path) -> Path:
    """The folder of a trial.

    Args:
        name: ``STUDY/TRIAL``, or a path to the trial's folder.
        results: folder of the studies.

    Raises:
        UserError: there is none of that name with a record.
    """
    given = Path(name)
    if (given / RECORD).is_file():
        return given.resolve()
    if len(given.parts) < 2:
        root = find_study(name, results)
        trials = sorted(path.parent.name for path in root.glob(f"*/{RECORD}"))
        raise UserError(f"'{name}' is a study; which of its trials?", f"Say {name}/TRIAL: {', '.join(trials[:25])}")
    root = find_study(given.parts[-2], results)
    folder = root / given.name
    if not (folder / RECORD).is_file():
        known = [path.parent.name for path in root.glob(f"*/{RECORD}")]
        raise UserError(f"study '{root.name}' has no trial '{given.name}'", close_match(given.name, known))
    return folder.resolve()


class Potential:
    """The potential of a finished trial, running in the environment of its backend. Close it, or use it with ``with``.

    Args:
        folder: of the trial.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32`` or ``float64``; None: that of the training.

    Raises:
        UserError: the trial is not trained, its checkpoint is gone, its environment is not built, the device is not
            there, or the potential cannot be loaded.
    """

    def __init__(self, folder: Path, device: str = "cpu", dtype: str | None = None) -> None:
        self.folder = folder
        self.record = trained_record(folder)
        self.baseline = baseline_of(self.record)
        self.elements = set(self.baseline.elements)
        self.has_stress = "stress" in self.record["config"]["backend"][self._backend].get("labels", ["stress"])
        self._closing = ExitStack()
        try:
            self._line = self._connect(environment_of(self.record), device, dtype)
        except BaseException:
            self.close()
            raise

    @property
    def _backend(self) -> str:
        return str(self.record["identifiers"]["backend"])

    def predict(self, structures: Sequence[Atoms], batch_size: int = BATCH, stress: bool = False) -> Prediction:
        """Energies and forces of ``structures``.

        Args:
            structures: whose elements the training frames had.
            batch_size: of them in one forward pass.
            stress: ask for the stress as well.

        Raises:
            UserError: an element that the potential does not know, stress that it cannot give, or what the package
                says where it fails.
        """
        self.require(structures)
        if stress and not self.has_stress:
            raise UserError(f"{self.record['identifiers']['architecture']} gives no stress here", "Ask without it.")
        if not structures:
            return Prediction(np.zeros(0), [], np.zeros((0, 6)) if stress else None)
        frames = Frames.from_atoms(structures)
        found = self._ask(**vars(frames), batch_size=batch_size, want_stress=stress)
        forces = np.split(found["forces"], frames.offsets[1:-1])
        return Prediction(found["energy"] + self.baseline.evaluate(frames), forces, found.get("stress"))

    def require(self, structures: Sequence[Atoms]) -> None:
        """Look at structures before anything is computed.

        Raises:
            UserError: one holds an element that the potential does not know (names the first and the elements).
        """
        for i, atoms in enumerate(structures):
            unknown = {chemical_symbols[z] for z in set(atoms.numbers.tolist())} - self.elements
            if unknown:
                raise UserError(
                    f"frame {i} holds {', '.join(sorted(unknown))}, which {self.folder.name} does not know",
                    f"It was trained on {', '.join(sorted(self.elements))}.",
                )

    def calculator(self) -> PotentialCalculator:
        """An ASE calculator, for as long as the potential is open."""
        return PotentialCalculator(self)

    def close(self) -> None:
        """End its process."""
        self._closing.close()

    def __enter__(self) -> Potential:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, environment: Environment, device: str, dtype: str | None) -> Connection:
        # This user's alone, and so is the socket in it, whose path may have about 100 characters.
        place = tempfile.gettempdir()
        self._work = Path(tempfile.mkdtemp(prefix="mlpbench-", dir=place if len(place) <= LONGEST else "/tmp"))
        self._closing.callback(shutil.rmtree, self._work, ignore_errors=True)
        listener = self._closing.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self._work / "line"))
        listener.listen(1)
        (self._work / CHECKPOINT).symlink_to(self.folder / CHECKPOINT)
        seat = self._closing.enter_context(one_device(resolve_device(device, environment), environment))
        task = Task("serve", options={"address": str(self._work / "line"), "dtype": dtype})
        request = replace(request_of(self.folder), directory=str(self._work), device=seat, tasks=[task])
        request.write(self._work / REQUEST)
        self._worker = processes.Separate(request, environment)
        self._closing.callback(self._worker.release)
        line = self._closing.enter_context(self._accepted(listener))
        self._answer(line)
        return line

    def _accepted(self, listener: socket.socket) -> Connection:
        """The worker's end of the line; it has to import its package first."""
        listener.settimeout(0.1)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                if self._worker.wait(0.0) is not None:
                    raise UserError(f"{self.folder.name} cannot be loaded: {self._said()}") from None
                continue
            peer.settimeout(None)
            return Connection(peer.detach())
        raise UserError(f"{self.folder.name} was not loaded within {SECONDS:.0f} s")

    def _ask(self, **message: Any) -> dict[str, Any]:
        try:
            self._line.send_bytes(packed(**message))
        except OSError as error:
            raise UserError(f"the process of {self.folder.name} has ended", "Open the potential again.") from error
        answer = self._answer(self._line)
        if "failed" in answer:
            raise UserError(f"{self.folder.name} fails on these frames: {answer['failed']}")
        return answer

    def _answer(self, line: Connection) -> dict[str, Any]:
        try:
            return unpacked(line.recv_bytes())
        except (EOFError, OSError) as error:
            self._worker.wait(5.0)
            raise UserError(f"the process of {self.folder.name} has ended: {self._said()}") from error

    def _said(self) -> str:
        """Why the worker ended: the reason of its task, else the last line of its log."""
        result = self._work / TASKS / "serve.json"
        if result.is_file() and read_json(result).get("reason"):
            return str(read_json(result)["reason"])
        log = self._work / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")


class PotentialCalculator(Calculator):
    """ASE's view of a :class:`Potential`: energy, free_energy, forces, and stress where the potential has it."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ASE's
        self.potential = potential
        self.implemented_properties = ["energy", "free_energy", "forces", *(["stress"] if potential.has_stress else [])]

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        """See ASE.

        Raises:
            UserError: as :meth:`Potential.predict`.
        """
        super().calculate(atoms, list(properties), list(changes))  # type: ignore[no-untyped-call]  # ASE's
        assert self.atoms is not None
        found = self.potential.predict([self.atoms], 1, stress="stress" in properties)
        self.results = {"energy": float(found.energy[0]), "free_energy": float(found.energy[0])}
        self.results["forces"] = found.forces[0]
        if found.stress is not None:
            self.results["stress"] = found.stress[0]


def open_potential(
    trial: str | Path, *, results: str | Path = "results", device: str = "cpu", dtype: str | None = None
) -> Potential:
    """The potential of a trial; see :class:`Potential`.

    Args:
        trial: ``STUDY/TRIAL`` below ``results``, or a path to the trial's folder.
        results: folder of the studies.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32`` or ``float64``; None: that of the training.
    """
    return Potential(find_trial(str(trial), Path(results)), device, dtype)


def trained_record(folder: Path) -> dict[str, Any]:
    """The record of a trial whose potential can be used.

    Raises:
        UserError: it cannot be read, the trial is not trained, or its checkpoint is gone.
    """
    try:
        record = load_record(folder)
    except ProtocolError as error:
        raise UserError(str(error), "mlpbench run rewrites it.") from error
    if not usable(record):
        raise UserError(f"{folder.name} is {record['status']}: {record['reason']}", "Run its command again.")
    checkpoint = folder / CHECKPOINT
    if not checkpoint.is_dir() or not any(checkpoint.iterdir()):
        raise UserError(f"the checkpoint of {folder.name} is gone", f"Delete {folder} and run its command again.")
    return record


def baseline_of(record: dict[str, Any]) -> Baseline:
    """The reference energies that a potential was trained without."""
    node = record["split"]["baseline"]
    return Baseline(
        node["source"],
        dict(node["elements_eV"]),
        float(node["mean_per_atom_eV"]),
        int(node["independent_compositions"]),
    )


def environment_of(record: dict[str, Any]) -> Environment:
    """That of the record's backend; an adopted one is that of its configuration."""
    name = record["identifiers"]["backend"]
    node = record["config"]["backend"][name]
    known = load_backends([])
    if name not in known:
        raise UserError(
            f"there is no backend '{name}' here, which this potential needs", close_match(name, list(known))
        )
    adopted = {key: node[key] for key in ("python", "pythonpath") if node.get(key)}
    return resolve(known[name].model_copy(update=adopted))


def request_of(folder: Path) -> Request:
    """What the worker of a trial was asked last.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Request.read(folder / REQUEST)
    except (OSError, ProtocolError) as error:
        raise UserError(f"{folder / REQUEST} cannot be read: {error}", "mlpbench run rewrites it.") from error
