"""What a person reads while a simulation runs."""

from __future__ import annotations

from typing import Any

from mlpbench.numbers import duration
from mlpbench.progress import _describe
from mlpbench.worker.dynamics.record import Settings
from mlpbench.worker.tasks.md import tell


class Log:
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, event: str, **values: Any) -> None:
        """As :class:`mlpbench.protocol.EventLog`."""
        self.events.append({"event": event, **values})


def test_time_left_of_this_run_and_of_what_follows() -> None:
    """10 replicas took 100 s for 1000 of 5000 steps: 10 ms a replica-step. Then 2000 steps of 5, and a capped run."""
    log: Any = Log()
    later = [
        (Settings("nve", 1.0, 0.5, 5.0, 500.0), 5),
        (Settings("nve", 100.0, 0.5, 5.0, 500.0, wall_seconds=50.0), 5),
    ]
    tell(log, "nvt", 10, later)({"step": 1000, "steps": 5000, "seconds": 100.0, "left_seconds": 400.0, "alive": 9})
    (event,) = log.events
    assert event["all_left_seconds"] == 400.0 + 2000 * 5 * 0.01 + 50.0
    text = _describe(event, None)
    assert text == "md, nvt: step 1000 of 5000, 9 replicas, about 7 min left (9 min with what follows)"
    tell(log, "nvt", 10, [])({"step": 1000, "steps": 5000, "seconds": 100.0, "left_seconds": 30.0, "alive": 9})
    assert _describe(log.events[-1], None).endswith("about 30 s left")


def test_durations() -> None:
    assert [duration(x) for x in (12.3, 600.0, 9000.0)] == ["12 s", "10 min", "2.5 h"]
