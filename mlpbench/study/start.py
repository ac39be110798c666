"""Where a training starts: the finished trial behind ``start.potential``, and whether a trial can start from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlpbench import files
from mlpbench.config import TrialConfig
from mlpbench.datasets import Dataset
from mlpbench.datasets.leaks import Fingerprinted, compare
from mlpbench.errors import UserError, close_match
from mlpbench.files import digest, slug
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.records import RECORD, load_record, usable
from mlpbench.study.settings import SCRATCH

INPUTS = "inputs.json"  # in a trial's folder; its entry "train" has the digests of the checkpoint's files


@dataclass(frozen=True)
class Origin:
    """What a training starts from.

    Attributes:
        label: in tables: the start's study, and its trial where one was named; ``scratch`` for fresh weights.
        directory: the trial's folder, absolute; None: from scratch, or there is none to start from.
        weights: digest of its checkpoint.
        problem: why the trial cannot start from it; empty if it can.
    """

    label: str = SCRATCH
    directory: Path | None = None
    weights: str = ""
    problem: str = ""

    def request(self, kind: str) -> dict[str, Any]:
        """See :attr:`mlpbench.protocol.Request.start`."""
        if self.directory is None:
            return {}
        trial = f"{self.directory.parent.name}/{self.directory.name}"
        return {"kind": kind, "trial": trial, "weights": self.weights, "directory": str(self.directory)}


def find_origin(config: TrialConfig, dataset: Dataset) -> Origin:
    """The start that ``config.start`` names, for data with the elements of ``dataset``.

    Raises:
        UserError: the path does not exist, holds no trial, or several that would do.
    """
    path = config.start.potential
    if config.start.kind == SCRATCH or path is None:
        return Origin()
    named = (path / RECORD).is_file()
    label = f"{path.parent.name}/{path.name}" if named else path.name
    name = config.architecture.name
    if "potential" not in config.backend_config.starts:
        return Origin(label, problem=f"a training of {name} can only start from scratch")
    folders = [path] if named else _trials_of(path, f"{slug(name)}-{slug(config.size)}-")
    problems = {folder: _why_not(folder, config, dataset) for folder in folders}
    fitting = [folder for folder, problem in problems.items() if not problem]
    if not fitting:
        why = next(iter(problems.values()), f"it has no trial of {name} {config.size}")
        return Origin(label, problem=f"cannot start from {path}: {why}")
    mine = [folder for folder in fitting if load_record(folder)["identifiers"]["repetition"] == config.repetition]
    chosen = mine or fitting
    if len(chosen) > 1:
        raise UserError(
            f"start.potential={path}: {len(chosen)} trials of {name} {config.size} could be the start, e.g. "
            f"{chosen[0].name} and {chosen[1].name}",
            f"Name one of them: start.potential={chosen[0]}",
        )
    return Origin(label, chosen[0], weights_of(chosen[0]))


def _trials_of(path: Path, prefix: str) -> list[Path]:
    """Folders of a study's trials whose names begin with ``prefix``.

    Raises:
        UserError: there is no such folder, or it is none of a study or trial.
    """
    if not path.is_dir():
        beside = [folder.name for folder in path.parent.iterdir() if folder.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"start.potential={path}: there is no such folder", close_match(path.name, beside))
    folders = sorted(record.parent for record in path.glob(f"*/{RECORD}"))
    if not folders:
        raise UserError(
            f"start.potential={path}: neither a trial nor a study with trials",
            "Give results/<study>/<trial> or results/<study>.",
        )
    return [folder for folder in folders if folder.name.startswith(prefix)]


def _why_not(folder: Path, config: TrialConfig, dataset: Dataset) -> str:
    """Why a trial cannot start from the one in ``folder``; empty if it can."""
    try:
        record = load_record(folder)
    except (ProtocolError, FileNotFoundError) as error:
        return str(error)
    if not usable(record):
        return f"{folder.name} is not done: {record['reason'] or record['status']}"
    other = record["config"]
    difference = _difference(config.architecture.model_dump(mode="json"), other["architecture"])
    if difference:
        return f"{folder.name} has other hyperparameters: {difference}"
    if other["size"] != config.size:
        return f"{folder.name} is of the size {other['size']}, this trial of the size {config.size}"
    version = other["backend"][config.architecture.backend].get("adapter_version", 1)
    if version != config.backend_config.adapter_version:
        return (
            f"{folder.name} was trained with version {version} of the adapter, which is "
            f"{config.backend_config.adapter_version} now: train it again"
        )
    split = folder.parent / record["split"]["directory"]
    if not all((split / f"{name}.npz").is_file() for name in ("train", "valid")):
        return f"the frames that {folder.name} was trained on are missing: {split}"
    known = {int(z) for name in ("train", "valid") for z in np.unique(Frames.load(split / f"{name}.npz").numbers)}
    needed = {int(z) for part in (dataset.pool, dataset.valid, *dataset.tests.values()) if part for z in part.numbers}
    unknown = [chemical_symbols[z] for z in sorted(needed - known)]
    if unknown:
        return f"{folder.name} does not know {', '.join(unknown)}, which the data contain"
    return _damage(folder) or _repeats(split, config, dataset)


def _repeats(split: Path, config: TrialConfig, dataset: Dataset) -> str:
    """Whether the start was trained or validated on test frames, which ``dataset.on_leak=warn`` alone lets pass."""
    if config.dataset.on_leak == "warn":
        return ""
    key, tolerance = ("start", str(split)), config.dataset.leak_tolerance
    if key not in dataset.cache:
        seen = Fingerprinted.of(Frames.concatenate([Frames.load(split / f"{name}.npz") for name in ("train", "valid")]))
        tests = {name: Fingerprinted.of(test) for name, test in dataset.tests.items()}
        dataset.cache[key] = {name: len(compare(seen, test, tolerance).copies) for name, test in tests.items()}
    leaks = [f"{count} frames of {name}" for name, count in dataset.cache[key].items() if count]
    return f"it was trained on {', '.join(leaks)}; dataset.on_leak=warn lets that pass" if leaks else ""


def _difference(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """The first hyperparameter that differs, with both values; empty if none does."""
    for key in sorted({*mine, *other}):
        values = [json.dumps(node.get(key), sort_keys=True, default=str) for node in (other, mine)]
        if values[0] != values[1]:
            return f"architecture.{key} is {values[0]} there and {values[1]} here"
    return ""


def _files(folder: Path) -> dict[str, Any]:
    try:
        return dict(read_json(folder / INPUTS).get("train", {}).get("files", {}))
    except (FileNotFoundError, ProtocolError):
        return {}


def _damage(folder: Path) -> str:
    """What is wrong with the checkpoint of a finished trial; empty if nothing is."""
    known = _files(folder)
    if not known:
        return f"{folder.name} has no checkpoint, or does not say which files belong to it"
    for name, facts in known.items():
        path = folder / name
        if not path.is_file():
            return f"{name} of {folder.name} is missing"
        if _sha256(path) != facts["sha256"]:
            return f"{name} of {folder.name} was altered since it was written"
    return ""


def weights_of(folder: Path) -> str:
    """Digest of the checkpoint of a finished trial."""
    return digest({name: facts["sha256"] for name, facts in _files(folder).items()})


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _digest_of(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, time: int) -> str:
    return files.sha256(Path(path))


def beside_results(config: TrialConfig) -> str | None:
    """``start.potential`` as records and commands say it: where it lies in ``results_dir``, by that folder's name as it
    was given (``results/pretrain``), so that it can be moved along; else absolute.
    """
    path, root = config.start.potential, config.results_dir
    if path is None:
        return None
    inside = path.is_relative_to(root.resolve())
    return str(root / path.relative_to(root.resolve()) if inside else path)


def starts_of(configs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Overrides that bring back the starts of some trials, as one sweep; empty if all begin from scratch."""
    nodes = [config.get("start") or {} for config in configs]
    kinds = list(dict.fromkeys(str(node.get("kind", SCRATCH)) for node in nodes))
    paths = list(dict.fromkeys(str(node["potential"]) for node in nodes if node.get("potential")))
    return {"start": ",".join(kinds), "start.potential": ",".join(paths)} if paths else {}
