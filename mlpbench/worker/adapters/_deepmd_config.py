"""DeePMD-kit's definition of a model, and of what its authors train it with, from one common request."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from dargs.dargs import ArgumentError
from deepmd.pt.loss import EnergyStdLoss
from deepmd.pt.utils.learning_rate import LearningRateExp
from deepmd.utils.argcheck import model_args

from mlpbench.protocol import Request
from mlpbench.worker.adapters._deepmd_model import Batch, neighbour_counts
from mlpbench.worker.common_training import Steps
from mlpbench.worker.training import RefusedOption, require_option

# What other settings decide, here with their names.
DECIDED = {
    "type_map": "the data do", "type": "architecture does", "info": "it is not used", "precision": "set dtype",
    "seed": "set init_seed", "spin": "spins are not known here", "hessian_mode": "there are no Hessians to train on",
}  # fmt: skip


def selection(rule: Any, counts: np.ndarray, name: str) -> Any:
    """Places for neighbours, as DeePMD-kit takes them.

    Args:
        rule: ``auto:FACTOR``, which is the largest count times that factor, rounded up to a multiple of four as in
            DeePMD-kit; or a number, or one for each element in ascending order.
        counts: the largest number of neighbours in the data, of each type or of all together.
        name: the setting's, for messages.

    Raises:
        ValueError: neither, or another number of elements.
    """
    if isinstance(rule, str):
        word, _, factor = rule.partition(":")
        try:
            times = float(factor or 1.1)
        except ValueError:
            times = math.nan
        if word != "auto" or not times >= 1:
            raise ValueError(f"architecture.{name}={rule}: give auto:FACTOR with a factor of at least 1, or numbers")
        return [max(4, 4 * math.ceil(times * int(count) / 4)) for count in counts]
    numbers = [int(each) for each in rule] if isinstance(rule, Sequence) else [int(rule)] * len(counts)
    if len(numbers) != len(counts) or min(numbers) < 1:
        raise ValueError(f"architecture.{name}={rule}: {len(counts)} positive numbers are needed, or one for all")
    return numbers


OWN = ("loss", "learning_rate", "gradient_max_norm")  # of DeePMD-kit's input: the training's, not the model's
MODEL = ("descriptor", "fitting_net")


def own_training(request: Request, n_train: int) -> dict[str, Any]:
    """DeePMD-kit's sections of ``native`` that stand in place of the common loss, schedule and clipping.

    The section ``learning_rate`` gets its ``start_lr`` (training.lr) and ``num_steps`` (the budget's).

    Raises:
        RefusedOption: an option that DeePMD-kit does not have, or two settings for one thing.
    """
    native, training = request.architecture.get("native") or {}, request.training
    own = {name: copy.deepcopy(native[name]) for name in OWN if native.get(name) is not None}
    if "learning_rate" in own and training["schedule"] != "constant":
        raise RefusedOption(f"native.learning_rate and training.schedule={training['schedule']}: set it to constant")
    if "gradient_max_norm" in own and training["gradient_clip"] is not None:
        raise RefusedOption("native.gradient_max_norm and training.gradient_clip: set the latter to null")
    if "loss" in own and training.get("stress_weight"):
        raise RefusedOption("native.loss and training.stress_weight: DeePMD-kit's loss has no stress, but the virial")
    for name, known in (("loss", EnergyStdLoss), ("learning_rate", LearningRateExp)):
        for option in own.get(name, {}):
            parameters = set(inspect.signature(known.__init__).parameters) - {"self", "kwargs", "start_lr", "num_steps"}
            require_option(option, {*parameters, "type"}, f"architecture.native.{name}.{option}", "DeePMD-kit")
        own.get(name, {}).pop("type", None)
    if "learning_rate" in own:
        total = Steps.of(request.budget, int(training["batch_size"]), n_train).total
        if total is None:
            raise RefusedOption("native.learning_rate ends with the steps of the budget: set budget.steps, not seconds")
        own["learning_rate"] |= {"start_lr": float(training["lr"]), "num_steps": total}
    return own


def model_section(request: Request, elements: Sequence[int], frames: Sequence[Batch]) -> dict[str, Any]:
    """The section ``model`` of DeePMD-kit's input, checked and completed by the package; ``native`` is merged over it.

    Args:
        request: architecture, dtype and seed.
        elements: atomic numbers of its types.
        frames: training and validation, for the numbers of neighbours.

    Raises:
        RefusedOption: an option that DeePMD-kit does not have, or that another setting decides.
    """
    settings = request.architecture
    build = {"se_e2_a": _se_e2_a, "dpa1": _dpa1, "dpa3": _dpa3}[settings["name"]]
    n_types, inner = len(elements), float(settings.get("angle_cutoff", 0.0))
    counts = np.max([neighbour_counts(frame, n_types).numpy().max(axis=0) for frame in frames], axis=0)
    total, within = (
        np.array([max(int(neighbour_counts(frame, n_types, radius).sum(dim=1).max()) for frame in frames)])
        for radius in (float("inf"), inner)
    )
    common = {"precision": request.dtype, "seed": int(request.seed)}
    section = {
        "type_map": [chemical_symbols[z] for z in elements],
        "descriptor": {**build(settings, counts, total, within), **common},
        "fitting_net": {
            "type": "ener", "neuron": list(settings["fitting_layers"]), "resnet_dt": True,
            "activation_function": settings["activation"], **common,
        },
    }  # fmt: skip
    native = {name: value for name, value in (settings.get("native") or {}).items() if name not in OWN}
    for option in native:
        require_option(option, {*MODEL, *OWN}, f"architecture.native.{option}", "DeePMD-kit (as mlpbench drives it)")
    section = _merged(section, native, "architecture.native")
    known = model_args()
    try:
        section = known.normalize_value(section)
        known.check_value(section, strict=True)
    except ArgumentError as error:
        raise RefusedOption(f"architecture.native: DeePMD-kit refuses the model: {error}") from error
    return {name: section[name] for name in ("type_map", "descriptor", "fitting_net", "type")}


def _merged(base: dict[str, Any], over: Mapping[str, Any], place: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if key in DECIDED:
            raise RefusedOption(f"{place}.{key} cannot be set: {DECIDED[key]}")
        below = base.get(key)
        inner = isinstance(value, Mapping) and isinstance(below, dict)
        merged[key] = _merged(below, value, f"{place}.{key}") if inner else copy.deepcopy(value)
    return merged


def _se_e2_a(settings: Mapping[str, Any], counts: np.ndarray, total: np.ndarray, within: np.ndarray) -> dict[str, Any]:
    return {
        "type": "se_e2_a",
        "rcut": float(settings["cutoff"]),
        "rcut_smth": float(settings["cutoff_smooth"]),
        "sel": selection(settings["neighbours"], counts, "neighbours"),
        "neuron": list(settings["embedding_layers"]),
        "axis_neuron": int(settings["axis_neurons"]),
        "type_one_side": bool(settings["type_one_side"]),
        "activation_function": settings["activation"],
    }


def _dpa1(settings: Mapping[str, Any], counts: np.ndarray, total: np.ndarray, within: np.ndarray) -> dict[str, Any]:
    return {
        "type": "dpa1",
        "rcut": float(settings["cutoff"]),
        "rcut_smth": float(settings["cutoff_smooth"]),
        "sel": selection(settings["neighbours"], total, "neighbours")[0],
        "neuron": list(settings["embedding_layers"]),
        "axis_neuron": int(settings["axis_neurons"]),
        "tebd_dim": int(settings["type_embedding"]),
        "attn": int(settings["attention_width"]),
        "attn_layer": int(settings["attention_layers"]),
        "attn_dotr": True,
        "attn_mask": False,
        "normalize": True,
        "smooth_type_embedding": True,
        "activation_function": settings["activation"],
    }


def _dpa3(settings: Mapping[str, Any], counts: np.ndarray, total: np.ndarray, within: np.ndarray) -> dict[str, Any]:
    return {
        "type": "dpa3",
        "repflow": {
            "n_dim": int(settings["node_features"]),
            "e_dim": int(settings["edge_features"]),
            "a_dim": int(settings["angle_features"]),
            "nlayers": int(settings["n_layers"]),
            "e_rcut": float(settings["cutoff"]),
            "e_rcut_smth": float(settings["cutoff_smooth"]),
            "e_sel": selection(settings["neighbours"], total, "neighbours")[0],
            "a_rcut": float(settings["angle_cutoff"]),
            "a_rcut_smth": float(settings["angle_cutoff_smooth"]),
            "a_sel": selection(settings["angle_neighbours"], within, "angle_neighbours")[0],
            "axis_neuron": int(settings["axis_neurons"]),
            "a_compress_rate": 1,
            "a_compress_e_rate": 2,
            "a_compress_use_split": True,
            "update_angle": True,
            "smooth_edge_update": True,
            "edge_init_use_dist": True,
            "use_exp_switch": True,
            "update_style": "res_residual",
            "update_residual": 0.1,
            "update_residual_init": "const",
            "fix_stat_std": 0.3,
        },
        "activation_function": settings["activation"],
        "use_tebd_bias": False,
        "concat_output_tebd": False,
    }
