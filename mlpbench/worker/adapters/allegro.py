"""Allegro (https://github.com/mir-group/allegro): a strictly local model, in NequIP's framework and trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mlpbench.worker.adapters.nequip import NequIPAdapter


class AllegroAdapter(NequIPAdapter):
    """NequIP's trainer, data and predictions with Allegro's model, in an environment of its own."""

    packages: ClassVar[tuple[str, ...]] = ("nequip-allegro", *NequIPAdapter.packages)
    deployments: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "compiled": ("TorchScript", "AOTInductor"),
        "accelerated": ("AOTInductor+Triton", "AOTInductor+cuEquivariance"),
    }
    pair_styles: ClassVar[tuple[str, ...]] = ("mliap unified", "allegro")
    kernels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "Triton": ("enable_TritonContracter", "triton"),
        "cuEquivariance": ("enable_CuEquivarianceContracter", "cuequivariance_torch"),
    }

    def model(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`NequIPAdapter.model`."""
        return {
            "_target_": "allegro.model.AllegroModel",
            "l_max": settings["l_max"],
            "parity": settings["parity"],
            "radial_chemical_embed": {
                "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                "num_bessels": settings["n_radial_basis"],
                "bessel_trainable": settings["radial_basis_trainable"],
                "polynomial_cutoff_p": settings["cutoff_power"],
            },
            "radial_chemical_embed_dim": settings["n_scalar_features"],
            "scalar_embed_mlp_hidden_layers_depth": settings["embedding_layers"],
            "scalar_embed_mlp_hidden_layers_width": settings["embedding_width"],
            "num_layers": settings["n_layers"],
            "num_scalar_features": settings["n_scalar_features"],
            "num_tensor_features": settings["n_tensor_features"],
            "allegro_mlp_hidden_layers_depth": settings["latent_layers"],
            "allegro_mlp_hidden_layers_width": settings["latent_width"],
            "readout_mlp_hidden_layers_depth": settings["readout_layers"],
            "readout_mlp_hidden_layers_width": settings["readout_width"],
        }
