"""Exploration: which frames of the potential's own dynamics are worth a label, and the manifests that say so.

Frames are sorted by trust levels, as in DP-GEN (Zhang et al., Comput. Phys. Commun. 253, 107206 (2020)): below the
lower one the committee agrees and a label would teach little, above the upper one the potential is so wrong that the
frame may be nothing that the system ever does. Nothing here trains, simulates or labels (:mod:`mlpbench.exploring`).
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlpbench.acquisition.choosing import Acquisition, Options, find_acquisition
from mlpbench.datasets.fingerprint import families
from mlpbench.errors import UserError
from mlpbench.files import digest
from mlpbench.frames import Bool, Float, Frames, Int
from mlpbench.protocol import ProtocolError, read_json, write_json

FORMAT = 1
MANIFEST = "manifest.json"
TIMES_LOWER = 3.0  # the upper trust level over the lower one, where it is not given
QUANTILE = 0.95  # of the validation frames' deviations: the lower one, where it is not given


class Exploration(BaseModel):
    """The settings of an exploration: node ``explore`` of ``conf/explore.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperatures_K: list[float] = Field(min_length=1, description="of the baths, K")
    length_ps: float = Field(gt=0, description="of each replica in each round")
    time_step_fs: float = Field(gt=0)
    interval_fs: float = Field(gt=0, description="between frames that may become candidates")
    friction_per_ps: float = Field(gt=0, description="of the Langevin bath")
    replicas: int = Field(gt=0, description="at each temperature, from as many training frames")
    members: int = Field(ge=2, description="potentials of the committee")
    lower: float | None = Field(gt=0, description="trust level, eV/Å; None: from the validation frames")
    upper: float | None = Field(gt=0, description="trust level, eV/Å; None: a multiple of the lower one")
    near_A: float = Field(ge=0, description="frames nearer than this to another, by their fingerprints, are left out")
    relabel: bool = Field(description="label the start with the reference method, whatever labels it has")
    acquisition: str = Field(description="how a batch is chosen among the candidates")
    shortlist: float = Field(ge=1, description="as acquisition.shortlist")
    batch: int = Field(gt=0, description="frames that a round labels, at most")
    rounds: int = Field(gt=0, description="at most")
    labels: int = Field(gt=0, description="frames that all rounds label, at most")
    hours: float | None = Field(gt=0, description="of the reference method's calculations, at most; None: no limit")

    @model_validator(mode="after")
    def _possible(self) -> Exploration:
        if any(kelvin <= 0 for kelvin in self.temperatures_K):
            raise ValueError("temperatures_K must be above 0 K")
        if len(set(self.temperatures_K)) < len(self.temperatures_K):
            raise ValueError("temperatures_K names one twice")
        steps = self.interval_fs / self.time_step_fs
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"interval_fs={self.interval_fs:g} is not a multiple of time_step_fs={self.time_step_fs:g}"
            )
        if self.lower is not None and self.upper is not None and self.upper <= self.lower:
            raise ValueError(f"upper={self.upper:g} is not above lower={self.lower:g}")
        return self

    @property
    def chooser(self) -> Acquisition:
        """The class that chooses among the candidates.

        Raises:
            UserError: there is none of that name, it needs labels, or more potentials than the committee has.
        """
        chooser = find_acquisition(self.acquisition, Options(self.members, self.shortlist))
        if chooser.sees_labels:
            raise UserError(
                f"explore.acquisition={self.acquisition} needs the labels of the candidates",
                "Choose committee_farthest, committee, farthest or random.",
            )
        return chooser

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is chosen: all but the limits, which may be raised."""
        return self.model_dump(exclude={"rounds", "labels", "hours"})


def deviations(forces: Float, frames: Frames) -> tuple[Float, Float]:
    """How far the members of a committee lie apart, as DP-GEN has it.

    Args:
        forces: (R, A, 3) eV/Å.
        frames: F frames of A atoms in all.

    Returns:
        (A,) eV/Å, root mean square over members of the distance to the mean force; (F,) its largest in each frame.
    """
    atoms = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    return atoms, np.maximum.reduceat(atoms, frames.offsets[:-1]) if len(frames) else np.zeros(0)


def trust_levels(options: Exploration, valid: Float) -> tuple[float, float]:
    """The lower and the upper trust level, eV/Å.

    Args:
        options: where they may be given.
        valid: (V,) deviations of the validation frames.
    """
    lower = float(np.quantile(valid, QUANTILE)) if options.lower is None else options.lower
    upper = TIMES_LOWER * lower if options.upper is None else options.upper
    if upper <= lower:
        raise UserError(
            f"explore.upper={upper:g} eV/Å is not above the lower trust level, which the validation frames put at "
            f"{lower:.3g} eV/Å",
            "Give explore.lower too, or leave explore.upper out.",
        )
    return lower, upper


def distinct(known: Frames, frames: Frames, order: Int, distance: float) -> Int:
    """The frames of ``order``, in that order, without those that nearly repeat a known one or one before them.

    Args:
        known: labelled frames.
        frames: candidates.
        order: indices of ``frames``, the most wanted first.
        distance: Å; root mean square difference of the fingerprints below which frames are near-copies.
    """
    there = {key: list(family.values) for key, family in families(known).items()} if len(known) else {}
    prints: dict[int, tuple[bytes, Float]] = {}
    for key, family in families(frames).items():
        prints |= {int(index): (key, row) for index, row in zip(family.frames, family.values, strict=True)}
    kept = []
    for index in order.tolist():
        key, row = prints[index]
        others = there.setdefault(key, [])
        if others and np.sqrt(((np.array(others) - row) ** 2).mean(axis=1)).min() < distance:
            continue
        others.append(row)
        kept.append(index)
    return np.array(kept, dtype=np.int64)


def trusted(deviation: Float, lower: float, upper: float) -> tuple[Bool, Bool, Bool]:
    """(F,) which frames are accurate, candidates, failed."""
    accurate, failed = deviation < lower, deviation >= upper
    return accurate, ~accurate & ~failed, failed


@dataclass(frozen=True)
class RoundManifest:
    """What one round of an exploration found and chose.

    Attributes:
        round: from 1.
        asked: what it is made from: settings, digests of the labelled frames, keys of the potentials, code version.
        levels: the lower and the upper trust level, eV/Å.
        counts: frames that dynamics made (``frames``), lost to a collapse (``collapsed``), sound ones by trust level
            (``accurate, candidates, failed``), and of the candidates those left after near-copies (``distinct``).
        deaths: cause -> replicas that ended by it, of ``replicas``.
        replicas: in all.
        chosen: of each frame, in order of choice: temperature_K, replica, time_fs, deviation_eV_A, and of its atoms
            atom_deviations_eV_A.
        chosen_sha256: of the file with their geometries.
        potentials: trial, key and forces_sha256 of what it predicted, of each member.
    """

    round: int
    asked: dict[str, Any]
    levels: tuple[float, float]
    counts: dict[str, int]
    deaths: dict[str, int]
    replicas: int
    chosen: list[dict[str, Any]]
    chosen_sha256: str
    potentials: list[dict[str, str]]

    @property
    def digest(self) -> str:
        """Digest of the whole."""
        return digest(asdict(self))


def read_round(folder: Path, asked: dict[str, Any] | None = None) -> RoundManifest | None:
    """The manifest in the folder of a round; None if there is none, or it was altered or made from something else."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        form, said = stored.pop("format"), stored.pop("digest")
        manifest = RoundManifest(**{**stored, "levels": tuple(stored["levels"])})
        whole = form == FORMAT and manifest.digest == said and asked in (None, manifest.asked)
    except (ProtocolError, TypeError, KeyError):
        whole = False
    if not whole:
        print(f"warning: {path} is not as it was written; the round is made again", file=sys.stderr, flush=True)
        return None
    return manifest


def write_round(folder: Path, manifest: RoundManifest) -> None:
    """Write ``manifest``, all or nothing."""
    write_json(folder / MANIFEST, {"format": FORMAT, "digest": manifest.digest, **asdict(manifest)})
