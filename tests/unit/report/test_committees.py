"""Committees of repetitions: the frames they disagree on, by hand, and as a file to label."""

import argparse

import numpy as np
import pytest
from ase.io import read

from mlpbench.cli import answers as command
from mlpbench.errors import UserError
from mlpbench.report.committees import committee, most_disagreed
from mlpbench.report.sections import robustness
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    plan = Plan(architectures=("schnet", "mace"), n_train=(50, 200), troubles={})
    return fabricate(tmp_path_factory.mktemp("results") / "made-up", plan)


def run(study, monkeypatch, *arguments):
    monkeypatch.setattr(Study, "load", lambda name, *rest: study)
    parser = argparse.ArgumentParser()
    command.register_committee(parser)
    return command.execute_committee(parser.parse_args(["made-up", *arguments]))


def test_disagreement_of_a_frame_by_hand(study):
    one = committee(study, "ethanol", "MACE", "test_1000K")
    assert one.n_train == 200
    assert one.forces.shape[0] == 3
    frame = 7
    atoms = one.members[0].frames.frame_of_atom == frame
    spread = np.sqrt(np.var(one.forces[:, atoms], axis=0, ddof=1).mean())
    assert one.errors.disagreement[frame] == pytest.approx(spread)


def test_hot_frames_come_first(study):
    found = most_disagreed(study, "ethanol", "MACE", study.test_splits("ethanol"), 10)
    assert {one.committee.split for one in found} == {"test_1000K"}  # made with 2.2 times the noise
    assert [one.disagreement for one in found] == sorted((one.disagreement for one in found), reverse=True)


def test_export_has_the_geometries_and_no_labels(study, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new" / "frames.xyz"
    assert run(study, monkeypatch, "--candidate", "mace", "--top", "5", "--export", str(path)) == 0
    frames = read(path, index=":")
    assert len(frames) == 5
    best = most_disagreed(study, "ethanol", "MACE", study.test_splits("ethanol"), 5)[0]
    assert frames[0].info["frame"] == best.frame
    assert frames[0].info["committee_disagreement"] == pytest.approx(1e3 * best.disagreement)
    (same,) = best.committee.members[0].frames.select([best.frame]).to_atoms()
    assert np.allclose(frames[0].positions, same.positions, atol=1e-7)
    assert frames[0].calc is None
    assert "energy" not in frames[0].info
    assert "forces" not in frames[0].arrays
    assert "3 repetitions of 200 training frames; meV/Å" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidate", "MACEE"], "Did you mean 'MACE'"),
        (["--split", "test_500"], "Did you mean 'test_500K'"),
        (["--top", "0"], "nothing would be listed"),
        (["--export", "frames.nonsense"], "cannot be written"),
    ],
)
def test_mistakes_are_named(study, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(study, monkeypatch, *arguments)


def test_the_section_has_calibration_and_the_command(study):
    table, figure, details = robustness.uncertainty_section(study).blocks
    assert table.name == "committee-ethanol"
    assert [panel.name for panel in figure.panels] == ["calibration-ethanol", "spread-ethanol"]
    listed, export = details.blocks
    assert len(listed.rows) == 10
    assert "--candidate 'MACE'" in export.lines[0]
