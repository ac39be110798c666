"""``mlpbench dft``: what the reference method costs, beside the potentials."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from mlpbench.frames import Frames

RECORDED = "recorded.json"


def register_dft(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    timing = commands.add_parser(
        "time", help="wall time of energy and forces, cold and warm, and its growth with the atoms",
        description="Times the data set's reference method (or another one) on its first test frames and on a series "
        "of growing molecules or supercells.\nNothing else should run meanwhile; a busy machine is noticed and said.",
        epilog="examples:\n  mlpbench dft time ethanol\n  mlpbench dft time silicon        # GPAW, growing supercells\n"
        "  mlpbench dft time mystudy --threads 1,all\n"
        "  mlpbench dft time mystudy reference=pyscf reference.xc=pbe0 --series water\n"
        "  mlpbench dft time mystudy --recorded           # published VASP times, with their sources\n"
        "  mlpbench dft time mystudy --recorded times.csv # your own: " + "system,n_atoms,code,cores,\n"
        "                                                 # seconds_per_step,source",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    timing.add_argument("name", metavar="STUDY|DATASET", help="a study (its frames and method), or a data set")
    timing.add_argument("overrides", nargs="*", metavar="reference...=VALUE", help="another method, or its settings")
    timing.add_argument("--frames", type=int, default=3, metavar="N", help="frames to time (3)")
    timing.add_argument("--threads", default="1", metavar="LIST", help="threads of the code, e.g. 1,all (1)")
    timing.add_argument(
        "--series", default="auto", choices=("auto", "alkanes", "water", "supercells", "none"),
        help="growing systems (auto: supercells of a crystal's first frame, else alkanes)",
    )  # fmt: skip
    timing.add_argument(
        "--series-seconds", type=float, default=120.0, metavar="S", help="no member is started after these (120)"
    )
    timing.add_argument(
        "--recorded", nargs="?", const="", metavar="FILE", help="take times from a CSV with sources; compute nothing"
    )
    timing.add_argument("--results", type=Path, default=Path("results"), help="folder of the results (results)")


def execute_dft(arguments: argparse.Namespace) -> int:
    """Measure, or read, and write the results below ``results/STUDY/dft`` or mlpbench's home.

    Raises:
        UserError: no such study or data set, a mistake in the options, or the reference code cannot run.
    """
    from mlpbench.backends.registry import home

    study = arguments.results / arguments.name
    in_study = any(study.glob("*/record.json"))
    place = study / "dft" if in_study else home() / "timings" / f"dft-{arguments.name.replace('/', '-')}"
    if arguments.recorded is not None:
        return _recorded(arguments.recorded, place)
    frames, method = _from_study(study) if in_study else _from_dataset(arguments.name)
    return _measure(arguments, frames, method, place)


def _measure(arguments: argparse.Namespace, frames: Frames, default: dict[str, Any] | None, place: Path) -> int:
    from mlpbench.config import load_backends
    from mlpbench.config.composing import load_reference
    from mlpbench.devices import hardware
    from mlpbench.references.methods import complete_method, environment_of
    from mlpbench.references.walltimes import keep, measure

    machine = hardware()
    method = complete_method(load_reference(arguments.overrides, default))
    backend = environment_of(method, load_backends())
    if arguments.frames < 1:
        raise UserError(f"--frames={arguments.frames}: at least one frame must be timed")
    for threads in _threads(arguments.threads, int(machine["threads_usable"])):
        measured = measure(
            frames, method, backend, threads=threads, machine=machine, count=arguments.frames,
            series=None if arguments.series == "none" else arguments.series, series_seconds=arguments.series_seconds,
            say=lambda text: print(f"{method['code']}: {text}", flush=True),
        )  # fmt: skip
        print(_summary(measured))
        print(f"  {keep(place, measured)}")
    return EXIT_DONE


def _recorded(file: str, place: Path) -> int:
    from mlpbench.protocol import write_json
    from mlpbench.references.walltimes import PUBLISHED, read_published

    rows = read_published(Path(file) if file else PUBLISHED)
    write_json(place / RECORDED, {"rows": rows})
    for row in rows:
        cores = f"{row['cores']} cores" if row["cores"] else "cores not recorded"
        print(f"{row['code']} {row['system']}, {row['n_atoms']} atoms: {row['seconds_per_step']:g} s on {cores}; "
              f"{row['source']}")  # fmt: skip
    print(place / RECORDED)
    return EXIT_DONE


def _from_study(study: Path) -> tuple[Frames, dict[str, Any] | None]:
    """The frames that the potentials were timed on, and the reference method of their data set."""
    from mlpbench.frames import Frames
    from mlpbench.records import load_all

    record = next((r for r in load_all(study) if r["split"].get("directory")), None)
    if record is None:
        raise UserError(f"no trial of {study} has a split to take frames from")
    dataset, info = record["config"]["dataset"], record["split"].get("info") or {}
    speed = record["config"]["evaluation"].get("speed") or {}
    split = speed.get("split") or record["split"].get("in_distribution") or "valid"
    method = info.get("reference_method") or dataset.get("reference_method")
    return Frames.load(study / record["split"]["directory"] / f"{split}.npz"), method


def _from_dataset(name: str) -> tuple[Frames, dict[str, Any] | None]:
    """The data set's test split in distribution, else its first one."""
    from mlpbench import datasets
    from mlpbench.config import load_trial

    trial = load_trial([f"dataset={name}"])
    loaded = datasets.load(trial.dataset)
    tests = loaded.tests
    chosen = trial.dataset.in_distribution if trial.dataset.in_distribution in tests else next(iter(tests), None)
    frames: Frames = tests[chosen] if chosen is not None else loaded.pool
    return frames, loaded.info["reference_method"]


def _threads(text: str, usable: int) -> list[int]:
    counts: list[int] = []
    for part in text.split(","):
        if part != "all" and not (part.isdigit() and int(part) > 0):
            raise UserError(f"--threads={text}: '{part}' is not a positive number or 'all'", "E.g. --threads 1,all")
        number = usable if part == "all" else int(part)
        if number > usable:
            raise UserError(f"--threads={text}: this process may use {usable} cores only", "Give fewer, or 'all'.")
        if number not in counts:
            counts.append(number)
    return counts


def _summary(measured: dict[str, Any]) -> str:
    from mlpbench.evaluators.speed import median_interval

    middle, low, high = median_interval(measured["seconds"])
    lines = [
        f"{measured['version']}, {measured['level']}, {measured['threads']} thread(s) of "
        f"{measured['hardware'].get('cpu')}:",
        f"  {measured['system']}: {middle:.3g} s a frame ({low:.3g} to {high:.3g}), "
        f"cold {measured['cold_seconds']:.3g} s, start of the code {measured['start_seconds']:.3g} s",
    ]
    fit = measured["fit"]
    if fit is not None:
        ends = f" (95 % {fit['lower']:.2f} to {fit['upper']:.2f})" if "lower" in fit else " (two points: no interval)"
        lines.append(
            f"  {measured['series']['name']}: time grows as N^{fit['exponent']:.2f}{ends}, "
            f"{fit['smallest']:.0f} to {fit['largest']:.0f} atoms"
        )
    for point in (measured["series"] or {"points": []})["points"]:
        mesh = f", k-points {'×'.join(map(str, point['kpoints']))}" if "kpoints" in point else ""
        lines.append(f"    {point['n_atoms']} atoms{mesh}: {point['seconds']:.3g} s")
    if measured["conditions"]["notice"]:
        lines.append(f"  not a quiet machine: {measured['conditions']['notice']}")
    return "\n".join(lines)
