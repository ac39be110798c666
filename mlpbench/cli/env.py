"""``mlpbench env``: build, list, check and remove the environments of the backends."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError, close_match


def register_env(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of this command."""
    parser.epilog = (
        "example:\n  mlpbench env build mace nequip\n  mlpbench env list\n\n"
        "Environments lie in $MLPBENCH_HOME/envs (default ~/.cache/mlpbench/envs). To use an interpreter\n"
        "that exists already: backend.mace.python=/path/to/python, or the variable MLPBENCH_MACE_PYTHON."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str, example: str) -> argparse.ArgumentParser:
        """The parser of one action, with an example."""
        return actions.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    build = action("build", "build environments with uv", "mlpbench env build mace nequip")
    build.add_argument("names", metavar="NAME", nargs="*", help="backends, as in conf/backend")
    build.add_argument("--all", action="store_true", help="the default set; the others are named, and built by name")
    build.add_argument("--wheels", metavar="DIR", type=Path, help="a folder of wheels to take packages from")
    build.add_argument("--offline", action="store_true", help="use no network: uv's cache, or --wheels alone")
    build.add_argument("--rebuild", action="store_true", help="build again what is built already")
    _register_wheels(
        action(
            "wheels",
            "gather the wheels a backend needs, for a machine without a network",
            "mlpbench env wheels mace --out wheels --without torch",
        )
    )
    build.add_argument(
        "--torch",
        choices=["auto", "cpu", "default"],
        default="auto",
        help="cpu: torch's CPU build; default: the ordinary package, with CUDA; auto: the CPU build where this "
        "machine has no GPU driver and one is available (on a cluster's login node, say default)",
    )
    action("list", "what is built, adopted, missing or unused, its size and licence", "mlpbench env list")
    check = action("check", "import the packages inside; print versions and device", "mlpbench env check mace")
    check.add_argument("name", metavar="NAME", help="a backend")
    check.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="such as backend.mace.python=PATH")
    remove = action("remove", "remove built environments", "mlpbench env remove --unused")
    remove.add_argument("name", metavar="NAME", nargs="?", help="a backend")
    remove.add_argument("--unused", action="store_true", help="those that no backend uses, half-built ones too")


def execute_env(arguments: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        UserError: an unknown backend, or what building and checking raise.
    """
    action = {"build": _build, "list": _list, "check": _check, "remove": _remove, "wheels": _wheels}[arguments.action]
    return action(arguments)


def _build(arguments: argparse.Namespace) -> int:
    from mlpbench.backends.build import build
    from mlpbench.backends.environment import adopted_python

    backends = _backends()
    if bool(arguments.names) == arguments.all:
        raise UserError("say which to build: names, or --all", f"Known: {', '.join(sorted(backends))}")
    wanted, left_out = _all(backends) if arguments.all else ([_named(name, backends) for name in arguments.names], [])
    for backend in wanted:
        adopted, source = adopted_python(backend)
        if adopted is not None:
            _say(f"{backend.name}: note that {source} names {adopted}, which is used instead of what is built")
        build(
            backend,
            wheels=arguments.wheels,
            offline=arguments.offline,
            rebuild=arguments.rebuild,
            torch=arguments.torch,
            progress=_say,
        )
    for backend in left_out:
        facts = ", ".join(filter(None, [_gigabytes(backend.size_gb, "about "), backend.licence]))
        _say(f"{backend.name}: not in the default set{f' ({facts})' * bool(facts)}: mlpbench env build {backend.name}")
    return EXIT_DONE


def _all(backends: dict[str, BackendConfig]) -> tuple[list[BackendConfig], list[BackendConfig]]:
    """What ``--all`` builds, and what it leaves out; backends without requirements are in neither."""
    buildable = [backend for backend in backends.values() if backend.requirements is not None]
    return [b for b in buildable if b.default], [b for b in buildable if not b.default]


def _list(arguments: argparse.Namespace) -> int:
    from mlpbench.backends.environment import environments

    backends = _backends()
    rows = [("BACKEND", "STATE", "SIZE", "LICENCE", "WHERE AND WHAT", "")]
    for row in environments(backends.values()):
        licence = backends[row.name].licence if row.name in backends else None
        size = _gigabytes(row.size_gb, "~" if row.state == "missing" else "")
        rows.append((row.name, row.state, size, licence or "", str(row.path), row.detail))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for *short, path, detail in rows:
        start = "  ".join(f"{text:<{width}}" for text, width in zip(short, widths, strict=True))
        print(f"{start}  {path}" + (f"\n{'':<{sum(widths) + 8}}{detail}" if detail else ""))
    print("SIZE counts files that several environments share (hard links into uv's cache) in each of them.")
    return EXIT_DONE


def _gigabytes(size: float | None, before: str) -> str:
    return "" if size is None else f"{before}{size:.1f} GB"


def _check(arguments: argparse.Namespace) -> int:
    from mlpbench.backends.environment import check_inside, resolve

    backend = _named(arguments.name, _backends(arguments.overrides))
    report = check_inside(backend, resolve(backend))
    print("\n".join(report.lines))
    return EXIT_DONE if report.works else EXIT_FAILED


def _remove(arguments: argparse.Namespace) -> int:
    from mlpbench.backends.environment import environments, remove
    from mlpbench.backends.registry import home

    if bool(arguments.name) == arguments.unused:
        raise UserError("say which to remove: a backend's name, or --unused")
    backends = _backends()
    if arguments.unused:
        paths = [row.path for row in environments(backends.values()) if row.state in ("unused", "half-built")]
    else:
        name = _named(arguments.name, backends).name
        paths = [path for path in sorted((home() / "envs").glob(f"{name}-*")) if path.is_dir()]
    for path in paths:
        remove(path)
        _say(f"removed {path}")
    if not paths:
        _say("nothing to remove")
    return EXIT_DONE


def _register_wheels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a backend, or 'core' for mlpbench itself")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the wheels")
    parser.add_argument("--python", metavar="X.Y", help="Python of the target (default: this one's)")
    parser.add_argument("--platform", metavar="TAG", help="such as x86_64, aarch64 or manylinux_2_28_x86_64")
    parser.add_argument(
        "--without",
        metavar="NAME",
        action="append",
        default=[],
        help="leave out this package and what only it needs, such as torch; may be repeated",
    )
    parser.add_argument(
        "--target-list",
        metavar="FILE",
        type=Path,
        help="what 'pip list' printed on the target: leave out what it has in the right version",
    )


def _wheels(arguments: argparse.Namespace) -> int:
    from mlpbench.backends.wheels import build_core_wheel, core_pins, gather, read_compiled, read_target_list

    name, out = arguments.name, arguments.out
    if name == "core":
        pins = core_pins()
    else:
        requirements = _named(name, _backends()).requirements_path()
        if requirements is None:
            raise UserError(f"the backend '{name}' has no requirements file, so nothing can be gathered")
        pins = read_compiled(requirements)
    gathered = gather(
        pins,
        out,
        progress=_say,
        python=arguments.python,
        platform=arguments.platform,
        without=arguments.without,
        target=read_target_list(arguments.target_list) if arguments.target_list else None,
    )
    if name == "core" and not build_core_wheel(out, _say):
        gathered.notes.append("mlpbench runs from a wheel here: copy that wheel into the folder as well")
    listed = "".join(f"{pin.line}\n" for pin in gathered.pins)
    (out / f"{name}.requirements.txt").write_text(listed, encoding="utf-8")
    print(f"{out}: {len(gathered.pins)} packages for {name}, {gathered.megabytes:.0f} MB in the folder")
    if gathered.left_out:
        print(f"left out {len(gathered.left_out)}: {', '.join(pin.name for pin in gathered.left_out)}")
    if gathered.built:
        print(f"built from source: {', '.join(gathered.built)}")
    for note in gathered.notes:
        print(f"note: {note}")
    print(_then(name, bool(gathered.left_out)))
    return EXIT_DONE


def _then(name: str, partial: bool) -> str:
    """What to type on the target, where the folder stands as WHEELS."""
    if name == "core":
        install = "pip install --no-index --find-links WHEELS -r WHEELS/core.requirements.txt mlpbench"
        return f"On the target: python3.12 -m venv .venv && .venv/bin/{install}"
    if not partial:
        return f"On the target: mlpbench env build {name} --wheels WHEELS --offline"
    install = "uv pip install --offline --no-index --no-deps --python PYTHON --find-links WHEELS --target PACKAGES"
    return (
        "On the target, for an interpreter that has the rest (PYTHON), into a folder PACKAGES, with the uv that\n"
        "came with mlpbench (.venv/bin/uv):\n"
        f"  {install} -r WHEELS/{name}.requirements.txt\n"
        f"  mlpbench env check {name} backend.{name}.python=PYTHON 'backend.{name}.pythonpath=[PACKAGES]'"
    )


def _backends(overrides: list[str] | None = None) -> dict[str, BackendConfig]:
    from mlpbench.config import load_backends

    return load_backends(overrides or [])


def _named(name: str, backends: dict[str, BackendConfig]) -> BackendConfig:
    if name not in backends:
        raise UserError(f"there is no backend '{name}'", close_match(name, backends))
    return backends[name]


def _say(line: str) -> None:
    width = shutil.get_terminal_size().columns
    print(line[: width - 1] if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
