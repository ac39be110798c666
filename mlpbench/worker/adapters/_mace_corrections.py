"""MACE 0.3.16's own training with four corrections, so that its loss and its data are those common to all backends.

It imports nothing of mlpbench: where a correction changes the result, a copy lies beside the native configuration as
``train.py`` and repeats the training with the package alone::

    python train.py --config config.yaml --lr_min 1e-6

The corrections, with what mace-torch 0.3.16 does without them:

* every frame is trained on (``run_train.run`` drops the last batch of an epoch when it is not full);
* the validation loss is the loss over all validation frames (``evaluate`` adds up the means of the batches and divides
  by the number of frames, so a frame counts more in a smaller batch, an atom more in a smaller frame);
* the stress loss is the mean over the six Voigt components (MACE's is over nine: shear counts twice);
* the learning rate has a floor (MACE's plateau scheduler knows none).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mace import tools
from mace.cli import run_train
from mace.modules import WeightedEnergyForcesLoss, WeightedEnergyForcesStressLoss
from mace.modules.loss import mean_squared_error_forces, weighted_mean_squared_error_energy
from mace.tools.torch_geometric import dataloader

TRAIN_MODULE = sys.modules["mace.tools.train"]  # the attribute mace.tools.train is the function of that name
VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))


class KeepLastBatch(dataloader.DataLoader):
    """MACE's data loader, which never drops frames."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "drop_last": False})


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


_evaluate, _get_loss_fn = TRAIN_MODULE.evaluate, run_train.get_loss_fn


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
def corrected(lr_min: float) -> Iterator[None]:
    """``run_train.run`` trains with the corrections inside the block; ``lr_min`` is the floor of the learning rate."""
    with ExitStack() as stack:
        for module, name, value in (
            (dataloader, "DataLoader", KeepLastBatch),
            (TRAIN_MODULE, "evaluate", evaluate),
            (run_train, "get_loss_fn", _loss_function),
            (run_train, "LRScheduler", _floored(lr_min)),
        ):
            stack.enter_context(replaced(module, name, value))
        yield


def main() -> None:
    """``mace_run_train`` with the corrections."""
    parser = tools.build_default_arg_parser()
    parser.add_argument("--lr_min", help="floor of the learning rate", type=float, default=0.0)
    args = parser.parse_args()
    with corrected(args.lr_min):
        run_train.run(args)


if __name__ == "__main__":
    main()
