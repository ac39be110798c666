"""``mlpbench data sample`` and ``mlpbench data label``: geometries, and their labels."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError

if TYPE_CHECKING:
    from mlpbench.backends.registry import BackendConfig
    from mlpbench.references.filing import Filed

CONFIG = "data"  # conf/data.yaml
LABEL_EXAMPLE = (
    "mlpbench data label geometries.xyz reference=pyscf reference.xc=pbe0 --out labelled.xyz --jobs 4\n"
    "  mlpbench data label geometries.xyz reference=ase reference.calculator=ase.calculators.emt.EMT"
)
SAMPLE_EXAMPLE = (
    "mlpbench data sample CH3CH2OH 'sampling.temperatures_K=[300,500]' sampling.frames=200 --out geometries\n"
    "  mlpbench data sample cu.xyz reference@sampler=ase sampling.relax_fmax=null --out geometries\n"
    "  mlpbench data sample recipe=ethanol --out geometries"
)


def register_label(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data label``."""
    parser.add_argument("geometries", help="a file that ASE reads, or a folder of .xyz files")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="reference=..., reference.xc=... (Hydra)")
    parser.add_argument("--out", type=Path, metavar="PATH", help="extxyz file, or folder (NAME-labelled)")
    _common(parser, "frames")
    parser.add_argument("--seconds", type=float, metavar="S", help="start no calculation after this")


def register_sample(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data sample``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="START | KEY=VALUE", help="structure file or molecule, sampling.frames=..."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; one file a trajectory")
    _common(parser, "trajectories")


def _common(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help=f"{what} at once (1)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="of the code, in each process (1)")


def label(arguments: argparse.Namespace) -> int:
    """Label a file, or each in a folder; 1 if a frame was left out."""
    from mlpbench.datasets.stages import stages
    from mlpbench.references.filing import label_file

    node, backends = _composed(arguments.overrides)
    method, backend = _method(node["reference"], backends)
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
    node, backends = _composed([item for item in arguments.overrides if "=" in item])
    if len(starts) > 1:
        raise UserError(f"one structure to start from, not {len(starts)}: {', '.join(starts)}")
    try:
        sampling = Sampling.model_validate({**node["sampling"], **({"start": starts[0]} if starts else {})})
    except ValidationError as error:
        raise UserError(pydantic_message(error, "sampling.")) from error
    method, backend = _method(node["sampler"], backends)
    start = start_structure(sampling.start)
    print(f"{start.get_chemical_formula()}: {', '.join(sampling.planned())}; {sampling.words()}", flush=True)
    with stages(start.get_chemical_formula()) as progress:
        paths, failed = draw(
            start, sampling, method, backend, arguments.out, jobs=arguments.jobs, threads=arguments.threads,
            on_step=lambda done, total: progress("molecular dynamics", done, total, "steps"),
        )  # fmt: skip
    print(f"{len(paths)} trajectories in {arguments.out}: {', '.join(path.name for path in paths)}")
    for name, reason in failed.items():
        print(f"  {name} failed: {reason}")
    if not failed:
        print(f"next: mlpbench data label {arguments.out} reference=pyscf --out DIR")
    return EXIT_FAILED if failed else EXIT_DONE


def _composed(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, BackendConfig]]:
    """``conf/data.yaml`` with overrides, and the backends."""
    from omegaconf import OmegaConf

    from mlpbench.config import compose_raw
    from mlpbench.config.checks import check_backends

    node: Any = OmegaConf.to_container(compose_raw(overrides, name=CONFIG), resolve=True)
    return node, check_backends(node["backend"])


def _method(node: dict[str, Any], backends: dict[str, BackendConfig]) -> tuple[dict[str, Any], BackendConfig]:
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


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"label": label, "sample": sample}
