"""Where the files of a data set lie: inside the package, in the download cache, or where the user says."""

from __future__ import annotations

import glob
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from mlpbench.datasets import embedded
from mlpbench.datasets.download import Progress, cache_root, fetch, is_cached
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError, close_match


def folder_of(config: DatasetConfig) -> Path:
    """The folder that relative paths of ``config`` start from."""
    if config.kind == "embedded":
        return embedded.ROOT
    if config.kind == "download":
        return cache_root() / (config.collection or config.name)
    return Path()


def fetch_all(
    config: DatasetConfig, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> list[Path]:
    """Every file of a ``download`` set, verified and unpacked; nothing for the other kinds.

    Args:
        config: the data set.
        progress: called with name, bytes so far and bytes in all.
        say: receives sentences for the user; None: standard error.

    Raises:
        UserError: see :func:`mlpbench.datasets.download.fetch`.
    """
    folder = folder_of(config)
    tell = say or (lambda text: print(text, file=sys.stderr))
    return [fetch(item, folder, progress, tell) for item in config.downloads]


def state(config: DatasetConfig) -> str:
    """``ships``, ``yours``, ``cached`` or ``to fetch``."""
    if config.kind != "download":
        return {"embedded": "ships", "file": "yours"}[config.kind]
    folder = folder_of(config)
    return "cached" if all(is_cached(item, folder) for item in config.downloads) else "to fetch"


def resolve(config: DatasetConfig, pattern: str) -> list[Path]:
    """The files or folders that ``pattern`` means.

    Raises:
        UserError: no such file; with the close match in its folder.
    """
    path = folder_of(config) / Path(pattern).expanduser()
    if path.exists():
        return [path]
    found = sorted(glob.glob(str(path), recursive=True))
    if found:
        return [Path(name) for name in found]
    if not path.parent.is_dir():
        raise UserError(f"{path}: no such file; the folder {path.parent} does not exist either", "Check dataset.path.")
    raise UserError(f"{path}: no such file", close_match(path.name, (p.name for p in path.parent.iterdir())))


def digests(paths: list[Path]) -> dict[str, str]:
    """path -> sha256 (hex), read in blocks; of a folder, every file below it."""
    files = [f for p in paths for f in (sorted(x for x in p.rglob("*") if x.is_file()) if p.is_dir() else [p])]
    result = {}
    for file in files:
        with open(file, "rb") as stream:
            result[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result


def verify_embedded(found: dict[str, str]) -> None:
    """Hold files of the package to their SHA256SUMS.

    Raises:
        UserError: one was altered.
    """
    for name, digest in found.items():
        path = Path(name)
        if embedded.expected_digests(path.parent).get(path.name) != digest:
            raise UserError(f"{path} differs from its SHA256SUMS", "Install mlpbench again; the file was changed.")
