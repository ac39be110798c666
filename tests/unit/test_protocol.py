"""What crosses between core and worker survives, and what is broken is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlpbench import protocol
from mlpbench.protocol import EventLog, ProtocolError, Request, Result
from tests.support import make_request


def test_request_round_trip(tmp_path: Path) -> None:
    request = make_request(tmp_path, "a:B", {"name": "toy", "cutoff": 4.0})
    assert Request.read(tmp_path / protocol.REQUEST) == request


def test_another_version_is_refused(tmp_path: Path) -> None:
    make_request(tmp_path, "a:B", {})
    path = tmp_path / protocol.REQUEST
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(ProtocolError, match="version 99"):
        Request.read(path)


def test_result_round_trip_with_numpy_values(tmp_path: Path) -> None:
    Result("train", "k", "done", values={"loss": np.float64(1.5), "epochs": np.int64(3)}).write(tmp_path)
    again = Result.read(tmp_path, "train")
    assert again.values == {"loss": 1.5, "epochs": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[1]", "object was expected"), ('{"version": 1, "status": "fine"}', "status 'fine'"),
     ('{"version": 0, "status": "done"}', "version 0"), ('{"version": 1, "status": "done"}', "not a result")],
)  # fmt: skip
def test_broken_results_have_different_reasons(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "train.json").write_text(text)
    with pytest.raises(ProtocolError, match=message):
        Result.read(tmp_path, "train")


def test_missing_result_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Result.read(tmp_path, "train")


def test_nan_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        protocol.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_half_an_event_is_left_for_later(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.epoch(1, 10, 0.5, valid_loss=2.0)
    with open(log.path, "a") as stream:
        stream.write('{"event": "epo')
    assert [event["epoch"] for event in protocol.read_events(log.path)] == [1]
    EventLog(log.path).epoch(2, 20, 1.0)  # a resumed worker
    assert [event["epoch"] for event in protocol.read_events(log.path)] == [1, 2]
