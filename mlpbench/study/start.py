"""Where a training starts: the finished trial behind ``start.potential`` or a foundation model, and whether it can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench import files
from mlpbench.backends import foundation
from mlpbench.backends.foundation import Foundation
from mlpbench.backends.registry import Environment
from mlpbench.config import TrialConfig, conf_dirs
from mlpbench.config.schema import Start
from mlpbench.datasets import Dataset
from mlpbench.datasets.leaks import Fingerprinted, compare
from mlpbench.errors import UserError, close_match
from mlpbench.files import digest, slug
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.records import RECORD, load_record, usable
from mlpbench.study.settings import SCRATCH, ZERO_SHOT

_WORDS = {"foundation": "foundation model", "potential": "trial"}
INPUTS = "inputs.json"  # in a trial's folder; its entry "train" has the digests of the checkpoint's files


@dataclass(frozen=True)
class Origin:
    """What a training starts from.

    Attributes:
        label: in tables: the start's study, and its trial where one was named, or the foundation model's name;
            ``scratch`` for fresh weights. With ``zero_shot`` before it where nothing is trained.
        directory: the trial's folder, absolute; None: there is none to start from.
        weights: digest of its checkpoint or file.
        problem: why the trial cannot start from it; empty if it can.
        file: a foundation model's weights, absolute.
        sha256: of that file.
        options: of the package for them.
        model: what is known of a foundation model; None: nothing, or it is none.
        tests: files of the frames that the start was tested on, of its validation frames where it has no others.
        cost: of the start: ``pretraining_seconds``, ``pretraining_labels``, ``pretraining_label_seconds`` (of each).
        size: in place of the size's name, where the weights bring hyperparameters of their own.
    """

    label: str = SCRATCH
    directory: Path | None = None
    weights: str = ""
    problem: str = ""
    file: Path | None = None
    sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Foundation | None = None
    tests: tuple[Path, ...] = ()
    cost: Mapping[str, float | None] = field(default_factory=dict)
    size: str = ""

    def request(self, start: Start) -> dict[str, Any]:
        """See :attr:`mlpbench.protocol.Request.start`."""
        common = {"kind": start.kind, "freeze": start.freeze, "weights": self.weights}
        if self.directory is not None:
            trial = f"{self.directory.parent.name}/{self.directory.name}"
            return {**common, "trial": trial, "directory": str(self.directory)}
        if self.file is None:
            return {}
        licence = {} if self.model is None else {"licence": self.model.licence, "level_of_theory": self.model.level}
        # A file whose digest is known is no stranger's.
        trust = start.trust and (self.model is None or self.model.sha256 is None)
        return {
            **common, "foundation": self.size, "file": str(self.file), "sha256": self.sha256,
            "options": dict(self.options), "trust": trust, **licence,
        }  # fmt: skip


def find_origin(config: TrialConfig, dataset: Dataset, environment: Environment | None = None) -> Origin:
    """The start that ``config.start`` names, for data with the elements of ``dataset``.

    Args:
        config: of the trial.
        dataset: its data.
        environment: of its backend, where a package may have brought a foundation model's weights; None: not built.

    Raises:
        UserError: the path does not exist, holds no trial, or several that would do; there is no such foundation model.
    """
    start, name = config.start, config.architecture.name
    if start.kind == SCRATCH:
        return Origin()
    if start.is_foundation:
        origin = _foundation(config, dataset, environment)
    else:
        assert start.potential is not None
        origin = _potential(start.potential, config, dataset)
    if start.kind == ZERO_SHOT:
        origin = replace(origin, label=f"{ZERO_SHOT} {origin.label}")
    needed = "foundation" if start.is_foundation else "potential"
    if needed not in config.backend_config.starts:
        return replace(origin, problem=f"a training of {name} cannot start from a {_WORDS[needed]}")
    if start.freeze != "none" and start.freeze not in config.backend_config.freezes:
        return replace(origin, problem=f"{name}: start.freeze={start.freeze} is not known for this package")
    return origin


def _potential(path: Path, config: TrialConfig, dataset: Dataset) -> Origin:
    """The trial in ``path``, or the one of the study there that fits."""
    named = (path / RECORD).is_file()
    label = f"{path.parent.name}/{path.name}" if named else path.name
    name = config.architecture.name
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
    return Origin(label, chosen[0], weights_of(chosen[0]), tests=_tests(chosen[0]), cost=_cost(chosen[0]))


def _tests(folder: Path) -> tuple[Path, ...]:
    split = folder.parent / load_record(folder)["split"]["directory"]
    tests = [path for path in sorted(split.glob("*.npz")) if path.stem not in ("train", "valid")]
    return tuple(tests or [split / "valid.npz"])


def _cost(folder: Path) -> dict[str, float | None]:
    record = load_record(folder)
    names = record["identifiers"]
    return {
        "pretraining_seconds": record["training"].get("wall_seconds"),
        "pretraining_labels": names["n_train"] + names["n_valid"],
        "pretraining_label_seconds": record["split"]["info"].get("label_seconds"),
    }


def _foundation(config: TrialConfig, dataset: Dataset, environment: Environment | None) -> Origin:
    """The foundation model that ``config.start`` names, or the file that it gives."""
    start = config.start
    model = None if start.foundation is None else foundation.find(start.foundation, conf_dirs())
    if start.file is not None and not start.file.is_file():
        raise UserError(f"start.file={start.file}: there is no such file", "Give the path of the weights.")
    path = start.file if model is None else model.weights(environment, start.file)
    name = model.name if model is not None else slug(start.file.stem if start.file is not None else "")
    options = {**(model.options if model is not None else {}), **start.options}
    known = None if model is None else model.sha256
    sha256 = _sha256(path) if path is not None else known or ""
    weights = digest([sha256, options]) if options else sha256
    problem = _unfit(model, path, config, dataset, environment) if model is not None else ""
    if not problem and known is None and path is not None and config.backend_config.pickled and not start.trust:
        problem = (
            f"{path.name} is a pickle, which can run code of its author's when it is loaded, and no digest of it is "
            "known here: start.trust=true loads it all the same"
        )
    if not problem and config.architecture.native:
        problem = f"{name} has hyperparameters of its own: architecture.native cannot change them"
    return Origin(name, None, weights, problem, path, sha256, options, model, size=name)


def _unfit(
    model: Foundation, path: Path | None, config: TrialConfig, dataset: Dataset, environment: Environment | None
) -> str:
    """Why a trial cannot start from a foundation model; empty if it can."""
    name = config.architecture.name
    if model.architecture != name:
        other = f"of the architecture {model.architecture}" if model.architecture else "run by no architecture here yet"
        return f"{model.name} is {other}, not {name}"
    if config.start.use == "commercial" and model.commercial is not True:
        said = "forbids" if model.commercial is False else "does not say that it allows"
        return f"the licence of {model.name} ({model.licence}) {said} commercial use"
    unknown = _elements(dataset) - model.numbers
    if unknown:
        return f"{model.name} does not know {foundation.symbols_of(unknown)}, which the data contain"
    if path is None and environment is not None:
        return f"the weights of {model.name} are not here: get them from {model.source} and give start.file=PATH"
    if path is not None and model.sha256 is not None and _sha256(path) != model.sha256:
        return (
            f"{path.name} is not the published file of {model.name}: its sha256 is {_sha256(path)[:12]}..., not "
            f"{model.sha256[:12]}..."
        )
    return ""


def _elements(dataset: Dataset) -> set[int]:
    parts = (dataset.pool, dataset.valid, *dataset.tests.values())
    return {int(z) for part in parts if part is not None for z in np.unique(part.numbers)}


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
    unknown = _elements(dataset) - known
    if unknown:
        return f"{folder.name} does not know {foundation.symbols_of(unknown)}, which the data contain"
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
    overrides = {"start": ",".join(kinds)}
    for key in ("potential", "foundation", "file"):
        values = list(dict.fromkeys(str(node[key]) for node in nodes if node.get(key)))
        if values:
            overrides[f"start.{key}"] = ",".join(values)
    return overrides if len(overrides) > 1 else {}


def started_identity(config: TrialConfig, origin: Origin) -> dict[str, Any]:
    """What of a trial's identity follows from its start. From scratch nothing: as before there were starts."""
    start, architecture = config.start, config.architecture
    if start.kind == SCRATCH:
        return {}
    parts = {"kind": start.kind, "weights": origin.weights or str(start.potential or start.foundation)}
    identity: dict[str, Any] = {"start": parts | ({} if start.freeze == "none" else {"freeze": start.freeze})}
    if origin.size:  # hyperparameters are the weights' own
        identity["architecture"] = {"name": architecture.name, "backend": architecture.backend}
    if start.kind == ZERO_SHOT:  # nothing is trained
        identity |= {"training": None, "budget": {"steps": 0}, "init_seed": None}
    return identity
