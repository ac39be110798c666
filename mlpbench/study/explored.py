"""The data set that an exploration grows: its files, its entry in the registry, the trials that are trained on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.io import write
from omegaconf import DictConfig, OmegaConf

from mlpbench.backends.environment import resolve
from mlpbench.config import acquired_conf
from mlpbench.datasets.dataset import LABEL_SECONDS
from mlpbench.errors import UserError
from mlpbench.files import digest, told
from mlpbench.frames import Frames
from mlpbench.protocol import read_json, replacing, write_json
from mlpbench.references.methods import level_of, parse_method
from mlpbench.study.trial import Trial, identify

FOLDER = "acquired"  # in a study's folder
ASKED = "exploration.json"


@dataclass(frozen=True)
class Acquired:
    """A growing data set.

    Attributes:
        folder: ``results/<study>/acquired``, as ``results_dir`` is written; of other repetitions ``acquired-r1`` ...
        raw: the composed configuration of the start.
        node: its ``dataset``, without what grows.
    """

    folder: Path
    raw: DictConfig
    node: dict[str, Any]

    @property
    def name(self) -> str:
        """As in ``dataset=NAME``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def entry(self) -> Path:
        """Its file in the registry."""
        return acquired_conf(self.folder.parents[1]) / "dataset" / f"{self.name}.yaml"

    def round_folder(self, number: int) -> Path:
        """What round ``number`` (from 1) found."""
        return self.folder / f"round-{number}"

    def labelled_file(self, number: int) -> Path:
        """The labelled frames of round ``number``."""
        return self.folder / f"round-{number}.xyz"

    def labelled_rounds(self, before: int) -> list[Path]:
        """Those of the rounds before ``before`` that have labelled frames."""
        return [path for k in range(1, before) if (path := self.labelled_file(k)).is_file()]

    def trial(self, before: int) -> Trial:
        """The first potential of the committee of round ``before``, trained on the start and all rounds before."""
        raw = self.raw.copy()
        node = {**self.node, "extend_paths": [str(path) for path in self.labelled_rounds(before)]}
        OmegaConf.update(raw, "dataset", node, merge=False)
        return identify(raw, resolve)

    def write_entry(self, before: int, seconds: float | None) -> None:
        """Write the registry's entry, with the rounds before ``before``.

        Args:
            before: number of a round.
            seconds: median price of a label.
        """
        rounds = [str(path) for path in self.labelled_rounds(before)]
        node = {**self.node, "extend_paths": rounds, "label_seconds": seconds}
        head = f"# Frames that mlpbench explore labelled, after the start of {self.node['name']}: dataset={self.name}\n"
        self.entry.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.entry) as part:
            text = yaml.safe_dump(
                {"defaults": ["/dataset/_base@_here_", "_self_"], **node}, sort_keys=False, allow_unicode=True
            )
            part.write_text(head + text, encoding="utf-8")


def begin(
    raw: DictConfig,
    start: Trial,
    method: dict[str, Any],
    deciding: dict[str, Any],
    relabel: Callable[[Frames], Frames] | None = None,
) -> Acquired:
    """Write the start of the data set, or take up the one that is there.

    Args:
        raw: the composed configuration of ``start``.
        start: whose training, validation and test frames the data set begins with.
        method: complete reference method.
        deciding: the settings that decide what is chosen.
        relabel: gives frames the method's labels; None: they have them.

    Raises:
        UserError: what is there was begun with other settings.
    """
    config = start.config
    name = FOLDER if config.repetition == 0 else f"{FOLDER}-r{config.repetition}"
    folder = config.results_dir / config.study / name
    frames = {part: Frames.load(path) for part, path in start.split.files.items()}
    tests = {part: str(folder / f"{part}.xyz") for part in frames if part not in ("train", "valid")}
    node: dict[str, Any] = {
        "name": f"{start.dataset.name}-acquired" + (f"-r{config.repetition}" if config.repetition else ""),
        "kind": "file", "n_train": "all", "n_valid": len(frames["valid"]),
        "path": str(folder / "start.xyz"), "valid_path": str(folder / "valid.xyz"), "test_paths": tests,
        "in_distribution": config.dataset.in_distribution if config.dataset.in_distribution in tests else None,
        "labels": list(config.dataset.labels), "format": "extxyz", "energy_key": "energy", "forces_key": "forces",
        "on_leak": "drop", "level_of_theory": parse_method(method).words(), "reference_method": dict(method),
        "licence": config.dataset.licence, "citation": config.dataset.citation,
        "isolated_atoms": start.dataset.isolated_atoms if relabel is None else None,
    }  # fmt: skip
    asked = {
        "start": start.split.manifest["train_digest"], "level": level_of(method), "settings": deciding,
        "architecture": start.architecture, "training": start.training, "budget": config.budget.model_dump(),
        "seed": start.init_seed,
    }  # fmt: skip
    _require_same(folder, digest(asked), name)
    with told():
        folder.mkdir(parents=True, exist_ok=True)
        for part, path in {"train": node["path"], "valid": node["valid_path"], **tests}.items():
            if not Path(path).is_file():
                ours = frames[part] if relabel is None else relabel(frames[part])
                with replacing(Path(path)) as unfinished:
                    write(unfinished, ours.to_atoms(), format="extxyz")
        write_json(
            folder / ASKED,
            {"digest": digest(asked), "dataset": node["name"], "asked": json.loads(json.dumps(asked, default=str))},
        )
    return Acquired(folder, raw, node)


def _require_same(folder: Path, wanted: str, name: str) -> None:
    path = folder / ASKED
    if path.is_file() and read_json(path).get("digest") != wanted:
        raise UserError(
            f"{folder} was begun with another start, architecture, training, method or other settings of explore",
            f"Take another study=..., another repetition=..., or delete {folder}. explore.rounds, explore.labels and "
            "explore.hours may be raised.",
        )


def median_seconds(files: Sequence[Path]) -> float | None:
    """The median price of a label in files that the reference method wrote, in seconds; None if there are none."""
    from ase.io import iread

    seconds = [
        float(atoms.info[LABEL_SECONDS]) for path in files for atoms in iread(path) if LABEL_SECONDS in atoms.info
    ]
    return float(np.median(seconds)) if seconds else None
