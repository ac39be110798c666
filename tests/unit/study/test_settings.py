"""Settings: what differs between resolved configurations, how they are called, and which ladders they climb."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpbench.config import load_trial
from mlpbench.study.settings import settings_of
from mlpbench.study.study import Study
from tests.unit.decision_tables import record

Record = dict[str, Any]
ROWS = [("valid", "force_mae", 50.0, "meV/Å"), ("test", "force_mae", 55.0, "meV/Å")]


def trial(change: Callable[[Record], None] = lambda record: None, n: int = 50, repetition: int = 0) -> Record:
    made = copy.deepcopy(record("mace", n, repetition, 0.01, ROWS))
    made["config"] |= {"architecture": {"name": "mace", "cutoff": 5.0, "native": {}}, "budget": {"steps": 1000},
                       "evaluation": {"md": None}, "device": "cpu", "repetition": repetition}  # fmt: skip
    change(made)
    made["trial"] = f"{id(made)}"
    return made


def labels(*records: Record) -> list[str]:
    return [setting.label for setting in settings_of(records)]


def put(key: str, value: Any) -> Callable[[Record], None]:
    def change(made: Record) -> None:
        node = made["config"]
        *parents, last = key.split(".")
        for name in parents:
            node = node[name]
        node[last] = value

    return change


def test_what_was_typed_where_it_ran_and_what_was_measured_are_no_settings() -> None:
    others = [put("device", "cuda"), put("evaluation.md", {"length_ps": 1}), put("repetition", 1)]
    assert labels(trial(), *(trial(change) for change in others)) == [""] * 4


def test_a_value_changed_in_a_file_is_a_setting_named_by_its_shortest_key() -> None:
    found = settings_of([trial(), trial(put("architecture.cutoff", 4.0))])
    assert [one.label for one in found] == ["cutoff=5", "cutoff=4"]
    assert found[1].overrides == {"architecture.cutoff": "4"}
    both = labels(trial(put("budget.interval", 10)), trial(put("training.interval", 5)),
                  trial(lambda r: (put("budget.interval", 20)(r), put("training.interval", 7)(r))[0]))  # fmt: skip
    assert "budget.interval=20" in both[2]
    assert "training.interval=7" in both[2]


def test_a_field_that_is_newer_than_a_record_is_no_difference_but_an_option_of_a_package_is() -> None:
    assert labels(trial(), trial(put("training.optimizer", "adam"))) == ["", ""]
    assert labels(trial(), trial(put("architecture.native", {"pair_repulsion": True}))) == [
        "pair_repulsion=null", "pair_repulsion=true",
    ]  # fmt: skip


def test_keys_that_change_together_are_one_group_or_few_words() -> None:
    def recommended(made: Record) -> None:
        made["config"]["training"] |= {f"key{k}": k for k in range(6)}

    def common(made: Record) -> None:
        made["config"]["training"] |= {f"key{k}": -k - 1 for k in range(6)}

    first, second = labels(trial(recommended), trial(common))
    assert first == "key0=0, key1=1, and 4 more"
    assert second == "key0=-1, key1=-2, and 4 more"

    def real(*overrides: str) -> Record:
        config = load_trial(["architecture=toy", *overrides]).model_dump(mode="json")
        return trial(lambda made: made.update(config=config))

    one, other = labels(real(), real("budget=epochs"))
    assert (one, other) == ("budget=default", "budget=epochs")


def test_other_data_of_one_name_is_another_setting_and_a_moved_file_is_none() -> None:
    def data(digest: str, path: str) -> Callable[[Record], None]:
        def change(made: Record) -> None:
            made["identifiers"]["data"] = digest
            made["config"]["dataset"]["path"] = path

        return change

    assert labels(trial(data("aa", "x.xyz")), trial(data("aa", "y/x.xyz"))) == ["", ""]
    assert labels(trial(data("aa", "x.xyz")), trial(data("bb", "x.xyz"))) == ["data=aa", "data=bb"]
    assert labels(trial(data("aa", "x.xyz")), trial(data("bb", "y.xyz"))) == ["path=x.xyz", "path=y.xyz"]
    study = Study("s", Path("nowhere"), [trial(data("aa", "x.xyz")), trial(data("bb", "x.xyz"))])
    assert study.part("ethanol", "force_mae", "test").shape[0] == 1  # they are not pooled as repetitions


def test_seconds_on_other_machines_are_other_settings() -> None:
    def timed(cpu: str) -> Callable[[Record], None]:
        def change(made: Record) -> None:
            made["config"]["budget"] = {"steps": None, "seconds": 60.0}
            made["provenance"]["hardware"]["cpu"] = cpu

        return change

    assert labels(trial(timed("a")), trial(timed("b"))) == ["hardware=a, 1 threads", "hardware=b, 1 threads"]


def test_of_a_ladder_the_longest_finished_rung_counts() -> None:
    def rung(steps: int, status: str = "done", asked: bool = True) -> Record:
        def change(made: Record) -> None:
            made["config"]["budget"] = {"steps": steps, "converge": {"margin": 0.02} if asked else None}
            made |= {"ladder": "one", "status": status}
            made["training"] = {**made["training"], "steps": steps} if status == "done" else {}

        return trial(change)

    # The first rung was an ordinary trial before the ladder was asked for; the last one failed.
    records = [rung(1000, asked=False), rung(2000), rung(4000, status="failed")]
    study = Study("s", Path("nowhere"), records)
    assert set(study.trials["setting"]) == {""}
    assert study.trials["superseded"].tolist() == [True, False, True]
    assert study.part("ethanol", "force_mae", "test")["trial"].tolist() == [records[1]["trial"]]
    # Without the ladder, steps are a setting like any other.
    assert labels(rung(1000, asked=False), rung(2000, asked=False)) == ["steps=1000", "steps=2000"]


def test_architectures_with_presets_of_their_own_have_no_setting() -> None:
    def other(made: Record) -> None:
        made["identifiers"]["architecture"] = "schnet"
        made["config"]["architecture"] = {"name": "schnet", "cutoff": 4.0, "n_features": 64}
        made["config"]["training"]["lr"] = 0.002

    assert labels(trial(), trial(other)) == ["", ""]


def test_two_extensions_of_one_pool_are_two_data_and_a_growing_pool_is_one() -> None:
    def drawn(*extensions: str) -> Callable[[Record], None]:
        return lambda made: made["split"].update(extensions=list(extensions))

    grown = [trial(drawn()), trial(drawn("a"), n=100), trial(drawn("a", "b"), n=200)]
    assert labels(*grown) == ["", "", ""]  # one learning curve
    parted = settings_of([*grown[:2], trial(drawn("c"), n=100)])
    assert len({id(one) for one in parted}) == 3
    assert len({one.label for one in parted}) == 3
