"""The page: complete, self-contained, accessible, and honest about what went wrong."""

import base64
import io
import re
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

from mlpbench.cli import answers as command
from mlpbench.errors import UserError
from mlpbench.report import write_report
from mlpbench.report.sections import chapters
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records

VOID = {"meta", "link", "input", "br", "path", "use", "image", "rect", "circle", "line", "polygon"}


class Page(HTMLParser):
    """Elements with their attributes; complains about tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    report = write_report(fabricate(root / "results" / "made-up"), root / "reports" / "made-up")
    assert report.failed == ()
    path = report.page
    text = path.read_text(encoding="utf-8")
    return path, text, Page(text)


def test_the_first_screen_names_the_best_data_level_of_theory_budget_and_hardware(written):
    _, text, _ = written
    headline = re.search(r'<p class="finding">(.*?)</p>', text, re.S).group(1)
    for part in ("400 training frames", "ethanol", "NequIP has the lowest error, though not beyond doubt"):
        assert part in headline
    first = text[: text.index('<section id="summary"')]
    for part in ("PBE/def2-SVP", "2000 steps", "Example CPU 3000", "meV/Å", "95 %"):
        assert part in first


def test_limits_are_on_the_first_screen(written):
    text = written[1]
    first = text[: text.index('<section id="summary"')]
    assert "ranking of optimisation speed" in first
    assert "3 trials did not finish" in first


def test_failures_have_their_reason_and_log(written):
    text = written[1]
    assert "killed by signal 9" in text
    assert "made-up/ethanol-schnet-small-n50-r2/worker.log" in text
    assert "still fell by 4.0 % over the last 10 %" in text


def test_nothing_is_loaded_from_elsewhere(written):
    _, text, page = written
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"{tag} {name}={value}"
    assert not re.search(r"@import|url\((?!#|data:)", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_what_refers_to_them_exists(written):
    page = written[2]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("href", "xlink:href"):
            if attributes.get(name, "").startswith("#"):
                assert attributes[name][1:] in ids
        for name in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
            assert attributes.get(name, ids[0]) in ids


def test_it_is_readable_without_seeing_it(written):
    page = written[2]
    assert page.all("html")[0]["lang"] == "en"
    pictures = page.all("svg")
    assert len(pictures) > 10
    assert all(picture["role"] == "img" and len(picture["aria-label"]) > 20 for picture in pictures)
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    assert all(box["tabindex"] == "0" for box in page.all("div") if box.get("class") == "scroll")


def test_colours_follow_the_page_and_not_the_paper(written):
    assert "var(--c3)" in written[1]
    body = written[1][written[1].index("<body>") :]
    assert "#242f91" not in body


def test_embedded_tables_hold_every_trial_with_full_precision(written):
    page = written[2]
    files = {link["download"]: link["href"] for link in page.all("a") if "download" in link}
    data = base64.b64decode(files["trials.csv"].partition("base64,")[2])
    assert len(pd.read_csv(io.BytesIO(data))) == 36
    assert {"metrics.csv", "metrics.csv.gz"} & set(files)


def test_every_metric_shown_is_defined(written):
    glossary = written[1][written[1].index('<section id="glossary"') :]
    for name in ("energy_mae", "force_mae", "force_mae_H", "train_seconds"):
        assert f"<dd>{name}: " in glossary


def test_versions_of_the_backends_stand_side_by_side(written):
    text = written[1]
    row = text[text.index(">e3nn<") :]
    assert row.index("0.4.4") < row.index("0.6.0") < row.index("</tr>")


def test_it_answers_which_to_take_under_constraints(written):
    text = written[1]
    section = text[text.index('<section id="decide"') : text.index('<section id="learning"')]
    assert "cheapest" in section
    assert "fewest labels" in section
    assert "mlpbench select made-up" in section
    assert 'id="table-committee-ethanol"' in text


def test_figures_and_tables_are_files_too(written):
    folder = written[0].parent
    assert (folder / "figures" / "learning-ethanol-force_mae.svg").read_text().startswith("<?xml")
    assert len(pd.read_csv(folder / "tables" / "summary-ethanol.csv")) == 13  # one is the trivial predictor
    assert r"\begin{tabular}" in (folder / "tables" / "summary-ethanol.tex").read_text()
    assert (folder / "tables" / "summary-ethanol.md").read_text().startswith("| Candidate |")


def test_a_study_in_which_all_failed_still_has_its_report(tmp_path):
    plan = Plan(
        architectures=("mace",), n_train=(50,), repetitions=1, troubles={("mace", 50, 0): ("timeout", "too slow")}
    )
    text = write_report(fabricate(tmp_path / "wrecked", plan), tmp_path / "out").page.read_text(encoding="utf-8")
    assert "no trial has finished" in text
    assert "too slow" in text


def test_without_predictions_the_sections_that_need_them_are_left_out(tmp_path):
    study = fabricate(tmp_path / "bare", Plan(n_train=(50,), repetitions=2, predictions=False, troubles={}))
    text = write_report(study, tmp_path / "out").page.read_text(encoding="utf-8")
    assert 'id="parity"' not in text
    assert 'id="learning"' not in text  # one training size is no curve
    assert 'id="summary"' in text


def test_names_are_escaped(tmp_path):
    plan = Plan(architectures=("mace",), n_train=(50,), repetitions=1, troubles={})
    evil = Study("<b>x</b>", tmp_path / "x", make_records(tmp_path / "x", plan))
    text = write_report(evil, tmp_path / "out").page.read_text(encoding="utf-8")
    assert "<b>x</b>" not in text


def test_sections_have_an_order_and_pyplot_stays_out_of_it(written):
    orders = [module.CHAPTERS[name] for name, module in chapters()]
    assert orders == sorted(set(orders))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_command_refuses_one_folder_for_two_studies(tmp_path):
    parser = __import__("argparse").ArgumentParser()
    command.register_report(parser)
    with pytest.raises(UserError, match="--out names one folder"):
        command.execute_report(parser.parse_args(["a", "b", "--out", str(tmp_path)]))


def test_command_names_the_close_match_of_a_study(tmp_path):
    parser = __import__("argparse").ArgumentParser()
    command.register_report(parser)
    (tmp_path / "quickstart" / "t").mkdir(parents=True)
    (tmp_path / "quickstart" / "t" / "record.json").write_text("{}")
    with pytest.raises(UserError, match="quickstart"):
        command.execute_report(parser.parse_args(["quickstrat", "--results", str(tmp_path)]))
