"""Reference methods: what each code lets one set, and the words for a level of theory.

A method is a mapping: ``code``, ``backend`` (whose environment runs it) and the code's settings. It stands in
``conf/reference/*.yaml``, in a data set's ``reference_method`` and in evaluations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError, close_match


class Method(BaseModel, ABC):
    """What all codes have in common. A setting at None is left to the code, and out of the label's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    backend: str = Field(default="", description="whose environment runs it; empty: the backend named as the code")

    worker: ClassVar[str]  # module:Class, made in the environment
    molecules_only: ClassVar[bool] = False

    @abstractmethod
    def words(self) -> str:
        """The level of theory, without the code's version."""


class PyscfMethod(Method):
    """Kohn–Sham DFT of molecules with PySCF."""

    xc: str = Field(min_length=1, description="functional, as PySCF names it: pbe, pbe0, b3lyp, wb97m-v ...")
    basis: str = Field(min_length=1, description="as PySCF names it: def2-svp, def2-tzvp ...")
    density_fit: bool = Field(default=False, description="density fitting of the Coulomb (and exchange) integrals")
    auxbasis: str | None = Field(default=None, description="for density fitting; None: PySCF's choice for the basis")
    grid_level: int = Field(default=3, ge=0, le=9, description="integration grid; a coarse one makes net forces")
    conv_tol: float = Field(default=1e-9, gt=0, description="hartree, change of the energy in the last cycle")
    max_cycle: int | None = Field(default=None, gt=0, description="of the self-consistent field; None: PySCF's 50")
    charge: int = Field(default=0, description="of the whole molecule, e")
    spin: int = Field(default=0, ge=0, description="unpaired electrons; above 0 unrestricted")
    device: Literal["gpu"] | None = Field(default=None, description="gpu: through gpu4pyscf, in an adopted interpreter")

    worker: ClassVar[str] = "mlpbench.worker.reference.pyscf_code:PyscfCode"
    molecules_only: ClassVar[bool] = True

    def words(self) -> str:
        """Functional, basis, fitting, grid."""
        fitted = ", density fitting" + (f" ({self.auxbasis})" if self.auxbasis else "") if self.density_fit else ""
        state = f", charge {self.charge}" * bool(self.charge) + f", {self.spin} unpaired electrons" * bool(self.spin)
        return f"{self.xc.upper()}/{self.basis}{fitted}, grid level {self.grid_level}{state}"


class XtbMethod(Method):
    """Semi-empirical tight binding with tblite."""

    hamiltonian: Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"] = Field(default="GFN2-xTB")
    charge: int = Field(default=0, description="of the whole system, e")
    multiplicity: int = Field(default=1, ge=1, description="unpaired electrons + 1")
    accuracy: float = Field(default=1.0, gt=0, description="tblite's; smaller is tighter")
    electronic_temperature_K: float = Field(default=300.0, ge=0, description="of the Fermi smearing")
    max_iterations: int = Field(default=250, gt=0, description="of the self-consistent charges")

    worker: ClassVar[str] = "mlpbench.worker.reference.xtb_code:XtbCode"

    def words(self) -> str:
        """Name of the Hamiltonian, charge and multiplicity where they are not the usual ones."""
        state = f", charge {self.charge}" * bool(self.charge)
        return self.hamiltonian + state + f", multiplicity {self.multiplicity}" * (self.multiplicity != 1)


class AseMethod(Method):
    """Any ASE calculator."""

    calculator: str = Field(pattern=r"^[\w.]+[.:]\w+$", description="dotted class, e.g. ase.calculators.emt.EMT")
    arguments: dict[str, Any] | None = Field(
        default=None, description="for its class; a mapping with _target_ (dotted class) is made first, as a profile is"
    )
    reuse: bool = Field(
        default=False, description="one calculator for all frames of a process, for those that are slow to start"
    )
    title: str | None = Field(default=None, description="level of theory in words; None: class and arguments")

    worker: ClassVar[str] = "mlpbench.worker.reference.ase_code:AseCode"

    def words(self) -> str:
        """``title``, else the class and its plain arguments."""
        plain = {k: v for k, v in (self.arguments or {}).items() if isinstance(v, str | int | float | bool)}
        given = ", ".join(f"{key}={value}" for key, value in plain.items())
        return self.title or f"{self.calculator.replace(':', '.').rpartition('.')[2]}({given})"


class _PeriodicMethod(Method):
    """What the codes for crystals have in common: they sample the Brillouin zone and smear occupations."""

    xc: str = Field(default="PBE", min_length=1, description="functional, as the code names it")
    kpoint_density_A: float = Field(
        gt=0, description="k-points per Å⁻¹ of each reciprocal vector (with its 2π), rounded up"
    )
    kpoints: list[int] | None = Field(
        default=None, min_length=3, max_length=3, description="their numbers along each vector, in place of the density"
    )
    gamma: bool = Field(default=True, description="a mesh with Γ; else Monkhorst and Pack's, shifted where even")
    smearing_eV: float = Field(default=0.05, gt=0, description="Fermi–Dirac; labels are free energies")
    spin_polarised: bool = Field(default=False)
    charge: int = Field(default=0, description="of the whole cell, e")

    def _mesh_words(self) -> str:
        mesh = f"{self.kpoint_density_A:g} Å" if self.kpoints is None else "×".join(map(str, self.kpoints))
        state = ", spin-polarised" * self.spin_polarised + f", charge {self.charge}" * bool(self.charge)
        return f"k-points {mesh}{' with Γ' * self.gamma}, Fermi–Dirac {self.smearing_eV:g} eV{state}"


class GpawMethod(_PeriodicMethod):
    """Plane waves and PAW data sets with GPAW."""

    cutoff_eV: float = Field(gt=0, description="of the plane waves; stress converges later than forces")
    moments: dict[str, float] | None = Field(default=None, description="element -> μB, where the spins start from")
    hund: bool = Field(default=False, description="Hund's rule, for a free atom alone in its cell")
    vacuum_A: float = Field(default=6.0, gt=0, description="on either side of the atoms, along open directions")
    energy_tolerance_eV: float = Field(default=1e-4, gt=0, description="per valence electron, last three cycles")
    density_tolerance: float = Field(default=1e-4, gt=0, description="electrons per valence electron")
    max_cycle: int = Field(default=150, gt=0, description="of the self-consistent field")

    worker: ClassVar[str] = "mlpbench.worker.reference.gpaw_code:GpawCode"

    def words(self) -> str:
        """Functional, plane waves, k-points, smearing."""
        return f"{self.xc}, PAW, plane waves {self.cutoff_eV:g} eV, {self._mesh_words()}"


class Cp2kMethod(_PeriodicMethod):
    """Gaussians and plane waves with CP2K and GTH pseudopotentials."""

    basis: str = Field(default="DZVP-MOLOPT-SR-GTH", min_length=1, description="a set in CP2K's BASIS_MOLOPT")
    cutoff_Ry: float = Field(gt=0, description="of the finest grid of the density")
    conv_tol: float = Field(default=1e-6, gt=0, description="EPS_SCF")
    max_cycle: int = Field(default=80, gt=0, description="of the self-consistent field")
    added_orbitals: int = Field(default=20, ge=0, description="empty ones, which smearing needs")
    multiplicity: int | None = Field(default=None, ge=1, description="2S + 1; None: CP2K's choice")
    vacuum_A: float = Field(default=6.0, gt=0, description="on either side of the atoms, along open directions")

    worker: ClassVar[str] = "mlpbench.worker.reference.cp2k_code:Cp2kCode"

    def words(self) -> str:
        """Functional, basis, grid, k-points, smearing."""
        return f"{self.xc}-GTH/{self.basis}, {self.cutoff_Ry:g} Ry, {self._mesh_words()}"


METHODS: dict[str, type[Method]] = {
    "pyscf": PyscfMethod, "xtb": XtbMethod, "ase": AseMethod, "gpaw": GpawMethod, "cp2k": Cp2kMethod,
}  # fmt: skip

# Settings that say where or how often something starts and not what comes out.
_NOT_THE_LEVEL = ("backend", "reuse", "title")


def _unset(value: Any, name: str = "") -> list[str]:
    """Dotted names of what stands as ``???`` in a configuration."""
    if isinstance(value, Mapping):
        return [place for key, inner in value.items() for place in _unset(inner, f"{name}.{key}" if name else str(key))]
    return [name] if value == "???" else []


def parse_method(method: Mapping[str, Any]) -> Method:
    """``method`` validated by the schema of its code.

    Raises:
        UserError: an unknown code or setting, one that is missing, or a value out of range.
    """
    code = str(method.get("code", ""))
    if code not in METHODS:
        raise UserError(f"reference code '{code}' is not known", close_match(code, METHODS))
    schema = METHODS[code]
    for name in method:
        if name not in schema.model_fields:
            raise UserError(
                f"the reference method {code} has no setting '{name}'", close_match(name, schema.model_fields)
            )
    for name in _unset(dict(method)):
        raise UserError(f"reference.{name} is yours to give", f"Set it: reference.{name}=...")
    try:
        parsed = schema.model_validate(dict(method))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing" or first["input"] in (None, ""):
            raise UserError(f"the reference method {code} needs '{name}'", f"Set it: reference.{name}=...") from error
        raise UserError(f"reference.{name}={first['input']!r}: {first['msg']}") from error
    return parsed if parsed.backend else parsed.model_copy(update={"backend": code})


def complete_method(method: Mapping[str, Any]) -> dict[str, Any]:
    """``method`` with ``code``, ``backend`` and all settings that are not None.

    Raises:
        UserError: see :func:`parse_method`.
    """
    return parse_method(method).model_dump(exclude_none=True)


def level_of(method: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a complete method that determines labels."""
    return {key: value for key, value in method.items() if key not in _NOT_THE_LEVEL and value is not None}


def environment_of(method: Mapping[str, Any], backends: Mapping[str, BackendConfig]) -> BackendConfig:
    """The backend that runs a complete method.

    Raises:
        UserError: there is none of that name.
    """
    name = method["backend"]
    if name not in backends:
        raise UserError(f"there is no backend '{name}'", f"Add conf/backend/{name}.yaml. Known: {', '.join(backends)}")
    return backends[name]


def require_open(method: Mapping[str, Any], periodic: bool) -> None:
    """Refuse what the code cannot compute.

    Raises:
        UserError: the code computes molecules, and the system is periodic.
    """
    if periodic and METHODS[method["code"]].molecules_only:
        raise UserError(
            f"{method['code']} computes molecules here, and this system is periodic",
            "Take reference=xtb or an ASE calculator (reference=ase).",
        )
