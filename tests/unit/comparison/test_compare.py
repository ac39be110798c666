"""Two made-up studies side by side, the second changed in known ways."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.cli import main
from mlpbench.comparison import StudyComparison, compare_studies, describe
from mlpbench.errors import UserError
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records

Record = dict[str, Any]
SMALL = Plan(architectures=("schnet", "mace"), n_train=(50, 200), repetitions=5, predictions=False, troubles={})


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return make_records(tmp_path_factory.mktemp("study") / "before", SMALL)


def changed(records: list[Record], change: Callable[[Record], None] = lambda record: None) -> list[Record]:
    """Copies of the records, each changed."""
    mine = copy.deepcopy(records)
    for record in mine:
        change(record)
    return mine


def side(name: str, records: list[Record], change: Callable[[Record], None] = lambda record: None) -> Study:
    return Study(name, Path("nowhere"), changed(records, change))


def scale(record: Record, name: str, factor: float, noise: float = 0.01) -> None:
    rng = np.random.default_rng(zlib.crc32(f"{record['trial']} {name}".encode()))
    for row in record["metrics"]:
        if row["metric"] == name:
            row["value"] *= factor * np.exp(noise * rng.standard_normal())


def verdicts(found: StudyComparison, metric: str) -> dict[str, str]:
    return {row.setting: row.verdict for row in found.judged if row.metric == metric}


def test_a_study_against_itself_is_identical(records: list[Record]) -> None:
    found = compare_studies(side("a", records), side("b", records))
    assert found.matched == found.same_potential == found.same_training == 20
    assert found.changes == ()
    assert {row.verdict for row in found.judged} == {"identical"}
    assert "What differs between matched trials:\n  nothing" in describe(found)


def test_an_upgrade_that_makes_one_architecture_worse(records: list[Record]) -> None:
    def upgrade(record: Record) -> None:
        if record["identifiers"]["architecture"] == "mace":
            record["provenance"]["backend"]["versions"]["torch"] = "2.14.0"
            record["provenance"]["backend"]["lock"] = "ef" * 32
        record["config"]["budget"]["steps"] = 4000
        record["key"] = "other"
        scale(record, "force_mae", 1.2 if record["identifiers"]["architecture"] == "mace" else 1.0)

    found = compare_studies(side("old", records), side("new", records, upgrade), ["force_mae"])
    changes = {(c.kind, c.what): (c.before, c.after, c.where) for c in found.changes}
    assert changes["configuration", "budget.steps"] == ("2000", "4000", "")
    assert changes["package", "torch"] == ("2.13.0", "2.14.0", "mace")
    assert changes["environment", "lock of the environment"] == ("cdcdcdcdcdcd", "efefefefefef", "mace")
    said = verdicts(found, "force_mae")
    assert said["MACE, N = 50"] == said["MACE, N = 200"] == said["MACE, all settings"] == "worse"
    assert said["SchNet, all settings"] == "tie"
    mace = next(row for row in found.judged if row.setting == "MACE, all settings")
    assert mace.lower < 1.2 < mace.upper
    # 1 % may be told from nothing by five repetitions, but lies inside the margin: no regression.
    assert {row.setting.partition(",")[0] for row in found.regressions} == {"all settings", "MACE"}
    assert "force_mae worse over all settings (settings: 3 worse, 1 tie)" in found.headline


def test_errors_on_other_frames_are_not_judged(records: list[Record]) -> None:
    def other(record: Record) -> None:
        record["split"]["digest"] = "12" * 32  # and no manifest to tell which frames these are

    found = compare_studies(side("a", records), side("b", records, other))
    assert set(verdicts(found, "force_mae").values()) == {"identical"}  # the same number needs no judgement
    found = compare_studies(side("a", records), side("b", records, lambda r: (other(r), scale(r, "force_mae", 2.0))[0]))
    assert set(verdicts(found, "force_mae").values()) == {"other frames"}
    assert found.regressions == []
    assert "OTHER test frames" in describe(found)
    assert any(change.kind == "data" for change in found.changes)


def test_times_on_other_hardware_are_not_judged(records: list[Record]) -> None:
    def move(record: Record) -> None:
        record["provenance"]["hardware"]["cpu"] = "Other CPU"
        scale(record, "train_seconds", 3.0)

    found = compare_studies(side("a", records), side("b", records, move), ["train_seconds"])
    assert set(verdicts(found, "train_seconds").values()) == {"other hardware"}
    assert ("hardware", "cpu") in {(change.kind, change.what) for change in found.changes}


def test_one_repetition_and_lost_trials_are_said(records: list[Record]) -> None:
    one = [record for record in records if record["identifiers"]["repetition"] == 0]
    found = compare_studies(side("a", one), side("b", one, lambda r: scale(r, "force_mae", 1.3)), ["force_mae"])
    assert set(verdicts(found, "force_mae").values()) == {"one repetition"}

    def fail(record: Record) -> None:
        if record["trial"] == records[0]["trial"]:
            record.update(status="failed", reason="out of luck", metrics=[])

    lost = compare_studies(side("a", records), side("b", records, fail))
    assert lost.matched == 19
    assert "out of luck" in lost.lost[0]


def test_swept_settings_match_and_constant_ones_are_changes(records: list[Record]) -> None:
    def rate(value: float) -> Callable[[Record], None]:
        def change(record: Record) -> None:
            record["config"]["training"]["lr"] = value

        return change

    found = compare_studies(side("a", records, rate(0.01)), side("b", records, rate(0.02)))
    assert ("training.lr", "0.01", "0.02") in {(c.what, c.before, c.after) for c in found.changes}
    both = [*changed(records, rate(0.01)), *changed(records, rate(0.02))]
    against = compare_studies(Study("swept", Path("nowhere"), both), side("b", records, rate(0.02)))
    assert against.matched == 20
    assert len(against.only_first) == 20
    assert all("lr=0.02" in setting for setting in against.settings)
    with pytest.raises(UserError, match="no trial of swept"):
        compare_studies(Study("swept", Path("nowhere"), both), side("b", records, rate(0.5)))


def test_nothing_is_called_worse_too_often() -> None:
    # Each level of one metric by itself: 2.5 %; 300 studies, standard error 0.9 %.
    rng = np.random.default_rng(0)
    wrong = dict.fromkeys(("all", "architecture", "setting"), 0)
    names = [(a, n, r) for a in ("mace", "schnet") for n in (50, 200) for r in range(3)]
    for _ in range(300):
        sides = [Study(name, Path("nowhere"), [_bare(*key, rng.lognormal(0, 0.05)) for key in names]) for name in "ab"]
        bad = {row.level for row in compare_studies(*sides, ["force_mae"]).judged if row.verdict == "worse"}
        for level in bad:
            wrong[level] += 1
    assert max(wrong.values()) / 300 < 0.025 + 3 * 0.009


def _bare(architecture: str, n_train: int, repetition: int, value: float) -> Record:
    row = {"split": "test", "metric": "force_mae", "value": value, "unit": "meV/Å", "lower": None, "upper": None}
    return {
        "trial": f"{architecture}-{n_train}-{repetition}", "study": "s", "status": "done", "reason": "", "key": "k",
        "started": "", "finished": "", "config": {"dtype": "float32"}, "training": {}, "tasks": {},
        "identifiers": {"dataset": "d", "architecture": architecture, "size": "tiny", "backend": "b",
                        "n_train": n_train, "n_valid": 5, "repetition": repetition},
        "split": {"digest": "d", "directory": "x", "split_seed": repetition}, "metrics": [{**row, "n": 9}],
        "provenance": {"mlpbench": "0", "commit": "c", "init_seed": 0, "hardware": {},
                       "backend": {"lock": "", "versions": {}}},
    }  # fmt: skip


def test_the_command_its_page_and_its_exit_code(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, factor in (("old", 1.0), ("new", 1.3)):
        for record in changed(records, lambda r, f=factor: scale(r, "force_mae", f, 0.01 if f > 1 else 0.0)):
            folder = tmp_path / "results" / name / record["trial"]
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(json.dumps(record))
    assert main(["compare", "old", "new"]) == 0
    assert main(["compare", "old", "results/old", "--fail-on", "undecided"]) == 0
    assert main(["compare", "old", "new", "--fail-on", "worse", "--html"]) == 1
    assert "worse" in capsys.readouterr().out
    page = (tmp_path / "reports" / "old-vs-new" / "index.html").read_text()
    assert "MACE, all settings" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert main(["compare", "old", "nwe"]) == 2
    assert "Did you mean 'new'" in capsys.readouterr().err
    assert main(["compare", "old", "new", "--metric", "forc_mae"]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["compare", "old", "new", "--margin", "5"])
    assert stop.value.code == 2
    assert "between 0 and 1" in capsys.readouterr().err
