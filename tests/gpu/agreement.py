"""Does a device say what the CPU says? Energies, forces and stress of one checkpoint on both; memory three ways.

    PYTHON tests/gpu/agreement.py TRIAL_FOLDER --device cuda [--frames 8]

PYTHON is the backend's interpreter, TRIAL_FOLDER one with a finished training. Prints a JSON list with a row for each
dtype. The stress is that of the same molecules in a periodic cube of 9 Å.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # some packages bring a module "tests" of their own
from md_throughput import mount

BOX = 9.0  # Å


def predictions(adapter: Any, frames: Any, dtype: str) -> tuple[dict[str, Any], float]:
    """``energy`` eV, ``forces`` eV/Å, and in the box ``stress`` eV/Å³; and the seconds that took."""
    begin = time.perf_counter()
    potential = adapter.load(dtype=dtype)
    free = potential.predict(frames, len(frames))
    boxed = replace(
        frames, cell=np.tile(np.eye(3) * BOX, (len(frames), 1, 1)), pbc=np.ones((len(frames), 3), dtype=bool)
    )
    stress = potential.predict(boxed, len(frames), stress=True).stress
    if stress is None and "stress" in adapter.request.capabilities["labels"]:
        raise ValueError(f"{adapter.request.architecture['name']} gave no stress, which it can be trained on")
    found = {"energy": free.energy, "forces": free.forces, "stress": stress}
    return found, time.perf_counter() - begin


def _largest(there: Any, cpu: Any) -> float | None:
    """The largest difference; NaN stays NaN, which passes no limit; None where the potential has no such output."""
    return None if cpu is None or there is None else float(np.abs(there - cpu).max())


def memory(device: str) -> dict[str, float | None]:
    """10⁶ bytes: the tensors' peak, what torch reserved for them, and what the device says is in use."""
    if not device.startswith("cuda"):
        return {"allocated_mb": None, "reserved_mb": None, "in_use_mb": None}
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_mb": torch.cuda.max_memory_allocated() / 1e6,
        "reserved_mb": torch.cuda.max_memory_reserved() / 1e6,
        "in_use_mb": (total - free) / 1e6,
    }


def main() -> int:
    """Print one row for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--split", default="test_500K")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    chosen = parser.parse_args()
    mount()
    from mlpbench.frames import Frames
    from mlpbench.protocol import REQUEST, Request
    from mlpbench.worker.main import load_adapter

    request = replace(Request.read(chosen.folder / REQUEST), directory=str(chosen.folder.resolve()))
    frames = Frames.load(Path(request.frames[chosen.split])).select(slice(chosen.frames))
    make = load_adapter(request.adapter)
    rows = []
    for dtype in chosen.dtypes:
        cpu, cpu_seconds = predictions(make(replace(request, device="cpu")), frames, dtype)
        there, seconds = predictions(make(replace(request, device=chosen.device)), frames, dtype)
        off = {key: _largest(there[key], cpu[key]) for key in cpu}
        rows.append(
            {
                "architecture": request.architecture["name"], "device": chosen.device, "dtype": dtype,
                "n_frames": len(frames), "energy_eV": off["energy"], "forces_eV_per_A": off["forces"],
                "stress_eV_per_A3": off["stress"], "cpu_seconds": cpu_seconds, "device_seconds": seconds,
                **memory(chosen.device),
            }
        )  # fmt: skip
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
