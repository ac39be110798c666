"""The registry: every YAML is sound, nothing is invented, and the command line shows it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from mlpbench.cli import main
from mlpbench.datasets import load, loading, registry
from mlpbench.datasets.registry import Running, summarise
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError
from mlpbench.units import factor
from tests.unit.datasets.support import REPOSITORY, file_config, rattled_molecules, shared

CONF = REPOSITORY / "conf"
ENTRIES = registry.entries([CONF])
ASKED_FOR = {
    "rmd17", "md17", "md22", "3bpa", "acac", "qm9", "ani1x", "inp", "mlearn", "water-deepmd", "water-revpbe0",
    "lips", "si-gap18",
}  # fmt: skip


def test_the_sets_are_there():
    assert set(ENTRIES) >= ASKED_FOR | {"ethanol"}


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_says_what_a_user_must_know(name):
    entry = ENTRIES[name]
    for variant in [str(v) for v in entry.values.get("variants") or []] or [None]:
        config = entry.config(variant)
        assert config.description
        assert config.level_of_theory
        assert config.licence
        assert config.citation
        assert "{variant}" not in config.model_dump_json(exclude={"per_variant"})
        tests = {*config.test_paths, *config.test_indices} or {"test"}
        assert config.in_distribution in tests
        for unit in (config.energy_unit, config.length_unit):
            assert unit is None or factor(unit) > 0
        if config.kind == "download":
            assert all(item.url.startswith(("https://", "http://")) for item in config.downloads)
        for item in config.downloads:  # an address counts as verified only with a checksum from its publisher
            assert item.address == "unverified" or item.git_blob or item.git_tree or item.sha256 != "unverified"
            if "githubusercontent" in item.url:
                assert re.search(r"/[0-9a-f]{40}/", item.url), "pin the commit"


def test_overrides_have_a_base():
    for entry in ENTRIES.values():
        content = yaml.safe_load(entry.path.read_text(encoding="utf-8"))
        assert content["defaults"] == ["_base", "_self_"], f"{entry.path}: start with defaults: [_base, _self_]"
    base = yaml.safe_load((CONF / "dataset" / "_base.yaml").read_text(encoding="utf-8"))
    fields = DatasetConfig.model_fields
    for key, value in base.items():
        if key == "split":
            continue
        assert (value or None) == (fields[key].get_default(call_default_factory=True) or None), f"_base.yaml: {key}"


def test_acac_loads_from_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("MLPBENCH_OFFLINE", "1")
    config = registry.find("acac/600K", [CONF])
    with pytest.raises(UserError, match=r"train_300K\.xyz is not in the cache"):
        load(config)
    for item in config.downloads:
        (tmp_path / "acac" / item.filename).symlink_to(shared(f"acac/{item.filename}"))
    dataset = load(config)  # every checksum agreed
    assert {k: len(v) for k, v in dataset.tests.items()} == {
        "test_300K": 650, "test_600K": 650, "test_H_transfer": 15, "test_dihedral": 45,
    }  # fmt: skip
    assert not dataset.pool.cell.any()  # the 50 Å box is gone
    assert set(dataset.isolated_atoms or {}) == {"C", "H", "O"}


def test_mlearn_and_water_load_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("MLPBENCH_OFFLINE", "1")
    (tmp_path / "mlearn").mkdir()
    for part in ("training", "test"):
        (tmp_path / "mlearn" / f"Si_{part}.json").symlink_to(shared(f"mlearn/Si/{part}.json"))
    assert len(load(registry.find("mlearn/Si", [CONF])).pool) == 214
    config = registry.find("water-deepmd", [CONF])
    for item in config.downloads:
        target = tmp_path / "water-deepmd" / item.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(shared(f"deepmd_water/{item.filename}"))
    dataset = load(config)
    assert (len(dataset.pool), len(dataset.tests["test"])) == (320, 80)
    assert set(dataset.pool.group) == {0, 1, 2}


def test_unknown_names_get_a_hint():
    with pytest.raises(UserError, match="Did you mean 'ethanol'"):
        registry.find("ethanl", [CONF])
    with pytest.raises(UserError, match="no variant '500K'"):
        registry.find("acac/500K", [CONF])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_train": 0}, "greater than 0"),
        ({"colour": 1}, "Extra inputs"),
        ({"stress_order": "xx yy zz xy xy xz"}, "does not name each"),
        ({"split": {"strategy": "official"}}, "needs test_path"),
        ({"split": {"strategy": "key"}}, "needs split.key"),
        ({"labels": ["energy", "energy"]}, "twice"),
        ({"labels": ["force"]}, "forces"),
        ({"downloads": [{"url": "http://x", "filename": "../x"}]}, "below the data set"),
        ({"downloads": [{"url": "http://x", "filename": "x", "sha256": "abc"}]}, "64 hexadecimal"),
    ],
)
def test_configuration_mistakes(values, message):
    with pytest.raises(ValidationError, match=message):
        file_config(**values)


def test_an_altered_embedded_file_is_noticed(tmp_path, monkeypatch):
    import shutil

    from mlpbench.datasets import embedded

    shutil.copytree(embedded.ROOT / "ethanol-pbe", tmp_path / "ethanol-pbe")
    with open(tmp_path / "ethanol-pbe" / "test_300K.xyz", "a") as stream:
        stream.write("\n")
    monkeypatch.setattr(embedded, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"test_300K\.xyz differs from its SHA256SUMS"):
        load(registry.find("ethanol", [CONF]))


def test_a_file_of_ones_own_without_dataset_file_is_refused_with_what_to_do(tmp_path):
    import shutil

    from mlpbench.datasets import embedded

    shutil.copy(embedded.ROOT / "ethanol-pbe" / "pool_500K.xyz", tmp_path / "my.xyz")
    shipped = registry.find("ethanol", [CONF])
    with pytest.raises(UserError, match="does not ship with mlpbench") as refused:
        load(shipped.model_copy(update={"path": str(tmp_path / "my.xyz")}))
    assert refused.value.hint == "A file of your own needs dataset=file."
    extended = load(shipped.model_copy(update={"extend_paths": [str(tmp_path / "my.xyz")]}))
    assert extended.pool_parts == (640, 640)


def test_embedded_checksums():
    folder = Path(loading.__file__).parent / "embedded" / "ethanol-pbe"
    from mlpbench.datasets.embedded import expected_digests

    listed = expected_digests(folder)
    assert {
        name: digest for path, digest in loading.digests_of([folder]).items() if (name := Path(path).name) in listed
    } == listed


# ---------------------------------------------------------------- statistics


def test_statistics_in_pieces_equal_those_in_one():
    frames = rattled_molecules(30)
    pieces = summarise(frames.select(slice(i, i + 7)) for i in range(0, 30, 7))
    whole = summarise([frames])
    assert pieces.rows() == whole.rows()
    assert pieces.forces.rms == pytest.approx(float(np.sqrt((frames.forces**2).mean())))
    running = Running()
    running.add(np.array([1.0, np.nan, 3.0]))
    assert (running.count, running.mean, running.std) == (2, 2.0, 1.0)


# ---------------------------------------------------------------- command line


def test_data_list(capsys):
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    for name in ASKED_FOR:
        assert name in out
    assert max(map(len, out.splitlines())) <= 120


def test_data_describe_streams_a_file_and_an_entry(capsys, tmp_path):
    assert main(["data", "describe", "ethanol"]) == 0
    out = capsys.readouterr().out
    assert "PBE/def2-SVP" in out
    assert "test_1000K" in out
    frames = rattled_molecules(12)
    np.savez(tmp_path / "m.npz", z=frames.numbers[:3], R=frames.positions.reshape(12, 3, 3), E=frames.energy)
    assert main(["data", "describe", str(tmp_path / "m.npz")]) == 0
    assert "from their size" in capsys.readouterr().out


def test_data_describe_of_what_is_not_here_names_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLPBENCH_DATA", str(tmp_path))
    assert main(["data", "describe", "qm9"]) == 0
    out = capsys.readouterr().out
    assert "mlpbench data fetch qm9" in out
    assert "partial, address unverified" in out


def test_data_validate_ends_with_1_on_errors(capsys, tmp_path):
    frames = rattled_molecules(60)
    arrays = {"z": frames.numbers[:3], "R": frames.positions.reshape(60, 3, 3), "E": frames.energy}
    np.savez(tmp_path / "good.npz", F=frames.forces.reshape(60, 3, 3), **arrays)
    np.savez(tmp_path / "bad.npz", F=-frames.forces.reshape(60, 3, 3), **arrays)
    assert main(["data", "validate", str(tmp_path / "good.npz")]) == 0
    assert main(["data", "validate", str(tmp_path / "bad.npz"), "--html", str(tmp_path / "out" / "r.html")]) == 1
    assert "opposite sign" in (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    assert main(["data", "validate", str(tmp_path / "bad.npz"), "--forces-sign", "gradient"]) == 0


def test_command_mistakes_end_with_2(capsys):
    assert main(["data", "describe", "etanol"]) == 2
    assert "Did you mean 'ethanol'" in capsys.readouterr().err
    assert main(["data", "validate", "nothing.xyz"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_help_has_examples(capsys):
    for action in ("list", "describe", "fetch", "validate"):
        with pytest.raises(SystemExit):
            main(["data", action, "--help"])
        assert "example:\n  mlpbench data" in capsys.readouterr().out
