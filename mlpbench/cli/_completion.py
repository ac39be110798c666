"""Shell completion: Hydra's own for the overrides of ``mlpbench run``, and names for the other commands.

Hydra's script for the shell calls the program with ``-sc query=SHELL`` and the whole line in ``COMP_LINE``, where
it takes everything behind the program's name for overrides: the word ``run`` has to be taken out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAM = "mlpbench"
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
        found = list(commands)
    elif words[1] == "env":
        found = ["build", "check", "list", "remove", "wheels"] if on_word == 2 else _backends()
    elif words[1] in ("table", "report", "select"):
        found = [path.name for path in sorted(Path("results").glob("*")) if path.is_dir()]
    else:
        found = []
    return [name for name in found if name.startswith(typed)]


def _backends() -> list[str]:
    from mlpbench.backends.registry import backend_nodes
    from mlpbench.config import conf_dirs

    return sorted(backend_nodes(conf_dirs()))
