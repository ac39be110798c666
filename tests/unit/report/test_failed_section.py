"""A section that fails leaves a notice; the page stands, and the command says so with exit code 1."""

import argparse

import pytest

from mlpbench.cli import answers as command
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError
from mlpbench.report import write_report
from mlpbench.report.section import Figure, Panel, Section
from mlpbench.report.sections import accuracy, learning, summary
from tests.unit.report.fabricate import Plan, fabricate, write_study

SMALL = Plan(architectures=("schnet", "mace"), n_train=(50, 200), repetitions=2, troubles={}, predictions=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("results") / "made-up", SMALL)


def broken(study):
    raise KeyError("a <column> that is not there")


def test_the_other_sections_stand_and_the_notice_has_the_reason(study, tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "learning_section", broken)
    written = write_report(study, tmp_path)
    text = written.page.read_text(encoding="utf-8")
    assert [one.name for one in written.failed] == ["learning"]
    notice = text[text.index('<section id="learning"') :]
    assert "a &lt;column&gt; that is not there" in notice[: notice.index("</section>")]
    assert 'id="table-summary-ethanol"' in text
    assert "in broken" in (tmp_path / "errors.log").read_text()


def test_a_picture_that_cannot_be_drawn_is_the_failure_of_its_section(study, tmp_path, monkeypatch):
    class Undrawable(Panel):
        @property
        def svg(self):
            raise ValueError("no room for the axes")

    figure = Figure("caption", [Undrawable("x", None, "alt")])
    monkeypatch.setattr(accuracy, "parity_section", lambda study: Section("parity", "Parity", "", [figure]))
    written = write_report(study, tmp_path)
    assert [one.reason for one in written.failed] == ["ValueError: no room for the axes"]
    assert "no room for the axes" in written.page.read_text(encoding="utf-8")


def test_the_command_ends_with_1_and_with_0_once_it_is_repaired(tmp_path, monkeypatch, capsys):
    write_study(tmp_path / "results" / "made-up", SMALL)
    parser = argparse.ArgumentParser()
    command.register_report(parser)
    arguments = parser.parse_args(["made-up", "--out", str(tmp_path), "--results", str(tmp_path / "results")])
    with monkeypatch.context() as patch:
        patch.setattr(learning, "learning_section", broken)
        assert command.execute_report(arguments) == EXIT_FAILED
    streams = capsys.readouterr()
    assert streams.out.strip() == str(tmp_path / "index.html")
    assert "section 'learning' failed" in streams.err
    assert command.execute_report(arguments) == EXIT_DONE
    assert not (tmp_path / "errors.log").exists()


def test_where_no_command_can_be_written_the_fronts_stand_and_it_is_said(study, monkeypatch):
    def without_conf(*arguments, **named):
        raise UserError("there is no data set 'ethanol' in conf")

    monkeypatch.setattr(summary, "decide", without_conf)
    _, table, note = summary.decide_section(study).blocks
    assert table.name == "pareto-ethanol"
    assert "there is no data set 'ethanol' in conf" in note.text
