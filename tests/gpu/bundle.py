"""What a machine with a GPU and no network lacks, as wheels in one folder, tried out on an imitation of that machine.

    python -m tests.gpu.bundle [--out gpu-bundle] [--target tests/gpu/target.txt] [--with pyscf] [--no-check]

For the core and for every backend in the registry that has pinned requirements, the functions behind ``mlpbench env
wheels`` gather what the target lacks; this decides which of what it has will do. A package whose version there is known
is taken from there if everything that is carried accepts it; one whose version is not known, if nothing that is carried
bounds it from above (so e3nn is carried twice, in MACE's version and in NequIP's). The check builds a virtual
environment with what the target has, cuts the network off where ``unshare -rn`` may do so, and lets ``acceptance.py``
install and import everything from the folder. Exits with 1 if a package is missing, the folder is too large, or the
check fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from mlpbench.backends.probe import applicable
from mlpbench.backends.registry import BackendConfig, base_python, interpreter
from mlpbench.backends.uv import run_uv, source_variables
from mlpbench.backends.wheels import Pin, core_pins, fetch, read_compiled, select
from mlpbench.config import load_backends
from mlpbench.datasets.download import cache_root
from mlpbench.errors import UserError

HERE = Path(__file__).parent
PYTHON, PLATFORM = "3.12.3", "x86_64"  # of the target
# Too large to carry, or of no use there: torch-sim's GPU neighbour lists come with Warp (130 MB), and it falls back on
# its own without them; uv builds environments, and none is built there.
LEFT_BEHIND = {"warp-lang", "nvalchemi-toolkit-ops", "uv"}
LEFT_BEHIND |= {name for backend in load_backends([]).values() for name in backend.unused}
REFERENCES = ("pyscf", "xtb", "ase")  # label frames and train nothing: carried only if asked for
BOUNDS = {"==", "===", "~=", "<", "<="}


@dataclass
class Carried:
    """What is carried for the core or one backend.

    Attributes:
        name: ``core`` or the backend's.
        pins: what is carried.
        from_target: names taken from the target.
        missing: what nothing provides, with who asks for it.
        built: lines of the packages built from source.
    """

    name: str
    pins: list[Pin]
    from_target: set[str]
    missing: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)


def read_target(path: Path) -> dict[str, str | None]:
    """Normalised name -> version, None where it is not known.

    Raises:
        UserError: the file cannot be read or lists nothing.
    """
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", "Write it with `pip list` on the target."
        ) from error
    found: dict[str, str | None] = {}
    for line in filter(None, lines):
        name, _, version = line.partition("==")
        found[canonicalize_name(name.strip())] = version.strip() or None
    if not found:
        raise UserError(f"{path} lists no package", "Write it with `pip list` on the target.")
    return found


def requirements_of(wheel: Path) -> list[str]:
    """The ``Requires-Dist`` lines in a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        message = HeaderParser().parsestr(archive.read(name).decode("utf-8", errors="replace"))
    return [str(line) for line in message.get_all("Requires-Dist") or []]


def unfit(carried: dict[str, Path], target: dict[str, str | None]) -> tuple[set[str], list[str]]:
    """What the target has in a version that may not do, and what nothing provides.

    Args:
        carried: normalised name -> wheel of all that is carried.
        target: what the target has.

    Returns:
        Names to carry although the target has them, and one line for each requirement that nothing provides.
    """
    carry, missing = set(), []
    for name, wheel in sorted(carried.items()):
        for line in requirements_of(wheel):
            need = applicable(line, PYTHON)
            wanted = canonicalize_name(need.name) if need is not None else ""
            if need is None or wanted in carried or wanted in LEFT_BEHIND:
                continue
            if wanted not in target:
                missing.append(f"{name} needs {need.name}{need.specifier}")
                continue
            have = target[wanted]
            bounded = any(part.operator in BOUNDS for part in need.specifier)
            if not need.specifier.contains(have, prereleases=True) if have else bounded:
                carry.add(wanted)
    return carry, missing


def gather_for(name: str, pins: list[Pin], target: dict[str, str | None], wheels: Path) -> Carried:
    """Put the wheels for one set of pins into ``wheels``, carrying again what the target has in a wrong version."""
    names = {pin.name for pin in pins}
    carry: set[str] = set()
    built: list[str] = []
    while True:
        from_target = (set(target) & names) - carry
        behind = LEFT_BEHIND & names
        kept, _, _ = select(pins, from_target | behind, {})
        lines = [pin.line for pin in kept if not has_wheel(pin, wheels)]
        built += fetch(lines, wheels, python="3.12", platform=PLATFORM, progress=lambda _: None) if lines else []
        more, missing = unfit({pin.name: wheel_of(pin, wheels) for pin in kept}, target)
        unknown = [f"{name} in another version than the target's: it is no pin" for name in sorted(more - names)]
        if unknown or more <= carry:
            return Carried(name, kept, from_target, missing + unknown, built)
        carry |= more


def has_wheel(pin: Pin, folder: Path) -> bool:
    """Whether an earlier call put the wheel of ``pin`` there."""
    return any(_is(path, pin) for path in folder.glob("*.whl"))


def wheel_of(pin: Pin, folder: Path) -> Path:
    """The wheel of ``pin`` in ``folder``.

    Raises:
        UserError: it is not there.
    """
    for path in folder.glob("*.whl"):
        if _is(path, pin):
            return path
    raise UserError(f"the wheel of {pin.line} is not in {folder}")


def _is(path: Path, pin: Pin) -> bool:
    name, version, _, _ = parse_wheel_filename(path.name)
    return name == pin.name and version == Version(pin.version)


def wanted_sets(target: dict[str, str | None], also: list[str]) -> dict[str, list[Pin]]:
    """``core`` and each backend -> its pins; without the toy, which runs on what the core has."""
    backends: dict[str, BackendConfig] = load_backends([])
    for name in also:
        if name not in backends:
            raise UserError(f"--with {name}: there is no such backend", f"Known: {', '.join(sorted(backends))}")
    sets = {"core": core_pins()}
    for name, backend in sorted(backends.items()):
        path = backend.requirements_path()
        default = backend.default and name not in REFERENCES
        if path is not None and name != "toy" and (default or name in also):
            sets[name] = read_compiled(path)
    return sets


def copy_data(out: Path) -> list[str]:
    """AcAc's files, if they were fetched here: the published protocol needs them, and the target has no network."""
    source, there = cache_root() / "acac", out / "data" / "acac"
    if not source.is_dir():
        return ["AcAc is not carried, since it was not fetched here: mlpbench data fetch acac"]
    shutil.copytree(source, there, dirs_exist_ok=True)
    return []


def imitate(folder: Path, names: set[str], target: dict[str, str | None]) -> Path:
    """A virtual environment with those packages of the target that are relied upon; returns its interpreter."""
    variables = source_variables(None, False, lambda _: None)
    quiet: list[str] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not interpreter(folder).exists():
        run_uv(["venv", "--python", str(base_python()), str(folder)], variables, quiet.append, folder.parent)
    wanted = {*names, "torch", "numpy", "pip"}
    lines = [f"{name}=={version}" if (version := target.get(name)) else name for name in sorted(wanted)]
    run_uv(["pip", "install", "--python", str(interpreter(folder)), *lines], variables, quiet.append, folder.parent)
    return interpreter(folder)


def without_network() -> list[str]:
    """The command that cuts a child off from the network, empty where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode == 0:
        return [unshare, "-rn"]
    return []


def check(out: Path, python: Path) -> int:
    """Install and import everything from ``out`` in the imitation, without a network; the exit code."""
    cut = without_network()
    print(f"check: {python}, {'network cut off' if cut else 'the network cannot be cut off here'}", flush=True)
    work = out.parent / "gpu-check"
    shutil.rmtree(work, ignore_errors=True)
    command = [*cut, str(python), str(HERE / "acceptance.py"), str(work / "out"), "--bundle", str(out)]
    command += ["--work", str(work / "work"), "--dry", "--only", "install", "import"]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Gather, say what it weighs, and check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-bundle"), help="folder to fill (default: gpu-bundle)")
    parser.add_argument("--target", type=Path, default=HERE / "target.txt", help="what the target has")
    parser.add_argument("--limit", type=float, default=40.0, metavar="MIB", help="largest size of the folder (40)")
    parser.add_argument(
        "--with",
        dest="also",
        action="append",
        default=[],
        metavar="NAME",
        help="a backend beside the default set",
    )
    parser.add_argument("--mimic", type=Path, default=Path("build/gpu-target"), help="imitation of the target")
    parser.add_argument("--no-check", action="store_true", help="gather only")
    arguments = parser.parse_args()
    try:
        return make(arguments)
    except UserError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2


def make(arguments: argparse.Namespace) -> int:
    """Do it; see :func:`main`."""
    target, out = read_target(arguments.target), arguments.out.absolute()
    wheels = out / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    sets = []
    for name, pins in wanted_sets(target, arguments.also).items():
        carried = gather_for(name, pins, target, wheels)
        sets.append(carried)
        (out / f"{name}.requirements.txt").write_text(
            "".join(f"{pin.line}\n" for pin in carried.pins), encoding="utf-8"
        )
        print(
            f"{name}: {len(carried.pins)} wheels carried, {len(carried.from_target)} packages from the target",
            flush=True,
        )
        for line in carried.missing:
            print(f"  missing: {line}")
    notes = copy_data(out)
    wanted = {wheel_of(pin, wheels) for carried in sets for pin in carried.pins}
    for path in set(wheels.glob("*.whl")) - wanted:
        path.unlink()  # of an earlier list
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    sizes = {path.name: path.stat().st_size for path in wanted}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size / 2**20:8.2f} MiB  {name}")
    listed = {carried.name: [pin.line for pin in carried.pins] for carried in sets}
    built = sorted({line for carried in sets for line in carried.built})
    summary = {
        "mib": round(total, 1),
        "sets": listed,
        "built": built,
        "left_behind": sorted(LEFT_BEHIND),
        "notes": notes,
    }
    (out / "bundle.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    said = f"from source: {', '.join(built) or 'none in this call'}"
    print(f"{out}: {len(wanted)} wheels, {total:.1f} MiB in all (limit {arguments.limit:g}); {said}")
    print("\n".join(f"note: {note}" for note in notes))
    if total > arguments.limit or any(carried.missing for carried in sets):
        print("bundle: too large, or something is missing (see above)", file=sys.stderr)
        return 1
    if arguments.no_check:
        return 0
    return check(out, imitate(arguments.mimic.absolute(), {n for c in sets for n in c.from_target}, target))


if __name__ == "__main__":
    sys.exit(main())
