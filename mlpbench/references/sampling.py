"""Geometries drawn by molecular dynamics with a cheap reference code, one file for each trajectory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_strain
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlpbench import turns
from mlpbench.backends.registry import BackendConfig
from mlpbench.datasets.readers import geometries
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import replacing
from mlpbench.references.methods import METHODS, parse_method, require_open
from mlpbench.references.running import request_frames, run_workers

WORKER = "mlpbench.worker.reference.sampling"


class Trajectory(BaseModel):
    """One trajectory: frames are kept at equal distances after the equilibration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature_K: float = Field(gt=0)
    frames: int = Field(gt=0)
    start: str | None = Field(default=None, description="where it begins, if elsewhere than sampling.start says")
    seed: int = Field(ge=0, description="of velocities and noise, and of strains")
    strain: float = Field(
        default=0.0, ge=0, lt=0.3, description="each kept frame is strained at random: six components within ± this"
    )
    remove: list[int] = Field(default_factory=list, description="atoms, counted from 0, that the start is short of")


class Sampling(BaseModel):
    """How geometries are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: str | None = Field(
        description="structure file (its first frame), a molecule that ASE knows (CH3CH2OH), or a crystal as "
        "bulk:Si:5.47 (element, lattice constant in Å; cubic cell)"
    )
    thermostat: Literal["langevin"] = Field(default="langevin")
    friction_per_ps: float = Field(gt=0, description="of the Langevin bath")
    time_step_fs: float = Field(gt=0)
    equilibration_ps: float = Field(ge=0, description="dropped at the start of each trajectory")
    spacing_fs: float = Field(gt=0, description="between the frames that are kept")
    hold_centre: bool = Field(
        description="hold the centre of mass as ASE's Langevin does (fixcm): it overheats small molecules"
    )
    relax_fmax: float | None = Field(gt=0, description="eV/Å; the start is relaxed below it; None: taken as it is")
    relax_steps: int = Field(gt=0, description="at most")
    temperatures_K: list[float] = Field(min_length=1, description="one trajectory for each, and each seed")
    frames: int = Field(gt=0, description="of each trajectory")
    seeds: list[int] = Field(min_length=1)
    trajectories: dict[str, Trajectory] | None = Field(description="named ones, in place of the three above")

    @field_validator("trajectories")
    @classmethod
    def _file_names(cls, named: dict[str, Trajectory] | None) -> dict[str, Trajectory] | None:
        for name in named or {}:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise ValueError(f"'{name}' becomes a file: use letters, digits, '-', '_', '.' and '+'")
        return named

    @model_validator(mode="after")
    def _whole_steps(self) -> Sampling:
        if self.spacing_fs < self.time_step_fs:
            raise ValueError("spacing_fs is shorter than time_step_fs")
        return self

    def planned(self) -> dict[str, Trajectory]:
        """Name -> trajectory."""
        if self.trajectories:
            return dict(self.trajectories)
        return {
            f"{t:g}K" + (f"_seed{seed}" if len(self.seeds) > 1 else ""): Trajectory(
                temperature_K=t, frames=self.frames, seed=seed
            )
            for t in self.temperatures_K
            for seed in self.seeds
        }

    def by_start(self) -> dict[str | None, Sampling]:
        """What each trajectory begins from -> the sampling of those that begin there."""
        groups: dict[str | None, dict[str, Trajectory]] = {}
        for name, trajectory in self.planned().items():
            groups.setdefault(trajectory.start or self.start, {})[name] = trajectory
        return {
            start: self.model_copy(update={"start": start, "trajectories": group}) for start, group in groups.items()
        }

    def steps(self, trajectory: Trajectory) -> int:
        """MD steps of a trajectory."""
        spacing = round(self.spacing_fs / self.time_step_fs)
        return round(1000 * self.equilibration_ps / self.time_step_fs) + trajectory.frames * spacing

    def words(self) -> str:
        """The ensemble, for a file's header."""
        return (
            f"Langevin, {self.friction_per_ps:g}/ps, {self.time_step_fs:g} fs; {self.equilibration_ps:g} ps "
            f"of equilibration, then a frame every {self.spacing_fs:g} fs"
            + (", centre of mass held (ASE's fixcm, which overheats small molecules)" if self.hold_centre else "")
        )


def start_structure(name: str | None) -> Atoms:
    """The first structure of a file, a molecule of ASE's collection, or the cubic cell of ``bulk:ELEMENT:LENGTH``.

    Raises:
        UserError: none of these.
    """
    if not name:
        raise UserError("there is no structure to start from", "Give one: mlpbench data sample START.xyz ...")
    if name.startswith("bulk:"):
        return _crystal(name)
    path = Path(name).expanduser()
    if path.is_file():
        return geometries(path, "0")[0]
    try:
        return Atoms(molecule(name))
    except KeyError as error:
        raise UserError(f"'{name}' is neither a file nor a molecule that ASE knows (such as CH3CH2OH)") from error


def _crystal(name: str) -> Atoms:
    """``bulk:Si:5.47``: the element's structure as ASE knows it, in its cubic cell."""
    try:
        _, symbol, length = name.split(":")
        return Atoms(bulk(symbol, a=float(length), cubic=True))
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"'{name}' is no crystal: {error}", "Write it as bulk:Si:5.47, or give a file.") from error


def _without(start: Atoms, run: Trajectory) -> Atoms:
    """The structure a trajectory starts from."""
    if run.remove and max(run.remove) >= len(start):
        raise UserError(f"there is no atom {max(run.remove)} to remove: the start has {len(start)}, counted from 0")
    return start[[i for i in range(len(start)) if i not in run.remove]]


def draw(
    start: Atoms,
    sampling: Sampling,
    method: dict[str, Any],
    backend: BackendConfig,
    out: Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """Write ``<name>.xyz`` into ``out`` for each trajectory that is not there yet.

    Args:
        start: where every trajectory begins, after relaxation.
        sampling: temperatures, lengths, thermostat.
        method: as :func:`mlpbench.references.methods.complete_method` gives it.
        backend: whose environment has the code.
        out: folder; made if it is not there.
        jobs: trajectories at once.
        threads: of the code, in each.
        on_step: called with the MD steps done and those of all trajectories.

    Returns:
        The files, in order, and the reason for each trajectory that failed, by name.

    Raises:
        UserError: the environment is not built, the code cannot be started or cannot compute such systems.
    """
    require_open(method, bool(start.pbc.any()))
    planned = sampling.planned()
    paths = {name: out / f"{name}.xyz" for name in planned}
    todo = {name: planned[name] for name in planned if not paths[name].exists()}
    failed: dict[str, str] = {}
    if todo:
        out.mkdir(parents=True, exist_ok=True)
        starts = {name: _without(start, run) for name, run in todo.items()}
        frames = request_frames(Frames.from_atoms(starts.values()), list(starts))
        request = {
            "code": METHODS[method["code"]].worker, "method": method, "settings": sampling.model_dump(),
            "runs": {f["id"]: {**todo[f["id"]].model_dump(exclude={"start"}), "start": f} for f in frames},
        }  # fmt: skip
        total = sum(sampling.steps(run) for run in todo.values())
        written: set[str] = set()
        with turns.beside_others(), tempfile.TemporaryDirectory(prefix="mlpbench-sample-") as scratch:
            place = Path(scratch)

            def collect() -> None:
                """Sum up the progress of all runs, and note those that failed."""
                done = 0
                for name, run in todo.items():
                    done += _number(place / f"{name}.progress")
                    if (place / f"{name}.failed").exists():
                        failed[name] = (place / f"{name}.failed").read_text(encoding="utf-8")
                    if name not in written and (place / f"{name}.npz").exists():
                        written.add(name)
                        _write(paths[name], place / f"{name}.npz", starts[name], run, sampling, method)
                if on_step is not None:
                    on_step(done, total)

            run_workers(
                WORKER, request, backend, place, threads=threads, jobs=min(jobs, len(todo)), collect=collect,
                complete=lambda: len(written) + len(failed) == len(todo), what="drawing geometries",
            )  # fmt: skip
    return [path for path in paths.values() if path.exists()], failed


def _write(path: Path, drawn: Path, start: Atoms, run: Trajectory, sampling: Sampling, method: dict[str, Any]) -> None:
    """One trajectory as extxyz. The sampler's energy is no label: it stands under another name."""
    with np.load(drawn, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    sampler = f"{parse_method(method).words()} ({data['version']}); {sampling.words()}; seed {run.seed}"
    generator = np.random.default_rng(run.seed)
    structures = []
    for i, positions in enumerate(data["positions"]):
        atoms = Atoms(start.numbers, positions=positions, cell=start.cell, pbc=start.pbc)
        if run.strain:
            deformation = voigt_6_to_full_3x3_strain(generator.uniform(-run.strain, run.strain, 6))  # 1 + strain
            atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        atoms.info = {
            "config_type": path.stem, "temperature_K": run.temperature_K, "frame": i,
            "kinetic_temperature_K": round(float(data["kinetic_temperature_K"][i]), 1),
            "sampler_energy": float(data["energy"][i]), "sampler": sampler,
            **({"strain": run.strain} if run.strain else {}),
        }  # fmt: skip
        structures.append(atoms)
    with replacing(path) as part:
        write(part, structures, format="extxyz")


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii") or 0)
    except FileNotFoundError:
        return 0  # not begun
