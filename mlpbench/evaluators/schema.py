"""What ``evaluation.physics``, ``evaluation.md`` and ``evaluation.speed`` may say: types and ranges, checked before
anything runs. Defaults and the meaning of each key stand in ``conf/evaluation/_base.yaml``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Options(BaseModel):
    """A node that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhysicsOptions(Options):
    """Checks of the potential itself."""

    n_frames: int = Field(gt=0, description="test frames for the checks of forces and symmetries")
    displacement_A: float = Field(gt=0, le=0.1, description="of the central differences, Å")
    hessian_displacement_A: float = Field(gt=0, le=0.1, description="of the finite-difference Hessian, Å")
    fmax: float = Field(gt=0, description="eV/Å; the minimum counts as reached below this force")
    relax_steps: int = Field(gt=0, description="at most, on the way to the minimum")
    seed: int = Field(ge=0, description="of rotations, shifts and orders")


class Run(Options):
    """What all runs of molecular dynamics have."""

    length_ps: float = Field(gt=0, description="planned length")
    frame_interval_fs: float = Field(gt=0, description="between stored frames; a multiple of the time step")
    velocity_interval_fs: float | None = Field(
        default=None, gt=0, description="between stored velocities; a multiple of the time step"
    )
    wall_seconds: float | None = Field(gt=0, description="after this the replicas are stopped and count as censored")


class NvtOptions(Run):
    """Constant temperature."""

    thermostat: Literal["langevin", "nose_hoover"]
    friction_per_ps: float = Field(default=10.0, gt=0, description="of the Langevin bath, 1/ps")
    thermostat_time_fs: float = Field(default=50.0, gt=0, description="period of the Nosé–Hoover chain, fs")


class NptOptions(Run):
    """Constant pressure, in periodic systems only."""

    friction_per_ps: float = Field(gt=0, description="of the Langevin bath, 1/ps")
    pressure_GPa: float
    barostat_time_fs: float = Field(default=1000.0, gt=0, description="relaxation time of the volume, fs")
    compressibility_per_GPa: float = Field(default=0.01, gt=0, description="how readily the volume follows")


class NveOptions(Run):
    """Constant energy."""

    time_steps_fs: list[float] = Field(min_length=1, description="fs; the fluctuation must fall as their square")
    replicas: int = Field(gt=0, description="of those of the task")


class LimitOptions(Options):
    """When a replica counts as dead (see :class:`mlpbench.evaluators.md.fates.Limits`)."""

    cold: float = Field(ge=0, lt=1, description="times the target temperature")
    hot: float = Field(gt=1, description="times the target temperature")
    temperature_window_fs: float = Field(gt=0, description="over which the temperature is averaged, fs")
    bond_factor: float = Field(gt=0, description="bonds of the start frame: up to this multiple of the covalent radii")
    bond_A: float = Field(gt=0, description="largest deviation of a bond from its mean length in the reference, Å")
    overlap_factor: float = Field(ge=0, description="too close below this multiple of the covalent radii")
    contact_A: float | None = Field(gt=0, description="nearer by this than in any reference frame, Å; null: no test")
    fragment_A: float = Field(gt=0, description="an atom farther than this from every other one has left, Å")
    structure: float | None = Field(gt=0, description="periodic: largest ∫|g − g_ref|dr, Å; null: no test")
    structure_window_ps: float = Field(gt=0, description="sliding window of that test, ps")
    structure_r_A: float = Field(gt=0, description="upper end of that integral, Å")


class OwnTrajectoryOptions(Options):
    """Frames of the potential's own trajectory, labelled with the reference method."""

    frames: int = Field(ge=0, description="over all replicas, before any collapse")
    deaths: int = Field(ge=0, description="the last sound frame of as many replicas that died")
    seconds: float | None = Field(gt=0, description="no new label is started after this; null: no limit")
    reference: dict[str, Any] | None = Field(description="the method; null: the data set's own")


class MdOptions(Options):
    """Molecular dynamics of many replicas."""

    temperature_K: float = Field(gt=0, description="of the start velocities and the bath, K")
    further_temperatures_K: list[float] = Field(description="constant temperature at these as well, K")
    time_step_fs: float = Field(gt=0, description="of NVT and NPT, fs")
    start_split: str | None = Field(description="split the replicas start from; null: the first test split")
    starts: int = Field(gt=0, description="start frames, evenly spaced over that split")
    seeds: int = Field(gt=0, description="velocities drawn for each start frame")
    seed: int = Field(ge=0, description="of velocities and noise")
    engine: Literal["auto", "torch-sim", "predict", "ase"] = Field(description="where forces come from")
    nvt: NvtOptions | None
    npt: NptOptions | None
    nve: NveOptions | None
    limits: LimitOptions
    reference_splits: list[str] = Field(description="test splits that are MD of the reference method")
    reference_interval_fs: float | None = Field(gt=0, description="between their frames, where consecutive, fs")
    own_trajectory: OwnTrajectoryOptions | None
    write_extxyz: bool = Field(description="whole trajectories as extended XYZ as well")
    write_trajectories: list[Literal["extxyz", "traj", "dump"]] | None = Field(
        default=None, description="whole trajectories in these forms; None: none"
    )

    @model_validator(mode="after")
    def _multiples(self) -> MdOptions:
        steps = {"nvt": [self.time_step_fs], "npt": [self.time_step_fs]}
        steps["nve"] = self.nve.time_steps_fs if self.nve is not None else []
        for name, values in steps.items():
            run = getattr(self, name)
            for step in values if run is not None else []:
                if step <= 0:
                    raise ValueError(f"{name}.time_steps_fs holds {step:g}; a time step must be positive")
                for key in ("frame_interval_fs", "velocity_interval_fs"):
                    interval = getattr(run, key)
                    if interval is not None and abs(interval / step - round(interval / step)) > 1e-6:
                        raise ValueError(f"{name}.{key}={interval:g} is not a multiple of the time step of {step:g} fs")
        if any(kelvin <= 0 for kelvin in self.further_temperatures_K):
            raise ValueError("further_temperatures_K must be above 0 K")
        return self


class SpeedReferenceOptions(Options):
    """The reference method on the same frames."""

    frames: int = Field(gt=0, description="timed, after a cold start that is given separately")
    threads: int = Field(gt=0, description="of the reference code")
    method: dict[str, Any] | None = Field(description="null: the data set's own")


class SpeedOptions(Options):
    """Latency, batches, MD steps and growing systems."""

    split: str | None = Field(description="whose frames are the inputs; None: the first test split")
    n_frames: int = Field(gt=0, description="frames of it, in turn")
    blocks: int = Field(ge=2, description="timed repeats; an interval needs at least 2, and 5 to be of use")
    block_seconds: float = Field(gt=0, description="length of a block, s")
    batch_sizes: list[int] = Field(description="frames in one forward pass, for the throughput")
    md_block_steps: int = Field(gt=0, description="velocity-Verlet steps in a block")
    timestep_fs: float = Field(gt=0, description="of those steps, fs")
    temperature_K: float = Field(gt=0, description="of their start, K")
    copies: list[int] = Field(min_length=1, description="copies of the system side by side, ascending")
    max_seconds_per_call: float = Field(gt=0, description="the scaling series ends at a call that takes longer, s")
    memory_fraction: float | None = Field(
        gt=0, le=1, description="then doubled up to this share of the memory; on a GPU to the end of its own"
    )
    deployments: list[Literal["eager", "compiled", "accelerated"]] = Field(description="how the potential is run")
    dtypes: list[Literal["float32", "float64"]] | None = Field(description="of weights and forward pass; None: trial's")
    tf32: list[bool] = Field(min_length=1, description="whether float32 products may be rounded to TF32 (NVIDIA GPUs)")
    path_seconds: float = Field(gt=0, description="limit for one deployment, compilation included, s")
    engines: list[Literal["ase", "torchsim", "lammps", "ipi"]] | None = Field(
        default=None, min_length=1, description="of molecular dynamics, each as rows of the speed table; None: none"
    )
    engine_copies: int | None = Field(default=None, gt=0, description="of the system, side by side; None: 1")
    engine_ranks: list[int] | None = Field(
        default=None, min_length=1, description="processes of LAMMPS with a pair style of the package's own; None: 1"
    )
    reference: SpeedReferenceOptions | None = Field(description="the reference method on the same frames; None: do not")
