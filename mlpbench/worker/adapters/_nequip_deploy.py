"""NequIP's own faster paths: what ``nequip-compile`` makes for its ASE calculator, kernels and neighbours for GPUs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from nequip.data import AtomicDataDict
from nequip.data._nl import NEIGHBORLIST_BACKEND_OPTIONS, register_neighborlist_backend
from nequip.integrations.ase import NequIPCalculator
from nequip.model.modify_utils import modify
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.aoti_metadata import (
    NEQUIP_AOTI_INPUTS_KEY,
    NEQUIP_AOTI_OUTPUTS_KEY,
    NEQUIP_CUSTOM_OPS_LIBS_KEY,
    embed_custom_ops_libs,
    serialize_aoti_keys,
)
from nequip.utils.global_state import get_latest_global_state
from nequip.utils.versions import _TORCH_GE_2_10

from mlpbench.worker.adapter import Unavailable

DEPLOYMENTS = {
    "compiled": ("TorchScript", "AOTInductor"),
    "accelerated": ("AOTInductor+OpenEquivariance", "AOTInductor+cuEquivariance"),
}
KERNELS = {  # the modifier of nequip-compile, and the package it imports
    "OpenEquivariance": ("enable_OpenEquivariance", "openequivariance"),
    "cuEquivariance": ("enable_CuEquivariance", "cuequivariance_torch"),
}
TORCH_SIM = "torch_sim"  # under which torch-sim's neighbour list is known to NequIP
_TARGET = "ase"
_SEED = 1  # as nequip-compile has it


def deploy(
    model: Any,
    device: str,
    means: str,
    like: NequIPCalculator,
    example: Atoms,
    folder: Path,
    kernels: Mapping[str, tuple[str, str]],
) -> Any:
    """NequIP's calculator around the compiled ``model``; the compiled file lies in ``folder``.

    Does what ``nequip-compile --mode aotinductor --target ase`` does, which itself takes a checkpoint only, and so only
    the dtype of the training.

    Args:
        model: NequIP's, in the dtype it is to run in.
        device: where it is to run; compiled for it.
        means: one of the adapter's deployments: ``TorchScript``, ``AOTInductor``, ``AOTInductor+`` a kernel.
        like: the eager calculator, whose neighbour list is used.
        example: a structure for tracing.
        folder: for the compiled file.
        kernels: name -> modifier of ``nequip-compile`` and the package it imports.

    Raises:
        Unavailable: TorchScript with a torch that NequIP refuses it for, kernels that are not installed.
    """
    if means == "TorchScript":
        if _TORCH_GE_2_10:
            raise Unavailable(f"nequip-compile refuses it from torch 2.10 on; this is torch {torch.__version__}")
        raise Unavailable("mlpbench compiles with AOTInductor only")
    kernel = means.partition("+")[2]
    if kernel:
        if device == "cpu":
            raise Unavailable(f"{kernel}'s kernels are made for GPUs")
        model = _with_kernels(model, *kernels[kernel])
    path = folder / f"{means.replace('+', '-')}.nequip.pt2"
    boxed = example.copy()
    if not boxed.cell.rank:  # without a volume the stress is NaN, and NequIP's own check of the compiled model fails
        boxed.center(vacuum=10.0)
    _export(model, device, like.atoms_to_data(boxed), path)
    return NequIPCalculator.from_compiled_model(str(path), device=device, neighborlist_backend=neighbours_on(device))


def neighbours_on(device: str) -> str:
    """Name of the neighbour list that NequIP is to use on a device.

    matscipy's works on a CPU only. For GPUs NequIP itself knows one, of a package that an adopted environment may lack
    (nvalchemi-toolkit-ops); torch-sim's takes its place then.
    """
    if device == "cpu":
        return "matscipy"
    if importlib.util.find_spec("nvalchemiops") is not None:
        return "alchemiops"
    if TORCH_SIM not in NEIGHBORLIST_BACKEND_OPTIONS:
        register_neighborlist_backend(TORCH_SIM, torch_sim_neighbours, supports_cuda=True)
    return TORCH_SIM


def torch_sim_neighbours(data: dict[str, torch.Tensor], r_max: float) -> dict[str, torch.Tensor]:
    """NequIP's ``data`` with all pairs nearer than ``r_max`` Å by torch-sim, on the device where the positions are."""
    from torch_sim.neighbors import torchsim_nl  # torch-sim takes seconds to import

    positions = data[AtomicDataDict.POSITIONS_KEY]
    count = AtomicDataDict.num_frames(data)
    frame = data.get(AtomicDataDict.BATCH_KEY, torch.zeros(len(positions), dtype=torch.long, device=positions.device))
    cell = data.get(AtomicDataDict.CELL_KEY, positions.new_zeros(count, 3, 3)).reshape(count, 3, 3)
    pbc = data.get(AtomicDataDict.PBC_KEY, torch.zeros(count, 3, dtype=torch.bool, device=positions.device))
    # Where there is no volume, nothing can be divided by it: an isolated molecule gets a cell that no pair crosses.
    empty = (torch.linalg.det(cell) == 0)[:, None, None]
    boxes = torch.where(empty, torch.eye(3, dtype=cell.dtype, device=cell.device), cell)
    pairs, _, shifts = torchsim_nl(positions, boxes, pbc.reshape(count, 3), float(r_max), frame)
    data[AtomicDataDict.EDGE_INDEX_KEY] = pairs.to(torch.long)
    if AtomicDataDict.CELL_KEY in data:
        data[AtomicDataDict.EDGE_CELL_SHIFT_KEY] = shifts.to(cell.dtype)
    return data


def _with_kernels(model: Any, modifier: str, package: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise Unavailable(f"not installed; adopt an environment with {package} (backend.NAME.python)")
    return modify(model, [{"modifier": modifier}])


def _export(model: Any, device: str, data: dict[str, torch.Tensor], path: Path) -> None:
    target: Any = COMPILE_TARGET_DICT[_TARGET]
    free = {name: torch.export.Dim(f"num_{name}s", min=2) for name in ("frame", "node", "edge")}
    shapes = target["batch_map_settings"]({"graph": free["frame"], "node": free["node"], "edge": free["edge"]})
    known = {**model.metadata, **get_latest_global_state(only_metadata_related=True)}
    metadata = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in known.items()}
    metadata[NEQUIP_AOTI_INPUTS_KEY] = serialize_aoti_keys(target["input"])
    metadata[NEQUIP_AOTI_OUTPUTS_KEY] = serialize_aoti_keys(target["output"])
    path.unlink(missing_ok=True)
    aot_export_model(
        model=model,
        device=torch.device(device),
        input_fields=target["input"],
        output_fields=target["output"],
        data=target["data_settings"](data),
        batch_map=shapes,
        output_path=str(path),
        inductor_configs={"aot_inductor.metadata": metadata},
        seed=_SEED,
    )
    if NEQUIP_CUSTOM_OPS_LIBS_KEY in metadata:
        embed_custom_ops_libs(str(path), set(metadata[NEQUIP_CUSTOM_OPS_LIBS_KEY].split()))
