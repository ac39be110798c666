"""Files from the network: resumed, checked before use, kept once per machine; archives unpacked safely."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock

from mlpbench.datasets.git_folder import fetch_folder, verify_folder
from mlpbench.datasets.schema import UNVERIFIED, Download
from mlpbench.errors import UserError
from mlpbench.protocol import read_json, write_json

MAX_BYTES = 50 * 10**9  # of all unpacked files together
ATTEMPTS = 4
WAIT_SECONDS = 1.0  # before the second attempt; doubled each time
TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 20

Progress = Callable[[str, int, int | None], None]


def cache_root() -> Path:
    """Where downloads are kept: ``$MLPBENCH_DATA``, else ``$XDG_CACHE_HOME/mlpbench/data`` or ``~/.cache/...``."""
    named = os.environ.get("MLPBENCH_DATA")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlpbench" / "data"


def offline() -> bool:
    """True if ``MLPBENCH_OFFLINE`` is set to anything but 0."""
    return os.environ.get("MLPBENCH_OFFLINE", "0") not in ("", "0")


def fetch(item: Download, folder: Path, progress: Progress | None = None, say: Callable[[str], None] = print) -> Path:
    """The file ``item`` in ``folder``, downloaded if it is not there, verified before anybody uses it.

    A part that an earlier attempt left is continued. With ``extract``, the archive is unpacked beside it and the path
    of that folder is returned. A folder of a git repository (``git_folder``) comes as a whole or not at all.

    Args:
        item: address, name and checksums.
        folder: where the file belongs; made if missing.
        progress: called with name, bytes so far and bytes in all (None if not known).
        say: receives one sentence when a checksum is recorded for the first time.

    Raises:
        UserError: offline and not there; the server refuses or stays unreachable; the checksum is another.
    """
    target = folder / item.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            if offline():
                raise UserError(
                    f"{item.filename} is not in the cache and MLPBENCH_OFFLINE is set",
                    f"Fetch {item.url}{f' ({item.git_folder}, {item.git_commit})' if item.git_folder else ''}\n"
                    f"  elsewhere and put it at {target}",
                )
            if item.git_tree is not None:
                fetch_folder(item, target)
                return target
            part = target.with_name(f".{target.name}.part")
            _download(item, part, progress)
            digest = _verify(item, part, say)
            os.replace(part, target)
            _record(item, target, digest)
        elif item.git_tree is not None:
            verify_folder(item, target)
            return target
        elif not _known(item, target):
            _record(item, target, _verify(item, target, say))
        return extract(target) if item.extract else target


def target_of(part: Path) -> Path:
    """The name that a ``.NAME.part`` gets once it is whole."""
    return part.with_name(part.name[1:].removesuffix(".part"))


def is_cached(item: Download, folder: Path) -> bool:
    """True if the file lies in ``folder``."""
    return (folder / item.filename).exists()


def _download(item: Download, part: Path, progress: Progress | None) -> None:
    wait = WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(item, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # what we have is not the beginning of what the server has
                part.unlink()
                continue
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"{item.url}: the server answers {error.code} {error.reason}",
                    f"It may have moved. Get {item.filename} by hand and put it at {target_of(part)}",
                ) from error
            problem: Exception = error
        except (OSError, HTTPException) as error:
            problem = error
        if attempt < ATTEMPTS:
            time.sleep(wait)
            wait *= 2
    have = part.stat().st_size if part.exists() else 0
    raise UserError(
        f"{item.url}: {ATTEMPTS} attempts failed ({type(problem).__name__}: {problem}); {have} bytes are kept",
        f"Run the same command again to go on, or put {item.filename} at {target_of(part)} by hand.",
    ) from problem


def _receive(item: Download, part: Path, progress: Progress | None) -> None:
    """One attempt; appends to ``part`` where the server allows it. Raises OSError if the answer is cut short."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(item.url, headers={"User-Agent": "mlpbench", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status not in (200, 206):  # figshare answers 202 with nothing in it when it suspects a robot
            raise OSError(f"the server answers {response.status} without the file")
        if response.status == 200:
            have = 0
        total = _total(response, have)
        if item.size_bytes is not None and total is not None and total != item.size_bytes:
            raise UserError(
                f"{item.url}: the server offers {total} bytes, expected {item.size_bytes}",
                "The file was replaced, or the address leads to a page instead. Check it in a browser.",
            )
        with open(part, "ab" if have else "wb") as stream:
            while block := response.read(_BLOCK):
                stream.write(block)
                have += len(block)
                if progress is not None:
                    progress(item.filename, have, total)
    if total is not None and have != total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _total(response: HTTPResponse, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else have + int(length)


def checksums(path: Path) -> dict[str, str]:
    """sha256 and git's blob id (sha1 over a header and the content) of a file, read in blocks."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            blob.update(block)
    return {"sha256": sha256.hexdigest(), "git_blob": blob.hexdigest()}


def _verify(item: Download, path: Path, say: Callable[[str], None]) -> str:
    """The sha256 of ``path``, once it agrees with all that is known of it; a wrong download is removed."""
    digests = checksums(path)
    sha256 = digests["sha256"]
    expected = [
        ("sha256", item.sha256, item.sha256 in (UNVERIFIED, sha256)),
        ("sha256 (first digits)", item.sha256_starts, sha256.startswith(item.sha256_starts or "")),
        ("git blob", item.git_blob, item.git_blob in (None, digests["git_blob"])),
    ]
    for name, value, agrees in expected:
        if not agrees:
            downloaded = path.name.endswith(".part")
            actual = digests["git_blob"] if name == "git blob" else sha256
            if downloaded:
                path.unlink()
            raise UserError(
                f"{item.filename}: {name} is {actual}, expected {value}",
                "The download was removed; run the command again, and report it if it happens twice."
                if downloaded else f"{path} was altered. Remove it, and it is fetched again.",
            )  # fmt: skip
    if item.sha256 == UNVERIFIED and item.sha256_starts is None and item.git_blob is None:
        say(f"{item.filename}: nobody has published a checksum; sha256 {sha256} is recorded and checked from now on")
    return sha256


def _record_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.sha256.json")


def _record(item: Download, target: Path, sha256: str) -> None:
    status = target.stat()
    content: dict[str, Any] = {
        "sha256": sha256, "url": item.url, "size": status.st_size, "mtime_ns": status.st_mtime_ns,
    }  # fmt: skip
    write_json(_record_path(target), content)


def _known(item: Download, target: Path) -> bool:
    """True if ``target`` was verified before and has not been touched since; False asks for another verification.

    Raises:
        UserError: it was touched, and its content is no longer what was recorded.
    """
    path = _record_path(target)
    if not path.exists():
        return False  # put there by hand
    record = read_json(path)
    status = target.stat()
    if (record["size"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
        return item.sha256 in (UNVERIFIED, record["sha256"])
    digest = checksums(target)["sha256"]
    if digest != record["sha256"]:
        raise UserError(
            f"{target}: sha256 is {digest}, but {record['sha256']} was recorded when it was first used",
            f"If the new content is meant, remove {path}; else remove the file, and it is fetched again.",
        )
    return False


def extract(archive: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack ``archive`` into ``<archive>.d`` beside it, once, and return that folder.

    Args:
        archive: zip or tar (gz, bz2, xz).
        max_bytes: refuse archives that unpack to more.

    Raises:
        UserError: not an archive, damaged, too large, or a member would land outside the folder or is a link.
    """
    target = archive.with_name(f"{archive.name}.d")
    if target.is_dir():
        return target
    part = Path(tempfile.mkdtemp(prefix=f".{archive.name}.", dir=archive.parent))
    try:
        left = max_bytes
        for name, stream in _members(archive):
            left -= _write(archive, part / _safe(archive, name), stream, left)
        part.chmod(0o755)
        os.replace(part, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(f"{archive}: damaged archive ({error})", "Remove it, and it is fetched again.") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return target


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file in the archive."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise UserError(f"{archive}: neither zip nor tar", "The address may lead to a page instead of the file.")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"{archive}: holds a link ({member.filename}); refused")
            if not member.is_dir():
                with content.open(member) as stream:
                    yield member.filename, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as content:
        for member in content:
            if member.isdir():
                continue
            if not member.isfile():
                raise UserError(f"{archive}: holds a link or device ({member.name}); refused")
            stream = content.extractfile(member)
            if stream is not None:
                yield member.name, stream


def _safe(archive: Path, name: str) -> Path:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise UserError(f"{archive}: a member would land outside the folder ({name}); refused")
    return Path(*path.parts)


def _write(archive: Path, target: Path, stream: IO[bytes], left: int) -> int:
    """Bytes written; counted while unpacking, since an archive may lie about its sizes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(target, "xb") as output:
        while block := stream.read(_BLOCK):
            written += len(block)
            if written > left:
                raise UserError(f"{archive}: unpacks to more than the limit; refused")
            output.write(block)
    return written
