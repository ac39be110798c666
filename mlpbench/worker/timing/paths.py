"""The ways in which one trained potential can be run: deployment × dtype × TF32, and the check against eager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlpbench.frames import Float

DEPLOYMENTS = ("eager", "compiled", "accelerated")

# Largest difference from the eager path of the same weights: (eV/atom, eV/Å). A path beyond it computes something else.
# float32 sums in another order (ethanol: up to 1e-6 and 4e-6), TF32 keeps 10 bits of the mantissa.
TOLERANCE = {"float64": (1e-8, 1e-7), "float32": (1e-4, 1e-3), "tf32": (5e-3, 5e-2)}


@dataclass(frozen=True)
class Path:
    """One way to run a potential.

    Attributes:
        deployment: ``eager``, ``compiled`` or ``accelerated`` (kernels of other packages, for GPUs).
        means: the package's means to it, e.g. ``TorchScript``; empty for eager.
        dtype: ``float32`` or ``float64``.
        tf32: whether float32 products may be rounded to TF32 (NVIDIA GPUs).
        reason: why it cannot run here; empty if that is not known before trying.
    """

    deployment: str
    means: str
    dtype: str
    tf32: bool
    reason: str = ""

    @property
    def label(self) -> str:
        """A name that a folder can have, e.g. ``compiled-TorchScript-float32``."""
        parts = [self.deployment, self.means, self.dtype, "tf32" if self.tf32 else ""]
        return "-".join(part for part in parts if part)

    @property
    def precision(self) -> str:
        """The key of its tolerance."""
        return "tf32" if self.tf32 else self.dtype

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it, without ``reason``."""
        found = asdict(self)
        del found["reason"]
        return found


def plan(options: Mapping[str, Any], dtype: str, device: str, means: Mapping[str, Sequence[str]]) -> Iterator[Path]:
    """Every path that ``options`` ask for, but eager in the trial's own dtype, which is always timed.

    Args:
        options: ``deployments``, ``dtypes`` (None: the trial's), ``tf32``.
        dtype: the trial's.
        device: where it runs.
        means: deployment -> the backend's means to it.
    """
    for deployment in options["deployments"]:
        for chosen in options["dtypes"] or [dtype]:
            for tf32 in options["tf32"]:
                if tf32 and chosen != "float32":
                    continue  # TF32 rounds float32 products; there is nothing of it in float64
                if (deployment, chosen, tf32) == ("eager", dtype, False):
                    continue
                names = [""] if deployment == "eager" else means.get(deployment) or [""]
                for name in names:
                    yield Path(deployment, name, chosen, tf32, _hindrance(deployment, name, tf32, device))


def _hindrance(deployment: str, means: str, tf32: bool, device: str) -> str:
    if deployment != "eager" and not means:
        return f"the backend has no {deployment} path"
    if deployment == "accelerated" and not device.startswith("cuda"):
        return f"its kernels are for GPUs; this trial runs on {device}"
    if tf32 and not device.startswith("cuda"):
        return f"TF32 is a mode of NVIDIA GPUs; this trial runs on {device}"
    return ""


def differences(
    found: tuple[Float, list[Float]], reference: tuple[Float, list[Float]]
) -> tuple[float, float]:
    """Largest absolute difference in energy (eV/atom) and force component (eV/Å); NaN if either is not finite."""
    energy = float(np.max(np.abs(found[0] - reference[0])))
    force = max(float(np.max(np.abs(a - b))) for a, b in zip(found[1], reference[1], strict=True))
    return energy, force


def disagreement(path: Path, energy: float, force: float) -> str:
    """Why the path is refused; empty if its labels agree with the eager ones."""
    allowed = TOLERANCE[path.precision]
    if energy <= allowed[0] and force <= allowed[1]:  # not so for NaN
        return ""
    return (
        f"its labels are not those of the eager path: energies differ by up to {energy:.3g} eV/atom and forces by up "
        f"to {force:.3g} eV/Å; allowed are {allowed[0]:g} and {allowed[1]:g}"
    )
