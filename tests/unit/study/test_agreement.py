"""Whatever a study is made of, select, decisions.csv, table, compare and the page say the same of it."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpbench import tables
from mlpbench.cli import main
from mlpbench.comparison import compare_studies
from mlpbench.decision import advice, parse_constraint, select
from mlpbench.errors import UserError
from mlpbench.report.sections import summary
from mlpbench.study.rows import setting_labels
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, Point, make_records, write_study

SPLIT = "test_500K"
GOALS = {words: name for name, words in summary.GOALS.items()}
SWEPT = st.sampled_from([
    [{}],
    [{"training.lr": 0.01}, {"training.lr": 0.003}],
    [{"architecture.cutoff": 4.0}, {"architecture.cutoff": 5.0}, {"architecture.cutoff": 6.0}],
    [{"architecture.cutoff": c, "training.lr": lr} for c in (4.0, 5.0) for lr in (0.01, 0.003)],
    [{"split_seed": s, "init_seed": i} for s in (0, 1) for i in (0, 1)],
])  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    plan = Plan(
        architectures=draw(st.sampled_from([("mace",), ("schnet", "mace"), ("painn", "nequip", "mace")])),
        sizes=draw(st.sampled_from([("small",), ("tiny", "small")])),
        n_train=draw(st.sampled_from([(50,), (50, 200), (25, 100, 400)])),
        repetitions=draw(st.integers(1, 3)), settings=draw(SWEPT), seed=draw(st.integers(0, 99)),
        noise=draw(st.sampled_from([0.03, 0.3])), troubles={}, restless=frozenset(), frames=False,
    )  # fmt: skip
    grid = product(plan.architectures, plan.sizes, plan.settings, plan.n_train, range(plan.repetitions))
    names = [Point(*place).trial for place in grid]
    fates = st.dictionaries(st.sampled_from(names), st.sampled_from(["missing", "failed", "timeout"]), max_size=6)
    plan.fates = draw(fates.filter(lambda found: len(found) < len(names)))
    return plan


def errors_of(record: dict[str, Any], split: str) -> float:
    return next(row["value"] for row in record["metrics"] if (row["metric"], row["split"]) == ("force_mae", split))


def chosen_by_hand(records: list[dict[str, Any]]) -> dict[tuple[str, str, int], set[tuple[float, float]]]:
    """(architecture, size, N) -> cutoff and learning rate of the setting that the rule of the choice allows."""
    found: dict[Any, dict[Any, dict[Any, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        names, config = record["identifiers"], record["config"]
        place = names["architecture"], names["size"], names["n_train"]
        seeds = names["repetition"], record["split"]["split_seed"], record["provenance"]["init_seed"]
        setting = found[place][config["architecture"]["cutoff"], config["training"]["lr"]]
        if record["status"] == "done":
            setting[seeds] = errors_of(record, "valid")
    result = {}
    for place, tried in found.items():
        done = {setting: errors for setting, errors in tried.items() if errors}
        if not done:
            result[place] = set(tried)
            continue
        common = set.intersection(*(set(errors) for errors in done.values()))
        means = {
            setting: np.mean([math.log(errors[r]) for r in (common or errors)]) for setting, errors in done.items()
        }
        result[place] = {min(means, key=lambda setting: means[setting])}
    return result


@settings(max_examples=20, deadline=None)
@given(plan=plans())
def test_all_say_the_same(plan: Plan) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advice, "overrides_of", _unknown)  # commands are not what is compared, and Hydra takes seconds
        _compare(plan)


def _unknown(*arguments: object, **named: object) -> None:
    raise UserError("not in this conf")


def _compare(plan: Plan) -> None:
    root = Path("nowhere") / "study"
    records = make_records(root, plan)
    study = Study("study", root, records)
    candidates = {(c.name, c.n_train): c for c in study.candidates}
    finished = any(record["status"] == "done" for record in records)
    assert candidates
    assert {(c.architecture, c.size, c.n_train) for c in study.candidates} == set(chosen_by_hand(records))
    if "split_seed" not in plan.settings[0]:
        for place, allowed in chosen_by_hand(records).items():
            (mine,) = (c for c in study.candidates if (c.architecture, c.size, c.n_train) == place)
            config = study.record[mine.trials[0]]["config"]
            assert (config["architecture"]["cutoff"], config["training"]["lr"]) in allowed

    # The page's first table, and the table in the terminal, have these candidates and one mean for each.
    frame = summary.summary_section(study).blocks[0].frame()  # type: ignore[union-attr]
    rows = frame.set_index(["Candidate", "n_train (frames)"]).to_dict("index")
    assert set(rows) == set(candidates)
    table = tables.settings_table(study, SPLIT, ["force_mae"]) if study.splits_of("ethanol") else pd.DataFrame()
    assert bool(len(table)) == finished
    if finished:
        marked = table[table["chosen"] == "*"] if "chosen" in table else table
        assert {(r["candidate"], r["n_train"]) for r in marked.to_dict("records")} == set(candidates)
        for row in marked.to_dict("records"):
            candidate = candidates[row["candidate"], row["n_train"]]
            assert row.get("setting", "") == candidate.setting.label
            on_page = rows[row["candidate"], row["n_train"]]
            assert on_page.get("Setting", "–") == (candidate.setting.label or "–")
            text = row["force_mae / meV/Å"].partition(" ")[0].replace("\u202f", "")
            mean = on_page.get("F MAE (meV/Å)", "–")
            assert (text == "") == (mean == "–")
            if text:
                assert float(text) == pytest.approx(mean, rel=0.12)  # rounded to the digits of its spread

    # The page's decisions are those of the command, and what a reader would work out from the first table.
    means = {key: row.get("F MAE (meV/Å)") for key, row in rows.items() if isinstance(row.get("F MAE (meV/Å)"), float)}
    answers = summary.decisions(study, "ethanol").frame().to_dict("records") if means else []
    assert bool(answers) == bool(means) == finished
    for answer in answers:
        asked, _, words = answer["Constraints and aim"].partition("; ")
        constraints = [] if asked == "no constraint" else [parse_constraint(asked.replace(" ≤ ", "="), "max")]
        chosen = select(Study("study", root, records), constraints, GOALS[words]).chosen
        assert answer["Take"] == ("none passes" if chosen is None else chosen.label)
        passing = {key: mean for key, mean in means.items() if not constraints or mean <= constraints[0].limit}
        assert (chosen is None) == (not passing)
        if chosen is not None:
            place = chosen.candidate.name, chosen.candidate.n_train
            assert place in passing
            assert chosen.candidate == candidates[place]
            if GOALS[words] == "accurate":
                assert means[place] == min(passing.values())
            if GOALS[words] == "fewest_labels":
                assert place[1] == min(n for _, n in passing)

    # A study against itself matches each trial, and calls its settings what the tables call them.
    if finished:
        found = compare_studies(study, Study("again", root, records), ["force_mae"])
        assert set(found.settings) == set(setting_labels(study.trials[study.trials["status"] == "done"]))
        assert {row.verdict for row in found.judged} == {"identical"}


def test_the_command_and_the_page_give_the_answer_that_was_shown_to_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cutoffs 4 and 5 at N = 50 and 200: the command answered N = 50 with its cutoff, the page N = 200 with none."""
    cutoffs = ({"architecture.cutoff": 4.0}, {"architecture.cutoff": 5.0})
    plan = Plan(architectures=("mace",), n_train=(50, 200), settings=cutoffs, troubles={})
    study = write_study(tmp_path / "results" / "cutoffs", plan)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "cutoffs"]) == 0
    decisions = pd.read_csv(tmp_path / "reports" / "cutoffs" / "tables" / "decisions-ethanol.csv")
    candidate = study.candidate("ethanol", "MACE", 50)
    assert candidate.setting.label.startswith("cutoff=")
    page = dict(zip(decisions["Constraints and aim"], decisions["Take"], strict=True))
    limit = max(int(question.split()[2].rstrip(";")) for question in page if question.endswith("fewest labels"))
    assert page[f"force_mae ≤ {limit}; fewest labels"] == candidate.label
    capsys.readouterr()
    assert main(["select", "cutoffs", "--max", f"force_mae={limit}", "--objective", "fewest_labels"]) == 0
    assert f"Take {candidate.label} (" in capsys.readouterr().out
    assert candidate.label in (tmp_path / "reports" / "cutoffs" / "index.html").read_text(encoding="utf-8")
    assert main(["table", "cutoffs", "--csv"]) == 0
    text = capsys.readouterr().out
    assert f"MACE,50,{candidate.setting.label},*," in text
