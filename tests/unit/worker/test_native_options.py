"""Options of ``architecture.native`` that a package would not read are refused by name, before anything trains."""

from __future__ import annotations

from typing import Any

import pytest

from mlpbench.worker.training import require_option, require_options

CONFIG: dict[str, Any] = {
    "seed": 1,
    "trainer": {"_target_": "fractions.Fraction", "numerator": 1},
    "model": {"_target_": "builtins.dict", "width": 3},
    "task": {"_target_": "functools.partial", "optimizer_args": {"lr": 1e-3}},
}


def refused(native: dict[str, Any]) -> str | None:
    """Where the option stands that is refused; None if all are accepted."""
    try:
        require_options(native, CONFIG, "it")
    except ValueError as error:
        return str(error).partition(":")[0]
    return None


@pytest.mark.parametrize("native", [
    {}, {"seed": 2}, {"trainer": {"denominator": 3}}, {"model": {"anything": 1}},
    {"task": {"optimizer_args": {"betas": [0.9, 0.99]}}}, {"trainer": {"_target_": "builtins.dict", "other": 1}},
])  # fmt: skip
def test_what_the_package_reads_is_accepted(native: dict[str, Any]) -> None:
    assert refused(native) is None
    assert refused({**native, "no_such_option": 1}) == "architecture.native.no_such_option"


@pytest.mark.parametrize(("native", "place", "meant"), [
    ({"trainr": {"denominator": 3}}, "architecture.native.trainr", "trainer"),
    ({"trainer": {"denominatr": 3}}, "architecture.native.trainer.denominatr", "denominator"),
    ({"sed": 3}, "architecture.native.sed", "seed"),
])  # fmt: skip
def test_what_it_does_not_read_is_refused_with_the_close_match(native: dict[str, Any], place: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"{place}: it has no such option: did you mean '{meant}'") as caught:
        require_options(native, CONFIG, "it")
    assert "_target_" not in str(caught.value)


def test_a_flat_list_of_options() -> None:
    for name in ("distance_transform", "lr"):
        require_option(name, ["distance_transform", "lr"], name, "MACE")
    with pytest.raises(ValueError, match="did you mean 'distance_transform'"):
        require_option("distance_tansform", ["distance_transform", "lr"], "x", "MACE")
