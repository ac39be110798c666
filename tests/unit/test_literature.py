"""The bibliography and the published values: complete, well formed, and true to the registry."""

import re
from pathlib import Path

import pytest
import yaml

from mlpbench.config import load_backends
from mlpbench.literature import _all, published_values, references, references_for
from mlpbench.metrics import METRICS

CONF = Path(__file__).parents[2] / "conf"
NEEDED = {
    "article": {"author", "title", "journal", "year", "doi"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "year"},
}


@pytest.mark.parametrize("one", references().values(), ids=lambda one: one.key)
def test_an_entry_is_whole(one):
    kind = re.match(r"@(\w+)\{", one.bibtex).group(1)
    assert set(one.fields) >= NEEDED[kind]
    assert kind != "misc" or {"eprint", "url"} & set(one.fields), "an address to find it by"
    assert one.bibtex.count("{") == one.bibtex.count("}")
    assert "keywords" not in one.bibtex
    assert re.fullmatch(r"20\d\d", one.fields["year"])
    assert all(re.fullmatch(r"(package|dataset):[\w-]+", subject) for subject in one.subjects)
    assert "{" not in one.short


def test_every_entry_of_the_file_was_read():
    text = (Path(__file__).parents[2] / "mlpbench" / "literature" / "bibliography.bib").read_text()
    assert len(references()) == len(re.findall(r"^@", text, re.MULTILINE))


def data_sets():
    found = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "dataset").glob("*.yaml"))}
    return {stem: data for stem, data in found.items() if stem not in ("_base", "file")}


@pytest.mark.parametrize("name", data_sets())
def test_every_data_set_has_the_reference_its_file_names(name):
    found = references_for([f"dataset:{name}"])
    assert found, f"add an entry with keywords = {{dataset:{name}}} to mlpbench/literature/bibliography.bib"
    cited = re.search(r"doi:(\S+)|arXiv:(\S+)", data_sets()[name]["citation"])
    if cited:
        assert any(cited.group(1) == r.fields.get("doi") if cited.group(1) else
                   cited.group(2) == r.fields.get("eprint") for r in found)  # fmt: skip


def test_every_architecture_has_a_name_and_a_reference():
    declared = {name: info for backend in load_backends().values() for name, info in backend.architectures.items()}
    assert set(declared) == {path.stem for path in (CONF / "architecture").glob("*.yaml")}
    for name, info in declared.items():
        assert info.title
        assert (info.cite and set(info.cite) <= set(references())) or name == "toy", name


def test_every_key_that_a_backend_names_is_there():
    for backend in load_backends().values():
        assert set(backend.cite) <= set(references()), backend.name
        assert not backend.distribution or (backend.cite and backend.licence), backend.name


def test_every_entry_belongs_to_something():
    backends = load_backends().values()
    infos = [info for backend in backends for info in backend.architectures.values()]
    named = {key for part in [*backends, *infos] for key in part.cite} | {one.key for one in _all()}
    assert {one.key for one in references().values() if not one.subjects} <= named


def test_published_values_are_positive_sourced_and_in_metrics_that_we_have():
    known = data_sets()
    for one in _all():
        assert one.value > 0
        assert one.metric in METRICS
        assert one.key in references()
        assert one.place
        name = next(e for e in known if one.dataset == e or one.dataset.startswith(f"{e}-"))
        config = known[name]
        splits = set(config.get("test_paths") or config.get("test_indices") or {"test": ""})
        assert one.split in splits, f"{one.dataset} has {splits}"
        assert one.dataset == name or one.dataset.removeprefix(f"{name}-") in map(str, config["variants"])


def test_a_published_value_by_hand():
    found = [
        one for one in published_values("acac-300K")
        if (one.architecture, one.split, one.metric) == ("mace", "test_300K", "force_rmse")
    ]  # fmt: skip
    assert [(one.value, one.std, one.n_train) for one in found] == [(5.1, 0.1, 500)]
    assert found[0].source == "Batatia et al. 2022, arXiv:2206.07697, Table 3"
    assert published_values("ethanol") == []


def test_each_repetition_by_others_belongs_to_a_published_number():
    everything = _all()
    repetitions = [one for one in everything if one.repeats]
    matched = [one for one in everything if not one.repeats and one.repeated_in(everything) is not None]
    assert len(repetitions) == len(matched) == 20
    aspirin = next(o for o in matched if (o.dataset, o.metric) == ("rmd17-aspirin", "force_mae"))
    assert (aspirin.value, aspirin.repeated_in(everything).value) == (6.6, 8.9)  # meV/Å, NeurIPS 2022 and 2026
