"""``mlpbench data properties``: structures for physical quantities, labelled by a reference method."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError, close_match

if TYPE_CHECKING:
    from ase import Atoms

CRYSTAL = ("eos", "elastic", "phonons", "vacancy", "surface")
FROM_FILES = ("path", "neb", "dissociation", "smooth", "conformers", "dimer", "rare", "rate")
EXAMPLE = (
    "mlpbench data properties bulk:Si:5.479 reference=gpaw --out properties.xyz\n"
    "  mlpbench data properties relaxed.xyz reference=gpaw --names eos,elastic --out properties.xyz\n"
    "  mlpbench data properties --take path:transfer=path.xyz --take neb:transfer=path.xyz --out properties.xyz\n"
    "  mlpbench data properties --take path:r12=12_irc.npz --energy-unit kcal/mol --out properties.xyz\n"
    "  mlpbench run dataset=file dataset.path=my.xyz '+dataset.references={properties: properties.xyz}' "
    "evaluation=properties"
)


def register_properties(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``data properties``."""
    from mlpbench.cli.data import add_common, reading_options

    parser.add_argument(
        "start", nargs="?", help="a relaxed crystal: a file, or bulk:Si:5.479 (element, lattice constant in Å)"
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="KIND:NAME=FILE",
        help=f"structures that are labelled already, in order, as they are; KIND: {', '.join(FROM_FILES)}",
    )
    parser.add_argument("--moving", type=int, metavar="N", help="of --take rare: the atom that moves, from 0")
    parser.add_argument("--bond", metavar="I,J", help="of --take smooth or dissociation: the bond that is stretched")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="reference=..., reference.xc=... (Hydra)")
    parser.add_argument(
        "--names", type=lambda text: text.split(","), metavar="NAME,...", default=list(CRYSTAL),
        help=f"which of {', '.join(CRYSTAL)} (all that the structure allows)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="extxyz; repeats nothing that is kept")
    add_common(parser, "structures")
    reading_options(parser)


def properties(arguments: argparse.Namespace) -> int:
    """Make the structures, label them and say what the reference method finds; 1 if a label is missing."""
    import tempfile
    from functools import partial

    from ase.io import write

    from mlpbench.cli.data import composed, method_of
    from mlpbench.datasets.stages import stages
    from mlpbench.references.labels import label_file
    from mlpbench.references.sampling import start_structure

    if arguments.take:
        return _take(arguments)
    if arguments.start is None:
        raise UserError("no structure to start from, and none to take", f"For example: {EXAMPLE.splitlines()[0]}")
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


def _take(arguments: argparse.Namespace) -> int:
    """Put labelled structures into one file, each with the name of its property, after what is there of others."""
    from ase.io import read, write

    from mlpbench.properties import PROPERTIES
    from mlpbench.properties.base import PROPERTY

    if arguments.start is not None or arguments.overrides:
        raise UserError("--take puts together what is labelled: there is nothing to start from and no method")
    made: list[Any] = []
    for entry in arguments.take:
        name, equals, file = entry.partition("=")
        kind = name.partition(":")[0]
        if not equals or kind not in FROM_FILES:
            raise UserError(f"--take {entry}: expected KIND:NAME=FILE", close_match(kind, FROM_FILES))
        made += taken(name, Path(file), arguments)
    kept = [a for a in read(arguments.out, index=":") if a.info[PROPERTY] not in {m.info[PROPERTY] for m in made}] \
        if arguments.out.exists() else []  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.out, [*kept, *made], format="extxyz")
    print(f"{len(made)} structures of {len(arguments.take)} sets written to {arguments.out}"
          + (f", beside {len(kept)} that were there" if kept else ""))  # fmt: skip
    try:
        print("\n".join(_found(arguments.out)))
    except ValueError as error:
        raise UserError(f"{arguments.out}: {error}", f"Properties: {', '.join(PROPERTIES)}.") from error
    return EXIT_DONE


def taken(name: str, file: Path, arguments: argparse.Namespace) -> list[Atoms]:
    """The labelled structures of one file in eV and Å, with the headers that their property reads.

    Raises:
        UserError: a file that cannot be read, or frames without an energy.
    """
    import numpy as np

    from mlpbench.datasets.readers import read, require_file
    from mlpbench.datasets.readers.base import Labels, Notes
    from mlpbench.properties.base import PROPERTY

    require_file(file)
    labels = Labels(**{name: value for name, value in vars(arguments).items() if name in Labels.__dataclass_fields__
                       and value is not None})  # fmt: skip
    made: list[Any] = []
    for chunk in read(file, arguments.format or "auto", labels, Notes()):
        for atoms, headers in zip(chunk.frames.to_atoms(), chunk.headers, strict=True):
            kept = {k: v for k, v in headers.items() if k in ("distance_A", "moving_atom", "role", "of")}
            atoms.info = {PROPERTY: name, **kept}
            if arguments.moving is not None and name.startswith("rare"):
                atoms.info["moving_atom"] = arguments.moving
            if arguments.bond is not None and name.startswith(("smooth", "dissociation")):
                i, j = (int(number) for number in arguments.bond.split(","))
                atoms.info |= {"atoms": f"{i} {j}", "distance_A": float(atoms.get_distance(i, j, mic=True))}
            made.append(atoms)
    if any(atoms.calc is None or not np.isfinite(atoms.calc.results.get("energy", np.nan)) for atoms in made):
        raise UserError(f"{file}: frames without an energy", "Name it: --energy-key ...")
    return made


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

    return [
        f"  {part.partition(':')[2]} {QUANTITIES[name].symbol} = {float(value):.5g} {QUANTITIES[name].unit}".rstrip()
        for part, found in reference_values(path).items()
        for name, value in found.items()
        if np.ndim(value) == 0
    ]
