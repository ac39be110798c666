"""What a person sees while a large set is read and split."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpbench.datasets import load, prepare_split, stages
from tests.unit.datasets.support import file_config, rattled_molecules


def test_every_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    from ase.io import write

    write(tmp_path / "m.xyz", rattled_molecules(40).to_atoms(), format="extxyz")
    config = file_config(tmp_path / "m.xyz")
    seen: list[tuple[str, int, int | None]] = []
    dataset = load(config, lambda *what: seen.append(what))
    prepare_split(dataset, config, 0, tmp_path / "splits", lambda *what: seen.append(what))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == [
        "reading", "fingerprints", "looking for copies", "checksums", "writing",
    ]  # fmt: skip
    assert ("reading", 40, None) in seen
    assert ("fingerprints", 40, 40) in seen
    assert ("looking for copies", 8, 8) in seen  # test frames


def test_a_log_gets_few_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(stages.time, "monotonic", lambda: now)
    with stages.stages("big") as progress:
        for second in range(101):
            now = float(second)
            progress("fingerprints", second * 1000, 200_000)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "big: fingerprints, 2,000 of 200,000 frames, about 3 min left"
    assert len(said) == 4  # one after two seconds, then one every thirty


def test_a_download_counts_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(stages.time, "monotonic", lambda: now)
    with stages.stages("acac") as progress:
        progress("downloading x.zip", 0, 80, "MB")
        now = 10.0
        progress("downloading x.zip", 20, 80, "MB")
    assert capsys.readouterr().err == "acac: downloading x.zip, 20 of 80 MB, about 30 s left\n"


def test_what_is_done_in_a_moment_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with stages.stages("small") as progress:
        progress("reading", 10, None)
    assert capsys.readouterr().err == ""
