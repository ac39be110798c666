"""Every ``mlpbench`` command in README, ``docs`` and the comments of ``conf`` is one that mlpbench accepts: ``run`` and
``plan`` compose, with the last values of a sweep, the others' arguments are parsed. Nothing is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpbench import cli, config
from mlpbench.cli import explore
from mlpbench.cli.data import composed
from mlpbench.config.composing import load_reference
from mlpbench.errors import UserError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "mlpbench" / "docs").glob("*.md"))]
FILES = sorted((ROOT / "conf").rglob("*.yaml"))
# Words that stand for the reader's own.
ELIDED = re.compile(r"\.\.\.|…|\b(?:KEY|NAME|STUDY|PYTHON|COMMAND|VALUE|DIR|FILE|FOLDER)\b")
BESIDE = re.compile(r"\s\(|\s#\s|: (?=[^']*$)")  # where a remark beside a command begins
OVERRIDES = re.compile(r"^(?:.*[:;] )?((?:~?\+*[\w./]+=\S+ ?){1,})$")


def of_page(text: str) -> Iterator[str]:
    """Commands of the shell blocks of a page, and those set in its sentences."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s#\s", line)[0].split(";"):
                yield " ".join(part.split()).removeprefix(".venv/bin/")
    yield from (" ".join(span.split()) for span in re.findall(r"`(mlpbench [^`]*)`", text))
    yield from (line.strip() for line in re.findall(r"^    (mlpbench .*)$", text, flags=re.MULTILINE))


def of_comments(path: Path) -> Iterator[str]:
    """Commands that end a comment line of a YAML, or stand in backticks; of an experiment also overrides to add."""
    text = path.read_text(encoding="utf-8")
    comments = "\n".join(re.findall(r"(?:^|\s)# ?(.*)$", text, flags=re.MULTILINE))
    for line in comments.replace("\\\n", " ").splitlines():
        said = re.search(r"(?:^\s*|[:(] )(mlpbench .*)$", line)
        added = OVERRIDES.match(line.strip())
        if said is not None:
            command = BESIDE.split(re.split(r"\.(?= )|[,;] |, |\)(?=[ ,.;]|$)", said[1])[0])[0]
            yield " ".join(command.split()).rstrip(".:;,")
        elif added is not None and path.parent.name == "experiment":
            yield f"mlpbench run -m experiment={path.stem} {added[1].strip().rstrip('.')}"
    yield from re.findall(r"`(mlpbench [^`\n]*)`", comments)
    yield from re.findall(r"^ +(mlpbench [^:\n]*)$", text, flags=re.MULTILINE)  # examples of a --help


# What comes about on the reader's side: a backend of one's own, a data set that mlpbench explore has made.
OWN = ("architecture=foo", "dataset=mine/acquired")


def stated() -> list[tuple[str, str]]:
    """(place, command), without those in which something is left to the reader."""
    pairs = [(path.name, command) for path in PAGES for command in of_page(path.read_text(encoding="utf-8"))]
    pairs += [(str(path.relative_to(ROOT / "conf")), command) for path in FILES for command in of_comments(path)]
    return sorted(
        {
            pair
            for pair in pairs
            if pair[1].startswith("mlpbench ")
            and not ELIDED.search(pair[1])
            and not any(word in OWN for word in pair[1].split())
        }
    )


def accept(command: str) -> None:
    """Compose or parse a command as mlpbench would.

    Raises:
        UserError: mlpbench refuses its overrides.
        SystemExit: mlpbench refuses its arguments.
    """
    name, *arguments = shlex.split(command)[1:]
    if name.startswith("-"):
        return
    assert name in cli.COMMANDS, f"there is no command {name}"
    if name == "run" or (name == "plan" and "--pilot" not in arguments):
        overrides = [word for word in arguments if word not in ("-m", "--build", "--help", "--cfg", "job")]
        trials = config.expand(overrides, "-m" in arguments, command=name).trials
        config.load_trial(trials[-1])
    elif all(word.startswith("-") for word in arguments):  # the name of a command, or of one of its options
        assert set(arguments) <= set(cli._subparser(name)._option_string_actions), f"{name} has no such option"
    else:
        parsed = cli._parse(cli._subparser(name), arguments)
        overrides = [word for word in getattr(parsed, "overrides", []) if "=" in word]
        if name == "data":
            composed(overrides)
        elif name == "explore":
            own, method, others = explore._sorted(overrides)
            explore._options(own)
            load_reference(method, None)
            config.load_trial(others)


@pytest.mark.parametrize(("place", "command"), stated())
def test_a_documented_command_is_accepted(place: str, command: str) -> None:
    try:
        accept(command)
    except (UserError, SystemExit) as refused:
        pytest.fail(f"{place}: '{command}' is refused: {refused}")


def test_every_kind_of_place_is_read() -> None:
    places = stated()
    assert ("README.md", "mlpbench report mystudy") in places
    assert (
        "experiment/tournament.yaml",
        "mlpbench run experiment=tournament acquisition=random,committee repetition=0",
    ) in places
    assert ("start/foundation.yaml", "mlpbench foundation list") in places
    added = [command for place, command in places if place == "experiment/acac_published.yaml"]
    assert any("size=tiny training=common" in command for command in added)
    assert len(places) > 80


@pytest.mark.parametrize("command", [
    "mlpbench run architecture=pain", "mlpbench run architecture=painn,mace", "mlpbench rport x",
    "mlpbench report a --no-such", "mlpbench run -m experiment=acac_published budget.steps=100",
])  # fmt: skip
def test_what_would_be_refused_is_noticed(command: str) -> None:
    with pytest.raises((UserError, SystemExit, AssertionError)):
        accept(command)
