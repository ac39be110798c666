"""NequIP (https://github.com/mir-group/nequip): its own model, loss, data module and Lightning training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import full_3x3_to_voigt_6_stress
from hydra.utils import get_method, instantiate
from nequip.data import AtomicDataDict, from_ase
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms
from nequip.model import ModelFromCheckpoint
from nequip.utils.global_state import set_global_state

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request
from mlpbench.worker import common_training
from mlpbench.worker.adapter import Adapter, PairStyle, Potential, Prediction, TrainOutcome
from mlpbench.worker.adapters import _pair_styles
from mlpbench.worker.adapters._nequip_config import (
    BEST,
    LAST,
    START,
    TRAIN_FILE,
    VALID_FILE,
    build_config,
    carried_over,
    loss_config,
    loss_scale,
    merged,
    placed,
    target_atoms,
    upper_triangle,
    write_frames,
)
from mlpbench.worker.adapters._nequip_deploy import DEPLOYMENTS, KERNELS, deploy, neighbours_on
from mlpbench.worker.adapters._nequip_training import Progress, fit, quiet
from mlpbench.worker.training import TrainingLog, require_options

MODEL = "sole_model"  # NequIP's name for the one model of a training module
HEADER = """# NequIP's configuration of this training. Energies in the .xyz files are without the baseline.
# Repeat it with the package alone, from this folder, whose common_training.py gives the batches and the learning rate:
#   {command}
# mlpbench does the same. Only where the budget has seconds it anneals the rate over the seconds, too.
"""


class NequIPPotential(Potential):
    """A NequIP model, run eagerly.

    Args:
        model: NequIP's ``GraphModel`` with the weights of the best epoch.
        device: where it runs.
        labels: what the training used; losses and metrics are made of the same.
    """

    def __init__(self, model: Any, device: str, labels: list[str]) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.labels = labels
        self.n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.type_names = self.model.metadata["type_names"].split(" ")
        self._transforms = self._make_transforms("matscipy")

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`. The stress of a frame without a volume is NaN."""
        energy, forces, stresses = [], [], []
        for start in range(0, len(frames), batch_size):
            out = self._run(self._batch(frames.select(slice(start, start + batch_size))))
            energy.append(_numpy(out[AtomicDataDict.TOTAL_ENERGY_KEY]).reshape(-1))
            forces.append(_numpy(out[AtomicDataDict.FORCE_KEY]))
            stresses.append(full_3x3_to_voigt_6_stress(_numpy(out[AtomicDataDict.STRESS_KEY]).reshape(-1, 3, 3)))
        return Prediction(
            np.concatenate(energy) if energy else np.zeros(0),
            np.concatenate(forces) if forces else np.zeros((0, 3)),
            (np.concatenate(stresses) if stresses else np.zeros((0, 6))) if stress else None,
        )

    def calculator(self) -> Calculator:
        """NequIP's ASE calculator around the model as it is (its own loader from a checkpoint knows one dtype only)."""
        return NequIPCalculator(self.model, self.device, transforms=self._make_transforms(neighbours_on(self.device)))

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        found: Callable[[Atoms], Any] = calculator.atoms_to_data  # type: ignore[attr-defined]  # NequIP's
        return found

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """NequIP's loss; see :meth:`Potential.package_loss`.

        Times the sum of the weights, by which NequIP divides them: with other weights it would be another factor.
        """
        labels = self.labels
        loss = instantiate(loss_config(labels, training), type_names=self.type_names).to(self.device)
        batch = self._batch(frames, labels)
        out = self._run(batch)
        return loss_scale(labels, training) * float(loss(out, batch)["weighted_sum"])

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: NequIP's metrics manager, accumulated batch by batch in float64."""
        labels, names, kind = (
            ["energy"],
            {"per_atom_energy_mae": "energy_mae", "total_energy_mae": "energy_mae_total"},
            "EnergyOnlyMetrics",
        )
        if frames.has_forces:
            labels, kind = ["energy", "forces"], "EnergyForceMetrics"
            names["forces_mae"] = "force_mae"
        manager = instantiate({"_target_": f"nequip.train.{kind}", "coeffs": dict.fromkeys(names)})
        manager.to(self.device)
        for start in range(0, len(frames), batch_size):
            batch = self._batch(frames.select(slice(start, start + batch_size)), labels)
            manager(self._run(batch), batch)
        found = manager.compute()
        return {ours: float(found[theirs]) for theirs, ours in names.items()}

    def torchsim_model(self) -> Any:
        """NequIP's torch-sim calculator around the eager model; its stress is NaN for a system without a volume."""
        from nequip.integrations.torchsim import NequIPTorchSimCalc  # torch-sim takes seconds to import

        return NequIPTorchSimCalc(self.model, self.device, transforms=self._make_transforms(neighbours_on(self.device)))

    def _make_transforms(self, backend: str) -> list[Any]:
        metadata = self.model.metadata
        identity = {name: name for name in self.type_names}
        return basic_transforms(
            metadata, float(metadata["r_max"]), self.type_names, identity, neighborlist_backend=backend
        )

    def _batch(self, frames: Frames, labels: Sequence[str] = ()) -> dict[str, torch.Tensor]:
        """NequIP's dictionary of ``frames``, with targets where ``labels`` are asked for, on the device."""
        wanted = {"energy", "forces", "stress"} & set(labels)
        unwanted = [name for name in ("energy", "forces", "stress") if name not in wanted]
        graphs = []
        for i, atoms in enumerate(target_atoms(frames)):
            data = from_ase(atoms, exclude_keys=unwanted)
            if "stress" in wanted:
                data[AtomicDataDict.STRESS_KEY] = torch.as_tensor(upper_triangle(frames.stress[i])).reshape(1, 3, 3)
            for transform in self._transforms:
                data = transform(data)
            graphs.append(data)
        return AtomicDataDict.to_(AtomicDataDict.batched_from_list(graphs), self.device)

    def _run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return AtomicDataDict.detach_(self.model(batch.copy()))


EXPORT = """\
def package_calculator(folder, device):
    from nequip.integrations.ase import NequIPCalculator

    neighbours = {"neighborlist_backend": "matscipy"} if device == "cpu" else {}
    return NequIPCalculator._from_saved_model(str(folder / "potential.ckpt"), device=device, **neighbours)
"""
EXPORT_TORCHSIM = """\
def package_torchsim(folder, device):
    from nequip.integrations.torchsim import NequIPTorchSimCalc

    neighbours = {"neighborlist_backend": "matscipy"} if device == "cpu" else {}
    return NequIPTorchSimCalc._from_saved_model(str(folder / "potential.ckpt"), device=device, **neighbours)
"""


def _numpy(tensor: torch.Tensor) -> Any:
    return tensor.detach().to("cpu", torch.float64).numpy()


class NequIPAdapter(Adapter):
    """Trains as ``nequip-train`` does, in this process; resumes exactly from the last finished epoch."""

    packages: ClassVar[tuple[str, ...]] = (
        "nequip",
        "torch",
        "e3nn",
        "lightning",
        "torchmetrics",
        "matscipy",
        "torch-sim-atomistic",
    )
    preload = ("torch._inductor.codecache", "nequip.data.datamodule", "nequip.data.dataset")
    deployments: ClassVar[Mapping[str, tuple[str, ...]]] = DEPLOYMENTS
    pair_styles: ClassVar[tuple[str, ...]] = ("mliap unified", "nequip")
    kernels: ClassVar[Mapping[str, tuple[str, str]]] = KERNELS  # name -> modifier of nequip-compile, package

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        torch.set_num_threads(request.threads)
        set_global_state()  # float64 data, no TF32; NequIP builds no model without it
        quiet()
        self.best = self.checkpoints / f"{BEST}.ckpt"
        self.last = self.checkpoints / f"{LAST}.ckpt"

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        self._config(train, valid)

    def _config(self, train: Frames, valid: Frames) -> dict[str, Any]:
        config = build_config(self.request, train, valid, self.model(self.request.architecture))
        native = self.request.architecture.get("native") or {}
        require_options(native, config, "NequIP")
        return merged(config, native)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        request = self.request
        config = self._config(train, valid)
        weights = None
        if self.start is not None:
            model, weights = self.start.trained()
            config = carried_over(config, {**model, "seed": int(request.seed), "model_dtype": request.dtype})
        command = f"PYTHONPATH=. OMP_NUM_THREADS={request.threads} nequip-train -cn config"
        self._write_native(config, command, train, valid)
        log = TrainingLog(events, request, len(train))
        progress = Progress(log, loss_scale(request.labels, request.training))
        fit(placed(config, self.native, self.checkpoints), progress, self.last, weights)
        return TrainOutcome.of(log, command)

    def trained(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Of a finished training: NequIP's configuration of the model, and its weights by name."""
        found = torch.load(self.best, map_location="cpu", weights_only=False)
        weights = {name: weight.detach() for name, weight in self.load().model.named_parameters()}
        return dict(found["hyper_parameters"]["model"]), weights

    def model(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """NequIP's builder of the architecture with its hyperparameters, beside what all models have in common."""
        return {
            "_target_": "nequip.model.NequIPGNNModel",
            "num_layers": settings["n_layers"],
            "l_max": settings["l_max"],
            "parity": settings["parity"],
            "num_features": settings["n_features"],
            "radial_mlp_depth": settings["radial_layers"],
            "radial_mlp_width": settings["radial_width"],
            "num_bessels": settings["n_radial_basis"],
            "bessel_trainable": settings["radial_basis_trainable"],
            "polynomial_cutoff_p": settings["cutoff_power"],
        }

    def load(self, dtype: str | None = None) -> NequIPPotential:
        """See :meth:`Adapter.load`."""
        if not self.best.exists():
            raise FileNotFoundError(f"no trained NequIP model: {self.best} does not exist")
        model = ModelFromCheckpoint(str(self.best))[MODEL]
        wanted = dtype or self.request.dtype
        if model.metadata["model_dtype"] != wanted:
            model = _in_dtype(model, self.best, wanted)
        return NequIPPotential(model, self.request.device, self.request.labels)

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: a checkpoint of NequIP, which ``nequip-compile`` takes as well."""
        self.load()  # which says so where there is none
        shutil.copyfile(self.best, folder / "potential.ckpt")
        return EXPORT

    def export_torchsim(self) -> str:
        """See :meth:`Adapter.export_torchsim`: NequIP's torch-sim calculator."""
        return EXPORT_TORCHSIM

    def pair_style(self, folder: Path, known: Collection[str]) -> PairStyle:
        """See :meth:`Adapter.pair_style`: what ``nequip-compile`` or ``nequip-prepare-lmp-mliap`` writes."""
        style = _pair_styles.choose(self.pair_styles, known)
        self.load()  # which says so where there is none
        shutil.copyfile(self.best, folder / "potential.ckpt")
        if style == "mliap unified":
            file = "potential.nequip.lmp.pt"
            module, arguments = "nequip.integrations.lammps_mliap.create_lmp_mliap_file", ["potential.ckpt", file]
        else:
            file, module = "potential.nequip.pt2", "nequip.scripts.compile"
            device = "cuda" if self.request.device.startswith("cuda") else "cpu"
            arguments = ["potential.ckpt", file, "--mode", "aotinductor", "--device", device]
            arguments += ["--target", f"pair_{style}"]
        _pair_styles.write(module, arguments, folder, os.environ)
        return _pair_styles.lines(style, file)

    def deploy(self, potential: Any, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`."""
        example = Frames.load(Path(self.request.frames["valid"])).select([0]).to_atoms()[0]
        like, folder = potential.calculator(), self.directory
        found: Calculator = deploy(potential.model, potential.device, means, like, example, folder, self.kernels)
        return found

    def allow_tf32(self) -> None:
        """See :meth:`Adapter.allow_tf32`: NequIP has a switch of its own."""
        set_global_state(allow_tf32=True)

    def _write_native(self, config: dict[str, Any], command: str, train: Frames, valid: Frames) -> None:
        self.native.mkdir(parents=True, exist_ok=True)
        write_frames(self.native / TRAIN_FILE, train, self.request.labels)
        write_frames(self.native / VALID_FILE, valid, self.request.labels)
        shutil.copyfile(str(common_training.__file__), self.native / "common_training.py")
        plain = json.loads(json.dumps(config))  # lists that stand in two places would become YAML anchors
        if self.start is not None:
            shutil.copyfile(self.start.best, self.native / START)
            plain["training_module"]["model"] = {
                "_target_": "nequip.model.ModelFromCheckpoint",
                "checkpoint_path": START,
            }
        text = HEADER.format(command=command) + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        part = self.native / ".config.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.native / "config.yaml")


def _in_dtype(model: Any, checkpoint: Path, dtype: str) -> Any:
    """The same weights in a model built anew in ``dtype``.

    Casting the model would keep constants (Wigner 3j symbols ...) rounded to the old precision; built anew, they are
    exact, and only what was learnt is carried over.
    """
    found = torch.load(checkpoint, map_location="cpu", weights_only=False)
    config = {**found["hyper_parameters"]["model"], "model_dtype": dtype}
    other = get_method(config.pop("_target_"))(**config)
    learnt = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(learnt.pop(name))
    if learnt:
        raise ValueError(f"weights without a place in the model: {', '.join(learnt)}")
    return other
