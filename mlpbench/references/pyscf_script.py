"""Labels molecules with PySCF: ``python pyscf_script.py REQUEST.json``, in PySCF's own environment.

It needs the standard library, numpy and PySCF alone, and imports nothing of mlpbench, so that the environment stays
what its requirements say. The request has ``method`` (xc, basis, density_fit, grid_level, conv_tol, charge, spin) and
``frames``: a list of ``{id, numbers, positions}`` (Å). Each frame's answer is written as soon as it is there, to
``<id>.json`` beside the request: ``energy`` (eV, total), ``forces`` (eV/Å), ``converged``, ``seconds``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(path: Path) -> int:
    """Label every frame of the request at ``path``, or all that begin within its ``seconds``."""
    request = json.loads(path.read_text(encoding="utf-8"))
    begin = time.perf_counter()
    for frame in request["frames"]:
        if request.get("seconds") is not None and time.perf_counter() - begin > request["seconds"]:
            break
        answer = label(frame["numbers"], frame["positions"], request["method"])
        part = path.parent / f".{frame['id']}.part"
        part.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(part, path.parent / f"{frame['id']}.json")
    return 0


def label(numbers: list[int], positions: list[list[float]], method: dict[str, Any]) -> dict[str, Any]:
    """Restricted (or, with spin, unrestricted) Kohn–Sham energy and analytic forces of one open structure."""
    from pyscf import dft, gto
    from pyscf.data.nist import BOHR, HARTREE2EV

    start = time.perf_counter()
    molecule = gto.M(
        atom=[[int(z), tuple(r)] for z, r in zip(numbers, positions, strict=True)], unit="Angstrom",
        basis=method["basis"], charge=method["charge"], spin=method["spin"], verbose=0,
    )  # fmt: skip
    field = dft.RKS(molecule) if method["spin"] == 0 else dft.UKS(molecule)
    field.xc = method["xc"]
    if method["density_fit"]:
        field = field.density_fit()
    field.grids.level = method["grid_level"]
    field.conv_tol = method["conv_tol"]
    energy = float(field.kernel())
    answer: dict[str, Any] = {"energy": energy * HARTREE2EV, "converged": bool(field.converged), "forces": None}
    if field.converged:
        answer["forces"] = (-field.nuc_grad_method().kernel() * HARTREE2EV / BOHR).tolist()
    answer["seconds"] = time.perf_counter() - start
    return answer


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
