"""Physical quantities that a potential and its reference method both have: names, units, and how the two are compared.

They are computed by :mod:`mlpbench.properties`. Each becomes metrics: ``<name>`` (the potential's own value, where
it is a scalar) and ``<name>_error``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Value = Float | np.float64  # an array, or a scalar
Kind = Literal["scalar", "mae", "rmse", "kendall"]


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        name: as in tables.
        symbol: as a reader sees it.
        unit: of the value and of its error.
        kind: ``scalar``: the error is potential − reference; of arrays ``mae`` or ``rmse`` over the elements, or
            Kendall's τ (which is 1 at best).
        description: a sentence that defines it.
        source: where the definition comes from.
    """

    name: str
    symbol: str
    unit: str
    kind: Kind
    description: str
    source: str = ""

    def error(self, value: Value, reference: Value) -> float:
        """What separates two values of the same shape, in ``unit``."""
        difference = np.atleast_1d(np.asarray(value, dtype=np.float64) - reference)
        if self.kind == "scalar":
            return float(difference[0])
        if self.kind == "kendall":
            return kendall(np.asarray(value), np.asarray(reference))
        return float(np.abs(difference).mean() if self.kind == "mae" else np.sqrt((difference**2).mean()))


def kendall(first: Float, second: Float) -> float:
    """Kendall's τ-b of two orders (Biometrika 33, 239 (1945)); NaN where one of them orders nothing."""
    i, j = np.triu_indices(len(first), 1)
    a, b = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
    scale = np.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / scale) if scale else float("nan")


_CRYSTAL = (
    Quantity(
        "eos_a0",
        "a₀",
        "Å",
        "scalar",
        "Cube root of the cell's volume where the energy is lowest, of a cubic cell.",
        "Birch 1947",
    ),
    Quantity(
        "eos_v0", "V₀", "Å³/atom", "scalar", "Volume per atom where the Birch–Murnaghan curve is lowest.", "Birch 1947"
    ),
    Quantity("eos_b0", "B₀", "GPa", "scalar", "Bulk modulus there.", "Birch 1947"),
    Quantity("eos_b0_prime", "B₀′", "", "scalar", "Its derivative by pressure.", "Birch 1947"),
    Quantity(
        "elastic_c11",
        "C₁₁",
        "GPa",
        "scalar",
        "Stress by strain at ±0.5 %, atoms relaxed by linear response; mean of C11, C22, C33.",
        "Wu, Vanderbilt & Hamann 2005",
    ),
    Quantity("elastic_c12", "C₁₂", "GPa", "scalar", "Likewise, mean of C12, C13, C23.", "Wu, Vanderbilt & Hamann 2005"),
    Quantity("elastic_c44", "C₄₄", "GPa", "scalar", "Likewise, mean of C44, C55, C66.", "Wu, Vanderbilt & Hamann 2005"),
    Quantity(
        "elastic_bulk", "K (Hill)", "GPa", "scalar", "Hill's mean of the bulk modulus of polycrystals.", "Hill 1952"
    ),
    Quantity(
        "elastic_shear", "G (Hill)", "GPa", "scalar", "Hill's mean of the shear modulus of polycrystals.", "Hill 1952"
    ),
    Quantity(
        "phonon_bands",
        "phonon bands",
        "THz",
        "mae",
        "Mean |Δν| over branches and q-points that the supercell holds, branches in order of frequency.",
        "phonopy: Togo 2023",
    ),
    Quantity(
        "phonon_dos",
        "phonon DOS",
        "THz",
        "mae",
        "Wasserstein-1 distance of the densities of states on a mesh of q-points, interpolated from the supercell.",
        "phonopy: Togo 2023",
    ),
    Quantity(
        "phonon_top", "highest phonon", "THz", "scalar", "Highest frequency at those q-points.", "phonopy: Togo 2023"
    ),
    Quantity(
        "phonon_imaginary",
        "imaginary phonons",
        "",
        "scalar",
        "Modes below 0.1i THz at those q-points.",
        "phonopy: Togo 2023",
    ),
    Quantity(
        "vacancy_energy", "vacancy", "eV", "scalar", "E(one atom less) − (N − 1)/N·E(N), other atoms left in place."
    ),
    Quantity(
        "surface_energy", "surface", "J/m²", "scalar", "(E(slab) − E(bulk)) / 2A, cut across the third axis, unrelaxed."
    ),
)

_REACTIONS = (
    Quantity("path_energy", "path", "meV", "rmse", "Energy along the given path, relative to its first structure."),
    Quantity(
        "path_barrier",
        "barrier",
        "meV",
        "scalar",
        "Highest energy along the path (parabola through three structures) above its first.",
    ),
    Quantity(
        "path_reaction", "reaction energy", "meV", "scalar", "Energy of the path's last structure above its first."
    ),
    Quantity("path_saddle", "saddle", "Å", "scalar", "Arc length from the first structure to the highest point."),
    *(
        Quantity(
            f"{way}_rate_{kelvin}K",
            f"log₁₀ exp(−ΔE/kT), {kelvin} K{words}",
            "",
            "scalar",
            f"Boltzmann factor of that barrier at {kelvin} K; 10 to the power of its error is the factor by which the "
            "barrier alone changes the rate of transition-state theory.",
            "Eyring 1935",
        )
        for way, words in (("path", ""), ("neb", " (NEB)"))
        for kelvin in (300, 1000)
    ),
    Quantity(
        "neb_barrier",
        "barrier (NEB)",
        "meV",
        "scalar",
        "Barrier of a climbing-image nudged elastic band between the reference's ends, relaxed with the potential.",
        "Henkelman, Uberuaga & Jónsson 2000",
    ),
    Quantity(
        "neb_reverse",
        "reverse barrier (NEB)",
        "meV",
        "scalar",
        "That saddle above the last structure of the band.",
        "Henkelman, Uberuaga & Jónsson 2000",
    ),
    Quantity("neb_saddle", "saddle (NEB)", "Å", "rmse", "Interatomic distances at the highest image of the band."),
    Quantity(
        "dissociation_energy",
        "dissociation",
        "meV",
        "scalar",
        "Energy of the longest bond above the lowest point of the curve.",
    ),
    Quantity("dissociation_length", "bond length", "Å", "scalar", "Length where that curve is lowest (parabola)."),
    Quantity(
        "smooth_tortuosity",
        "tortuosity",
        "",
        "scalar",
        "Sum of |ΔE| along the stretching of a bond over the way to the minimum and up again: 1 of one smooth well.",
        "MLIP Arena: Chiang et al. 2025; Liu et al. 2026",
    ),
    Quantity(
        "smooth_minima",
        "minima of a bond",
        "",
        "scalar",
        "Minima of the energy along the stretching.",
        "Liu et al. 2026",
    ),
    Quantity(
        "smooth_force",
        "force along a bond",
        "meV/Å",
        "rmse",
        "Force that stretches the bond, along it.",
        "Liu et al. 2026",
    ),
    Quantity(
        "dimer_binding",
        "binding energy",
        "meV",
        "scalar",
        "Energy of a complex less those of its parts, unrelaxed; negative: bound.",
    ),
    Quantity("conformer_energy", "conformers", "meV", "mae", "Energies of conformers relative to their mean."),
    Quantity(
        "conformer_order",
        "conformer order",
        "",
        "kendall",
        "Kendall's τ of the order of their energies; 1 is best.",
        "Kendall 1945",
    ),
    Quantity(
        "rare_force",
        "rare-event force",
        "meV/Å",
        "mae",
        "Force components of the atoms that move (marked in the file).",
        "Liu, He & Mo 2023",
    ),
    Quantity(
        "rate_300K", "log₁₀ k, 300 K", "", "scalar", "Rate in 1/s by harmonic transition-state theory.", "Vineyard 1957"
    ),
    Quantity("rate_1000K", "log₁₀ k, 1000 K", "", "scalar", "Likewise at 1000 K.", "Vineyard 1957"),
)

QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in (*_CRYSTAL, *_REACTIONS)}
