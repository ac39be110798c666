"""Which wheels are gathered for a machine without a network, and for which platform."""

from __future__ import annotations

import pytest

from mlpbench.backends.registry import ADAPTERS
from mlpbench.backends.wheels import (
    Pin,
    _without_name,
    core_pins,
    platform_tags,
    read_compiled,
    read_target_list,
    select,
)
from mlpbench.errors import UserError

COMPILED = """\
mace-torch==0.3.16
    # via -r mace.in
nvidia-cublas==13.1
    # via torch
networkx==3.5
    # via
    #   torch
    #   matgl
numpy==2.5.5
    # via
    #   -r mace.in
    #   mace-torch
sympy==1.14
    # via torch
Torch[opt]==2.13.0  # the same for all
    # via mace-torch
"""


@pytest.fixture
def pins(tmp_path) -> list[Pin]:
    path = tmp_path / "requirements.txt"
    path.write_text(COMPILED)
    return read_compiled(path)


def test_reading_who_needs_what(pins):
    by_name = {pin.name: pin for pin in pins}
    assert by_name["torch"].line == "torch==2.13.0"
    assert by_name["networkx"].via == {"torch", "matgl"}
    assert by_name["mace-torch"].via == {"-r mace.in"}


def test_what_only_torch_needs_goes_with_it(pins):
    kept, left_out, _ = select(pins, ["torch"], {})
    assert [pin.name for pin in kept] == ["mace-torch", "networkx", "numpy"]
    assert [pin.name for pin in left_out] == ["nvidia-cublas", "sympy", "torch"]


def test_a_name_that_is_not_needed(pins):
    with pytest.raises(UserError, match="--without pytorch") as error:
        select(pins, ["pytorch"], {})
    assert "torch" in (error.value.hint or "")


def test_what_the_target_has_in_the_right_version_is_left_out(pins):
    kept, _, notes = select(pins, [], {"torch": "2.13.0+cu130", "numpy": "1.26.4", "unrelated": "1"})
    assert "torch" not in {pin.name for pin in kept}
    assert "numpy" in {pin.name for pin in kept}
    assert notes == ["the target has numpy 1.26.4, 2.5.5 is needed: its wheel was taken"]


@pytest.mark.parametrize(
    "text",
    [
        "Package    Version\n---------- -------\nTorch      2.13.0+cu130\nmy_package 1.0\n",
        "torch==2.13.0+cu130\nmy-package==1.0\n",
        '[{"name": "torch", "version": "2.13.0+cu130"}, {"name": "my_package", "version": "1.0"}]',
    ],
)
def test_each_form_of_pip_list(tmp_path, text):
    path = tmp_path / "list"
    path.write_text(text)
    assert read_target_list(path) == {"torch": "2.13.0+cu130", "my-package": "1.0"}


def test_a_list_without_packages(tmp_path):
    (tmp_path / "list").write_text("pip: command not found\n")
    with pytest.raises(UserError, match="no package is listed"):
        read_target_list(tmp_path / "list")
    with pytest.raises(UserError, match="cannot be read"):
        read_target_list(tmp_path / "nowhere")


def test_a_line_that_is_no_pin(tmp_path):
    (tmp_path / "r.txt").write_text("numpy>=2\n")
    with pytest.raises(UserError, match="not an exact pin"):
        read_compiled(tmp_path / "r.txt")


def test_platforms():
    tags = platform_tags("x86_64")
    assert tags[0] == "manylinux_2_28_x86_64"
    assert "manylinux2014_x86_64" in tags
    assert "linux_x86_64" in tags
    assert "manylinux2014_aarch64" not in platform_tags("manylinux_2_12_aarch64")
    assert platform_tags("macosx_14_0_arm64") == ["macosx_14_0_arm64"]


def test_an_index_that_uv_knows_by_name():
    assert _without_name("mine=https://index.example/simple") == "https://index.example/simple"
    assert _without_name("https://index.example/simple?a=b") == "https://index.example/simple?a=b"


@pytest.mark.parametrize("path", sorted(ADAPTERS.parent.glob("*/*.requirements.txt")), ids=lambda path: path.name)
def test_the_files_that_ship_can_be_read(path):
    found = read_compiled(path)
    assert found
    assert all(pin.via for pin in found)


def test_what_the_core_needs():
    names = {pin.name for pin in core_pins()}
    assert {"hydra-core", "omegaconf", "pandas", "numpy", "uv"} <= names
    assert "torch" not in names
    assert "mlpbench" not in names
