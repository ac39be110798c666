"""The error on the potential's own trajectory beside the test error, and on the last frames before a death."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpbench.evaluators.md import LAST, OWN
from mlpbench.metrics import metric
from mlpbench.numbers import listing, number
from mlpbench.report.drawing import FAINT, canvas, legend, logarithmic, looks, word_beside
from mlpbench.report.dynamics import WORDS, scores_of, trials_with_md
from mlpbench.report.estimates import geometric
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Table
from mlpbench.study.study import Study, select

NOTABLE = 1.3  # own error over test error that a finding names; frames of one trajectory scatter by about as much


def own_blocks(study: Study, dataset: str) -> list[Block]:
    """A table and a figure: error on test frames, on the own trajectory, before a death."""
    test = str(study.in_distribution(dataset))
    labelled = _labelled(study, dataset)
    if not labelled:
        return []
    rows, points = [], []
    for n_train in sorted({n for _, n in labelled}):
        for candidate in (c for c in study.lines(dataset) if (c, n_train) in labelled):
            frames = labelled[candidate, n_train]
            usual = select(study.part(dataset, "force_mae", test), candidate=candidate, n_train=n_train)["value"]
            error = geometric(usual)
            own, last = _errors(frames, OWN), _errors(frames, LAST)
            energy = _errors(frames, OWN, "energy_error_meV_per_atom")
            rows.append([
                Cell(candidate), Cell(str(n_train), n_train), Cell(number(error), error), _cell(own),
                Cell("–") if not own else Cell(number(np.mean(own) / error), float(np.mean(own) / error)),
                _cell(energy), _cell(last),
            ])  # fmt: skip
            points.append((candidate, n_train, error, own, last))
    columns = [
        Column("Candidate", numeric=False), Column("Training frames"),
        Column(f"F MAE, {test}", "meV/Å", "Force MAE on the test split."),
        Column("F MAE, own MD", "meV/Å", metric("own_trajectory_force_mae").description),
        Column("own / test", "", "Above 1, the simulation goes where the potential knows less than on the test split."),
        Column("E MAE, own MD", "meV/atom", metric("own_trajectory_energy_mae").description),
        Column("F MAE before death", "meV/Å", metric("death_force_mae").description),
    ]  # fmt: skip
    caption = (
        f"The error that a simulation of {dataset} suffers: frames of each potential's own trajectory, labelled by the "
        "reference method (small print: how many frames, and their range)."
    )
    return [_figure(study, dataset, test, points), Table(f"own-{dataset}", caption, columns, rows, headers=2)]


def own_finding(study: Study, dataset: str, n_train: int) -> str:
    """Whose simulations go where the test error no longer holds; empty where nothing was labelled."""
    test = str(study.in_distribution(dataset))
    ratios: dict[str, float] = {}
    for (candidate, n), frames in _labelled(study, dataset).items():
        usual = select(study.part(dataset, "force_mae", test), candidate=candidate, n_train=n)["value"]
        own = _errors(frames, OWN)
        if n == n_train and own and len(usual):
            ratios[candidate] = float(np.mean(own)) / geometric(usual)
    if not ratios:
        return ""
    worse = [f"{candidate} has {number(ratio)} times" for candidate, ratio in ratios.items() if ratio > NOTABLE]
    if worse:
        return f"On its own trajectory {listing(worse)} its error on {test}."
    most = number(max(ratios.values()))
    return f"On their own trajectories no candidate has more than {most} times its error on {test}."


def death_table(study: Study, dataset: str) -> Table | None:
    """Single deaths that the reference method has looked at: the bond, and which way the forces pulled it."""
    rows = []
    for (candidate, n_train), frames in _labelled(study, dataset).items():
        for one in (f for f in frames if f["kind"] == LAST):
            ours, theirs = one.get("pull_eV_per_A"), one.get("reference_pull_eV_per_A")
            rows.append([
                Cell(candidate), Cell(str(n_train), n_train), Cell(f"{one['run']}, {one['replica']}"),
                Cell(number(one["time_ps"]), one["time_ps"]), Cell(_end(one)),
                Cell(number(one["force_mae_meV_per_A"]), one["force_mae_meV_per_A"]),
                *(Cell("–") if x is None else Cell(f"{x:+.2f}", x) for x in (ours, theirs)),
            ])  # fmt: skip
    if not rows:
        return None
    columns = [
        Column("Candidate", numeric=False), Column("Training frames"), Column("Run, replica", numeric=False),
        Column("Last sound frame", "ps"), Column("In the next frame", numeric=False),
        Column("F MAE", "meV/Å", "On the last sound frame, over all components."),
        Column("Pull, potential", "eV/Å", "Half the difference of the two atoms' forces along the line between them: "
               "above zero they are drawn together."),
        Column("Pull, reference", "eV/Å", "The same from the reference method's forces."),
    ]  # fmt: skip
    caption = (
        f"A second look at deaths of {dataset}: the reference method on the last sound frame. Where the reference "
        "pulls a long bond together, or pushes two close atoms apart, and the potential does not, the fault is the "
        "potential's."
    )
    return Table(f"second-look-{dataset}", caption, columns, rows, headers=2)


def _end(one: dict[str, Any]) -> str:
    """``bond broken, C0–H7 1.61 Å``."""
    atoms = str(one["detail"]).partition(",")[0]
    cause = WORDS.get(one["cause"], one["cause"])
    return f"{cause}, {atoms}" if atoms else cause


def _labelled(study: Study, dataset: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(candidate, n_train) -> labelled frames of all repetitions."""
    labels: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for candidate, n_train, trial in trials_with_md(study, dataset):
        frames = (scores_of(study, trial).get("own_trajectory") or {}).get("labelled") or []
        if frames:
            labels.setdefault((candidate, n_train), []).extend(frames)
    return labels


def _errors(frames: list[dict[str, Any]], kind: str, name: str = "force_mae_meV_per_A") -> list[float]:
    return [float(one[name]) for one in frames if one["kind"] == kind]


def _cell(errors: list[float]) -> Cell:
    if not errors:
        return Cell("–")
    mean = float(np.mean(errors))
    detail = f"{len(errors)}: {number(min(errors))}–{number(max(errors))}" if len(errors) > 1 else "1"
    return Cell(number(mean), mean, detail)


def _figure(
    study: Study, dataset: str, test: str, points: list[tuple[str, int, float, list[float], list[float]]]
) -> Figure:
    style = looks(study)
    with canvas(5.0, 3.6) as (figure, axes):
        seen: set[str] = set()
        for candidate, n_train, error, own, last in points:
            look = style[candidate]
            for errors, marker, fill in ((own, look.marker, look.color), (last, "x", look.color)):
                if not errors:
                    continue
                label = candidate if marker != "x" and candidate not in seen else None
                seen |= {candidate} if label else set()
                axes.plot([error] * len(errors), errors, marker, color=fill, markersize=3.5, alpha=0.55, label=label)
            if own:
                word_beside(axes, str(n_train), error, float(np.median(own)), size=7)
        logarithmic(axes, "xy")
        low, high = (f(axes.get_xlim() + axes.get_ylim()) for f in (min, max))
        limits = axes.get_xlim(), axes.get_ylim()
        axes.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=0)
        axes.set(xlim=limits[0], ylim=limits[1])
        axes.set_xlabel(f"force MAE on {test} (meV/Å)")
        axes.set_ylabel("force MAE of a frame of its own MD (meV/Å)")
        legend(axes)
    caption = (
        f"Each symbol is one frame of {dataset} that a potential's own MD went through, labelled by the reference "
        "method; crosses are last sound frames before a death. On the grey line the simulation is as wrong as the "
        "test split says. Numbers: training frames."
    )
    alt = "Force errors on the own trajectory against the test error; means in the table below."
    return Figure(caption, [Panel(f"own-{dataset}", figure, alt)])
