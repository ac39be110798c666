"""The same potential in several engines of molecular dynamics: first the same trajectory, then the time of a step.

Each engine runs in a process of its own. Constant energy for the comparison, since every thermostat draws its own
noise; a Langevin bath of the same temperature and friction for the times.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from mlpbench.frames import Float, Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, Potential, Unavailable
from mlpbench.worker.clock import Clock, Watch, grown, single
from mlpbench.worker.engines import native
from mlpbench.worker.paths import TOLERANCE, run_child
from mlpbench.worker.tasks import Skip

CHECK_STEPS = 20  # of constant energy, compared with ASE's
FRICTION_PER_PS = 10.0  # of the Langevin bath that is timed
SECONDS = 60.0  # for a server to open its socket, or to end
SKIN = 5.0  # Å, cutoff of LAMMPS's own lists, which nothing uses


class Engine(Protocol):
    """One engine, ready to run."""

    def energies(self, steps: int) -> Float:
        """(steps + 1,) eV, potential energies of a run at constant energy from the start velocities."""
        ...

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """Seconds of a step with the bath, one value a block of ``steps`` steps."""
        ...


def rows(adapter: Adapter, options: dict[str, Any], folder: Path, events: EventLog) -> Iterator[dict[str, Any]]:
    """Of each engine asked for: ``engine, means, ranks, status, reason``, and what :func:`speed_engine` returns.

    Options: those of ``speed``, with ``engines``, ``engine_copies``, ``engine_ranks``, and ``engine_places``: engine ->
    ``site`` (a folder of packages), ``python``, or the ``reason`` why there is none.
    """
    for way in _plan(options, bool(adapter.pair_styles)):
        head = {key: way[key] for key in ("engine", "means", "ranks")}
        if way.get("reason"):
            yield {**head, "status": "skipped", "reason": way["reason"]}
            continue
        label = "-".join(str(part).replace(" ", "-").replace("/", "-") for part in head.values() if part)
        result = run_child(
            adapter.request, folder / label, "speed_engine", {**options, "way": way}, seconds=options["path_seconds"]
        )
        events.write("progress", text=f"{label}: {result.status}")
        peak = (result.peak_device_memory_mb or result.peak_memory_mb) if result.status == "done" else None
        yield {**head, "status": result.status, "reason": result.reason, "peak_memory_mb": peak, **result.values}


def _plan(options: dict[str, Any], styled: bool) -> Iterator[dict[str, Any]]:
    """The ways to be tried: LAMMPS has the generic one, and the package's own pair style in as many processes as asked.

    ``styled``: whether the package has one.
    """
    places = options.get("engine_places") or {}
    for name in options["engines"]:
        place = places.get(name, {})
        means = {"lammps": "fix external", "ipi": "socket"}.get(name, "")
        yield {"engine": name, "means": means, "ranks": 1, **place}
        if name != "lammps" or not styled:
            continue
        for ranks in options.get("engine_ranks") or [1]:
            if not place.get("reason"):
                yield {"engine": name, "means": native.PAIR_STYLE, "ranks": ranks, **place}
            if place.get("command"):
                yield {"engine": name, "means": native.ADOPTED, "ranks": ranks, **place, "reason": ""}


def speed_engine(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Run one engine beside ASE, and time it if the energies agree.

    Options: those of ``speed`` and ``way``, see :func:`rows`.

    Returns ``n_atoms``, ``version``, ``energy_difference`` (largest difference from ASE along the trajectory, eV/atom),
    ``energy_span`` (how far the energy moved in it, eV/atom), ``bare`` (s of a call of the ASE calculator) and ``md``
    (s of a step), one value a block; ``conditions``.

    Raises:
        Skip: the engine cannot run here, or has other energies than ASE.
    """
    way = options["way"]
    if way.get("site"):
        sys.path.append(way["site"])  # last: nothing of the potential's own packages is replaced
    frames = Frames.load(adapter.request.frames[options["split"]])
    copies = options.get("engine_copies") or 1
    structures = [grown(atoms, copies) for atoms in frames.select(slice(min(4, len(frames)))).to_atoms()]
    potential = adapter.load()
    calculator = potential.calculator()
    start = _moving(structures[0], options["temperature_K"])
    engine, version = _engine(adapter, potential, calculator, start, options)
    expected = AseEngine(calculator, start, options).energies(CHECK_STEPS)
    found = engine.energies(CHECK_STEPS)
    difference = float(np.max(np.abs(found - expected))) / len(start)
    span = float(np.ptp(expected)) / len(start)
    allowed = TOLERANCE[adapter.request.dtype if way["engine"] != "ipi" else "float32"][0]
    if not difference <= allowed:
        raise Skip(
            f"its energies are not those of ASE: along {CHECK_STEPS} steps they differ by up to {difference:.3g} "
            f"eV/atom (they move by {span:.3g}); allowed is {allowed:g}"
        )
    watch = Watch(adapter.request.threads, adapter.request.device)
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    bare = clock.times(single(calculator, structures))
    seconds = engine.step_seconds(clock, options["md_block_steps"])
    return {
        "n_atoms": len(start), "version": version, "energy_difference": difference, "energy_span": span,
        "bare": bare, "md": seconds, "conditions": watch.report(), "thermostat": f"Langevin, {FRICTION_PER_PS:g}/ps",
    }  # fmt: skip


def _moving(atoms: Atoms, kelvin: float) -> Atoms:
    moving: Atoms = atoms.copy()
    MaxwellBoltzmannDistribution(moving, temperature_K=kelvin, rng=np.random.default_rng(0))
    Stationary(moving)
    return moving


def _engine(
    adapter: Adapter, potential: Potential, calculator: Calculator, start: Atoms, options: dict[str, Any]
) -> tuple[Engine, str]:
    """The engine of ``options["way"]``, and its version in words.

    Raises:
        Skip: it cannot run here.
    """
    way = options["way"]
    name = way["engine"]
    try:
        if name == "ase":
            return AseEngine(calculator, start, options), metadata.version("ase")
        if name == "torchsim":
            return TorchSimEngine(potential, start, options), metadata.version("torch-sim-atomistic")
        if name == "ipi":
            return IpiEngine(calculator, start, options, adapter.directory), way.get("version", "")
        if way["means"] in (native.PAIR_STYLE, native.ADOPTED):
            return native.NativeLammps(adapter, start, options, FRICTION_PER_PS), way.get("version", "")
        return LammpsEngine(calculator, start, options, adapter.directory), way.get("version", "")
    except (Unavailable, NotImplementedError, ImportError, OSError, metadata.PackageNotFoundError) as error:
        raise Skip(str(error)) from error


class AseEngine:
    """ASE's own molecular dynamics."""

    def __init__(self, calculator: Calculator, start: Atoms, options: dict[str, Any]) -> None:
        self.calculator, self.start = calculator, start
        self.step_fs, self.kelvin = options["timestep_fs"], options["temperature_K"]

    def energies(self, steps: int) -> Float:
        """See :class:`Engine`."""
        moving = self._fresh()
        dynamics = VelocityVerlet(moving, timestep=self.step_fs * units.fs)
        found = [moving.get_potential_energy()]
        for _ in range(steps):
            dynamics.run(1)
            found.append(moving.get_potential_energy())
        return np.array(found)

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """See :class:`Engine`."""
        dynamics = Langevin(
            self._fresh(), timestep=self.step_fs * units.fs, temperature_K=self.kelvin,
            friction=FRICTION_PER_PS / (1000 * units.fs), rng=np.random.default_rng(1),
        )  # fmt: skip
        clock.block(lambda: dynamics.run(steps), 1)
        return [clock.block(lambda: dynamics.run(steps), 1) / steps for _ in range(clock.blocks)]

    def _fresh(self) -> Atoms:
        moving: Atoms = self.start.copy()
        moving.calc = self.calculator
        return moving


class TorchSimEngine:
    """torch-sim's integrators around the package's torch-sim model.

    Raises:
        NotImplementedError: the backend has none.
    """

    def __init__(self, potential: Potential, start: Atoms, options: dict[str, Any]) -> None:
        self.model, self.start, self.options = potential.torchsim_model(), start, options

    def energies(self, steps: int) -> Float:
        """See :class:`Engine`."""
        dynamics = self._dynamics(None)
        found = [dynamics.potential_energies()[0]]
        for _ in range(steps):
            dynamics.run(1)
            found.append(dynamics.potential_energies()[0])
        return np.array(found)

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """See :class:`Engine`."""
        dynamics = self._dynamics(FRICTION_PER_PS)
        clock.block(lambda: dynamics.run(steps), 1)
        return [clock.block(lambda: dynamics.run(steps), 1) / steps for _ in range(clock.blocks)]

    def _dynamics(self, friction: float | None) -> Any:
        from mlpbench.worker.engines.torchsim_md import Dynamics

        step, kelvin = self.options["timestep_fs"], self.options["temperature_K"]
        return Dynamics([self.start], self.model, step, kelvin, friction_per_ps=friction)


class LammpsEngine:
    """LAMMPS with the package's ASE calculator, through ``fix external``."""

    def __init__(self, calculator: Calculator, start: Atoms, options: dict[str, Any], folder: Path) -> None:
        from mlpbench.worker.engines import lammps_md

        self.module, self.calculator, self.options = lammps_md, calculator, options
        self.start = lammps_md.standing(start)
        self.data = folder / "start.data"
        lammps_md.write_data(self.data, self.start)

    def energies(self, steps: int) -> Float:
        """See :class:`Engine`."""
        lammps = self._open([])
        lammps.command("run 0 post no")
        found = [lammps.value("pe")]
        for _ in range(steps):
            lammps.command("run 1 post no")
            found.append(lammps.value("pe"))
        lammps.close()
        return np.array(found)

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """See :class:`Engine`."""
        lammps = self._open(native.bath(self.options["temperature_K"], FRICTION_PER_PS))
        lammps.command(f"run {steps} post no")
        line = f"run {steps} pre no post no"
        seconds = [clock.block(lambda: lammps.command(line), 1) / steps for _ in range(clock.blocks)]
        lammps.close()
        return seconds

    def _open(self, bath: list[str]) -> Any:
        # As in ASE: energy and forces alone, since nothing here needs a stress.
        lammps = self.module.Lammps(self.calculator, self.start.copy(), stress=False)
        system = self.module.system_lines(self.start, str(self.data), SKIN)
        for line in [*system, f"timestep {self.options['timestep_fs'] / 1000:g}", "fix move all nve", *bath]:
            lammps.command(line)
        return lammps


class IpiEngine:
    """i-PI in an environment of its own, and the package's ASE calculator at the other end of a socket."""

    def __init__(self, calculator: Calculator, start: Atoms, options: dict[str, Any], folder: Path) -> None:
        from mlpbench.worker.engines import ipi_md, lammps_md

        self.module, self.calculator, self.options, self.folder = ipi_md, calculator, options, folder
        self.start = lammps_md.standing(start) if start.pbc.any() else start
        ipi_md.write_positions(folder / "start.xyz", self.start)

    def energies(self, steps: int) -> Float:
        """See :class:`Engine`."""
        return np.array([energy for _, energy in self._run(steps, None)])

    def step_seconds(self, clock: Clock, steps: int) -> list[float]:
        """See :class:`Engine`; from the times at which forces were asked for."""
        ticks = np.array([tick for tick, _ in self._run((clock.blocks + 1) * steps, FRICTION_PER_PS)])
        borders = ticks[steps::steps][: clock.blocks + 1]
        seconds: list[float] = (np.diff(borders) / steps).tolist()
        return seconds

    def _run(self, steps: int, friction: float | None) -> list[tuple[float, float]]:
        address = f"mlpbench-{uuid.uuid4().hex[:12]}"
        text = self.module.system_input(
            self.start, address, steps=steps, time_step_fs=self.options["timestep_fs"],
            temperature_K=self.options["temperature_K"], friction_per_ps=friction, velocities=True, every=max(steps, 1),
        )  # fmt: skip
        (self.folder / "input.xml").write_text(text, encoding="utf-8")
        moving = self.start.copy()
        moving.calc = self.calculator
        python = Path(self.options["way"]["python"])
        with open(self.folder / "ipi.log", "wb") as log:
            server = subprocess.Popen(
                [str(python), "-P", str(python.with_name("i-pi")), "input.xml"], cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                found = [
                    (tick, float(self.calculator.results["energy"]))
                    for tick in self.module.serve(moving, address, SECONDS)
                ]
                server.wait(SECONDS)
            finally:
                server.kill()
                server.wait()
        if len(found) != steps + 1:
            last = (self.folder / "ipi.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(f"i-PI ended after {len(found)} of {steps + 1} evaluations: {last[-1] if last else ''}")
        return found
