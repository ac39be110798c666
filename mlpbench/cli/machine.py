"""``mlpbench doctor`` and ``init``: what works on this machine, and a ``conf`` folder to start from."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlpbench.backends.build import FIRST_TORCH_GB, disk_left
from mlpbench.backends.environment import State, check_inside, environments, resolve
from mlpbench.backends.probe import driver_present, hidden
from mlpbench.backends.registry import BackendConfig, home
from mlpbench.backends.uv import uv_version
from mlpbench.devices import hardware, resolve_device, torch_report
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError


def register_doctor(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench doctor``."""
    parser.add_argument(
        "--quick", action="store_true", help="do not import the backends' packages (some ten seconds each)"
    )
    parser.epilog = "exit code 0 only if the quickstart would run\n\nexample:\n  mlpbench doctor --quick"


def execute_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings as they come. Returns 0 if nothing keeps the quickstart from running, else 1."""
    problems = 0
    for finding in examine(imports=not arguments.quick):
        problems += finding.verdict == "problem"
        print(f"{finding.verdict:<8} {finding.subject}: {finding.text}", flush=True)
        if finding.cure:
            print(f"{'':<8}   -> {finding.cure}")
    if problems:
        print(f"\n{problems} problem{'s' if problems > 1 else ''}: the quickstart would not run as things stand")
        return EXIT_FAILED
    print("\nthe quickstart would run: mlpbench run -m experiment=quickstart")
    return EXIT_DONE


Verdict = Literal["ok", "note", "problem"]
QUICKSTART = "experiment=quickstart"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report: a ``problem`` keeps the quickstart from running, a ``note`` does not."""

    verdict: Verdict
    subject: str
    text: str
    cure: str = ""


def examine(*, imports: bool) -> Iterator[Finding]:
    """Everything the quickstart stands on, then what is only good to know.

    Args:
        imports: also import each backend's packages, some ten seconds each; without it a broken library is missed.
    """
    yield _guarded("core", _core)
    yield _guarded("uv", lambda: Finding("ok", "uv", uv_version()))
    yield _guarded("home", _home)
    yield from _configuration()
    backends, wanted = _backends()
    for row in environments(backends.values()):
        yield from _environment(row, backends.get(row.name), row.name in wanted, imports)
    yield from _devices([backends[name] for name in wanted if name in backends])
    yield _guarded("data", _embedded)
    yield _guarded("results", _results)


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except UserError as error:
        return Finding("problem", subject, error.message, error.hint or "")


def _core() -> Finding:
    return Finding("ok", "core", f"Python {platform.python_version()}, {sys.executable}")


def _home() -> Finding:
    folder = home()
    try:
        (folder / "envs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding(
            "problem", "home", f"{folder} cannot be made: {error.strerror}", "Set MLPBENCH_HOME to a folder."
        )
    if not os.access(folder, os.W_OK):
        return Finding("problem", "home", f"{folder} cannot be written to", "Set MLPBENCH_HOME to a folder of yours.")
    left = disk_left(folder)
    shown = ", ".join(f"{gb:.0f} GB free in {path}" for path, gb in left.items())
    if min(left.values()) < FIRST_TORCH_GB:
        cure = "Free some, or set MLPBENCH_HOME and UV_CACHE_DIR to folders on a larger disk."
        return Finding("note", "disk", f"{shown}; a first environment with torch takes {FIRST_TORCH_GB:.0f} GB", cure)
    return Finding("ok", "disk", shown)


def _configuration() -> Iterator[Finding]:
    from mlpbench.config import conf_dirs, expand, load_trial

    def look() -> Finding:
        """Compose every trial of the quickstart."""
        trials = expand([QUICKSTART], True).trials
        for overrides in trials:
            load_trial(overrides)
        return Finding(
            "ok", "conf", f"{', '.join(str(path) for path in conf_dirs())}; quickstart: {len(trials)} trials"
        )

    yield _guarded("conf", look)


def _backends() -> tuple[dict[str, BackendConfig], list[str]]:
    """All backends, and the names of those the quickstart needs; what is broken was said under conf."""
    from mlpbench.config import expand, load_backends, load_trial

    try:
        backends = load_backends()
    except UserError:
        return {}, []
    try:
        trials = [load_trial(overrides) for overrides in expand([QUICKSTART], True).trials]
    except UserError:
        return backends, []
    return backends, sorted({trial.architecture.backend for trial in trials})


def _environment(row: State, backend: BackendConfig | None, wanted: bool, imports: bool) -> Iterator[Finding]:
    subject = f"backend {row.name}"
    if backend is None:
        yield Finding("note", f"folder {row.name}", "no backend uses it", "mlpbench env remove --unused")
        return
    bad: Verdict = "problem" if wanted else "note"
    lacking = backend.missing_packages() if row.state != "adopted" else []
    if lacking:
        names = " ".join(lacking)
        yield Finding(bad, subject, f"{row.state}; packages of the system are missing: {names}", f"apt install {names}")
        return
    if row.state not in ("built", "adopted"):
        cure = row.detail.removeprefix("Run: ") if row.state == "missing" else f"mlpbench env build {row.name}"
        text = "not built" if row.state == "missing" else f"{row.state}: {row.detail}"
        yield Finding(bad, subject, text, "" if row.state == "broken" else cure)
        return
    if imports:
        report = check_inside(backend, resolve(backend))
        if not report.works:
            cure = f"mlpbench env check {row.name}; then mlpbench env build {row.name} --rebuild"
            yield Finding(bad, subject, f"{row.state}, but it does not work: {report.lines[-1].strip()}", cure)
            return
    yield Finding("ok", subject, f"{row.state}{' and imported' if imports else ''}: {row.detail}")


def _devices(backends: list[BackendConfig]) -> Iterator[Finding]:
    machine = hardware()
    yield Finding(
        "ok",
        "cpu",
        f"{machine['cpu']}, {machine['threads_usable']} threads usable, {machine['memory_gb']} GB of memory",
    )
    for gpu in machine["gpus"]:
        yield Finding("ok", "gpu", f"{gpu['name']}, {gpu['memory_mb'] / 1000:.0f} GB, driver {gpu['driver']}")
    if not driver_present():
        yield Finding("ok", "device", "no GPU driver: device=auto is the CPU")
        return
    if hidden():
        yield Finding("note", "device", "CUDA_VISIBLE_DEVICES hides every GPU: device=auto is the CPU")
        return
    for backend in backends:
        try:
            environment = resolve(backend)
        except UserError:
            continue  # said already, under its environment
        yield _guarded(f"device {backend.name}", lambda e=environment: _device(e))  # type: ignore[misc]


def _device(environment: object) -> Finding:
    from mlpbench.backends.registry import Environment

    assert isinstance(environment, Environment)
    device = resolve_device("auto", environment)
    report = torch_report(environment)
    if device == "cpu" and report:
        cure = "Compare the driver's CUDA version (nvidia-smi) with that of torch; until then trials run on the CPU."
        text = f"torch {report['version']} sees none of this machine's devices"
        return Finding("note", f"device {environment.name}", text, cure)
    return Finding("ok", f"device {environment.name}", f"{device}: {', '.join(report.get('devices', []))}")


def _embedded() -> Finding:
    """Hold the files that ship with the package to their checksums."""
    folder = Path(__file__).parents[1] / "datasets" / "embedded"
    count = 0
    for sums in sorted(folder.glob("*/SHA256SUMS")):
        for line in sums.read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition(" ")
            path = sums.parent / name.strip().lstrip("*")
            if not path.is_file():
                raise UserError(f"{path} is missing", "Install mlpbench again.")
            with open(path, "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    raise UserError(f"{path} differs from its SHA256SUMS", "Reinstall mlpbench; a file was changed.")
            count += 1
    if count == 0:
        raise UserError("the data sets that ship with mlpbench are missing", "Install mlpbench again.")
    return Finding("ok", "data", f"{count} embedded files agree with their checksums")


def _results() -> Finding:
    """Whether results can be written where the command is started."""
    here = Path.cwd()
    for name in ("results", "reports"):
        folder = here / name if (here / name).exists() else here
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder} cannot be written to", "Start mlpbench elsewhere, or set results_dir=FOLDER.")
    free = shutil.disk_usage(here).free / 1e9
    return Finding("ok", "results", f"{here / 'results'}, {free:.0f} GB free")


def register_init(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench init``."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="folder for conf/; created if missing")
    parser.epilog = "example:\n  mlpbench init myproject && cd myproject && mlpbench run architecture=mace size=tiny"


def execute_init(arguments: argparse.Namespace) -> int:
    """Copy the packaged configuration to ``DIR/conf``.

    Raises:
        UserError: ``DIR/conf`` is there already; nothing is overwritten.
    """
    import shutil

    from mlpbench.config import packaged_conf
    from mlpbench.errors import UserError

    target = arguments.directory / "conf"
    if target.exists():
        raise UserError(f"{target} exists already", "Choose another folder, or remove it first.")
    shutil.copytree(packaged_conf(), target)
    print(f"{target} written; commands started in {arguments.directory} use it, file by file, before the packaged one")
    return EXIT_DONE
