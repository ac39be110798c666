"""A MACE model from elsewhere (``.model``, as ``mace_run_train`` saves it), made a potential of the adapter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from mace.modules.models import ScaleShiftMACE
from mace.tools.scripts_utils import extract_config_mace_model

from mlpbench.worker.adapter import Unusable, first_line

OWN = "own.json"  # in the folder of the checkpoints: options of mace_run_train that build the same model
# MACE's name of an argument of its model -> option of mace_run_train, where the value is plain.
_PLAIN = {
    "r_max": "r_max", "num_bessel": "num_radial_basis", "num_polynomial_cutoff": "num_cutoff_basis",
    "max_ell": "max_ell",
    "num_interactions": "num_interactions", "correlation": "correlation", "radial_type": "radial_type",
    "pair_repulsion": "pair_repulsion", "distance_transform": "distance_transform", "apply_cutoff": "apply_cutoff",
    "use_reduced_cg": "use_reduced_cg", "use_so3": "use_so3", "use_agnostic_product": "use_agnostic_product",
    "use_last_readout_only": "use_last_readout_only", "use_embedding_readout": "use_embedding_readout",
    "use_edge_irreps_first": "use_edge_irreps_first",
}  # fmt: skip


def read(file: Path, trust: bool) -> torch.nn.Module:
    """The model in a file.

    Raises:
        Unusable: it is not trusted (such a file is a pickle of a whole model), cannot be read, or is of another kind.
    """
    if not trust:
        raise Unusable(f"{file.name}: MACE saves whole models as pickles; start.trust=true loads one")
    try:
        model = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever a file that is no pickle of a module comes to
        raise Unusable(f"{file.name} is no model of MACE's: {first_line(error)}") from error
    if type(model) is not ScaleShiftMACE:
        raise Unusable(f"{file.name} holds a {type(model).__name__}; a ScaleShiftMACE is needed")
    heads = list(getattr(model, "heads", None) or ["default"])
    if len(heads) > 1:
        raise Unusable(f"{file.name} has several heads ({', '.join(heads)}); take one out with mace_select_head")
    return model


def adopt(model: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.nn.Module, dict[str, Any], dict[str, float]]:
    """The model without its atomic energies, which the fitted constants of a start contain.

    Returns:
        The model, in ``dtype``, with the arguments it is built with; the options of ``mace_run_train`` that build the
        same; and the atomic energies (eV) by element.
    """
    given = extract_config_mace_model(model)
    energies = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)
    own = {chemical_symbols[int(z)]: float(e) for z, e in zip(model.atomic_numbers, energies[0].detach(), strict=True)}
    model = model.to(dtype)
    with torch.no_grad():
        model.atomic_energies_fn.atomic_energies.zero_()
    model.built_with = {**given, "atomic_energies": 0 * given["atomic_energies"]}
    return model, _options(given), own


def _options(given: dict[str, Any]) -> dict[str, Any]:
    irreps = given["hidden_irreps"]
    gate = getattr(given["gate"], "__name__", "silu")
    options = {ours: given[theirs] for theirs, ours in _PLAIN.items() if theirs in given}
    return {
        **options,
        "num_cutoff_basis": int(given["num_polynomial_cutoff"]),
        "distance_transform": given["distance_transform"] or "None",
        "num_channels": irreps.count("0e"), "max_L": irreps.lmax,
        "MLP_irreps": str(given["MLP_irreps"]),
        "radial_MLP": str(list(given["radial_MLP"])),
        "interaction": given["interaction_cls"].__name__, "interaction_first": given["interaction_cls_first"].__name__,
        "gate": gate,
    }  # fmt: skip
