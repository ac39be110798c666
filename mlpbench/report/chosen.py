"""Frames that were chosen, as pictures with the disagreement of each atom; and explorations, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.io import read
from matplotlib import colormaps
from matplotlib.axes import Axes

from mlpbench.acquisition.exploring import RoundManifest, read_round
from mlpbench.evaluators.md.fates import bonds_of
from mlpbench.frames import Float
from mlpbench.numbers import listing, number, seconds
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.report import acquiring
from mlpbench.report.drawing import INK, canvas
from mlpbench.report.dynamics import WORDS
from mlpbench.report.section import Cell, Column, Figure, Panel, Table
from mlpbench.study.explored import ASKED, FOLDER
from mlpbench.study.study import Study, remembered, rows_of, select

SHOWN = 4  # pictures
LARGEST = 200  # atoms of a structure that a picture is of use for
SHADES = colormaps["YlOrRd"]
BOND_FACTOR = 1.3  # times the covalent radii, as evaluation.md.limits has it


@dataclass(frozen=True)
class Found:
    """A round of an exploration.

    Attributes:
        manifest: what it found and chose.
        labelled: frames that got a label; None: not labelled yet.
        seconds: wall time of these labels' calculations.
        structures: that were chosen.
    """

    manifest: RoundManifest
    labelled: int | None
    seconds: float
    structures: list[Atoms]


@remembered
def explorations(study: Study) -> dict[str, list[Found]]:
    """Data set -> the rounds of the exploration that made it."""
    result = {}
    for path in sorted(study.root.glob(f"{FOLDER}*/{ASKED}")):
        rounds: list[Found] = []
        while (manifest := read_round(path.parent / f"round-{len(rounds) + 1}")) is not None:
            folder = path.parent / f"round-{len(rounds) + 1}"
            labels = _labels(folder)
            there = folder / "chosen.xyz"
            structures = list(read(there, ":")) if there.is_file() else []
            rounds.append(Found(manifest, labels.get("labelled"), float(labels.get("seconds") or 0), structures))
        if rounds:
            result[str(read_json(path)["dataset"])] = rounds
    return result


def _labels(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "labels.json")
    except (FileNotFoundError, ProtocolError):
        return {}


def exploration_table(study: Study, dataset: str, rounds: Sequence[Found]) -> Table:
    """One row for each round: what dynamics found, what was thrown away and why, what was labelled, and the errors
    with which it began.
    """
    splits = [split for split in study.test_splits(dataset)] if dataset in study.datasets else []
    name = study.headline(dataset) if splits else ""
    done = select(study.table, dataset=dataset, status="done")
    trials = {int(row["n_train"]): str(row["trial"]) for row in rows_of(done)}
    labels, rows = min(trials, default=0), []
    for one in rounds:
        counts, low, high = one.manifest.counts, *one.manifest.levels
        died = [f"{n} {WORDS.get(cause, cause)}" for cause, n in one.manifest.deaths.items()]
        rows.append([
            Cell(str(one.manifest.round), one.manifest.round), Cell(str(labels), labels),
            *_errors(study, trials.get(labels), name, splits),
            Cell(str(counts["frames"]), counts["frames"]),
            Cell(str(counts["collapsed"]), counts["collapsed"], listing(died) if died else ""),
            *(Cell(str(counts[key]), counts[key]) for key in ("accurate", "candidates", "failed")),
            Cell(f"{low:.2g}–{high:.2g}", low), Cell(str(counts["candidates"] - counts["distinct"])),
            Cell("–" if one.labelled is None else str(one.labelled), one.labelled, f"of {len(one.manifest.chosen)}"),
            Cell(seconds(one.seconds), one.seconds),
        ])  # fmt: skip
        labels += one.labelled or 0
    if labels in trials:
        last = [Cell("after"), Cell(str(labels), labels), *_errors(study, trials[labels], name, splits)]
        rows.append([*last, *[Cell("–")] * 9])
    columns = [
        Column("Round", numeric=False), Column("Labels", "frames", "training frames at its start"),
        *(Column(split, "meV/Å", f"{name} of the simulated potential") for split in splits),
        Column("Frames", "", "that dynamics made"),
        Column("Collapsed", "frames", "after the collapse of their replica, thrown away; in small print of what"),
        Column("Accurate", "frames", "below the lower trust level"), Column("Candidates", "frames", "between both"),
        Column("Too wrong", "frames", "above the upper trust level"),
        Column("Trust levels", "eV/Å", "largest deviation of an atom's force over the committee, root mean square"),
        Column("Near-copies", "frames", "candidates left out, by their fingerprints"),
        Column("Labelled", "frames"), Column("Price", "s", "wall time of these labels when they were computed"),
    ]  # fmt: skip
    caption = f"Exploration of {dataset}: what the dynamics of each round found, and what was labelled."
    return Table(f"exploration-{dataset}", caption, columns, rows)


def _errors(study: Study, trial: str | None, name: str, splits: Sequence[str]) -> list[Cell]:
    values = [None if trial is None else study.scores[trial].get((name, split)) for split in splits]
    return [Cell("–") if value is None else Cell(number(value), value) for value in values]


# --- pictures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A chosen frame.

    Attributes:
        atoms: the structure.
        shares: (N,) eV/Å, how far the committee's forces on each atom lie apart.
        title: where it comes from.
    """

    atoms: Atoms
    shares: Float
    title: str


def pictures(study: Study, dataset: str) -> list[Picture]:
    """The frames of largest disagreement on one atom, of the newest round that knows it by atom."""
    rounds = explorations(study).get(dataset)
    if rounds:
        last = next((one for one in reversed(rounds) if one.structures), None)
        pairs = zip(last.structures, last.manifest.chosen, strict=True) if last else []
        shown = [
            Picture(atoms, np.array(said["atom_deviations_eV_A"]),
                    f"round {last.manifest.round}, {said['temperature_K']:g} K" if last else "")
            for atoms, said in pairs
        ]  # fmt: skip
    else:
        shown = _replayed(study, dataset)
    shown = [one for one in shown if len(one.atoms) <= LARGEST]
    return sorted(shown, key=lambda one: -float(one.shares.max()))[:SHOWN]


def _replayed(study: Study, dataset: str) -> list[Picture]:
    """Frames that committees chose in their last round."""
    shown = []
    for series in acquiring.series_of(study, dataset):
        for repetition, trials in series.trials.items():
            known = [m for m in acquiring.manifests(study, series.kind, repetition) if "atom_disagreement" in m.facts]
            last = known[-1] if known else None
            frames = study.frames(trials[len(last.train)], "train") if last and len(last.train) in trials else None
            if last is None or frames is None:
                continue
            for place, shares in zip(range(len(last.train) - len(last.chosen), len(last.train)),
                                     last.facts["atom_disagreement"], strict=True):  # fmt: skip
                title = f"{series.title}, {len(last.train)} labels, repetition {repetition}"
                shown.append(Picture(frames.select([place]).to_atoms()[0], np.array(shares), title))
    return shown


def pictures_figure(dataset: str, shown: Sequence[Picture]) -> Figure:
    """A small picture of each frame."""
    top = max(float(one.shares.max()) for one in shown)
    panels = []
    for index, one in enumerate(shown):
        with canvas(2.6, 2.5) as (figure, axes):
            _draw(axes, one, top)
        worst = int(np.argmax(one.shares))
        symbol = chemical_symbols[one.atoms.numbers[worst]]
        alt = (
            f"{one.atoms.get_chemical_formula()}, {one.title}: the committee disagrees most on atom {symbol}{worst}, "
            f"by {one.shares[worst]:.2g} eV/Å; median over atoms {np.median(one.shares):.2g} eV/Å."
        )
        panels.append(Panel(f"chosen-{dataset}-{index}", figure, alt,
                            f"{one.title}: {symbol}{worst} {one.shares[worst]:.2g} eV/Å"))  # fmt: skip
    caption = (
        f"Frames of {dataset} that were chosen, those of the largest disagreement on one atom. The colour of an atom "
        f"is how far the committee's forces on it lie apart, from 0 (pale) to {top:.2g} eV/Å (dark red); its number "
        "counts from 0, as in ASE. Seen along the axis of least extent."
    )
    return Figure(caption, panels, small=True)


def _draw(axes: Axes, one: Picture, top: float) -> None:
    """Atoms as discs on the plane of largest extent, the nearer ones in front; bonds as lines."""
    positions = one.atoms.positions - one.atoms.positions.mean(axis=0)
    _, _, turn = np.linalg.svd(positions, full_matrices=False)
    flat = positions @ turn.T if len(positions) > 2 else positions
    depth = np.argsort(flat[:, 2], kind="stable") if flat.shape[1] > 2 else np.arange(len(flat))
    for i, j in bonds_of(one.atoms.positions, one.atoms.numbers, BOND_FACTOR):
        axes.plot(flat[[i, j], 0], flat[[i, j], 1], color=INK, linewidth=1.6, zorder=1, alpha=0.55)
    names = len(flat) <= 30
    for rank, i in enumerate(depth.tolist()):
        radius = 0.42 * covalent_radii[one.atoms.numbers[i]] + 0.12
        shade = float(one.shares[i]) / top
        disc = axes.add_patch(_disc(flat[i, :2], radius, SHADES(shade)))
        disc.set_zorder(2 + rank)
        if names:
            axes.text(flat[i, 0], flat[i, 1], f"{chemical_symbols[one.atoms.numbers[i]]}{i}", ha="center", va="center",
                      fontsize=6.5, color="white" if shade > 0.6 else "#222222", zorder=2.5 + rank)  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlim(flat[:, 0].min() - 0.8, flat[:, 0].max() + 0.8)
    axes.set_ylim(flat[:, 1].min() - 0.8, flat[:, 1].max() + 0.8)
    axes.axis("off")


def _disc(centre: Float, radius: float, colour: Any) -> Any:
    from matplotlib.patches import Circle

    return Circle((float(centre[0]), float(centre[1])), radius, facecolor=colour, edgecolor="#444444", linewidth=0.6)
