"""Damaged files of every layout: frames or a UserError come out, never another exception, a hang, or a full memory.

``MLPBENCH_FUZZ=200`` tries as many damages of each layout instead of the default.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import resource
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from mlpbench.datasets import load
from mlpbench.datasets.validation import validate
from mlpbench.errors import UserError
from mlpbench.units import HARTREE
from tests.unit.datasets.support import file_config, rattled_molecules, strained_copper

ROUNDS = int(os.environ.get("MLPBENCH_FUZZ", "40"))
_GIBIBYTES = 2  # that a damaged file of some kilobytes may ask for
_NUMBERS = [
    b"1000000000000",
    b"-1",
    b"0",
    b"nan",
    b"1e400",
    b"1e-300",
    b"99999999999999999999",
    b"\xff\xfe",
    b"",
    b"((",
]


def _extxyz(folder: Path) -> Path:
    write(folder / "a.extxyz", strained_copper(6).to_atoms(), format="extxyz")
    return folder / "a.extxyz"


def _npz(folder: Path) -> Path:
    frames = rattled_molecules(12)
    stack = {"R": frames.positions.reshape(12, 3, 3), "F": frames.forces.reshape(12, 3, 3)}
    np.savez(folder / "a.npz", z=frames.numbers[:3], E=frames.energy, e_unit="eV", lattice=np.eye(3) * 9, **stack)
    return folder / "a.npz"


def _hdf5(folder: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    frames = rattled_molecules(8)
    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("x/y")
        group["species"] = np.array([b"C", b"O", b"H"])
        group["coordinates"] = frames.positions.reshape(8, 3, 3)
        group["energies"] = frames.energy / HARTREE
        group["forces"] = frames.forces.reshape(8, 3, 3)
    return folder / "a.h5"


def _qm22_text() -> str:
    rows = "".join(f"{s} {i}.5 0.1 0.2 0.01 0.02 -0.03\n" for i, s in enumerate("CHHH"))
    return "".join(f"  4\n  -40.{i}\n{rows}" for i in range(1, 9))


def _qm22(folder: Path) -> Path:
    (folder / "a.xyz").write_text(_qm22_text())
    return folder / "a.xyz"


def _qm22_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.xyz", _qm22_text())
    return folder / "a.zip"


def _qm9(folder: Path) -> Path:
    properties = "\t".join(["gdb 3", *["1.5"] * 10, "-76.4", "-76.4", "-76.4", "-76.4", "6.0"])
    atoms = "O\t-0.03\t0.98\t0.008\t-0.5\nH\t0.06\t2.1*^-2\t0.002\t0.2\nH\t0.87\t1.3\t0.0007\t0.2\n"
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i in range(6):
            content = f"3\n{properties}\n{atoms}".encode()
            member = tarfile.TarInfo(f"m{i}.xyz")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "a.tar"


def _mlearn(folder: Path) -> Path:
    frames = strained_copper(6)
    sites = [{"species": [{"element": "Cu"}], "abc": [0.1 * i, 0.5, 0.2]} for i in range(4)]
    entries = [
        {
            "structure": {"lattice": {"matrix": frames.cell[i].tolist()}, "sites": sites},
            "outputs": {
                "energy": float(frames.energy[i]),
                "forces": np.zeros((4, 3)).tolist(),
                "virial_stress": [1] * 6,
            },
            "group": "x",
        }
        for i in range(6)
    ]
    (folder / "a.json").write_text(json.dumps(entries))
    return folder / "a.json"


def _deepmd(folder: Path) -> Path:
    root = folder / "a"
    (root / "set.000").mkdir(parents=True)
    (root / "type.raw").write_text("0\n1\n0\n")
    (root / "type_map.raw").write_text("H O\n")
    frames = rattled_molecules(8)
    arrays = {
        "coord": frames.positions.reshape(8, 9), "force": frames.forces.reshape(8, 9), "energy": frames.energy,
        "box": np.tile(np.eye(3).ravel() * 9, (8, 1)), "virial": np.ones((8, 9)),
        "real_atom_types": np.tile([0, 1, -1], (8, 1)),
    }  # fmt: skip
    for name, values in arrays.items():
        np.save(root / "set.000" / f"{name}.npy", values)
    return root


def _database(folder: Path) -> Path:
    from ase.db import connect

    with connect(folder / "a.db") as database:
        for atoms in rattled_molecules(4).to_atoms():
            energy = float(atoms.calc.results["energy"])
            atoms.calc = None
            database.write(atoms, data={"energy": np.array([energy]), "forces": np.zeros((3, 3))})
    return folder / "a.db"


def _trajectory(folder: Path) -> Path:
    write(folder / "a.traj", rattled_molecules(6).to_atoms())
    return folder / "a.traj"


LAYOUTS = {
    "extxyz": _extxyz, "npz": _npz, "hdf5": _hdf5, "qm22": _qm22, "qm22.zip": _qm22_zip, "qm9": _qm9,
    "mlearn": _mlearn, "deepmd": _deepmd, "database": _database, "trajectory": _trajectory,
}  # fmt: skip


def _damaged(content: bytes, chance: random.Random) -> bytes:
    kind = chance.choice(["flip", "flip", "cut", "number", "number", "repeat", "drop"])
    if not content:
        return content
    place = chance.randrange(len(content))
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    if kind == "cut":
        return content[:place]
    if kind == "repeat":
        return content[:place] + content[place : place + 200] * chance.choice([2, 50]) + content[place:]
    if kind == "drop":
        return content[:place] + content[place + chance.randrange(1, 100) :]
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", content))
    if not numbers:
        return content[:place]
    chosen = chance.choice(numbers)
    return content[: chosen.start()] + chance.choice(_NUMBERS) + content[chosen.end() :]


@contextmanager
def _limited() -> Iterator[None]:
    """At most some gibibytes of address space more than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + _GIBIBYTES * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_file_ends_in_a_sentence(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path)
    config = file_config(path, n_train=2, n_valid=1, labels=["energy"], leak_tolerance=1e-6)
    assert len(validate(config)[0].frames) > 3  # undamaged, it is read
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    contents = {file: file.read_bytes() for file in files}
    chance = random.Random(layout)
    refused = 0
    for _ in range(ROUNDS):
        file = chance.choice(files)
        file.write_bytes(_damaged(contents[file], chance))
        with warnings.catch_warnings(), _limited():
            warnings.simplefilter("ignore")
            for attempt in (validate, load):
                try:
                    attempt(config)
                except UserError:
                    refused += attempt is load
        file.write_bytes(contents[file])
    assert refused > 0
