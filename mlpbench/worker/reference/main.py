"""Labels the frames of a request: ``bootstrap.py FOLDER mlpbench.worker.reference.main``.

``request.json`` has ``code`` (module:Class), ``method`` (its settings), ``frames`` (``id, numbers, positions`` and,
where something is periodic, ``cell, pbc``; Å) and ``seconds``, after which no frame is begun. Several processes may
share the folder: each takes the next frame that nobody has claimed. An answer is written as soon as it is there, to
``<id>.json``: ``energy`` (eV), ``forces`` (eV/Å), ``stress`` (eV/Å³ or null), ``converged``, ``seconds``, ``version``,
``reason`` (why there is no label), ``error`` (True if the code broke down, and another try may go better).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from mlpbench.protocol import replacing
from mlpbench.worker.process import die_with_parent
from mlpbench.worker.reference.code import Code, NotConverged, Structure, load

GIVE_UP_AFTER = 3  # frames that broke down before any was computed: it is not the frame's fault then


def main(argv: list[str]) -> int:
    """Label what is left of the request in the folder ``argv[0]``."""
    die_with_parent()
    folder = Path(argv[0])
    begin = time.perf_counter()
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    scratch = folder / f"process-{os.getpid()}"  # codes that write files do it here, apart from one another
    scratch.mkdir()
    os.chdir(scratch)
    code: Code = load(request["code"])(request["method"])
    good = broken = 0
    for frame in request["frames"]:
        if request.get("seconds") is not None and time.perf_counter() - begin > request["seconds"]:
            break
        if not claim(folder / f"{frame['id']}.claim"):
            continue
        answer = label(code, Structure.from_request(frame))
        _write(folder / f"{frame['id']}.json", answer)
        good, broken = good + (not answer["error"]), broken + answer["error"]
        if broken >= GIVE_UP_AFTER and not good:
            break
    return 0


def label(code: Code, structure: Structure) -> dict[str, Any]:
    """The answer for one structure, whatever becomes of it."""
    start = time.perf_counter()
    found: dict[str, Any] = {"energy": None, "forces": None, "stress": None, "converged": False, "error": False}
    try:
        answer = code.compute(structure)
        found |= {"energy": float(answer.energy), "forces": answer.forces.tolist(), "converged": True, "reason": ""}
        found["stress"] = None if answer.stress is None else answer.stress.tolist()
    except NotConverged as error:
        found["reason"] = str(error) or "did not converge"
    except Exception as error:  # a code may fail in any way on a bad geometry; the other frames are still wanted
        found |= {"error": True, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**found, "seconds": time.perf_counter() - start, "version": code.version}


def claim(path: Path) -> bool:
    """True for the one process that comes first."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _write(path: Path, answer: dict[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(answer), encoding="utf-8")
