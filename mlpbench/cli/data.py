"""``mlpbench data``: what data sets there are, what they hold, whether a file is fit, and how one is made."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.cli.properties import EXAMPLE as PROPERTIES_EXAMPLE
from mlpbench.cli.properties import properties, register_properties
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError

if TYPE_CHECKING:
    from mlpbench.backends.registry import BackendConfig
    from mlpbench.datasets.schema import DatasetConfig
    from mlpbench.references.labels import Filed


_OPTIONS = (
    "format", "index", "energy_key", "forces_key", "stress_key", "energy_unit", "length_unit", "forces_unit",
    "stress_unit", "forces_sign", "stress_sign", "stress_order", "labels",
)  # fmt: skip


def register_data(parser: argparse.ArgumentParser) -> None:
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
    reading_options(described)
    fetched = _add(commands, "fetch", "download a data set into the cache", "mlpbench data fetch acac")
    fetched.add_argument("name", help="NAME or NAME/VARIANT of a data set")
    validated = _add(
        commands, "validate", "check labels, units, signs, cells and copies",
        "mlpbench data validate my.extxyz --html report.html\n  mlpbench data validate ethanol",
    )  # fmt: skip
    validated.add_argument("name", help="NAME or NAME/VARIANT of a data set, or a file")
    validated.add_argument("--html", type=Path, metavar="FILE", help="also write the report as one HTML file")
    validated.add_argument("--max-frames", type=int, default=20_000, metavar="N", help="check the first N (20000)")
    reading_options(validated)
    register_sample(_add(commands, "sample", "draw geometries by MD with a cheap method", SAMPLE_EXAMPLE))
    register_properties(_add(commands, "properties", "label structures for physical quantities", PROPERTIES_EXAMPLE))
    register_label(_add(commands, "label", "label geometries with a reference method", LABEL_EXAMPLE))


def execute_data(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; 1 if validation found an error."""
    actions = {"list": _list, "describe": _describe, "fetch": _fetch, "validate": _validate, **ACTIONS}
    return actions[arguments.action](arguments)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def reading_options(parser: argparse.ArgumentParser) -> None:
    """Names, units and conventions of the labels in a file."""
    group = parser.add_argument_group("how to read a file (detected where not given)")
    group.add_argument(
        "--format",
        help="extxyz, sgdml (npz), deepmd, fitsnap, mlearn, qm22, qm9, ani, or a format of 'ase info --formats'",
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
    from mlpbench.datasets.validation import as_html, as_text, validate

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


CONFIG = "data"  # conf/data.yaml
LABEL_EXAMPLE = (
    "mlpbench data label geometries.xyz reference=pyscf reference.xc=pbe0 --out labelled.xyz --jobs 4\n"
    "  mlpbench data label geometries.xyz reference=ase reference.calculator=ase.calculators.emt.EMT"
)
SAMPLE_EXAMPLE = (
    "mlpbench data sample CH3CH2OH 'sampling.temperatures_K=[300,500]' sampling.frames=200 --out geometries\n"
    "  mlpbench data sample cu.xyz reference@sampler=ase sampling.relax_fmax=null --out geometries\n"
    "  mlpbench data sample recipe=ethanol --out geometries\n"
    "  mlpbench data sample recipe=pretrain --out geometries      (several molecules)"
)


def register_label(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data label``."""
    parser.add_argument("geometries", help="a file that ASE reads, or a folder of .xyz files")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="reference=..., reference.xc=... (Hydra)")
    parser.add_argument("--out", type=Path, metavar="PATH", help="extxyz file, or folder (NAME-labelled)")
    add_common(parser, "frames")
    parser.add_argument("--seconds", type=float, metavar="S", help="start no calculation after this")


def register_sample(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data sample``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="START | KEY=VALUE", help="structure file or molecule, sampling.frames=..."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; one file a trajectory")
    add_common(parser, "trajectories")


def add_common(parser: argparse.ArgumentParser, what: str) -> None:
    """``--jobs`` and ``--threads``."""
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help=f"{what} at once (1)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="of the code, in each process (1)")


def label(arguments: argparse.Namespace) -> int:
    """Label a file, or each in a folder; 1 if a frame was left out."""
    from mlpbench.datasets.stages import stages
    from mlpbench.references.labels import label_file

    node, backends = composed(arguments.overrides)
    method, backend = method_of(node["reference"], backends)
    code = EXIT_DONE
    pairs = _pairs(Path(arguments.geometries), arguments.out)
    for source, target in pairs:
        with stages(source.name) as progress:
            filed = label_file(
                source, target, method, backend,
                jobs=arguments.jobs, threads=arguments.threads, seconds=arguments.seconds,
                on_label=partial(progress, "labelled"),
            )  # fmt: skip
        print(_account(source, filed))
        code = EXIT_FAILED if filed.left_out else code
    return code


def sample(arguments: argparse.Namespace) -> int:
    """Draw trajectories; 1 if one failed."""
    from pydantic import ValidationError

    from mlpbench.config.checks import pydantic_message
    from mlpbench.datasets.stages import stages
    from mlpbench.references.sampling import Sampling, draw, start_structure

    starts = [item for item in arguments.overrides if "=" not in item]
    node, backends = composed([item for item in arguments.overrides if "=" in item])
    if len(starts) > 1:
        raise UserError(f"one structure to start from, not {len(starts)}: {', '.join(starts)}")
    try:
        sampling = Sampling.model_validate({**node["sampling"], **({"start": starts[0]} if starts else {})})
    except ValidationError as error:
        raise UserError(pydantic_message(error, "sampling.")) from error
    method, backend = method_of(node["sampler"], backends)
    groups = [(start_structure(name), group) for name, group in sampling.by_start().items()]
    paths: list[Path] = []
    failed: dict[str, str] = {}
    for start, group in groups:
        print(f"{start.get_chemical_formula()}: {', '.join(group.planned())}; {group.words()}", flush=True)
        with stages(start.get_chemical_formula()) as progress:
            drawn, broken = draw(
                start, group, method, backend, arguments.out, jobs=arguments.jobs, threads=arguments.threads,
                on_step=partial(_steps, progress),
            )  # fmt: skip
        paths, failed = [*paths, *drawn], {**failed, **broken}
    print(f"{len(paths)} trajectories in {arguments.out}: {', '.join(path.name for path in paths)}")
    for name, reason in failed.items():
        print(f"  {name} failed: {reason}")
    if not failed:
        print(f"next: mlpbench data label {arguments.out} reference=pyscf --out DIR")
    return EXIT_FAILED if failed else EXIT_DONE


def _steps(progress: Callable[..., None], done: int, total: int) -> None:
    progress("molecular dynamics", done, total, "steps")


def composed(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, BackendConfig]]:
    """``conf/data.yaml`` with overrides, and the backends."""
    from omegaconf import OmegaConf

    from mlpbench.config import compose_raw
    from mlpbench.config.checks import check_backends

    node: Any = OmegaConf.to_container(compose_raw(overrides, name=CONFIG), resolve=True)
    return node, check_backends(node["backend"])


def method_of(node: dict[str, Any], backends: dict[str, BackendConfig]) -> tuple[dict[str, Any], BackendConfig]:
    """The complete method, and the backend that runs it."""
    from mlpbench.references.methods import complete_method, environment_of

    method = complete_method(node)
    return method, environment_of(method, backends)


def _pairs(source: Path, out: Path | None) -> list[tuple[Path, Path]]:
    """What is labelled, and where to."""
    if not source.is_dir():
        return [(source, out or Path(f"{source.stem}-labelled.xyz"))]
    files = sorted(source.glob("*.xyz"))
    if not files:
        raise UserError(f"{source} has no .xyz files")
    folder = out or source.with_name(f"{source.name}-labelled")
    return [(file, folder / file.name) for file in files]


def _account(source: Path, filed: Filed) -> str:
    """What came of a file, and the command that uses it."""
    import numpy as np

    good, left_out = filed.good, filed.left_out
    cached = sum(answer.cached for answer in good)
    lines = []
    if good:
        seconds = np.array([answer.seconds for answer in good])
        lines.append(
            f"{source}: {len(good)} of {len(filed.labels)} frames labelled ({cached} known already), "
            f"{np.median(seconds):.3g} s a frame (median), {seconds.sum() / 3600:.2g} core hours in all"
        )
        lines.append(f"written to {filed.path}: mlpbench data validate {filed.path}")
    else:
        lines.append(f"{source}: no frame was labelled, nothing is written")
    if left_out:
        lines.append(f"left out: {len(left_out)} frames")
        lines += [f"  frame {number}: {answer.reason}" for number, answer in left_out[:10]]
        lines += ["  ..."] if len(left_out) > 10 else []
        if not all(answer.final for _, answer in left_out):
            lines.append("the same command tries again those that did not end by themselves")
    return "\n".join(lines)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"label": label, "sample": sample, "properties": properties}
