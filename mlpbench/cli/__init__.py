"""The command line. Command ``foo`` is an entry of :data:`COMMANDS` and the functions ``register_foo(parser)`` and
``execute_foo(arguments)`` in the module that it names.

Modules import what is heavy inside ``execute_foo``, so that ``--help`` answers at once. ``run`` belongs to Hydra and
gets its arguments untouched.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlpbench
from mlpbench.errors import EXIT_USAGE, UserError, close_match
from mlpbench.files import problem_of

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# Command -> module of this package, and what the list of commands says; those of everyday use first.
COMMANDS = {
    "run": ("run", "train and measure one trial, or with -m every combination"),
    "plan": ("plan", "what a sweep would run, what is cached, what would be skipped and why; runs nothing"),
    "score": (
        "results",
        "rescore finished trials where a formula or a reference file changed; trains nothing",
    ),
    "studies": ("results", "list the studies: trials by status, architectures, last run"),
    "table": ("results", "print a study's comparison table"),
    "report": ("answers", "write a study's report: one HTML file that opens offline, figures and tables"),
    "compare": (
        "answers",
        "what changed between two studies, and every metric with significance",
    ),
    "select": (
        "answers",
        "which potential to take: the cheapest that keeps the constraints, and how sure that is",
    ),
    "committee": ("answers", "frames on which the repetitions disagree most, as a list or a file to label"),
    "acquire": ("acquire", "structures of a file to label next, chosen by a study's potentials; and their labels"),
    "explore": ("explore", "find frames by a committee's own dynamics, label them, train on them, and so on"),
    "predict": ("predict", "energies, forces and stress of any structures, by a trained potential"),
    "export": ("predict", "a trained potential in a folder that needs mlpbench no more"),
    "dft": ("dft", "time the reference method (DFT) on a data set's own frames and on growing systems"),
    "env": ("env", "build, list, check and remove the environments of the backends"),
    "data": (
        "data",
        "list, fetch and validate data sets; draw geometries and label them",
    ),
    "foundation": ("foundation", "foundation models to start from: elements, licence, where the weights are to be had"),
    "doctor": ("machine", "say what works on this machine, what does not, and how to fix it"),
    "init": ("machine", "write a starting conf/ folder to edit"),
}


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
        if name not in COMMANDS:
            raise UserError(f"there is no command '{name}'", close_match(name, list(COMMANDS)))
        parser = _subparser(name)
        parsed = _parse(parser, arguments[1:])
        return int(_function("execute", name)(parsed))
    if arguments and arguments[0] in OPTIONS:
        from mlpbench.cli import run

        return int(complete(arguments, list(COMMANDS), run.application))
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
    lines = [f"  {name:<10} {said}" for name, (_, said) in COMMANDS.items()]
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
    parser = argparse.ArgumentParser(
        prog=f"mlpbench {name}", description=COMMANDS[name][1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _function("register", name)(parser)
    return parser


def _function(kind: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{COMMANDS[name][0]}"), f"{kind}_{name}")
    return function


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


PROGRAM = "mlpbench"
OF_A_STUDY = ("score", "table", "report", "compare", "select", "committee")  # commands that take names of studies
OPTIONS = ("-sc", "--shell_completion", "--shell-completion")


def complete(arguments: Sequence[str], commands: Sequence[str], hydra: Callable[[], int]) -> int:
    """Answer a shell that asks what may follow, or print the script that makes it ask.

    Args:
        arguments: those of the program, ``-sc`` first.
        commands: names of the commands.
        hydra: runs the Hydra application with ``sys.argv`` as it stands.

    Returns:
        The exit code.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    asked = any(word.startswith("query=") for word in arguments)
    on_word = len(words) - (0 if line.endswith(" ") else 1)  # 0: the program's name, 1: the command
    if asked and (len(words) < 2 or words[1] != "run" or on_word < 2):
        print(" ".join(_names(words, on_word, commands)))
        return 0
    if asked:
        # Options such as -m are no overrides, and Hydra's completion does not know that.
        rest = re.sub(r"^\s*\S+\s+run\s*", "", line)
        rest = re.sub(r"(?:^|(?<=\s))-\S+\s+", "", rest)
        os.environ["COMP_LINE"] = f"{words[0]} {rest}"
    before, sys.argv = sys.argv, [PROGRAM, *arguments]  # Hydra registers the completion for the name it sees here
    try:
        return hydra()
    finally:
        sys.argv = before


def _names(words: Sequence[str], on_word: int, commands: Sequence[str]) -> list[str]:
    """What may stand at ``on_word`` of the line, the commands other than ``run``."""
    typed = words[on_word] if on_word < len(words) else ""
    if on_word <= 1:
        names = list(commands)
    elif words[1] == "env":
        names = ["build", "check", "list", "remove", "wheels"] if on_word == 2 else _backends()
    elif words[1] in OF_A_STUDY:
        names = [path.name for path in sorted(Path("results").glob("*")) if path.is_dir()]
    else:
        names = []
    return [name for name in names if name.startswith(typed)]


def _backends() -> list[str]:
    from mlpbench.backends.registry import backend_nodes
    from mlpbench.config import conf_dirs

    return sorted(backend_nodes(conf_dirs()))
