"""Data sets that ship inside the package, each in a folder with README and SHA256SUMS."""

from __future__ import annotations

from pathlib import Path

from mlpbench.errors import UserError

ROOT = Path(__file__).parent


def expected_digests(folder: Path) -> dict[str, str]:
    """file name -> sha256 as the folder's SHA256SUMS lists them.

    Raises:
        UserError: the folder is not one of the package's, or lost its list.
    """
    path = folder / "SHA256SUMS"
    if not path.is_file():
        raise UserError(f"{folder} has no SHA256SUMS", "The installation is incomplete; reinstall mlpbench.")
    pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.lstrip("*"): digest for digest, name in pairs}
