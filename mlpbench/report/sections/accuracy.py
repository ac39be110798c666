"""Accuracy in detail: predictions beside the reference, errors by element, and the frames that are predicted worst."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlpbench.frames import Float
from mlpbench.numbers import listing, number
from mlpbench.report import facts
from mlpbench.report.drawing import INK, Look, canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, Text, mean_cell, trivial_cell
from mlpbench.study.study import Errors, Study, select

CHAPTERS = {"parity": 40, "elements": 50, "outliers": 57}


POINTS = 4000  # force components drawn in a parity plot; a fixed random choice when there are more


def parity_section(study: Study) -> Section | None:
    """Parity at the largest training size, and the distribution of errors over all its repetitions."""
    blocks: list[Block] = []
    missing: list[str] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        if split is None:
            continue
        n_train = study.largest(dataset)
        errors = {c: _errors(study, dataset, c, n_train, split) for c in study.lines(dataset)}
        missing += [c for c, parts in errors.items() if not parts]
        errors = {c: parts for c, parts in errors.items() if parts}
        if errors:
            blocks += _figures(study, dataset, split, n_train, errors)
    if not blocks:
        return None
    if missing:
        blocks.append(Text(f"Without predictions, and so not drawn: {', '.join(sorted(set(missing)))}.", role="note"))
    return Section("parity", "Parity and error distributions", "", blocks)


def _errors(study: Study, dataset: str, candidate: str, n_train: int, split: str) -> list[dict[str, Float]]:
    """meV/atom and meV/Å of each repetition: reference and prediction, in order of the repetitions."""
    trials = select(study.table, dataset=dataset, candidate=candidate, n_train=n_train, status="done").sort_values(
        "repetition"
    )
    repetitions = []
    for trial in trials["trial"]:
        errors = study.errors(trial, split)
        if errors is not None:
            frames = errors.frames
            entry = {"e": 1e3 * frames.target_energy / frames.n_atoms, "de": 1e3 * errors.per_atom}
            if errors.force is not None:
                known = ~frames.held
                entry |= {"f": 1e3 * frames.known_forces, "df": 1e3 * errors.force[known].ravel()}
            repetitions.append(entry)
    return repetitions


def _figures(
    study: Study, dataset: str, split: str, n_train: int, errors: dict[str, list[dict[str, Float]]]
) -> list[Block]:
    style = looks(study)
    shown = facts.split_words(study, dataset, split)
    with_forces = all("df" in parts[0] for parts in errors.values())
    blocks: list[Block] = [
        Figure(
            f"Distribution of absolute errors on {shown}, {n_train} training frames, all repetitions "
            f"together: the share of "
            "values whose error is smaller than what the horizontal axis says. Further left is better; a "
            "curve that "
            "approaches 1 slowly has rare large errors.",
            [_distribution(dataset, kind, errors, style) for kind in (("df", "de") if with_forces else ("de",))],
        )
    ]
    for kind, what in (("f", "force components, eV/Å"), ("e", "energy per atom less the baseline, meV/atom")):
        if kind == "f" and not with_forces:
            continue
        panels = [_parity(dataset, c, parts[0], kind, style[c]) for c, parts in errors.items()]
        blocks.append(
            Figure(
                f"Prediction against reference on {shown}: {what}; {n_train} training frames, first "
                f"finished repetition"
                + (
                    f", {number(POINTS)} components drawn at random"
                    if kind == "f" and len(parts_of(errors)) > POINTS
                    else ""
                )
                + ". The line is perfect agreement.",
                panels,
                small=True,
            )
        )
    return blocks


def parts_of(by_candidate: dict[str, list[dict[str, Float]]]) -> Float:
    """The force components of the first candidate's first repetition."""
    return next(iter(by_candidate.values()))[0]["f"]


def _distribution(
    dataset: str, kind: str, by_candidate: dict[str, list[dict[str, Float]]], style: dict[str, Look]
) -> Panel:
    share = np.concatenate([np.linspace(0.005, 0.95, 60), np.linspace(0.955, 0.999, 20)])
    quantity, unit = ("force component", "meV/Å") if kind == "df" else ("energy", "meV/atom")
    with canvas() as (figure, axes):
        for candidate, parts in by_candidate.items():
            errors = np.abs(np.concatenate([part[kind] for part in parts]))
            look = style[candidate]
            axes.plot(
                np.quantile(errors, share),
                share,
                color=look.color,
                linestyle=look.dash,
                label=candidate,
                marker=look.marker,
                markevery=(list(by_candidate).index(candidate) * 3, 14),
                markersize=4.5,
            )
        logarithmic(axes, "x")
        axes.set_ylim(0, 1.01)
        axes.set_xlabel(f"|error| of the {quantity} ({unit})")
        axes.set_ylabel("share with a smaller error")
        legend(axes)
    alt = f"Cumulative distribution of the absolute {quantity} error in {unit} for {', '.join(by_candidate)}."
    return Panel(f"distribution-{dataset}-{kind}", figure, alt)


def _parity(dataset: str, candidate: str, part: dict[str, Float], kind: str, look: Look) -> Panel:
    scale = 1e-3 if kind == "f" else 1.0
    reference, error = part[kind] * scale, part[f"d{kind}"] * scale
    drawn = np.random.default_rng(0).permutation(len(reference))[:POINTS]
    ends = np.array([min(reference.min(), (reference + error).min()), max(reference.max(), (reference + error).max())])
    unit = "eV/Å" if kind == "f" else "meV/atom"
    mae = f"MAE {number(float(np.abs(part[f'd{kind}']).mean()))} {'meV/Å' if kind == 'f' else 'meV/atom'}"
    with canvas(2.7, 2.55) as (figure, axes):
        axes.plot(ends, ends, color=INK, linewidth=0.7)
        # One picture in place of thousands of vector points; its colour cannot change with the page, so it
        # is mid-tone.
        axes.scatter(
            reference[drawn],
            (reference + error)[drawn],
            s=4,
            color=look.color,
            alpha=0.45,
            linewidths=0,
            rasterized=True,
        )
        axes.set_xlabel(f"reference ({unit})")
        axes.set_ylabel(f"prediction ({unit})")
        axes.set_title(mae)
        axes.set_aspect("equal", adjustable="datalim")
        axes.locator_params(nbins=4)
    what = "force components" if kind == "f" else "energies per atom"
    alt = f"Predicted against reference {what} of {candidate}; {mae}."
    return Panel(f"parity-{dataset}-{kind}-{_slug(candidate)}", figure, alt, candidate)


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".=" else "-" for c in text.lower())


PREFIX = "force_mae_"


def elements_section(study: Study) -> Section | None:
    """A figure and a table for each data set with per-element errors."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        present = study.metrics_of(dataset, split) if split is not None else set()
        elements = sorted(m.removeprefix(PREFIX) for m in present if m.startswith(PREFIX))
        if split is not None and elements:
            blocks += _blocks(study, dataset, split, elements, study.largest(dataset))
    return Section("elements", "Force error by element", "", blocks) if blocks else None


def _blocks(study: Study, dataset: str, split: str, elements: list[str], n_train: int) -> list[Block]:
    tables = {element: cells(study, dataset, PREFIX + element, split) for element in elements}
    names = [c for c in study.lines(dataset) if any((c, n_train) in table for table in tables.values())]
    style = looks(study)
    width = 0.8 / max(len(names), 1)
    with canvas(5.2, 3.0) as (figure, axes):
        for index, candidate in enumerate(names):
            shift = width * (index - (len(names) - 1) / 2)
            means_at = {i + shift: tables[e].get((candidate, n_train)) for i, e in enumerate(elements)}
            means = {x: mean for x, mean in means_at.items() if mean is not None}
            series(axes, list(means), list(means.values()), style[candidate], candidate, line=0)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(elements)), elements)
        axes.set_ylabel("F MAE (meV/Å)")
        axes.grid(visible=False, axis="x")
        legend(axes)
    where = facts.split_words(study, dataset, split)
    words = f"on {where}, {n_train} training frames; {facts.mean_words(study, dataset, n_train)}, 95 % interval."
    errors = facts.trivial_errors(study, dataset, split)
    trivial = [errors.get(PREFIX + e) for e in elements]
    rows = [
        [
            Cell(c),
            *(
                mean_cell(tables[e].get((c, n_train)), trivial=bound and bound[0])
                for e, bound in zip(elements, trivial, strict=True)
            ),
        ]
        for c in names
    ]
    if any(trivial):
        rows.append([Cell(facts.TRIVIAL), *map(trivial_cell, trivial)])
        words += f" {facts.TRIVIAL_WORDS}"
    columns = [Column("Candidate", numeric=False), *(Column(f"F MAE on {e}", "meV/Å") for e in elements)]
    alt = f"Force MAE on {', '.join(elements)} for {', '.join(names)}; numbers in the table below."
    return [
        Figure(f"Force error by element {words}", [Panel(f"elements-{dataset}", figure, alt)]),
        Table(f"elements-{dataset}", f"Force error by element, {dataset}, {words}", columns, rows),
    ]


WORST = 10  # frames listed for each data set
TAIL = 0.05  # a frame counts as hard for a candidate when it is among its worst 5 %


def outliers_section(study: Study) -> Section | None:
    """One table for each data set whose predictions are at hand."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        rows = [row for split in study.test_splits(dataset) for row in _split(study, dataset, split)]
        if rows:
            blocks.append(_table(dataset, rows))
    if not blocks:
        return None
    return Section("outliers", "Hardest frames", "Which structures do the potentials get wrong?", blocks)


def _split(study: Study, dataset: str, split: str) -> list[dict[str, Any]]:
    """One entry for each frame: its error for each candidate, averaged over repetitions at the largest
    n_train.
    """
    done = select(study.table, dataset=dataset, status="done")
    errors: dict[str, Float] = {}
    energies: dict[str, Float] = {}
    for candidate in study.lines(dataset):
        trials = select(done, candidate=candidate, n_train=done["n_train"].max())
        known = [e for e in (study.errors(t, split) for t in trials["trial"]) if e is not None]
        if known:
            errors[candidate] = np.mean([_per_frame(e) for e in known], axis=0)
            energies[candidate] = np.mean([1e3 * np.abs(e.per_atom) for e in known], axis=0)
    if not errors:
        return []
    table = pd.DataFrame(errors)
    hard = table >= table.quantile(1 - TAIL)
    relative = table / table.median()
    return [
        {
            "split": split, "frame": int(index), "relative": float(relative.loc[index].mean()),
            "hard": [str(c) for c in table.columns if hard.loc[index, c]],
            "error": {str(c): float(table.loc[index, c]) for c in table.columns},
            "energy": float(np.mean([values[index] for values in energies.values()])),
        }
        for index in table.index
    ]  # fmt: skip


def _per_frame(errors: Errors) -> Float:
    """(F,) meV/Å, mean |ΔF| over the components of each frame; meV/atom where there are no forces."""
    force = errors.force
    if force is None:
        return 1e3 * np.abs(errors.per_atom)
    known, count = ~errors.frames.held, len(errors.frames)
    owner = errors.frames.frame_of_atom[known]
    sums = np.bincount(owner, np.abs(force[known]).sum(axis=1), minlength=count)
    return np.asarray(1e3 * sums / np.maximum(3 * np.bincount(owner, minlength=count), 1), dtype=np.float64)


def _table(dataset: str, rows: list[dict[str, Any]]) -> Table:
    worst = sorted(rows, key=lambda row: -row["relative"])[:WORST]
    names = list(worst[0]["error"])
    columns = [
        Column("Split", numeric=False), Column("Frame", "", "index in the split's file, from 0"),
        Column("Times the median", "", "error over the split's median error, mean over candidates"),
        *(Column(f"{name}", "meV/Å", "mean |ΔF| of the frame, mean over repetitions") for name in names),
        Column("|ΔE|", "meV/atom", "mean over candidates"),
        Column("Hard for", "", "candidates for which it is among the worst 5 % of its split", numeric=False),
    ]  # fmt: skip
    cells = [
        [Cell(r["split"]), Cell(str(r["frame"]), r["frame"]), Cell(f"{r['relative']:.1f}", r["relative"]),
         *(Cell(number(r["error"][n]), r["error"][n]) for n in names), Cell(number(r["energy"]), r["energy"]),
         Cell("all" if len(r["hard"]) == len(names) > 1 else listing(r["hard"]) or "–")]
        for r in worst
    ]  # fmt: skip
    caption = (
        f"The {len(worst)} frames of {dataset} with the largest error relative to the median of their "
        f"split, at the largest "
        "training size. A frame that is hard for all deserves a look at its label."
    )
    return Table(f"outliers-{dataset}", caption, columns, cells, headers=2)
