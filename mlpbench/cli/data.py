"""``mlpbench data``: what data sets there are, what they hold, whether a file is fit, and how one is made."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.cli import _making
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError

if TYPE_CHECKING:
    from mlpbench.datasets.schema import DatasetConfig

HELP = "list, describe, fetch and validate data sets; draw geometries, label them with a reference method"

_OPTIONS = (
    "format", "index", "energy_key", "forces_key", "stress_key", "energy_unit", "length_unit", "forces_unit",
    "stress_unit", "forces_sign", "stress_sign", "stress_order", "labels",
)  # fmt: skip


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n  mlpbench data list\n  mlpbench data describe acac/600K\n"
        "  mlpbench data fetch mlearn/Si\n  mlpbench data validate my.extxyz --html report.html"
    )
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add(commands, "list", "the data sets there are", "mlpbench data list")
    described = _add(commands, "describe", "what a data set or file holds", "mlpbench data describe ethanol")
    described.add_argument("name", help="NAME or NAME/VARIANT of a data set, or a file")
    _reading_options(described)
    fetched = _add(commands, "fetch", "download a data set into the cache", "mlpbench data fetch acac")
    fetched.add_argument("name", help="NAME or NAME/VARIANT of a data set")
    validated = _add(
        commands, "validate", "check labels, units, signs, cells and copies",
        "mlpbench data validate my.extxyz --html report.html\n  mlpbench data validate ethanol",
    )  # fmt: skip
    validated.add_argument("name", help="NAME or NAME/VARIANT of a data set, or a file")
    validated.add_argument("--html", type=Path, metavar="FILE", help="also write the report as one HTML file")
    validated.add_argument("--max-frames", type=int, default=20_000, metavar="N", help="check the first N (20000)")
    _reading_options(validated)
    _making.register_sample(
        _add(commands, "sample", "draw geometries by MD with a cheap method", _making.SAMPLE_EXAMPLE)
    )
    _making.register_label(_add(commands, "label", "label geometries with a reference method", _making.LABEL_EXAMPLE))


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; 1 if validation found an error."""
    actions = {"list": _list, "describe": _describe, "fetch": _fetch, "validate": _validate, **_making.ACTIONS}
    return actions[arguments.action](arguments)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def _reading_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to read a file (detected where not given)")
    group.add_argument(
        "--format", help="extxyz, sgdml (npz), deepmd, mlearn, qm22, qm9, ani, or a format of 'ase info --formats'"
    )
    group.add_argument(
        "--labels", type=lambda text: text.split(","), metavar="LABEL,...",
        help="labels that training will use and every frame must have (energy,forces)",
    )  # fmt: skip
    group.add_argument("--index", help="which frames, as start:stop:step")
    for label in ("energy", "forces", "stress"):
        group.add_argument(f"--{label}-key", help=f"name of the {label} in the file")
    for quantity in ("energy", "length", "forces", "stress"):
        group.add_argument(f"--{quantity}-unit", help=f"unit of the {quantity}")
    group.add_argument("--forces-sign", choices=["forces", "gradient"], help="gradient: minus the forces")
    group.add_argument("--stress-sign", choices=["tension", "compression"], help="what is positive; ASE's is tension")
    group.add_argument("--stress-order", help="order of six components, e.g. 'xx yy zz xy yz zx'")


def _config(arguments: argparse.Namespace) -> DatasetConfig:
    """The data set that the name means: an entry of the registry, else a file."""
    from pydantic import ValidationError

    from mlpbench.config import conf_dirs
    from mlpbench.datasets import registry
    from mlpbench.datasets.schema import DatasetConfig

    name = arguments.name
    known = registry.entries(conf_dirs())
    given = {key: value for key in _OPTIONS if (value := getattr(arguments, key, None)) is not None}
    path = Path(name)
    if name.partition("/")[0] in known and not path.exists():
        values = registry.find(name, conf_dirs()).model_dump()
    elif path.exists() or path.suffix or any(c in name for c in "*?"):
        values = {"kind": "file", "path": name, "name": path.name or name, "n_train": 1, "n_valid": 1}
    else:
        registry.find(name, conf_dirs())  # raises, with the close match
    try:
        return DatasetConfig.model_validate({**values, **given})
    except ValidationError as error:
        raise UserError("; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())) from error


def _list(arguments: argparse.Namespace) -> int:
    from mlpbench.config import conf_dirs
    from mlpbench.datasets import loading, registry
    from mlpbench.datasets.registry import table

    rows = []
    for entry in registry.entries(conf_dirs()).values():
        config = entry.config()
        rows.append((entry.name, config, loading.state(config)))
    print(table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    print("\nmlpbench data describe NAME says more; dataset=file dataset.path=FILE takes your own.")
    return EXIT_DONE


def _describe(arguments: argparse.Namespace) -> int:
    from mlpbench.datasets import loading
    from mlpbench.datasets.registry import describe, describe_frames

    config = _config(arguments)
    if config.kind != "file":
        print(describe(config, loading.state(config)))
    if loading.state(config) == "to fetch":
        print(f"\nNot on this machine yet: mlpbench data fetch {arguments.name}")
        return EXIT_DONE
    text = describe_frames(config, _counter if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    print(text)
    return EXIT_DONE


def _fetch(arguments: argparse.Namespace) -> int:
    from mlpbench.datasets import loading

    config = _config(arguments)
    if config.kind != "download":
        why = "it ships with mlpbench" if config.kind == "embedded" else "it is a file"
        print(f"{config.name}: nothing to fetch, {why}")
        return EXIT_DONE
    paths = loading.fetch_all(config, _bytes if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{config.name}: {len(paths)} files verified in {loading.folder_of(config)}")
    return EXIT_DONE


def _validate(arguments: argparse.Namespace) -> int:
    from mlpbench.datasets.validation import validate
    from mlpbench.datasets.validation.report import as_html, as_text

    reports = validate(_config(arguments), arguments.max_frames)
    print("\n\n".join(as_text(report) for report in reports))
    if arguments.html is not None:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(as_html(reports), encoding="utf-8")
        print(f"\nwritten to {arguments.html}")
    return EXIT_DONE if all(report.ok for report in reports) else EXIT_FAILED


def _bytes(name: str, done: int, total: int | None) -> None:
    share = f" of {total / 1e6:.1f} MB ({100 * done / total:.0f} %)" if total else " MB"
    print(f"\r{name}: {done / 1e6:.1f}{share}   ", end="", file=sys.stderr, flush=True)


def _counter(frames: int) -> None:
    print(f"\r{frames:,} frames read", end="", file=sys.stderr, flush=True)
