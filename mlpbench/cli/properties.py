"""``mlpbench data properties``: structures for physical quantities, labelled by a reference method."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError, close_match

if TYPE_CHECKING:
    from ase import Atoms

CRYSTAL = ("eos", "elastic", "phonons", "vacancy", "surface")
EXAMPLE = (
    "mlpbench data properties bulk:Si:5.479 reference=gpaw --out properties.xyz\n"
    "  mlpbench data properties relaxed.xyz reference=gpaw --names eos,elastic --out properties.xyz\n"
    "  mlpbench run dataset=file dataset.path=my.xyz '+dataset.references={properties: properties.xyz}' "
    "evaluation=properties"
)


def register_properties(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data properties``."""
    from mlpbench.cli.data import add_common

    parser.add_argument("start", help="a relaxed crystal: a file, or bulk:Si:5.479 (element, lattice constant in Å)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="reference=..., reference.xc=... (Hydra)")
    parser.add_argument(
        "--names", type=lambda text: text.split(","), metavar="NAME,...", default=list(CRYSTAL),
        help=f"which of {', '.join(CRYSTAL)} (all that the structure allows)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="extxyz; repeats nothing that is kept")
    add_common(parser, "structures")


def properties(arguments: argparse.Namespace) -> int:
    """Make the structures, label them and say what the reference method finds; 1 if a label is missing."""
    import tempfile
    from functools import partial

    from ase.io import write

    from mlpbench.cli.data import composed, method_of
    from mlpbench.datasets.stages import stages
    from mlpbench.references.labels import label_file
    from mlpbench.references.sampling import start_structure

    structures = _structures(start_structure(arguments.start), arguments.names)
    node, backends = composed(arguments.overrides)
    method, backend = method_of(node["reference"], backends)
    with tempfile.TemporaryDirectory(prefix="mlpbench-properties-") as folder:
        source = Path(folder) / "structures.xyz"
        write(source, structures, format="extxyz")
        with stages(arguments.out.name) as progress:
            filed = label_file(
                source, arguments.out, method, backend, jobs=arguments.jobs, threads=arguments.threads,
                on_label=partial(progress, "labelled"),
            )  # fmt: skip
    print(f"{len(filed.good)} of {len(structures)} structures labelled, written to {arguments.out}")
    for number, answer in filed.left_out:
        print(f"  {structures[number].info['property']}, structure {number}: {answer.reason}")
    if filed.left_out:
        return EXIT_FAILED
    print("\n".join(_found(arguments.out)))
    return EXIT_DONE


def _structures(start: Atoms, names: list[str]) -> list[Atoms]:
    from mlpbench.properties import PROPERTIES

    made: list[Any] = []
    for name in names:
        if name not in PROPERTIES:
            raise UserError(f"there is no property '{name}'", close_match(name, PROPERTIES))
        try:
            made += PROPERTIES[name].structures(start)
        except ValueError as error:
            if list(names) != list(CRYSTAL):
                raise UserError(f"{name}: {error}", "Leave it out of --names.") from error
            print(f"{name}: left out, since it {error}")
    if not made:
        raise UserError("none of the properties can be had from this structure")
    return made


def _found(path: Path) -> list[str]:
    """``a₀ = 5.479 Å`` for every scalar."""
    import numpy as np

    from mlpbench.evaluators.properties import reference_values
    from mlpbench.quantities import QUANTITIES

    values = {name: value for found in reference_values(path).values() for name, value in found.items()}
    return [
        f"  {QUANTITIES[name].symbol} = {float(value):.5g} {QUANTITIES[name].unit}".rstrip()
        for name, value in values.items()
        if np.ndim(value) == 0
    ]
