"""The command line. Each module of this package is a command: ``HELP``, ``register(parser)``, ``execute(arguments)``.

Modules import what is heavy inside ``execute``, so that ``--help`` answers at once. ``run`` belongs to Hydra and gets
its arguments untouched.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import mlpbench
from mlpbench.cli._completion import OPTIONS, complete
from mlpbench.errors import EXIT_USAGE, UserError, close_match
from mlpbench.files import problem_of

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_ORDER = [
    "run",
    "plan",
    "score",
    "studies",
    "table",
    "report",
    "compare",
    "select",
    "committee",
    "dft",
    "env",
    "data",
    "doctor",
    "init",
]


def commands() -> list[str]:
    """Names of the commands, those of everyday use first."""
    found = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return sorted(found, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns 0, 1 (some trials failed), 2 (a mistake in the command) or 130."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"mlpbench: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\nmlpbench: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, went away
        sys.stderr.close()
        return 0
    except OSError as error:
        problem = problem_of(error)
        if problem is None:
            raise
        print(f"mlpbench: {problem}", file=sys.stderr)
        return EXIT_USAGE


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["run"]:
        from mlpbench.cli import run

        return run.main(arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        name = arguments[0]
        if name not in commands():
            raise UserError(f"there is no command '{name}'", close_match(name, commands()))
        parser = _subparser(name)
        parsed = _parse(parser, arguments[1:])
        return int(importlib.import_module(f"{__name__}.{name}").execute(parsed))
    if arguments and arguments[0] in OPTIONS:
        from mlpbench.cli import run

        return int(complete(arguments, commands(), run.application))
    parser = _top()
    parser.parse_args(arguments)
    parser.print_help()
    return EXIT_USAGE if not arguments else 0


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand behind options, where argparse knows no place for them."""
    parsed, rest = parser.parse_known_args(arguments)
    if not hasattr(parsed, "overrides") or any(item.startswith("-") or "=" not in item for item in rest):
        return parser.parse_args(arguments)  # which says what is wrong
    parsed.overrides += rest
    return parsed


def _top() -> argparse.ArgumentParser:
    lines = [f"  {name:<9} {importlib.import_module(f'{__name__}.{name}').HELP}" for name in commands()]
    parser = argparse.ArgumentParser(
        prog="mlpbench",
        usage="mlpbench COMMAND ...      (mlpbench COMMAND --help for more)",
        description="Which interatomic potential, at which size, with how many labels, and at what cost.\n\n"
        "commands:\n" + "\n".join(lines),
        epilog="example:\n"
        "  mlpbench run -m study=first architecture=schnet,mace dataset.n_train=50,200\n"
        "  mlpbench report first",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlpbench {mlpbench.__version__}")
    return parser


def _subparser(name: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"{__name__}.{name}")
    parser = argparse.ArgumentParser(
        prog=f"mlpbench {name}", description=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.register(parser)
    return parser


def share(text: str) -> float:
    """A number between 0 and 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a fraction between 0 and 1; for 5 % say 0.05")
    return value
