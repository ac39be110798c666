"""Settings: what differs between resolved configurations, how they are called, and which ladders they climb."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpbench import tables
from mlpbench.comparison import compare_studies
from mlpbench.config import load_trial
from mlpbench.study.settings import data_names, given_name, settings_of
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


def data(digest: str, path: str, kind: str = "frames") -> Callable[[Record], None]:
    def change(made: Record) -> None:
        made["identifiers"][kind] = digest
        made["config"]["dataset"]["path"] = path

    return change


@pytest.mark.parametrize("kind", ["frames", "data"])  # "data" alone: recorded by an older version
def test_other_frames_under_one_name_are_another_data_set_and_a_moved_file_is_none(kind: str) -> None:
    moved = [trial(data("aa", "x.xyz", kind)), trial(data("aa", "y/x.xyz", kind))]
    assert data_names(moved) == ["ethanol", "ethanol"]
    edited = [trial(data("aa", "x.xyz", kind)), trial(data("bb", "x.xyz", kind))]
    assert data_names(edited) == ["ethanol (data=aa)", "ethanol (data=bb)"]
    others = [trial(data("aa", "x.xyz", kind)), trial(data("bb", "y.xyz", kind)), trial(data("aa", "x.xyz", kind))]
    assert data_names(others) == ["ethanol (path=x.xyz)", "ethanol (path=y.xyz)", "ethanol (path=x.xyz)"]
    assert labels(*others) == ["", "", ""]


def test_the_same_frames_with_other_labels_are_one_data_set_and_a_setting() -> None:
    def trained_on(*names: str) -> Callable[[Record], None]:
        def change(made: Record) -> None:
            made["identifiers"] |= {"frames": "aa", "data": "+".join(names)}
            made["config"]["dataset"]["labels"] = list(names)

        return change

    records = [trial(trained_on("energy")), trial(trained_on("energy", "forces"))]
    assert data_names(records) == ["ethanol", "ethanol"]
    assert labels(*records) == ['labels=["energy"]', 'labels=["energy","forces"]']


def test_no_error_chooses_among_trials_on_other_frames() -> None:
    """Easy frames have the lower error: that makes them no better setting, whatever is tuned on each of them."""

    def tried(digest: str, lr: float, error: float) -> Record:
        def change(made: Record) -> None:
            data(digest, f"{digest}.xyz")(made)
            made["config"]["training"]["lr"] = lr
            for row in made["metrics"]:
                row["value"] = error

        return trial(change)

    easy, hard = "ethanol (path=easy.xyz)", "ethanol (path=hard.xyz)"
    records = [
        tried("easy", 0.01, 20.0),
        tried("easy", 0.02, 10.0),
        tried("hard", 0.01, 90.0),
        tried("hard", 0.02, 99.0),
    ]
    study = Study("s", Path("nowhere"), records)
    assert study.datasets == [easy, hard]
    assert [(c.dataset, c.setting.label, round(c.valid_error)) for c in study.candidates] == [
        (easy, "lr=0.02", 10), (hard, "lr=0.01", 90),
    ]  # fmt: skip
    untuned = Study("s", Path("nowhere"), [records[0], records[2]])
    assert not untuned.tuned
    assert untuned.part(hard, "force_mae", "test")["value"].tolist() == [90.0]
    assert tables.settings_table(untuned)[["dataset", "trials"]].to_numpy().tolist() == [
        [easy, "1 done"], [hard, "1 done"],
    ]  # fmt: skip
    assert given_name(study.record[records[2]["trial"]]) == "ethanol"


def test_two_studies_call_the_same_frames_alike() -> None:
    one, both = [trial(data("aa", "x.xyz"))], [trial(data("aa", "x.xyz")), trial(data("bb", "y.xyz"))]
    names = data_names([*one, *both], ["first", "second", "second"])
    assert names == ["ethanol (path=x.xyz)", "ethanol (path=x.xyz)", "ethanol (path=y.xyz)"]
    changed = data_names([*one, both[1]], ["first", "second"])
    assert changed == ["ethanol", "ethanol"]  # what changed between two studies
    sides = []
    for name, records in (("a", one), ("b", both)):
        digests = [
            {**record, "split": {**record["split"], "digest": record["identifiers"]["frames"]}} for record in records
        ]
        sides.append(Study(name, Path("nowhere"), digests))
    assert list(compare_studies(sides[0], sides[1], ["force_mae"]).settings) == ["ethanol (path=x.xyz): MACE, N = 50"]


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
    assert set(data_names(grown)) == {"ethanol"}
    parted = data_names([*grown[:2], trial(drawn("c"), n=100)])
    assert parted == ["ethanol (extension=[])", 'ethanol (extension=["a"])', 'ethanol (extension=["c"])']
