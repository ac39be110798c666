"""A trained potential put to use: :func:`serve` answers frames by frames, :func:`export` writes it for use without
mlpbench.
"""

from __future__ import annotations

import shlex
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
from mlpbench.worker.engines.native import ask_styles
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
    """Options: ``folder``; ``command`` of a LAMMPS of the user's own, or None.

    Returns ``code``, see :meth:`Adapter.export`, ``torchsim``, see :meth:`Adapter.export_torchsim`, and with a command
    ``pair``: ``name``, ``newton``, ``lines`` and ``arguments`` of the package's pair style, or the ``reason`` why there
    is none.

    Raises:
        Skip: the package has no form that can be used without mlpbench.
    """
    folder = Path(options["folder"])
    try:
        found = {"code": adapter.export(folder), "torchsim": adapter.export_torchsim()}
    except Unavailable as error:
        raise Skip(str(error)) from error
    if not options.get("command"):
        return found
    try:
        if not adapter.pair_styles:
            raise Unavailable("the package has no pair style that mlpbench writes")
        pair = adapter.pair_style(folder, ask_styles(shlex.split(options["command"]), {}))
    except Unavailable as error:
        return {**found, "pair": {"reason": str(error)}}
    kept = {name: getattr(pair, name) for name in ("name", "newton", "lines", "arguments")}
    return {**found, "pair": {**kept, "variables": dict(pair.variables)}}
