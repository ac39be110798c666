"""Archives unpacked safely: nothing outside the folder, no links or devices, no more than a stated size."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mlpbench.errors import UserError

MAX_BYTES = 50 * 10**9  # of all unpacked files together
_BLOCK = 1 << 20


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
