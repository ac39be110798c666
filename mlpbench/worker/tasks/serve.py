"""A trained potential put to use: :func:`serve` answers frames by frames, :func:`export` writes it for use without
mlpbench.
"""

from __future__ import annotations

import socket
import traceback
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench import turns
from mlpbench.frames import Frames, packed, unpacked
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, Potential, Unavailable
from mlpbench.worker.tasks import Skip


def serve(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``address`` of the core's socket, ``dtype`` of the calculation (None: the training's).

    Says ``ready`` once the potential is loaded. Then answers each message with the fields of :class:`Frames`,
    ``batch_size`` and ``want_stress``: with ``energy`` (F,) eV without the baseline, ``forces`` (A, 3) eV/Å and, if
    asked for, ``stress`` (F, 6) eV/Å³; or with ``failed``, a text. Returns ``answered``, how many messages it had.
    """
    answered = 0
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(options["address"])
        line = Connection(end.detach())
    with line:
        potential = adapter.load(options.get("dtype"))
        line.send_bytes(packed(ready=True))
        while True:
            try:
                message = unpacked(line.recv_bytes())
            except EOFError:
                return {"answered": answered}
            with turns.beside_others():  # not between two messages: something may be timed on this machine meanwhile
                answer = _answer(potential, message)
            line.send_bytes(packed(**answer))
            answered += 1


def _answer(potential: Potential, message: dict[str, Any]) -> dict[str, Any]:
    try:
        frames = Frames(**{field.name: message[field.name] for field in fields(Frames)})
        found = potential.predict(frames, int(message["batch_size"]), stress=bool(message["want_stress"]))
    except Exception as error:  # whatever the package raises is told, and the next message may go well
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}
    answer = {"energy": np.asarray(found.energy), "forces": np.asarray(found.forces)}
    return answer if found.stress is None else answer | {"stress": np.asarray(found.stress)}


def export(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``folder``. Returns ``code``, see :meth:`Adapter.export`.

    Raises:
        Skip: the package has no form that can be used without mlpbench.
    """
    try:
        return {"code": adapter.export(Path(options["folder"]))}
    except Unavailable as error:
        raise Skip(str(error)) from error
