"""DeePMD-kit's models with their loss, as mlpbench's loop trains them.

``dp train`` cannot keep to what is common to all packages: it draws frames with replacement, has no averaged weights,
no choice of the best checkpoint by the loss, no stress in the loss, and does not resume exactly. Model, statistics of
its input and loss of energies and forces are DeePMD-kit's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from deepmd.pt.loss import EnergyStdLoss
from deepmd.pt.model.model import get_model
from deepmd.pt.utils.learning_rate import LearningRateExp

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapters._deepmd_config import model_section, own_training
from mlpbench.worker.adapters._deepmd_model import Batch, Places, evaluate, join, structures, systems, use_device
from mlpbench.worker.adapters._net import Net, elements_of, require_elements
from mlpbench.worker.training import label_scale


class DeepmdNet(Net):
    """An ``EnergyModel`` of DeePMD-kit.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights; coordinates, energies and forces are in float64, as DeePMD-kit has it.
    """

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.scale, self.own = float(facts["scale"]), facts["own"]
        self.elements: list[int] = list(facts["elements"])
        self.parameters = copy.deepcopy(facts["model"])
        for part in ("descriptor", "fitting_net"):
            self.parameters[part]["precision"] = str(dtype).removeprefix("torch.")
        self.model = fresh(self.parameters, facts["statistics"]).to(device)
        use_device(device)
        self.cutoff = float(self.model.get_rcut())
        sel = list(self.model.get_sel())
        self.places = [Places((sum(sel),) if self.model.mixed_types() else tuple(sel))]
        if "repflow" in self.parameters["descriptor"]:
            angles = self.parameters["descriptor"]["repflow"]
            self.places.append(Places((int(angles["a_sel"]),), float(angles["a_rcut"])))
        self.step = 0

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`."""
        elements, cutoff = elements_of(train, valid), float(request.architecture["cutoff"])
        frames = [*structures(train, elements, cutoff), *structures(valid, elements, cutoff)]
        section = model_section(request, elements, frames)
        return {
            "model": section,
            "elements": elements,
            "scale": label_scale(train, request.labels),
            "own": own_training(request, len(train)),
            "statistics": statistics(section, systems(train, elements, cutoff)),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> DeepmdNet:
        """See :meth:`Net.build`; the initial weights follow from the seed in the model's definition."""
        return cls(facts, device, dtype)

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Batch]:
        """See :meth:`Net.prepare`.

        Raises:
            ValueError: an unknown element, or an atom with more neighbours than the model has places for.
        """
        require_elements(frames, self.elements, "this potential")
        found = structures(frames, self.elements, self.cutoff, labels)
        for i, batch in enumerate(found):
            if bool(self.crowded(batch).any()):
                raise ValueError(
                    f"frame {i}: an atom has more neighbours than this potential has places for "
                    f"({[places.each for places in self.places]}), and DeePMD-kit would leave out the farthest: train "
                    "with more architecture.neighbours (or angle_neighbours)"
                )
        return found

    def crowded(self, batch: Batch) -> torch.Tensor:
        """(F,) whether an atom of the frame has more neighbours than the model has places for."""
        return torch.stack([places.lacking(batch, len(self.elements)) for places in self.places]).any(dim=0)

    def collate(self, inputs: Sequence[Any]) -> Batch:
        """See :meth:`Net.collate`."""
        return join(inputs).to(self.device)

    def outputs(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`."""
        self.model.eval()
        found = self.evaluate(batch)
        return found["energy"], found["forces"], found["stress"] if stress else None

    def evaluate(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Energy (F,), forces (A, 3) and stress (F, 3, 3) in eV and Å, differentiable in training mode."""
        return {name: self.scale * value for name, value in evaluate(self.model, batch).items()}

    def loss(self, batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: DeePMD-kit's on energies and forces, and w_S·⟨Δσ²⟩ over the six Voigt components.

        DeePMD-kit's own term for the virial is another one: (ΔW/N)² over nine components.
        """
        return common(self.evaluate(batch), batch, training)

    def training_batch(self, inputs: Sequence[Any], seed: Sequence[int]) -> Any:
        """See :meth:`Net.training_batch`; notes the step, which a rate of DeePMD-kit's depends on."""
        self.step = seed[-1]
        return super().training_batch(inputs, seed)

    def interval(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Any, int]], training: Mapping[str, Any]
    ) -> float:
        """See :meth:`Net.interval`; with DeePMD-kit's loss, rate and clipping where ``native`` has them."""
        if not self.own:
            return super().interval(optimizer, batches, training)
        self.model.train()
        package = (
            EnergyStdLoss(starter_learning_rate=float(training["lr"]), **self.own["loss"])
            if "loss" in self.own
            else None
        )
        schedule = LearningRateExp(**self.own["learning_rate"]) if "learning_rate" in self.own else None
        groups, total, count = optimizer.param_groups, 0.0, 0
        for batch, frames in batches:
            for group in groups if schedule is not None else []:
                group["lr"] = float(schedule.value(self.step))
            found = self.evaluate(batch)
            loss = common(found, batch, training)
            optimizer.zero_grad()
            (loss if package is None else package_call(package, found, batch, groups[0]["lr"])[0]).backward()
            if "gradient_max_norm" in self.own:
                weights = [weight for group in groups for weight in group["params"]]
                torch.nn.utils.clip_grad_norm_(weights, float(self.own["gradient_max_norm"]))
            optimizer.step()
            total, count = total + float(loss.detach()) * frames, count + frames
        return total / count

    def whole(self) -> Any:
        """A copy of the model with the output's scale in its last layer, as DeePMD-kit runs it; for inference."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for network in model.atomic_model.fitting_net.filter_layers.networks:
                for weight in (network.layers[-1].matrix, network.layers[-1].bias):
                    weight.mul_(self.scale)
        return model.eval().requires_grad_(False)


def fresh(section: dict[str, Any], measured: Mapping[str, Any]) -> Any:
    """A model with initial weights and the statistics of its input, on the CPU, where they are the same for all."""
    use_device("cpu")
    model = get_model(copy.deepcopy(section))
    buffers = dict(model.named_buffers())
    for name, values in measured.items():
        buffers[name].copy_(torch.tensor(values, dtype=torch.float64))
    return model


def statistics(section: dict[str, Any], frames: list[dict[str, Any]]) -> dict[str, Any]:
    """Buffers that DeePMD-kit measures on the training frames: mean and deviation of the descriptor's input."""
    model = fresh({**section, "descriptor": {**section["descriptor"], "precision": "float64"}}, {})
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.atomic_model.compute_or_load_stat(
        lambda: frames, compute_or_load_out_stat=False, preset_observed_type=section["type_map"]
    )
    return {name: buffer.tolist() for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}


def common(found: dict[str, torch.Tensor], batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
    """The common loss of one batch, by DeePMD-kit's ``EnergyStdLoss`` with equal weights at start and limit.

    Raises:
        ValueError: no weight is above zero.
    """
    energy, force, stress = (float(training.get(f"{name}_weight") or 0.0) for name in ("energy", "force", "stress"))
    if not energy and not force and not stress:
        raise ValueError("nothing to train on: the loss weights of energy, forces and stress are all zero")
    package = EnergyStdLoss(1.0, energy, energy, force, force, intensive_ener_virial=True)
    loss, _ = package_call(package, found, batch)
    if stress:
        loss = loss + stress * (voigt(found["stress"]) - batch.labels["stress"]).square().mean()
    return loss


def voigt(tensor: torch.Tensor) -> torch.Tensor:
    """(F, 3, 3) as (F, 6): xx yy zz yz xz xy."""
    return tensor[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def package_call(
    package: EnergyStdLoss, found: dict[str, torch.Tensor], batch: Batch, rate: float = 1.0, mae: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Loss and further numbers that DeePMD-kit's loss gives for the labels of the batch, at a learning rate."""
    prediction = {"energy": found["energy"][:, None], "force": padded(found["forces"], batch)}
    label: dict[str, Any] = {}
    if "energy" in batch.labels:
        label |= {"energy": batch.labels["energy"][:, None], "find_energy": 1.0}
    if "forces" in batch.labels:
        label |= {"force": padded(batch.labels["forces"], batch), "find_force": 1.0}
    atype = padded(batch.types[:, None] + 1, batch)[:, :, 0] - 1  # -1: no atom
    _, loss, more = package({"atype": atype}, lambda **_: prediction, label, atype.shape[1], rate, mae=mae)
    return loss, more


def package_errors(found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    """DeePMD-kit's mean absolute errors: of the energy per atom (eV), of the frame (eV), of the forces (eV/Å)."""
    _, more = package_call(EnergyStdLoss(1.0, 1.0, 1.0, 1.0, 1.0, intensive_ener_virial=True), found, batch, mae=True)
    names = {"mae_e": "energy_mae", "mae_e_all": "energy_mae_total", "mae_f": "force_mae"}
    return {ours: float(more[theirs]) for theirs, ours in names.items() if theirs in more}


def padded(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(A, k) values of atoms as (F, largest number of atoms, k), filled up with zeros."""
    counts = batch.n_atoms()
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(values), device=values.device) - first[batch.frame]
    room = values.new_zeros(len(batch), int(counts.max()), values.shape[1])
    return room.index_put((batch.frame, place), values)
