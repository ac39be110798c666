"""What a batch of replicas is asked to do, and how a replica can end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

# How a replica ended, as a number in the arrays. What a molecule died of is for the scores to find.
FINISHED, NON_FINITE, EXPLODED, WALL_LIMIT = 0, 1, 2, 3
ENDINGS = ("finished", "non_finite", "exploded", "wall_limit")

ENSEMBLES = ("nve", "langevin", "nose_hoover", "npt")


@dataclass(frozen=True)
class Settings:
    """One run of all replicas.

    Attributes:
        ensemble: ``nve``, ``langevin``, ``nose_hoover`` or ``npt``.
        length_ps: planned length of each replica.
        time_step_fs: of the integrator.
        frame_interval_fs: between stored frames; a whole number of steps.
        temperature_K: of the start velocities and of the bath.
        friction_per_ps: of Langevin dynamics, alone and under NPT.
        thermostat_time_fs: period of the Nosé–Hoover chain.
        pressure_GPa: under NPT.
        barostat_time_fs: relaxation time of the volume under NPT.
        compressibility_per_GPa: how readily the volume follows; it changes no average.
        velocity_interval_fs: between stored velocities (for the vibrational spectrum); None: none are stored.
        store_forces: keep the forces of stored frames, to hold them against a reference method later.
        wall_seconds: the run stops here and its replicas count as censored; None: no limit.
        max_extent_A: an atom of a molecule farther than this from the centre of mass ends its replica.
        max_temperature_K: a replica hotter than this has exploded and ends.
    """

    ensemble: str
    length_ps: float
    time_step_fs: float
    frame_interval_fs: float
    temperature_K: float
    friction_per_ps: float = 10.0
    thermostat_time_fs: float = 50.0
    pressure_GPa: float = 0.0
    barostat_time_fs: float = 1000.0
    compressibility_per_GPa: float = 0.01
    velocity_interval_fs: float | None = None
    store_forces: bool = False
    wall_seconds: float | None = None
    max_extent_A: float = 100.0
    max_temperature_K: float = 1e5

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble '{self.ensemble}' is not known; known: {', '.join(ENSEMBLES)}")
        for name in ("length_ps", "time_step_fs", "frame_interval_fs", "temperature_K"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        for name in ("frame_interval_fs", "velocity_interval_fs"):
            value = getattr(self, name)
            if value is not None and abs(value / self.time_step_fs - round(value / self.time_step_fs)) > 1e-6:
                raise ValueError(f"{name}={value} is no whole number of time steps of {self.time_step_fs} fs")

    @property
    def steps(self) -> int:
        """Steps of the planned length."""
        return round(self.length_ps * 1000 / self.time_step_fs)

    @property
    def frame_every(self) -> int:
        """Steps between stored frames."""
        return round(self.frame_interval_fs / self.time_step_fs)

    @property
    def velocity_every(self) -> int:
        """Steps between stored velocities; 0: none."""
        return 0 if self.velocity_interval_fs is None else round(self.velocity_interval_fs / self.time_step_fs)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Settings:
        """Settings from a configuration node.

        Raises:
            ValueError: a key that is not known, or a value that cannot be; names it.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"MD settings have no key '{unknown[0]}'; known: {', '.join(sorted(known))}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)
