"""What a fine-tuned potential still knows: its forces on the frames of its start's labels, beside the start's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.frames import Frames
from mlpbench.protocol import FORGETTING, EventLog, replacing
from mlpbench.worker.adapter import Adapter
from mlpbench.worker.tasks import Skip


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``frames`` (paths of the frames of the start's labels), ``batch_size``.

    Writes ``forgetting.npz``: ``reference``, ``before`` and ``after`` (A, 3) eV/Å, ``n_atoms`` and ``group`` (F,).
    Energies are left out: a fine-tuned potential has the energy zero of other labels.
    """
    files = [Path(path) for path in options["frames"]]
    if not files or not all(path.is_file() for path in files):
        raise Skip("the frames that the start was tested on are not here any more")
    frames = Frames.concatenate([Frames.load(path) for path in files])
    start, plain = adapter.start, adapter.plain
    assert start is not None
    assert plain is not None
    own = plain(adapter.request)  # without the energy zero of the new labels, which other elements may not have
    before, after = (one.load().predict(frames, options["batch_size"]).forces for one in (start, own))
    arrays: dict[str, Any] = {
        "reference": frames.forces, "before": before, "after": after, "n_atoms": frames.n_atoms, "group": frames.group,
    }  # fmt: skip
    with replacing(adapter.directory / FORGETTING) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)
    return {"frames": len(frames), "splits": [path.stem for path in files]}
