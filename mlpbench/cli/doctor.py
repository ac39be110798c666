"""``mlpbench doctor``: what works on this machine, what does not, and the command that fixes it."""

from __future__ import annotations

import argparse

from mlpbench.errors import EXIT_DONE, EXIT_FAILED

HELP = "say what works on this machine, what does not, and how to fix it"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--quick", action="store_true", help="do not import the backends' packages (some ten seconds each)"
    )
    parser.epilog = "exit code 0 only if the quickstart would run\n\nexample:\n  mlpbench doctor --quick"


def execute(arguments: argparse.Namespace) -> int:
    """Print the findings as they come. Returns 0 if nothing keeps the quickstart from running, else 1."""
    from mlpbench.cli._health import examine

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
