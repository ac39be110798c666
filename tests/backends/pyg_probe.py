"""Runs inside PyTorch Geometric's environment: prints what mlpbench's DimeNet++ and the package's own make of ethanol.

The package's forward pass runs with its two functions that need compiled packages replaced by plain loops.
"""

import json
import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[2] / "mlpbench" / "worker" / "bootstrap.py"))["_mount"]()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from torch_geometric.nn.models import dimenet  # noqa: E402

from mlpbench.worker.adapters._dimenet import DimeNetPP  # noqa: E402
from mlpbench.worker.adapters._pairs import half_list  # noqa: E402

CUTOFF = 2.5
OPTIONS = {
    "hidden_channels": 8, "num_blocks": 2, "int_emb_size": 4, "basis_emb_size": 3, "out_emb_channels": 8,
    "num_spherical": 3, "num_radial": 2, "cutoff": CUTOFF, "envelope_exponent": 5, "num_before_skip": 1,
    "num_after_skip": 2, "num_output_layers": 2, "act": "swish", "output_initializer": "glorot_orthogonal",
}  # fmt: skip


def radius_graph(pos, r, batch=None, max_num_neighbors=32):  # type: ignore[no-untyped-def]  # as the package's
    """Edges j→i of all atoms closer than ``r``."""
    distances = torch.cdist(pos, pos)
    target, source = torch.nonzero((distances < r) & (distances > 0), as_tuple=True)
    return torch.stack([source, target])


def triplets(edge_index, num_nodes):  # type: ignore[no-untyped-def]  # as the package's
    """All k→j→i but k = i."""
    edges = list(zip(*edge_index.tolist(), strict=True))
    found = [
        (i, j, k, f, e)
        for e, (j, i) in enumerate(edges)
        for f, (k, middle) in enumerate(edges)
        if middle == j and k != i
    ]
    return (edge_index[1], edge_index[0], *torch.tensor(found).T)


def energies(model, atoms):  # type: ignore[no-untyped-def]  # of a probe
    """Of the whole, by mlpbench's forward pass, and the forces."""
    first, second, shift = half_list(atoms, CUTOFF)
    vectors = atoms.positions[first] - atoms.positions[second] - shift @ atoms.cell.array
    given = torch.as_tensor(vectors).requires_grad_(True)
    total = model(torch.as_tensor(atoms.numbers).long(), torch.as_tensor(np.stack([first, second])), given).sum()
    (slope,) = torch.autograd.grad(total, given)
    return float(total.detach()), bool(torch.isfinite(slope).all())


torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
ours = DimeNetPP(OPTIONS)
package = dimenet.DimeNetPlusPlus(out_channels=1, **OPTIONS)
package.load_state_dict(ours.state_dict())  # strict: names and shapes are the package's
dimenet.radius_graph, dimenet.triplets = radius_graph, triplets
ethanol = molecule("CH3CH2OH")
theirs = package(torch.as_tensor(ethanol.numbers).long(), torch.as_tensor(ethanol.positions))
crystal = bulk("Al", "sc", a=2.0)  # atoms in line, and an atom that is its own neighbour
print(
    json.dumps(
        {
            "ours": energies(ours, ethanol)[0],
            "theirs": float(theirs.detach()),
            "crystal": energies(ours, crystal),
            "repeated": energies(ours, crystal * (2, 2, 2))[0],
        }
    )
)
