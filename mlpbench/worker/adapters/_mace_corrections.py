"""MACE 0.3.16's own training with six corrections, so that its loss, its data and its steps are those of all backends.

A copy of this file lies beside the native configuration as ``train.py``, with ``common_training.py`` and the common
settings in ``common.json``, and repeats the training with the package alone::

    python train.py --config config.yaml

The corrections, with what mace-torch 0.3.16 does without them:

* an epoch is an interval of so many optimiser steps, out of an endless sequence of batches, and the learning rate of
  each step follows from the share of the budget that is spent (MACE knows passes over the training set alone, and two
  schedules that do not know where the training ends);
* every frame is trained on (``run_train.run`` drops the last batch of an epoch when it is not full);
* the validation loss is the loss over all validation frames (``evaluate`` adds up the means of the batches and divides
  by the number of frames, so a frame counts more in a smaller batch, an atom more in a smaller frame);
* the stress loss is the mean over the six Voigt components (MACE's is over nine: shear counts twice);
* Adam without AMSGrad (MACE's ``amsgrad`` is true and cannot be set to false);
* the learning rate has a floor (MACE's plateau scheduler knows none).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mace import modules, tools
from mace.cli import run_train
from mace.modules import WeightedEnergyForcesLoss, WeightedEnergyForcesStressLoss
from mace.modules.loss import mean_squared_error_forces, weighted_mean_squared_error_energy
from mace.tools.torch_geometric import dataloader

if __package__:
    from mlpbench.worker.common_training import ANNEALED, IntervalSampler, Steps, learning_rate
else:  # run as train.py, beside a copy
    from common_training import (  # type: ignore[import-not-found,no-redef]
        ANNEALED,
        IntervalSampler,
        Steps,
        learning_rate,
    )

SETTINGS = "common.json"  # the common training settings, budget and seed, beside the native configuration
START = "start.pt"  # weights that the training starts from, if there are any, beside the native configuration
TRAIN_MODULE = sys.modules["mace.tools.train"]  # the attribute mace.tools.train is the function of that name
VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))


class KeepLastBatch(dataloader.DataLoader):
    """MACE's data loader, which never drops frames."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "drop_last": False})


class Intervals:
    """MACE's train loader: the batches of one interval a time, each step's learning rate set before it.

    Args:
        loader: what MACE made, whose frames are used.
        optimizer: whose rates are set; differences between its parameter groups are kept.
        settings: ``training``, ``budget`` and ``seed``, as in ``common.json``.
        elapsed: seconds of training so far.
    """

    def __init__(
        self, loader: Any, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], elapsed: Callable[[], float]
    ) -> None:
        self.training, self.optimizer, self.elapsed = settings["training"], optimizer, elapsed
        n_frames = len(loader.dataset)
        self.steps = Steps.of(settings["budget"], int(self.training["batch_size"]), n_frames)
        self.sampler = IntervalSampler(n_frames, self.steps.batch_size, self.steps.interval, settings["seed"])
        self.loader = dataloader.DataLoader(
            loader.dataset, batch_sampler=self.sampler, pin_memory=loader.pin_memory, num_workers=loader.num_workers
        )
        self.factors = [group["lr"] / float(self.training["lr"]) for group in optimizer.param_groups]

    def __iter__(self) -> Iterator[Any]:
        """The batches of interval ``sampler.epoch``, and on to the next."""
        annealed = self.training["schedule"] in ANNEALED
        start = self.sampler.epoch * self.steps.interval
        for step, batch in enumerate(self.loader, start):
            if annealed:
                rate = learning_rate(self.training, self.steps, step, self.elapsed())
                for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
                    group["lr"] = rate * factor
            yield batch
        self.sampler.epoch += 1


class VoigtStressLoss(WeightedEnergyForcesStressLoss):
    """MACE's loss on energy per atom, forces and stress, with the stress as six Voigt components."""

    def forward(self, ref: Any, pred: dict[str, torch.Tensor], ddp: bool | None = None) -> torch.Tensor:
        """The loss of one batch, a scalar; energies in eV, forces in eV/Å, stress in eV/Å³."""
        difference = (ref["stress"] - pred["stress"])[:, VOIGT[0], VOIGT[1]]
        stress = (ref.weight * ref.stress_weight).view(-1, 1) * difference.square()
        return (
            self.energy_weight * weighted_mean_squared_error_energy(ref, pred, ddp)
            + self.forces_weight * mean_squared_error_forces(ref, pred, ddp)
            + self.stress_weight * stress.mean()
        )


class FullLoss(torch.nn.Module):
    """Sums of a loss's terms over batches of any size, for their means over all of them together.

    Args:
        loss: MACE's ``weighted`` or ``stress`` loss; called as it would be.
    """

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.counts = torch.zeros(3, dtype=torch.float64)

    def forward(self, pred: dict[str, torch.Tensor], ref: Any) -> torch.Tensor:
        """MACE's loss of one batch, a scalar, unchanged; the sums are kept aside."""
        terms = [((ref["energy"] - pred["energy"]) / (ref.ptr[1:] - ref.ptr[:-1]), self.loss.energy_weight)]
        terms += [(ref["forces"] - pred["forces"], self.loss.forces_weight)]
        if isinstance(self.loss, VoigtStressLoss):
            terms += [((ref["stress"] - pred["stress"])[:, VOIGT[0], VOIGT[1]], self.loss.stress_weight)]
        for i, (difference, weight) in enumerate(terms):
            if weight:  # unlabelled forces stand as zeros and have no weight
                self.sums[i] += float(weight) * difference.detach().double().square().sum().cpu()
                self.counts[i] += difference.numel()
        return self.loss(pred=pred, ref=ref)

    def mean(self) -> float:
        """The loss of all batches seen, as if they were one."""
        return float((self.sums / self.counts.clamp(min=1)).sum())


def evaluate(*, loss_fn: torch.nn.Module, **options: Any) -> tuple[float, dict[str, Any]]:
    """MACE's ``evaluate`` with the loss over all frames in place of the mean of batch means."""
    full = FullLoss(loss_fn)
    _, metrics = _evaluate(loss_fn=full, **options)
    metrics["loss"] = full.mean()
    return metrics["loss"], metrics


def common_loss_function(
    energy_weight: float, force_weight: float, stress_weight: float, stress: bool
) -> torch.nn.Module:
    """The loss that is trained on; ``stress``: with a stress term. Weights in 1/eV², (Å/eV)², (Å³/eV)²."""
    weights = {"energy_weight": energy_weight, "forces_weight": force_weight}
    if stress:
        return VoigtStressLoss(**weights, stress_weight=stress_weight)
    return WeightedEnergyForcesLoss(**weights)


def _loss_function(args: Any, *rest: Any) -> torch.nn.Module:
    if args.loss == "stress":
        return VoigtStressLoss(args.energy_weight, args.forces_weight, args.stress_weight)
    return _get_loss_fn(args, *rest)


def _floored(lr_min: float) -> type:
    class Scheduler(run_train.LRScheduler):
        def __init__(self, optimizer: torch.optim.Optimizer, args: Any) -> None:
            super().__init__(optimizer, args)
            if args.scheduler == "ReduceLROnPlateau":
                self.lr_scheduler.min_lrs = [lr_min] * len(optimizer.param_groups)

    return Scheduler


_evaluate, _get_loss_fn, _get_optimizer, _train = (
    TRAIN_MODULE.evaluate,
    run_train.get_loss_fn,
    run_train.get_optimizer,
    tools.train,
)


def _optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    def get_optimizer(args: Any, options: dict[str, Any]) -> torch.optim.Optimizer:
        return _get_optimizer(args, {**options, "amsgrad": name == "amsgrad"})

    return get_optimizer


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """``module.name`` is ``value`` inside the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def corrected(training: Mapping[str, Any], train: Callable[..., None]) -> Iterator[None]:
    """``run_train.run`` trains with the corrections inside the block.

    Args:
        training: the common training settings: ``optimizer``, ``lr_min``.
        train: takes the place of ``mace.tools.train``; it gives MACE's the :class:`Intervals` as train loader.
    """
    with ExitStack() as stack:
        for module, name, value in (
            (dataloader, "DataLoader", KeepLastBatch),
            (TRAIN_MODULE, "evaluate", evaluate),
            (run_train, "get_loss_fn", _loss_function),
            (run_train, "get_optimizer", _optimizer(training["optimizer"])),
            (run_train, "LRScheduler", _floored(float(training["lr_min"]))),
            (tools, "train", train),
        ):
            stack.enter_context(replaced(module, name, value))
        yield


def begun(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """``model`` with the weights that lie in ``folder`` for it to start from; as it is where there are none.

    Raises:
        ValueError: the weights are of a model of another shape.
    """
    if not (folder / START).exists():
        return model
    weights = torch.load(folder / START, map_location="cpu", weights_only=True)
    parameters = dict(model.named_parameters())
    if {name: value.shape for name, value in weights.items()} != {name: p.shape for name, p in parameters.items()}:
        raise ValueError("the weights to start from are of a model of another shape")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return model


def main() -> None:
    """``mace_run_train`` with the corrections."""
    args = tools.build_default_arg_parser().parse_args()
    settings = json.loads((Path(__file__).parent / SETTINGS).read_text(encoding="utf-8"))

    def train(**parts: Any) -> None:
        start = time.monotonic()
        loader = Intervals(parts["train_loader"], parts["optimizer"], settings, lambda: time.monotonic() - start)
        _train(**{**parts, "train_loader": loader})

    build, here = modules.ScaleShiftMACE, Path(__file__).parent
    started = replaced(modules, "ScaleShiftMACE", lambda **options: begun(build(**options), here))
    with corrected(settings["training"], train), started:
        run_train.run(args)


if __name__ == "__main__":
    main()
