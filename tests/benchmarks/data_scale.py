"""Describe, hash and split a large synthetic set: python -m tests.benchmarks.data_scale [FRAMES] (default 1,000,000).

Frames of 15 atoms in an sGDML-layout file, through the same functions that a study uses; prints time and peak memory.
The bound is ten minutes and 4 GiB on two cores; last seen: 115 s and 2.36 GiB on one core of a busy machine.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.registry import describe_frames
from mlpbench.datasets.schema import DatasetConfig

_NUMBERS = np.array([6] * 5 + [8] * 2 + [1] * 8)


def write(path: Path, frames: int) -> None:
    """An ``.npz`` of random geometries about one molecule, each array written as a stream."""
    import zipfile

    generator = np.random.default_rng(0)
    rest = generator.normal(0, 2, (15, 3))
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape, centre in (("R", (15, 3), rest), ("F", (15, 3), 0.0), ("E", (), -230.0)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "<f8", "fortran_order": False, "shape": (frames, *shape)}
                np.lib.format.write_array_header_1_0(stream, header)
                for start in range(0, frames, 10_000):
                    size = (min(10_000, frames - start), *shape)
                    stream.write((centre + generator.normal(0, 0.1, size)).tobytes())
        with archive.open("z.npy", "w") as stream:
            np.lib.format.write_array(stream, _NUMBERS)


def main(frames: int) -> None:
    """Run the stages one after another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        write(path, frames)
        config = DatasetConfig(
            kind="file", path=str(path), n_train=int(0.7 * frames), n_valid=int(0.1 * frames), energy_unit="hartree"
        )
        start = time.perf_counter()
        _say("start", start)
        describe_frames(config)
        _say("described", start)
        dataset = load(config)
        _say("read and test frames held out", start)
        split = prepare_split(dataset, config, 0, Path(folder) / "splits")
        _say("leak check, hashes, split written", start)
        print(split.manifest["leak_check"]["splits"]["test"]["nearest_over_random"])


def _say(what: str, start: float) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    wall, processor = time.perf_counter() - start, time.process_time()
    print(f"{what:<36}{wall:8.1f} s   processor {processor:7.1f} s   peak {memory:.2f} GiB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
