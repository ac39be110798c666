"""A folder of a public git repository, fetched alone and verified as a whole by git's own id of its content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mlpbench.datasets.schema import Download
from mlpbench.errors import UserError

_STALLED = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # bytes per second, seconds
_PLAIN = ("-c", "core.autocrlf=false", "-c", "advice.detachedHead=false")


def fetch_folder(item: Download, target: Path) -> None:
    """Bring ``item.git_folder`` of the repository ``item.url``, as it was at ``item.git_commit``, to ``target``.

    Only the files of that folder are transferred (a partial clone of depth one), and nothing is left behind but them.

    Args:
        item: address, commit, folder and the id of its tree.
        target: where the folder belongs; it does not exist yet.

    Raises:
        UserError: git is missing, the repository cannot be reached, or what came is not what was published.
    """
    by_hand = f"Or get the folder {item.git_folder} of {item.url} at {item.git_commit} by hand and put it at {target}"
    if shutil.which("git") is None:
        raise UserError(f"fetching {item.filename} needs git, which is not installed", f"Install git. {by_hand}")
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _git(part, "init", "-q")
        _git(part, "remote", "add", "origin", item.url)
        (part / ".git" / "info").mkdir(exist_ok=True)
        (part / ".git" / "info" / "sparse-checkout").write_text(f"/{item.git_folder}/\n", encoding="utf-8")
        _git(part, "config", "core.sparseCheckout", "true")
        _git(part, *_STALLED, "fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", str(item.git_commit))
        _git(part, *_STALLED, *_PLAIN, "checkout", "-q", str(item.git_commit))
        verify_folder(item, part / str(item.git_folder), "Report it: the repository gave something else.")
        os.replace(part / str(item.git_folder), target)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        raise UserError(
            f"{item.url}: git could not fetch {item.git_folder} ({said[-1][:200] if said else 'no reason given'})",
            f"Run the same command again when the network is there. {by_hand}",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def verify_folder(item: Download, folder: Path, advice: str | None = None) -> None:
    """Compare a folder with what was published, file by file.

    Args:
        item: names the id of its tree.
        folder: what there is.
        advice: what to do if it differs; None: to remove it.

    Raises:
        UserError: a file is missing, added or altered.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder", f"Remove it, and {item.filename} is fetched again.")
    actual = tree_id(folder)
    if actual != item.git_tree:
        raise UserError(
            f"{item.filename}: git's id of the folder is {actual}, expected {item.git_tree}: a file of it is missing, "
            "was added or altered",
            advice or f"Remove {folder}, and it is fetched again.",
        )


def tree_id(folder: Path) -> str:
    """git's id of a folder of plain files (hex): the sha1 of its sorted names and of the ids of what they hold.

    Hidden files are left out, since file managers add them; the executable bit is not looked at: copying loses it.
    """
    entries: list[tuple[bytes, bytes]] = []
    for path in folder.iterdir():
        name = os.fsencode(path.name)
        if path.name.startswith("."):
            continue
        if path.is_dir():  # sorted as if its name ended in a slash
            entries.append((name + b"/", b"40000 " + name + b"\0" + bytes.fromhex(tree_id(path))))
        else:
            entries.append((name, b"100644 " + name + b"\0" + _object("blob", path.read_bytes())))
    return _object("tree", b"".join(entry for _, entry in sorted(entries))).hex()


def _object(kind: str, content: bytes) -> bytes:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()


def _git(folder: Path, *words: str) -> None:
    """Run git in ``folder``, asking nobody anything, whatever repository the caller stands in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    subprocess.run(["git", *words], cwd=folder, env=environment, check=True, capture_output=True, text=True)
