"""Prediction against reference, and how errors are distributed."""

from __future__ import annotations

import numpy as np

from mlpbench.frames import Float
from mlpbench.numbers import number
from mlpbench.report import facts
from mlpbench.report.drawing import INK, Look, canvas, legend, logarithmic, looks
from mlpbench.report.section import Block, Figure, Panel, Section, Text
from mlpbench.study.study import Study, select

ORDER = 40

POINTS = 4000  # force components drawn in a parity plot; a fixed random choice when there are more


def build(study: Study) -> Section | None:
    """Parity at the largest training size, and the distribution of errors over all its repetitions."""
    blocks: list[Block] = []
    missing: list[str] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        if split is None:
            continue
        n_train = study.largest(dataset)
        found = {c: _errors(study, dataset, c, n_train, split) for c in study.lines(dataset)}
        missing += [c for c, parts in found.items() if not parts]
        found = {c: parts for c, parts in found.items() if parts}
        if found:
            blocks += _figures(study, dataset, split, n_train, found)
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
    found = []
    for trial in trials["trial"]:
        errors = study.errors(trial, split)
        if errors is not None:
            frames = errors.frames
            entry = {"e": 1e3 * frames.target_energy / frames.n_atoms, "de": 1e3 * errors.per_atom}
            if errors.force is not None:
                entry |= {"f": 1e3 * frames.forces.ravel(), "df": 1e3 * errors.force.ravel()}
            found.append(entry)
    return found


def _figures(
    study: Study, dataset: str, split: str, n_train: int, found: dict[str, list[dict[str, Float]]]
) -> list[Block]:
    style = looks(study)
    shown = facts.split_words(study, dataset, split)
    with_forces = all("df" in parts[0] for parts in found.values())
    blocks: list[Block] = [
        Figure(
            f"Distribution of absolute errors on {shown}, {n_train} training frames, all repetitions "
            f"together: the share of "
            "values whose error is smaller than what the horizontal axis says. Further left is better; a "
            "curve that "
            "approaches 1 slowly has rare large errors.",
            [_distribution(dataset, kind, found, style) for kind in (("df", "de") if with_forces else ("de",))],
        )
    ]
    for kind, what in (("f", "force components, eV/Å"), ("e", "energy per atom less the baseline, meV/atom")):
        if kind == "f" and not with_forces:
            continue
        panels = [_parity(dataset, c, parts[0], kind, style[c]) for c, parts in found.items()]
        blocks.append(
            Figure(
                f"Prediction against reference on {shown}: {what}; {n_train} training frames, first "
                f"finished repetition"
                + (
                    f", {number(POINTS)} components drawn at random"
                    if kind == "f" and len(parts_of(found)) > POINTS
                    else ""
                )
                + ". The line is perfect agreement.",
                panels,
                small=True,
            )
        )
    return blocks


def parts_of(found: dict[str, list[dict[str, Float]]]) -> Float:
    """The force components of the first candidate's first repetition."""
    return next(iter(found.values()))[0]["f"]


def _distribution(dataset: str, kind: str, found: dict[str, list[dict[str, Float]]], style: dict[str, Look]) -> Panel:
    share = np.concatenate([np.linspace(0.005, 0.95, 60), np.linspace(0.955, 0.999, 20)])
    quantity, unit = ("force component", "meV/Å") if kind == "df" else ("energy", "meV/atom")
    with canvas() as (figure, axes):
        for candidate, parts in found.items():
            errors = np.abs(np.concatenate([part[kind] for part in parts]))
            look = style[candidate]
            axes.plot(
                np.quantile(errors, share),
                share,
                color=look.color,
                linestyle=look.dash,
                label=candidate,
                marker=look.marker,
                markevery=(list(found).index(candidate) * 3, 14),
                markersize=4.5,
            )
        logarithmic(axes, "x")
        axes.set_ylim(0, 1.01)
        axes.set_xlabel(f"|error| of the {quantity} ({unit})")
        axes.set_ylabel("share with a smaller error")
        legend(axes)
    alt = f"Cumulative distribution of the absolute {quantity} error in {unit} for {', '.join(found)}."
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
