"""metatrain's GAP (https://github.com/metatensor/metatrain): a sparse kernel model on SOAP, solved at once.

Descriptor, farthest-point choice of the sparse points, kernel and solver are metatrain's. Its trainer weighs energies
and forces otherwise than the common loss does and knows no stress; the rows of the linear system are weighed here, so
that the sum of squares that is minimised is the common loss and the regularisation of the kernel's weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatrain.gap.model import _FPS, GAP, _SorKernelSolver
from metatrain.utils.data import DatasetInfo
from metatrain.utils.neighbor_lists import get_requested_neighbor_lists

from mlpbench.frames import Float, Frames
from mlpbench.protocol import WEIGHTS, EventLog, Request, write_json
from mlpbench.worker.adapter import Potential, TrainOutcome, Unavailable, common_loss
from mlpbench.worker.adapters._loop import BEST, save
from mlpbench.worker.adapters._net import COMMAND, FACTS, elements_of
from mlpbench.worker.adapters.metatrain import (
    VOIGT,
    MetatrainAdapter,
    MetatrainNet,
    MetatrainPotential,
    model_hypers,
    target_info,
)
from mlpbench.worker.training import label_scale

# Keys of a preset -> metatrain's own.
NAMES = {
    "cutoff": "soap.cutoff.radius", "cutoff_width": "soap.cutoff.smoothing.width",
    "max_angular": "soap.basis.max_angular", "max_radial": "soap.basis.radial.max_radial",
    "gaussian_width": "soap.density.width",
    "sparse_points": "krr.num_sparse_points",
}  # fmt: skip
CHUNK = 200  # atoms whose descriptors, with their gradients, are in memory at once


class GapNet(MetatrainNet):
    """metatrain's GAP model; its weights are found by :meth:`fit`, always in float64, on the CPU."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts_, self.device, self.dtype = facts, "cpu", torch.float64
        self.scale, self.augments = float(facts["scale"]), False
        info = DatasetInfo("angstrom", list(facts["elements"]), {"energy": target_info(stress=True)})
        self.model = GAP(copy.deepcopy(facts["hypers"]), info)
        self.composition = self.model.additive_models[0]
        self.composition.sync_tensor_maps()  # zeros: the baseline holds the mean
        self.composition.to(torch.float64).weights_to(torch.device("cpu"), torch.float64)
        self.layout = target_info(stress=False).layout
        (self.neighbours,) = get_requested_neighbor_lists(self.model)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`."""
        return {
            "hypers": model_hypers("gap", NAMES, request.architecture),
            "elements": elements_of(train, valid),
            "scale": label_scale(train, request.labels),
            "regularisation": float(request.architecture["regularisation"]),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> GapNet:
        """See :meth:`Net.build`. metatrain's GAP knows neither another device nor another precision."""
        return cls(facts)

    def again(self) -> GapNet:
        """A second net with the same weights."""
        other = GapNet(self.facts_)
        other.restore(self.state())
        return other

    def fit(self, train: Frames, labels: Sequence[str], training: Mapping[str, Any]) -> float:
        """Choose the sparse points, solve for their weights w, and return the common loss L on ``train``.

        Minimised is n·L/(c·s²·r²) + wᵀKw/s², with s the size of the labels (:func:`label_scale`), r the
        ``regularisation``, and n and c the number of force components and the weight of forces in L (without forces:
        of frames and energies). A force is then weighed with 1/(r·s)², so that r is its noise over the rms force.
        """
        systems = [structure.system for structure in self.prepare(train)]
        self._choose(train, systems)
        rows, targets = self._equations(train, systems, labels, training)
        kernel = self.model._subset_of_regressors._kernel
        own = kernel(self.points, self.points, are_pseudo_points=(True, True)).block().values.numpy()
        solver = _SorKernelSolver(own)
        if "forces" in labels and training["force_weight"]:
            count, weight = train.known_forces.size, float(training["force_weight"])
        else:
            count, weight = len(train), float(training["energy_weight"])
        noise = float(self.facts_["regularisation"])
        factor = np.sqrt(count / weight) / noise
        solver.fit(rows * factor, targets * factor / self.scale)
        self._take(torch.as_tensor(solver.weights * self.scale))
        return self._residual(rows, targets)

    def minimised(self, frames: Frames, labels: Sequence[str], training: Mapping[str, Any]) -> float:
        """The sum of squares that :meth:`fit` minimises beside the regularisation, in units of the common loss."""
        systems = [structure.system for structure in self.prepare(frames)]
        return self._residual(*self._equations(frames, systems, labels, training))

    def _residual(self, rows: Float, targets: Float) -> float:
        return float(np.sum((rows @ self.weights.numpy() - targets) ** 2))

    def _choose(self, train: Frames, systems: list[Any]) -> None:
        """Sparse points by metatrain's farthest-point sampling over the atoms of the training frames."""
        self.model._species_labels = self.model._soap_torch_calculator.compute(systems).keys
        self.model._keys = self.layout.keys
        wanted = min(int(self.facts_["hypers"]["krr"]["num_sparse_points"]), int(train.n_atoms.sum()))
        self.points = _FPS(n_to_select=wanted).fit_transform(self._features(systems))

    def _features(self, systems: list[Any], gradients: Sequence[str] = ()) -> TensorMap:
        """SOAP vectors of all atoms in one block, with their ``gradients``."""
        made = self.model._soap_torch_calculator.compute(
            systems, gradients=list(gradients), selected_keys=self.model._species_labels
        )
        return made.keys_to_samples("center_type").keys_to_properties(["neighbor_1_type", "neighbor_2_type"])

    def _equations(
        self, frames: Frames, systems: list[Any], labels: Sequence[str], training: Mapping[str, Any]
    ) -> tuple[Float, Float]:
        """(R, M) rows and (R, 1) targets whose squared residuals add up to the common loss, for M sparse points."""
        wanted = [label for label in labels if training[WEIGHTS[label]]]
        rows: list[Float] = []
        targets: list[Float] = []
        for part in chunks(frames):
            chunk = frames.select(part)
            energy, positions, strain = self._kernels(chunk, systems[part], stress="stress" in wanted)
            for label in wanted:
                if label == "energy":
                    made, target, count = energy, chunk.target_energy, len(frames) * chunk.n_atoms.astype(float) ** 2
                elif label == "forces":
                    known = np.repeat(~chunk.held, 3)  # held atoms have no known force, and no row
                    made, target, count = -positions[known], chunk.known_forces, frames.known_forces.size
                else:
                    volume = np.abs(np.linalg.det(chunk.cell)).repeat(6)
                    made, target, count = strain / volume[:, None], chunk.stress.ravel(), 6 * len(frames)
                factor = np.sqrt(float(training[WEIGHTS[label]]) / np.broadcast_to(count, len(target)))
                rows.append(made * factor[:, None])
                targets.append(target * factor)
        return np.concatenate(rows), np.concatenate(targets)[:, None]

    def _kernels(self, frames: Frames, systems: list[Any], stress: bool) -> tuple[Float, Float, Float]:
        """What each of M sparse points adds to F energies, and its derivatives by 3A coordinates and by 6F strains."""
        features = self._features(systems, ["positions", "cell"] if stress else ["positions"])
        block = self.model._subset_of_regressors._kernel(features, self.points, are_pseudo_points=(False, True)).block()
        count, points = len(frames), block.values.shape[1]
        energy, strain = np.zeros((count, points)), np.zeros((count, 6, points))
        positions = np.zeros((len(frames.numbers), 3, points))
        frame = block.samples.column("system").numpy()
        energy[frame] = block.values.numpy()
        slope = block.gradient("positions")
        sample, atom = (slope.samples.column(name).numpy() for name in ("sample", "atom"))
        positions[frames.offsets[frame[sample]] + atom] = slope.values.numpy()
        if stress:  # positions and cell are strained together; the derivative by the cell is one at fixed positions
            by_cell = np.zeros((count, 3, 3, points))
            slope = block.gradient("cell")
            by_cell[frame[slope.samples.column("sample").numpy()]] = slope.values.numpy()
            full = np.einsum("fka,fkbm->fabm", frames.cell, by_cell)
            np.add.at(full, frames.frame_of_atom, np.einsum("ia,ibm->iabm", frames.positions, positions))
            strain = (0.5 * (full + full.transpose(0, 2, 1, 3)))[:, VOIGT[0], VOIGT[1]]
        return energy, positions.reshape(-1, points), strain.reshape(-1, points)

    def _take(self, weights: torch.Tensor) -> None:
        """Put the (M, 1) weights of the sparse points (eV) into the model."""
        regressors = self.model._subset_of_regressors
        names = self.points.block().samples
        block = TensorBlock(weights.T.contiguous(), self.layout.block().properties, [], names)
        self.weights = weights
        regressors._weights, regressors._X_pseudo = TensorMap(self.layout.keys, [block]), self.points
        self.model._subset_of_regressors_torch = regressors.export_torch_script_model()

    def state(self) -> dict[str, Any]:
        """What :meth:`fit` has determined, for :meth:`restore`: tensors and names."""
        block = self.points.block()
        named = {"species": self.model._species_labels, "samples": block.samples, "properties": block.properties}
        return {
            "weights": self.weights, "points": block.values,
            **{name: (list(labels.names), labels.values) for name, labels in named.items()},
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        labels = {name: Labels(*state[name]) for name in ("species", "samples", "properties")}
        self.model._species_labels, self.model._keys = labels["species"], self.layout.keys
        block = TensorBlock(state["points"], labels["samples"], [], labels["properties"])
        self.points = TensorMap(self.layout.keys, [block])
        self._take(state["weights"])


class GapPotential(MetatrainPotential):
    """A solved GAP."""

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.n_parameters = int(net.weights.numel())

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """See :meth:`Potential.package_loss`: what the solver minimises beside the regularisation."""
        labels = [label for label in WEIGHTS if label != "stress" or frames.has_stress]
        loss: float = self.net.minimised(frames, labels, training)
        return loss


class GapAdapter(MetatrainAdapter):
    """metatrain's GAP. There are no steps: neither budgets nor rates nor resumption apply."""

    packages = (
        "metatrain",
        "torch",
        "featomic-torch",
        "skmatter",
        "metatomic-torch",
        "metatensor-torch",
        "metatomic-ase",
    )
    preload = ("torch._dynamo",)
    net = GapNet
    potential = GapPotential
    modules = ("mlpbench.worker.adapters.metatrain",)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`: one solution, one event."""
        request, started = self.request, time.monotonic()
        facts = self.net.facts(request, train, valid)
        self._write_native(facts, train, valid)
        write_json(self.checkpoints / FACTS, facts)
        net = GapNet(facts)
        loss = net.fit(train, request.labels, request.training)
        save(net.state(), self.checkpoints / BEST)
        prediction = net.predict(valid, 10, "stress" in request.labels)
        found = common_loss(prediction, valid, request.training)
        if not np.isfinite(found):
            raise FloatingPointError(f"the validation loss is {found}: try a larger architecture.regularisation")
        energy = np.abs(prediction.energy - valid.target_energy) / valid.n_atoms
        events.epoch(
            1, 0, time.monotonic() - started, passes=1.0, train_loss=loss, valid_loss=found,
            valid_energy_mae=float(energy.mean()) if np.isfinite(energy).all() else None,
            valid_force_mae=float(np.nanmean(np.abs(prediction.forces - valid.forces))) if valid.has_forces else None,
        )  # fmt: skip
        return TrainOutcome(
            epochs=1, steps=None, passes=1.0, best_epoch=1, best_step=None, best_valid_loss=found, stopped_by="solved",
            native_command=COMMAND,
        )  # fmt: skip

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`.

        Raises:
            Unavailable: float32 is asked for.
        """
        if dtype == "float32":
            raise Unavailable("metatrain's GAP computes in float64 alone")
        return super().load(dtype)

    def fill(self, net: Any) -> None:
        """See :meth:`NetAdapter.fill`."""
        net.restore(torch.load(self.checkpoints / BEST, map_location="cpu", weights_only=True))


def chunks(frames: Frames) -> list[slice]:
    """Ranges of frames of about :data:`CHUNK` atoms each."""
    parts, start = [], 0
    for stop in range(1, len(frames) + 1):
        if stop == len(frames) or frames.offsets[stop + 1] - frames.offsets[start] > CHUNK:
            parts.append(slice(start, stop))
            start = stop
    return parts
