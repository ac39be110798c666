"""SchNet and PaiNN in SchNetPack (https://github.com/atomistic-machine-learning/schnetpack)."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import full_3x3_to_voigt_6_stress
from hydra.utils import instantiate
from schnetpack import properties
from schnetpack.data import AtomsLoader
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.interfaces import SpkCalculator
from schnetpack.md.utils import activate_model_stress
from schnetpack.task import AtomisticTask
from schnetpack.transform import Transform

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request, read_json, replacing, write_json
from mlpbench.worker import common_training
from mlpbench.worker.adapter import Adapter, Potential, Prediction, TrainOutcome
from mlpbench.worker.adapters import _schnetpack_train as native
from mlpbench.worker.adapters._schnetpack_config import (
    CAST,
    CONFIG,
    PRECISION,
    START,
    build_config,
    carried_over,
    merged,
    neighbour_list,
    outputs_config,
    placed,
    structures,
    targets,
    write_data,
)
from mlpbench.worker.adapters._schnetpack_progress import Progress
from mlpbench.worker.training import TrainingLog, require_options

DEPLOYMENTS = {"compiled": ("TorchScript", "torch.compile")}


def deploy(calculator: Calculator, means: str) -> Calculator:
    """``calculator``, with its model scripted or compiled. The model's postprocessors must not change its dtype."""
    model: Any = copy.deepcopy(calculator.model)  # type: ignore[attr-defined]  # SchNetPack's
    if means == "TorchScript":
        # spkdeploy drops casts, the only postprocessors of ours; offsets are added outside, in float64.
        model.postprocessors = torch.nn.ModuleList()
        calculator.model = torch.jit.script(model)  # type: ignore[attr-defined]
    else:
        calculator.model = torch.compile(model, dynamic=True)  # type: ignore[attr-defined]
    return calculator


COMMAND = "python train.py"
HEADER = f"""# SchNetPack's configuration of this training. Energies in data.db are without the baseline.
# Repeat it with the package alone, from this folder: {COMMAND}
# An epoch is an interval of optimiser steps and a validation; common_training.py has the batches and the learning rate.
# mlpbench does the same and adds reports; only the seconds of a budget count through an interruption there.
"""


class RightHandedCell(Transform):
    """Mirrors a left-handed cell (the same lattice), since SchNetPack's stress has the volume's sign."""

    is_preprocessor = True

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One structure; the neighbour list is not touched."""
        cell = inputs[properties.cell]
        inputs[properties.cell] = torch.where(torch.linalg.det(cell)[:, None, None] < 0, -cell, cell)
        return inputs


class Neighbours(Transform):
    """The neighbour list of one structure of any periodicity: Vesin's, or ASE's where Vesin's does not do it.

    Args:
        cutoff: Å.
    """

    is_preprocessor = True

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.fast, self.mixed = (instantiate(neighbour_list(cutoff, pbc)) for pbc in ([True] * 3, [True, True, False]))

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One structure."""
        pbc = inputs[properties.pbc]
        found: dict[str, torch.Tensor] = (self.mixed if pbc.any() and not pbc.all() else self.fast)(inputs)
        return found


class SchnetpackPotential(Potential):
    """A ``NeuralNetworkPotential`` of SchNetPack.

    Args:
        model: with the weights of the best epoch, in ``dtype``.
        device: where it runs.
        dtype: ``float32`` or ``float64``.
        facts: what the training left: ``cutoff`` (Å), ``labels`` and ``periodic`` (all its frames are, in three
            directions).
    """

    def __init__(self, model: Any, device: str, dtype: str, facts: dict[str, Any]) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.dtype = dtype
        self.facts = facts
        self.n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._stress_model: Any = model if "stress" in model.model_outputs else None

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`. The stress of a frame without a volume is NaN."""
        model = self.stress_model() if stress else self.model
        samples = self._samples(frames)
        found: dict[str, list[Any]] = {"energy": [np.zeros(0)], "forces": [np.zeros((0, 3))], "stress": []}
        for start in range(0, len(samples), batch_size):
            out = model(self._batch(samples[start : start + batch_size]))
            for name, parts in found.items():
                if name in out:
                    parts.append(out[name].detach().to("cpu", torch.float64).numpy())
        tensor = np.concatenate([np.zeros((0, 3, 3)), *found["stress"]])
        return Prediction(
            energy=np.concatenate(found["energy"]),
            forces=np.concatenate(found["forces"]),
            stress=full_3x3_to_voigt_6_stress(tensor).reshape(-1, 6) if stress else None,
        )

    def stress_model(self) -> Any:
        """The same model with the stress among its outputs."""
        if self._stress_model is None:
            self._stress_model = activate_model_stress(copy.deepcopy(self.model), "stress").eval()
        return self._stress_model

    def calculator(self) -> Calculator:
        """SchNetPack's ASE calculator; it gives stress if the training's frames were periodic."""
        periodic = self.facts["periodic"]
        calculator = SpkCalculator(
            model=self.stress_model() if periodic else self.model,
            neighbor_list=Neighbours(self.facts["cutoff"]),
            energy_unit="eV",
            position_unit="Ang",
            device=self.device,
            dtype=getattr(torch, self.dtype),
            transforms=[RightHandedCell()] if periodic else None,
        )
        if periodic:  # as an argument it would make SchNetPack add the strain to our model a second time
            calculator.stress_key = calculator.property_map["stress"] = "stress"
        return calculator

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        found: Callable[[Atoms], Any] = calculator.converter  # type: ignore[attr-defined]  # SchNetPack's
        return found

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """The loss of SchNetPack's task; see :meth:`Potential.package_loss`."""
        labels = self.facts["labels"]
        task = self._task(labels, training)
        batch = self._batch(self._samples(frames, labels))
        target = {output.target_property: batch[output.target_property] for output in task.outputs}
        return float(task.loss_fn(task.predict_without_postprocessing(batch), target).detach())

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: what ``Trainer.test`` reports for SchNetPack's task."""
        training = dict.fromkeys(("energy_weight", "force_weight"), 1.0)
        labels = [label for label in self.facts["labels"] if label != "stress"]
        task = self._task(labels, training, total="energy" in labels)
        loader = AtomsLoader(self._samples(frames, labels), batch_size=batch_size)
        gpu = self.device.startswith("cuda")
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu", devices=[int(self.device.partition(":")[2] or 0)] if gpu else 1,
            precision=PRECISION[self.dtype], inference_mode=False, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        (found,) = trainer.test(task, loader, verbose=False, weights_only=False)
        names = {
            "energy_mae": "test_energy_mae",
            "energy_mae_total": "test_energy_mae_total",
            "force_mae": "test_forces_mae",
        }
        return {ours: float(found[theirs]) for ours, theirs in names.items() if theirs in found}

    def torchsim_model(self) -> Any:
        """A torch-sim model that evaluates all systems in one forward pass."""
        from mlpbench.worker.adapters._schnetpack_torchsim import SchnetpackTorchSim  # takes seconds to import

        return SchnetpackTorchSim(self, compute_stress=self.facts["periodic"])

    def _task(self, labels: list[str], training: dict[str, Any], total: bool = False) -> AtomisticTask:
        outputs = outputs_config(labels, training)
        if total:
            mae = {"_target_": "torchmetrics.MeanAbsoluteError"}
            outputs.append({"_target_": "train.Output", "name": "energy", "metrics": {"mae_total": mae}})
        built = [instantiate(output, _convert_="all") for output in native.located(outputs)]
        model = self.stress_model() if "stress" in labels else self.model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the model is a module; it always is
            return AtomisticTask(model, built, optimizer_args={"lr": 0.0}).to(self.device).eval()

    def _samples(self, frames: Frames, labels: Sequence[str] = ()) -> list[dict[str, torch.Tensor]]:
        """Frames as SchNetPack's data sets give them, with neighbours and targets, on the CPU."""
        transforms = [Neighbours(self.facts["cutoff"]), instantiate({"_target_": CAST[self.dtype]})]
        samples = []
        for i, (atoms, target) in enumerate(zip(structures(frames), targets(frames, list(labels)), strict=True)):
            sample = {
                properties.idx: torch.tensor([i]),
                properties.n_atoms: torch.tensor([len(atoms)]),
                properties.Z: torch.from_numpy(atoms.numbers).long(),
                properties.R: torch.from_numpy(atoms.positions),
                properties.cell: torch.from_numpy(atoms.cell.array)[None],
                properties.pbc: torch.from_numpy(atoms.pbc),
                **{name: torch.from_numpy(target[name]) for name in labels},
            }
            for transform in transforms:
                sample = transform(sample)
            samples.append(sample)
        return samples

    def _batch(self, samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: value.to(self.device) for name, value in _atoms_collate_fn(samples).items()}


EXPORT = """\
def package_calculator(folder, device):
    import torch
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.transform import ASENeighborList

    model = torch.load(folder / "potential.pt", map_location=device, weights_only=False)
    calculator = SpkCalculator(
        model=model, neighbor_list=ASENeighborList({cutoff}), energy_unit="eV", position_unit="Ang",
        device=device, dtype=torch.{dtype},
    )
{stress}    return calculator
"""
STRESS = (
    "# As an argument it would make SchNetPack add the strain to the model a second time. Cells must be right-handed.",
    'calculator.stress_key = calculator.property_map["stress"] = "stress"',
)


class SchnetpackAdapter(Adapter):
    """Trains with SchNetPack's data module, task and callbacks in Lightning's trainer; resumes exactly."""

    packages = ("schnetpack", "torch", "pytorch-lightning", "torchmetrics", "torch-ema", "vesin", "torch-sim-atomistic")
    preload = ("ase.db.sqlite",)
    deployments = DEPLOYMENTS

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        torch.set_num_threads(request.threads)
        native.quiet()
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.facts = self.checkpoints / "facts.json"

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        self._config(train, valid)

    def _config(self, train: Frames, valid: Frames) -> dict[str, Any]:
        config = build_config(self.request, train, valid)
        options = self.request.architecture.get("native") or {}
        require_options(options, config, "SchNetPack")
        return merged(config, options)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        request = self.request
        config = self._config(train, valid)
        if self.start is not None:
            config["model"] = carried_over(config["model"], read_json(self.start.facts)["model"])
            config["start"] = START
            self.native.mkdir(parents=True, exist_ok=True)
            torch.save(self.start.weights(), self.native / START)
        self._write_native(config, train, valid)
        write_json(self.facts, _facts(config, train, valid))
        trainer, task, data = native.build(placed(config, self.native, self.checkpoints))
        settings = {name: config[name] for name in ("seed", "model", "task")}
        progress = Progress(TrainingLog(events, request, len(train)), settings)
        trainer.callbacks.insert(0, progress)  # before the checkpoint, which holds its state
        resume = str(self.last) if self.last.exists() else None
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=False)
        return TrainOutcome.of(progress.account, COMMAND)

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`."""
        if not self.best.exists():
            raise FileNotFoundError(f"no trained SchNetPack potential: {self.best} does not exist")
        wanted = dtype or self.request.dtype
        facts = read_json(self.facts)
        model = instantiate(facts.pop("model"), _convert_="all").to(getattr(torch, wanted))
        model.load_state_dict(self.weights())
        return SchnetpackPotential(model, self.request.device, wanted, facts)

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: the model as SchNetPack's own trainer leaves it."""
        potential = self.load()
        assert isinstance(potential, SchnetpackPotential)
        periodic = potential.facts["periodic"]
        model = potential.stress_model() if periodic else potential.model
        torch.save(model.to("cpu"), folder / "potential.pt")
        stress = "".join(f"    {line}\n" for line in STRESS) if periodic else ""
        return EXPORT.format(cutoff=potential.facts["cutoff"], dtype=self.request.dtype, stress=stress)

    def weights(self) -> dict[str, torch.Tensor]:
        """The state of the model in the best checkpoint."""
        state = torch.load(self.best, map_location="cpu", weights_only=False)["state_dict"]
        return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}

    def deploy(self, potential: Potential, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`."""
        return deploy(potential.calculator(), means)

    def _write_native(self, config: dict[str, Any], train: Frames, valid: Frames) -> None:
        self.native.mkdir(parents=True, exist_ok=True)
        write_data(self.native, train, valid, config["data"]["load_properties"])
        shutil.copyfile(Path(native.__file__), self.native / "train.py")
        shutil.copyfile(Path(common_training.__file__), self.native / "common_training.py")
        plain = json.loads(json.dumps(config))  # lists that stand in two places would become YAML anchors
        with replacing(self.native / CONFIG) as part:
            part.write_text(HEADER + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _facts(config: dict[str, Any], *frames: Frames) -> dict[str, Any]:
    """What a potential must know beside its weights."""
    pbc = np.concatenate([part.pbc for part in frames])
    return {
        "model": config["model"],
        "cutoff": config["data"]["transforms"][0]["cutoff"],
        "labels": config["data"]["load_properties"],
        "periodic": bool(len(pbc) and pbc.all()),
    }
