"""Gather the wheels that a backend, or mlpbench itself, needs, for a machine that cannot download them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from mlpbench.backends.probe import Installed, applicable, normalise, probe
from mlpbench.backends.registry import base_python, python_version
from mlpbench.backends.uv import Progress, run_uv, source_variables
from mlpbench.errors import UserError


@dataclass(frozen=True)
class Pin:
    """One line of a compiled requirements file: ``name==version``, and who asks for it (its ``# via``)."""

    name: str
    version: str
    via: frozenset[str]

    @property
    def line(self) -> str:
        """As in a requirements file."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Gathered:
    """What :func:`gather` did.

    Attributes:
        pins: those now in the folder.
        left_out: those that the target has, or that were not wanted.
        megabytes: size of the wheels (10⁶ bytes).
        built: lines of the packages that were built here, because only their source is published.
        notes: what the user has to know.
    """

    pins: list[Pin]
    left_out: list[Pin]
    megabytes: float
    built: list[str]
    notes: list[str]


def gather(
    pins: Sequence[Pin],
    out: Path,
    *,
    progress: Progress,
    python: str | None = None,
    platform: str | None = None,
    without: Collection[str] = (),
    target: dict[str, str] | None = None,
) -> Gathered:
    """Put a wheel for each pin into ``out``.

    Args:
        pins: what is needed.
        out: the folder; made if missing. Wheels that are in it already are kept.
        progress: called with a line on each step.
        python: major.minor of the target; None: this interpreter's.
        platform: tag of the target such as ``manylinux_2_28_aarch64``; None: this machine's.
        without: packages to leave out, and with them what only they need.
        target: name -> version of what the target has; a pin it has in just that version is left out.

    Raises:
        UserError: a name in ``without`` is no pin; or a package cannot be downloaded, or not be built for
            the target.
    """
    kept, left_out, notes = select(pins, without, target or {})
    out.mkdir(parents=True, exist_ok=True)
    other_python = python if python != python_version() else None
    built = fetch([pin.line for pin in kept], out, python=other_python, platform=platform, progress=progress)
    megabytes = sum(path.stat().st_size for path in out.glob("*.whl")) / 1e6
    return Gathered(kept, left_out, megabytes, built, notes)


def read_compiled(path: Path) -> list[Pin]:
    """The pins of a file that ``uv pip compile`` wrote, with its ``# via`` comments, if it has them.

    Raises:
        UserError: the file cannot be read, or a line is not an exact pin.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"requirements file {path} cannot be read: {error.strerror}") from error
    rows: list[tuple[str, str, set[str]]] = []
    for line in lines:
        text = line.strip()
        comment = re.fullmatch(r"#\s*(?:via\s*)?(.*)", text)
        if comment:
            if rows and comment.group(1):
                rows[-1][2].add(_parent(comment.group(1)))
            continue
        if not text or text.startswith("--hash"):
            continue
        pin = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text)
        if pin is None:
            raise UserError(f"{path}: '{text}' is not an exact pin (name==version)")
        rows.append((normalise(pin.group(1)), pin.group(2), set()))
    return [Pin(name, version, frozenset(via)) for name, version, via in rows]


def select(
    pins: Sequence[Pin], without: Collection[str], target: dict[str, str]
) -> tuple[list[Pin], list[Pin], list[str]]:
    """Which pins to take and which to leave out, and notes on versions of the target that differ.

    Raises:
        UserError: a name in ``without`` is no pin.
    """
    names = {pin.name for pin in pins}
    dropped = {normalise(name) for name in without}
    for name in dropped - names:
        raise UserError(f"--without {name}: it is not among what is needed", f"Known: {', '.join(sorted(names))}")
    while True:
        orphans = {pin.name for pin in pins if pin.via and pin.via <= dropped} - dropped
        if not orphans:
            break
        dropped |= orphans
    dropped |= {p.name for p in pins if target.get(p.name, "").split("+")[0] == p.version.split("+")[0]}
    kept = [pin for pin in pins if pin.name not in dropped]
    notes = [
        f"the target has {pin.name} {target[pin.name]}, {pin.version} is needed: its wheel was taken"
        for pin in kept
        if pin.name in target
    ]
    return kept, [pin for pin in pins if pin.name in dropped], notes


def read_target_list(path: Path) -> dict[str, str]:
    """Name -> version from what ``pip list`` printed on the target, as columns, freeze or json.

    Raises:
        UserError: the file cannot be read, or holds no package.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--target-list {path} cannot be read: {error}") from error
    pattern = (
        r"\"name\":\s*\"([^\"]+)\",\s*\"version\":\s*\"([^\"]+)\""
        if text.lstrip().startswith("[")
        else (r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:==|[ \t]+)(\d[^\s]*)")
    )
    versions = {normalise(name): version for name, version in re.findall(pattern, text)}
    if not versions:
        raise UserError(f"--target-list {path}: no package is listed there", "Write it with: pip list > FILE")
    return versions


def _parent(text: str) -> str:
    """A package's name, or ``-r FILE``, which is never left out."""
    return text if text.startswith("-") else normalise(text)


ROOT = Path(__file__).parents[2]


def core_pins() -> list[Pin]:
    """Exact versions, as installed here, of all that mlpbench needs, directly or not, itself excepted.

    Raises:
        UserError: mlpbench was not installed (its source folder merely stands on the path).
    """
    installed = probe(Path(sys.executable))
    if "mlpbench" not in installed.distributions:
        raise UserError("mlpbench is not installed in this environment", "Install it: pip install -e .")
    parents = _parents(installed, "mlpbench")
    return [Pin(name, installed.versions[name], frozenset(via)) for name, via in sorted(parents.items())]


def build_core_wheel(out: Path, progress: Progress) -> bool:
    """Build mlpbench's own wheel into ``out`` from its checkout; False if it runs from a wheel."""
    if not (ROOT / "pyproject.toml").is_file():
        return False
    progress("building a wheel of mlpbench itself")
    variables = source_variables(None, False, progress)
    quiet: list[str] = []
    arguments = [
        "build",
        "--wheel",
        "--python",
        str(base_python()),
        "--out-dir",
        str(out.absolute()),
        str(ROOT),
    ]
    run_uv(arguments, variables, quiet.append, out)
    (out / ".gitignore").unlink(missing_ok=True)  # uv's own, which would hide the folder from a copy by git
    return True


def _parents(installed: Installed, root: str) -> dict[str, set[str]]:
    """Every installed package ``root`` needs, directly or not -> those that ask for it."""
    parents: dict[str, set[str]] = {}
    todo = [root]
    while todo:
        name = todo.pop()
        for line in installed.distributions[name][1]:
            need = applicable(line, installed.python)
            wanted = normalise(need.name) if need is not None else ""
            if wanted not in installed.distributions or wanted == root:
                continue
            if wanted not in parents:
                todo.append(wanted)
            parents.setdefault(wanted, set()).add(name)
    return parents


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
