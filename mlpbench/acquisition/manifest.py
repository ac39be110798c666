"""Acquisition manifests: what a round chose, from which candidates, by which potentials, with digests of all of them.

A manifest is found by what it is made from (:attr:`Manifest.key`): an unchanged round is never chosen again, and one
that was interrupted is chosen as it would have been.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlpbench.files import digest, slug
from mlpbench.protocol import ProtocolError, read_json, write_json

FOLDER = "acquisitions"  # in a study's folder
FORMAT = 1
SECONDS = ".seconds.json"  # beside a manifest: what predicting and choosing took, which no choice depends on


@dataclass(frozen=True)
class Manifest:
    """The choice of one round.

    Attributes:
        kind: the acquisition.
        round: from 1.
        repetition: of the trial.
        asked: what the choice is made from, JSON: the acquisition's version and options, how many frames, digests of
            the frames labelled and of the candidates, the keys of the potentials.
        train: pool indices of all training frames after this round, in the order in which they came.
        chosen: those of this round.
        scores: of each chosen frame; None where there is none.
        score: what the score is, and its unit.
        frames_sha256: of each chosen frame, labels included.
        potentials: that predicted the candidates: ``trial``, ``key``, ``forces_sha256`` (of what they predicted; a
            checkpoint's file may hold the time at which it was written).
        facts: what is known of the choice: candidates, groups of what was chosen, and in a replay the calibration.
    """

    kind: str
    round: int
    repetition: int
    asked: dict[str, Any]
    train: list[int]
    chosen: list[int]
    scores: list[float | None]
    score: tuple[str, str]
    frames_sha256: list[str]
    potentials: list[dict[str, str]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Digest of what the choice is made from."""
        return digest(self.asked)

    @property
    def digest(self) -> str:
        """Digest of the whole manifest."""
        return digest(asdict(self))


def manifest_path(study_root: Path, dataset: str, kind: str, n_train: int, repetition: int, key: str) -> Path:
    """Where the manifest of a round lies.

    Args:
        study_root: ``results/<study>``.
        dataset: name.
        kind: of the acquisition.
        n_train: training frames after the round.
        repetition: of the trial.
        key: see :attr:`Manifest.key`.
    """
    return study_root / FOLDER / f"{slug(dataset)}-{slug(kind)}-n{n_train}-r{repetition}-{key[:8]}.json"


def read_manifest(path: Path, key: str | None = None) -> Manifest | None:
    """The manifest at ``path``; None if there is none. One that was altered, or is another's, is named and not used.

    Args:
        path: see :func:`manifest_path`.
        key: that it must have; None: any.
    """
    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        form, said = stored.pop("format"), stored.pop("digest")
        manifest = Manifest(**{**stored, "score": tuple(stored["score"])})
        whole = form == FORMAT and manifest.digest == said and key in (None, manifest.key)
    except (ProtocolError, TypeError, KeyError):
        whole = False
    if not whole:
        print(f"warning: {path} is not as it was written; the round is chosen again", file=sys.stderr, flush=True)
        return None
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``manifest``, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": FORMAT, "digest": manifest.digest, **asdict(manifest)})
