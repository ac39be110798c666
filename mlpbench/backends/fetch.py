"""Download wheels with pip, and build those that are published as source only. uv installs, but does not download."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.utils import parse_wheel_filename

from mlpbench.backends.locks import base_python
from mlpbench.backends.uv import Progress, run_uv, source_variables
from mlpbench.errors import UserError

_OLDEST_GLIBC, _NEWEST_GLIBC = 5, 28  # 2.28 is that of the oldest systems torch still supports
_NO_WHEEL = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")
_BUILD_LIMIT = 1800.0  # s
_FOREIGN_LIMIT = 120.0  # s; what takes longer has compiled code in it, which would not run on the target


def fetch(
    lines: Sequence[str], out: Path, *, python: str | None, platform: str | None, progress: Progress
) -> list[str]:
    """Put a wheel for each of ``lines`` (``name==version``) into ``out``.

    Args:
        lines: exact pins.
        out: the folder.
        python: major.minor of the target, if it is not this interpreter's.
        platform: tag of the target, if it is not this machine's.
        progress: called with a line on each step.

    Returns:
        The lines for which a wheel was built here, since only their source is published.

    Raises:
        UserError: a package cannot be found, or is no wheel and cannot be built for the target.
    """
    sources: list[str] = []
    left = list(lines)
    with _pip(progress) as pip:
        while left:
            progress(f"downloading {len(left)} packages into {out}")
            said = _download(pip, left, out, python, platform)
            if said is None:
                break
            missing = _NO_WHEEL.search(said)
            without = [line for line in left if missing and line.split("==")[0] == missing.group(1)]
            if not without:
                raise UserError("packages could not be downloaded:\n  " + "\n  ".join(_errors(said)))
            left = [line for line in left if line not in without]
            sources += without
        for line in sources:
            _build(pip, line, out, python is not None or platform is not None, progress)
    return sources


def platform_tags(platform: str) -> list[str]:
    """Every tag that fits the target: older manylinux too; ``x86_64`` and ``aarch64`` stand for manylinux 2.28."""
    if platform in ("x86_64", "aarch64"):
        platform = f"manylinux_2_{_NEWEST_GLIBC}_{platform}"
    match = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if match is None:
        return [platform]
    minor, machine = int(match.group(1)), match.group(2)
    tags = [f"manylinux_2_{n}_{machine}" for n in range(minor, _OLDEST_GLIBC - 1, -1)]
    legacy = [("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)]
    return [*tags, *(f"{name}_{machine}" for name, least in legacy if minor >= least), f"linux_{machine}"]


@contextmanager
def _pip(progress: Progress) -> Iterator[list[str]]:
    """A pip of our own: the core's environment may have none, or an old one."""
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as scratch:
        tools = Path(scratch) / "tools"
        quiet: list[str] = []
        variables = source_variables(None, False, progress)
        run_uv(["venv", "--seed", "--python", str(base_python()), str(tools)], variables, quiet.append, Path(scratch))
        yield [str(tools / "bin" / "python"), "-P", "-m", "pip", "--disable-pip-version-check"]


def _download(pip: list[str], lines: Sequence[str], out: Path, python: str | None, platform: str | None) -> str | None:
    """None if all came; else what pip said."""
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest", str(out)]
    arguments += ["--find-links", str(out), *_index_arguments()]
    arguments += ["--python-version", python] if python is not None else []
    for tag in platform_tags(platform) if platform else []:
        arguments += ["--platform", tag]
    done = subprocess.run([*pip, *arguments, *lines], capture_output=True, text=True, errors="replace", check=False)
    return None if done.returncode == 0 else done.stdout + done.stderr


def _build(pip: list[str], line: str, out: Path, foreign: bool, progress: Progress) -> None:
    progress(f"building a wheel of {line}, which is published as source only")
    hint = f"Build it on the target, or leave it out: --without {line.split('==')[0]}"
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as scratch:
        arguments = ["wheel", "--no-deps", "--wheel-dir", scratch, *_index_arguments(), line]
        limit = _FOREIGN_LIMIT if foreign else _BUILD_LIMIT
        try:
            done = subprocess.run(
                [*pip, *arguments], capture_output=True, text=True, errors="replace", timeout=limit, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"{line}: no wheel for the target, and none was built within {limit:.0f} s", hint
            ) from error
        if done.returncode != 0:
            said = "\n  ".join(_errors(done.stdout + done.stderr))
            raise UserError(f"{line}: no wheel for the target, and none could be built:\n  {said}", hint)
        wheel = next(Path(scratch).glob("*.whl"))
        if foreign and any(tag.platform != "any" for tag in parse_wheel_filename(wheel.name)[3]):
            raise UserError(f"{line} has no wheel for the target, and cannot be compiled here for it", hint)
        shutil.move(wheel, out / wheel.name)


def _errors(said: str) -> list[str]:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ([line for line in lines if line.lower().startswith("error")] or lines)[-8:]


def _index_arguments() -> list[str]:
    """For one who has configured uv but not pip, the same sources for pip."""
    main = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    extra = f"{os.environ.get('UV_INDEX', '')} {os.environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    arguments = ["--index-url", _without_name(main)] if main else []
    for index in extra:
        arguments += ["--extra-index-url", _without_name(index)]
    for link in os.environ.get("UV_FIND_LINKS", "").split(","):
        arguments += ["--find-links", link] if link else []
    return arguments


def _without_name(index: str) -> str:
    """uv lets an index be called ``name=address``."""
    return re.sub(r"^[\w.-]+=(?=[a-z]+:|/|\.)", "", index)
